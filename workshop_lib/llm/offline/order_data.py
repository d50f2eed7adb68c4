"""Orders and stock in a request, and what is wrong with them. No order and no item is known by its id.

A request carries order data when a JSON object in it has a list `orders` whose entries have an id and a
status, or a list of `results` of repairs. What cannot be read is left out. Each finding says how sure the
rules are: arithmetic on recorded figures is sure, a status only suggests the remedy, waiting is no more
than a hint.
"""

import json
import re
from collections.abc import Iterable
from datetime import date
from typing import Any, NamedTuple

SURE, DENIED, APPROVAL, OVERDUE, WAITING = 0.99, 0.93, 0.9, 0.75, 0.6
PATIENCE_DAYS = 3  # an order may wait this long, unless the instructions say otherwise
SHORTAGE, PAYMENT, PERMIT = "inventory-shortage", "payment-problem", "approval-missing"
PRICE, DELAY = "price-mismatch", "unexplained-delay"

_PATIENCE = re.compile(r"\b(?:more|older|longer) than\s+(\d{1,3})\s+days?\b", re.I)
_DENIED = {"denied", "declined", "failed"}

Entry = dict[str, Any]


class Finding(NamedTuple):
    """One thing that is wrong with one order; `values` is what a tool may be told of it, by field name."""

    order_id: str
    kind: str
    confidence: float
    values: Entry
    repairable: bool = True


def find_order_data(text: str) -> Entry | None:
    """The first JSON object in a text that holds order data, or None where there is none."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{\s*\"", text[:20_000]):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        about_repairs = value.get("results") == [] and isinstance(value.get("problems"), list)
        if (
            about_repairs
            or orders_in(value)
            or entries(value.get("results"), order_id=str, tool=str)
        ):
            return dict(value)
    return None


def orders_in(data: Entry) -> list[Entry]:
    """The orders that can be read."""
    return entries(data.get("orders"), order_id=str, status=str)


def entries(listed: Any, **fields: type) -> list[Entry]:
    """The objects of a list that have these fields, of these types."""
    found = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
    return [e for e in found if all(isinstance(e.get(name), kind) for name, kind in fields.items())]


def findings(data: Entry, instructions: Iterable[str] = ()) -> list[Finding]:
    """All that is wrong, in the order in which the orders stand in the data.

    Args:
        instructions: they may say how many days an order may wait.
    """
    patience = _PATIENCE.search("\n".join(instructions))
    days = int(patience[1]) if patience else PATIENCE_DAYS
    looked_after = {entry["order_id"] for entry in entries(data.get("open_requests"), order_id=str)}
    named = {entry["order_id"] for entry in entries(data.get("problems"), order_id=str)}
    stock = {
        s["item_id"]: s for s in entries(data.get("inventory"), item_id=str, current_stock=int)
    }
    found: list[Finding] = []
    for order in orders_in(data):
        words, age = set(re.findall(r"[a-z]+", order["status"].lower())), _age(order, data)
        wrong = words & _DENIED or ("pending" in words and age is not None and age > days)
        ours = "problems" not in data or order["order_id"] in named
        if (
            wrong
            and ours
            and order["order_id"] not in looked_after
            and not order.get("open_request")
        ):
            found += _wrong_with(order, words, age, stock)
    return found


def _age(order: Entry, data: Entry) -> int | None:
    """Days since an order was placed, or None where the data do not say."""
    try:
        today, placed = str(data.get("today"))[:10], str(order.get("order_date"))[:10]
        return int(
            order.get("age_days") or (date.fromisoformat(today) - date.fromisoformat(placed)).days
        )
    except ValueError:
        return None


def _wrong_with(
    order: Entry, words: set[str], age: int | None, stock: dict[str, Entry]
) -> list[Finding]:
    """The findings about one order that is stuck."""
    said = f"The order has the status {order['status']}"
    said += "" if age is None else f", {age} days after it was placed"
    known = {name: value for name, value in order.items() if isinstance(value, str | int | float)}
    found: list[Finding] = []

    def tell(kind: str, confidence: float, text: str, repairable: bool = True, **more: Any) -> None:
        told = dict.fromkeys(("reason", "reasoning", "description"), text)
        values = known | told | {"kind": kind, "confidence": confidence} | more
        found.append(Finding(order["order_id"], kind, confidence, values, repairable))

    lines = _lines(order)
    limited = [item for item in lines if _restricted(stock.get(item, {}))]
    if "payment" in words:
        denied = bool(words & _DENIED)
        text = "The payment was denied" if denied else "Nobody has paid"
        tell(PAYMENT, DENIED if denied else OVERDUE, f"{text}. {said}.")
    if "approval" in words:
        tell(PERMIT, APPROVAL, f"{said}." + f" Restricted: {', '.join(limited)}." * bool(limited))
    waits = words & {"inventory", "stock", "approval"}
    for item in [item for item in lines if waits and item in stock and item not in limited]:
        missing, room, text = _shortage(lines[item], stock[item])
        if missing > 0:
            name = lines[item].get("item_name")
            more = {"item_id": item, "item_name": name, "quantity": missing}
            tell(SHORTAGE, SURE, text, missing <= room, **more)
    if not found and order.get("stock") == "short":
        tell(SHORTAGE, SURE, f"{said}; the stock is short.")
    elif not found:
        tell(DELAY, WAITING, f"{said}, and the data do not say what it waits for.", False)
    for item, line in lines.items():
        prices = [
            float(e["unit_price"]) for e in (line, stock.get(item, {})) if e.get("unit_price")
        ]
        if len(prices) == 2 and abs(prices[0] - prices[1]) >= 0.005:
            # Which price holds is for people to say.
            text = f"{prices[0]:.2f} on the order and {prices[1]:.2f} in the inventory"
            tell(PRICE, SURE, f"{item} costs {text}.", False)
    return found


def _shortage(line: Entry, stock: Entry) -> tuple[int, int, str]:
    """How many are missing, for how many there is room, and both in words."""
    have, reserved = stock["current_stock"], stock.get("reserved_stock") or 0
    missing = line["quantity"] - (have - reserved)
    room = stock["max_stock_level"] - have if stock.get("max_stock_level") is not None else missing
    text = (
        f"{line['quantity']} of {line['item_id']} are wanted; {have} are in stock and {reserved} of these are"
        f" reserved, so {missing} are missing; there is room for {room}"
    )
    return (
        missing,
        room,
        text + ("." if missing <= room else " only: no single purchase is enough."),
    )


def _lines(order: Entry) -> dict[str, Entry]:
    """The lines of an order by item, with several of one item added up."""
    added: dict[str, Entry] = {}
    for line in entries(order.get("items"), item_id=str, quantity=int):
        before = added.get(line["item_id"], {"quantity": 0})["quantity"]
        added[line["item_id"]] = line | {"quantity": before + line["quantity"]}
    return added


def _restricted(stock: Entry) -> bool:
    """True where somebody has to approve the sale."""
    return bool(stock.get("restrictions") or stock.get("special_requirements"))
