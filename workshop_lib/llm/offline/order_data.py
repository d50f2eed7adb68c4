"""Orders and stock in a request, and what is wrong with them. No order and no item is known by its id.

Order data are a JSON object with a list `orders` whose entries have an id and a status, or with a list
`results` of repairs. What cannot be read is left out. A finding says how sure the rules are: arithmetic on
recorded figures is sure, a status only suggests the remedy, waiting is no more than a hint.
"""

import json
import re
from collections.abc import Iterable
from datetime import date
from typing import Any

SURE, DENIED, APPROVAL, OVERDUE, WAITING = 0.99, 0.93, 0.9, 0.75, 0.6
PATIENCE_DAYS = 3  # an order may wait this long, unless the instructions say otherwise
SHORTAGE, PAYMENT, PERMIT = "inventory-shortage", "payment-problem", "approval-missing"
PRICE, DELAY = "price-mismatch", "unexplained-delay"

_PATIENCE = re.compile(r"\b(?:more|older|longer) than\s+(\d{1,3})\s+days?\b", re.I)
_DENIED = {"denied", "declined", "failed"}

Entry = dict[str, Any]


def find_order_data(text: str) -> Entry | None:
    """The first JSON object in a text that holds order data, or None where there is none."""
    for match in re.finditer(r"\{\s*\"", text[:20_000]):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        repairs = entries(value.get("results"), order_id=str, tool=str)
        nothing_done = value.get("results") == [] and isinstance(value.get("problems"), list)
        if repairs or nothing_done or orders_in(value):
            return dict(value)
    return None


def orders_in(data: Entry) -> list[Entry]:
    """The orders that can be read."""
    return entries(data.get("orders"), order_id=str, status=str)


def entries(listed: Any, **fields: type) -> list[Entry]:
    """The objects of a list that have these fields, of these types."""
    found = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
    return [e for e in found if all(isinstance(e.get(k), kind) for k, kind in fields.items())]


def findings(data: Entry, instructions: Iterable[str] = ()) -> list[Entry]:
    """All that is wrong, in the order of the orders: what a tool may be told of it, by field name.

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
    found: list[Entry] = []
    for order in orders_in(data):
        words, age = set(re.findall(r"[a-z]+", order["status"].lower())), _age(order, data)
        stuck = words & _DENIED or ("pending" in words and age is not None and age > days)
        ours = "problems" not in data or order["order_id"] in named
        if (
            stuck
            and ours
            and order["order_id"] not in looked_after
            and not order.get("open_request")
        ):
            said = f"The order has the status {order['status']}"
            said += "" if age is None else f", {age} days after it was placed"
            found += _wrong_with(order, words, said, stock)
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


def _wrong_with(order: Entry, words: set[str], said: str, stock: dict[str, Entry]) -> list[Entry]:
    """The findings about one order that is stuck."""
    lines: dict[str, Entry] = {}
    for line in entries(
        order.get("items"), item_id=str, quantity=int
    ):  # two lines may be of one item
        before = lines.get(line["item_id"], {"quantity": 0})["quantity"]
        lines[line["item_id"]] = line | {"quantity": before + line["quantity"]}
    found: list[Entry] = []
    if "payment" in words and words & _DENIED:
        found.append(finding(order, PAYMENT, DENIED, f"The payment was denied. {said}."))
    elif "payment" in words:
        found.append(finding(order, PAYMENT, OVERDUE, f"Nobody has paid. {said}."))
    restricted = ("restrictions", "special_requirements")  # somebody has to approve the sale
    limited = [i for i in lines if any(stock.get(i, {}).get(name) for name in restricted)]
    if "approval" in words:
        text = f"{said}. Restricted: {', '.join(limited)}." if limited else f"{said}."
        found.append(finding(order, PERMIT, APPROVAL, text))
    if words & {"inventory", "stock", "approval"}:
        known = [item for item in lines if item in stock and item not in limited]
        shortages = [_shortage(order, lines[item], stock[item]) for item in known]
        found += [shortage for shortage in shortages if shortage["quantity"] > 0]
    if not found and order.get("stock") == "short":
        found.append(finding(order, SHORTAGE, SURE, f"{said}; the stock is short."))
    elif not found:
        text = f"{said}, and the data do not say what it waits for."
        found.append(finding(order, DELAY, WAITING, text, repairable=False))
    for item, line in lines.items():
        prices = [
            float(e["unit_price"]) for e in (line, stock.get(item, {})) if e.get("unit_price")
        ]
        if len(prices) == 2 and abs(prices[0] - prices[1]) >= 0.005:  # people say which one holds
            text = (
                f"{item} costs {prices[0]:.2f} on the order and {prices[1]:.2f} in the inventory."
            )
            found.append(finding(order, PRICE, SURE, text, repairable=False))
    return found


def _shortage(order: Entry, line: Entry, stock: Entry) -> Entry:
    """What is missing of an article, which may be nothing or less."""
    have, reserved = stock["current_stock"], stock.get("reserved_stock") or 0
    missing = line["quantity"] - (have - reserved)
    room = stock["max_stock_level"] - have if stock.get("max_stock_level") is not None else missing
    text = (
        f"{line['quantity']} of {line['item_id']} are wanted; {have} are in stock and {reserved} of these are"
        f" reserved, so {missing} are missing; there is room for {room}."
    )
    more = {"item_id": line["item_id"], "item_name": line.get("item_name"), "quantity": missing}
    return finding(order, SHORTAGE, SURE, text, repairable=missing <= room, **more)


def finding(order: Entry, kind: str, confidence: float, text: str, **more: Any) -> Entry:
    """One thing that is wrong with an order."""
    known = {name: value for name, value in order.items() if isinstance(value, str | int | float)}
    told = dict.fromkeys(("reason", "reasoning", "description"), text)
    return known | told | {"kind": kind, "confidence": confidence, "repairable": True} | more
