"""What is wrong with orders: rules about statuses, ages and stock. No order and no item is known by its id.

Each finding says how sure the rules are and why. Confidence is a matter of evidence, not of taste:

* arithmetic on recorded figures is as sure as the figures (`ARITHMETIC`), less where these contradict
  themselves (`CONTRADICTION`);
* a status says for certain what happened and only suggests the remedy: a customer who is asked to pay again
  may want to cancel (`DENIED`), and somebody may have been asked for an approval already (`APPROVAL`);
* that nobody has acted for a while is a hint and no more (`OVERDUE`, `WAITING`).

Left out: which tools there are to repair with.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from workshop_lib.llm.rules.order_data import Line, Order, OrderData, Stock

ARITHMETIC, CONTRADICTION = 0.99, 0.02
DENIED, APPROVAL, OVERDUE, WAITING = 0.93, 0.9, 0.75, 0.6
PATIENCE_DAYS = 3  # an order may wait this long, unless the instructions say otherwise

_PATIENCE = re.compile(
    r"\b(?:more than|older than|longer than|over|after)\s+(\d{1,3})\s+days?\b", re.IGNORECASE
)


class Kind(StrEnum):
    """What is wrong; the values are what a report calls it."""

    SHORTAGE = "inventory-shortage"
    PAYMENT = "payment-problem"
    APPROVAL = "approval-missing"
    PRICE = "price-mismatch"
    DELAY = "unexplained-delay"


class Finding(NamedTuple):
    """One thing that is wrong with one order.

    Attributes:
        evidence: the figures behind it, in a sentence.
        repairable: False where it is for people to look at.
        line, stock, quantity: for a shortage, what to order.
    """

    order: Order
    kind: Kind
    evidence: str
    confidence: float
    repairable: bool = True
    line: Line | None = None
    stock: Stock | None = None
    quantity: int = 0


def patience(instructions: Iterable[str]) -> int:
    """How many days an order may wait, as the instructions say or else as the rules have it."""
    match = _PATIENCE.search("\n".join(instructions))
    return int(match[1]) if match else PATIENCE_DAYS


def findings(data: OrderData, patient_days: int = PATIENCE_DAYS) -> list[Finding]:
    """All that is wrong, in the order in which the orders stand in the data."""
    waiting = [order for order in data.orders if _waits_too_long(order, data, patient_days)]
    shortages = _shortages(waiting, data)
    found: list[Finding] = []
    for order in waiting:
        found += _by_status(order, data)
        found += shortages.get(order.order_id, [])
        if not any(finding.order is order for finding in found):
            said = f"The order has the status {order.status}{_for_days(order, data)}"
            if order.stock == "short":
                found.append(
                    Finding(order, Kind.SHORTAGE, f"{said}; the stock is short.", ARITHMETIC)
                )
            else:
                evidence = f"{said}, and the data do not say what it waits for."
                found.append(Finding(order, Kind.DELAY, evidence, WAITING, repairable=False))
        found += _prices(order, data)
    return found


def overall_confidence(found: Iterable[Finding]) -> float:
    """How sure the rules are that at least one order has a problem."""
    doubt = 1.0
    for finding in found:
        doubt *= 1 - finding.confidence
    return round(1 - doubt, 4)


def _waits_too_long(order: Order, data: OrderData, patient_days: int) -> bool:
    """True for an order that is stuck.

    One with an open request is being looked after, and where the request lists problems it is about
    these.
    """
    if order.order_id in data.under_repair:
        return False
    if data.named is not None and order.order_id not in data.named:
        return False
    words = _words(order.status)
    if words & {"denied", "declined", "failed"}:
        return True
    age = order.age(data.today)
    return "pending" in words and age is not None and age > patient_days


def _by_status(order: Order, data: OrderData) -> list[Finding]:
    """What the status alone says."""
    words = _words(order.status)
    since = _for_days(order, data)
    if words & {"payment"}:
        if words & {"denied", "declined", "failed"}:
            text = f"The payment was denied: the order has the status {order.status}{since}."
            return [Finding(order, Kind.PAYMENT, text, DENIED)]
        text = f"Nobody has paid: the order has the status {order.status}{since}."
        return [Finding(order, Kind.PAYMENT, text, OVERDUE)]
    if words & {"approval"}:
        restricted = [
            line.item_id
            for line in order.items
            if (stock := data.inventory.get(line.item_id)) and stock.restricted
        ]
        text = f"The order has the status {order.status}{since}."
        if restricted:
            text += f" Restricted: {', '.join(dict.fromkeys(restricted))}."
        return [Finding(order, Kind.APPROVAL, text, APPROVAL)]
    return []


def _shortages(waiting: list[Order], data: OrderData) -> dict[str, list[Finding]]:
    """What is missing for whom. Older orders are served first, each takes what it needs from the stock."""
    free = {item_id: stock.free for item_id, stock in data.inventory.items()}
    room = {
        item_id: stock.max_stock_level - stock.current_stock
        for item_id, stock in data.inventory.items()
        if stock.max_stock_level is not None
    }
    found: dict[str, list[Finding]] = {}
    for order in sorted(waiting, key=lambda o: (-(o.age(data.today) or 0), o.order_id)):
        if not _words(order.status) & {"inventory", "stock", "approval"}:
            continue  # an order whose payment is open does not wait for goods
        for line in _together(order.items):
            stock = data.inventory.get(line.item_id)
            if stock is None or stock.restricted:
                continue  # restricted goods are a matter of approval
            before = free[line.item_id]
            free[line.item_id] = before - line.quantity
            missing = -free[line.item_id]
            if missing <= 0:
                continue
            text = (
                f"{line.quantity} of {line.item_id} are wanted; {stock.current_stock} are in stock and"
                f" {stock.reserved_stock} of these are reserved, so {missing} are missing"
            )
            if before != stock.free:
                text += " after what older orders take"
            confidence = ARITHMETIC
            if stock.available_stock not in (None, stock.free, max(stock.free, 0)):
                confidence -= CONTRADICTION
                text += f" (although available_stock says {stock.available_stock})"
            left = room.get(line.item_id)
            fits = left is None or missing <= left
            if fits:
                free[line.item_id] = 0
                if left is not None:
                    room[line.item_id] = left - missing
                    text += f"; there is room for {left}"
            else:
                text += f"; there is room for {left} only, so no single purchase is enough"
            found.setdefault(order.order_id, []).append(
                Finding(
                    order, Kind.SHORTAGE, f"{text}.", confidence, fits, line, stock, missing
                )
            )  # fmt: skip
    return found


def _prices(order: Order, data: OrderData) -> list[Finding]:
    """Prices on the order that are not the ones of the inventory. People decide which one holds."""
    found = []
    for line in order.items:
        stock = data.inventory.get(line.item_id)
        if stock is None or stock.unit_price is None or line.unit_price is None:
            continue
        if abs(stock.unit_price - line.unit_price) >= 0.005:
            text = (
                f"{line.item_id} costs {line.unit_price:.2f} on the order and {stock.unit_price:.2f} in the"
                " inventory."
            )
            found.append(Finding(order, Kind.PRICE, text, ARITHMETIC, repairable=False))
    return found


def _together(lines: list[Line]) -> list[Line]:
    """The lines of an order, with several of one item added up."""
    added: dict[str, Line] = {}
    for line in lines:
        known = added.get(line.item_id)
        total = line.quantity + (known.quantity if known else 0)
        added[line.item_id] = (known or line).model_copy(update={"quantity": total})
    return list(added.values())


def _words(status: str) -> set[str]:
    return set(re.findall(r"[a-z]+", status.lower()))


def _for_days(order: Order, data: OrderData) -> str:
    age = order.age(data.today)
    return "" if age is None else f", {age} days after it was placed"
