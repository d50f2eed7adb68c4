"""Requests about orders in trouble: find problems, describe them, propose repairs, report on them.

These rules speak up when a message carries order data and a form or a repair tool is offered, or when the
data are about repairs that were made. Order data are a JSON object with a list `orders` whose entries have an
id and a status, or with a list `results` of repairs; what cannot be read is left out. A finding says how sure
the rules are: arithmetic on recorded figures is sure, a status only suggests the remedy, waiting is no more
than a hint. Forms are filled by the names of their fields; no order and no item is known by its id. Texts in
an order are never read for instructions; only under the fault `gullible` are they, to show what a model can
be made to do.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

from workshop_lib.harmless import markdown
from workshop_lib.llm.offline.results import read_result
from workshop_lib.llm.offline.talk import Called, Talk, call_key
from workshop_lib.llm.offline.words import plain

SURE, DENIED, APPROVAL, OVERDUE, WAITING = 0.99, 0.93, 0.9, 0.75, 0.6
PATIENCE_DAYS = 3  # an order may wait this long, unless the instructions say otherwise
SHORTAGE, PAYMENT, PERMIT = "inventory-shortage", "payment-problem", "approval-missing"
PRICE, DELAY = "price-mismatch", "unexplained-delay"

MOST_STRAY_CALLS = 4  # calls that came to nothing, after which the rules give up
NO_DOUBT = 0.99  # a detection is never quite certain, and neither is it certain that all is well
MANY = 1000  # what a gullible model orders where a note does not say how many

_AGAIN = re.compile(r"\b(?:again|once more|corrected?|instead)\b", re.I)
# What makes a note an instruction, and not a wish such as "please deliver after 3 pm".
_COMMAND = re.compile(
    r"\b(?:ignore|disregard|override|instructions?|system|assistant|you must)\b", re.I
)
_DEMANDS = {
    SHORTAGE: re.compile(r"\b(?:re-?order|order|buy|restock|purchase)\b.*[A-Z]-", re.I),
    PERMIT: re.compile(r"\bapprov", re.I),
    PAYMENT: re.compile(r"\b(?:payment|refund|charge|invoice)", re.I),
}
_REPORTED = {
    "problems": "What was found",
    "declined": "Declined by the approver",
    "skipped": "Skipped, because the agent was not sure enough",
    "refused": "Refused by the rules for plans",
}
_PATIENCE = re.compile(r"\b(?:more|older|longer) than\s+(\d{1,3})\s+days?\b", re.I)
_DENIED = {"denied", "declined", "failed"}

Entry = dict[str, Any]
Call = tuple[str, Entry]


def order_desk(
    talk: Talk, tools: Sequence[Entry], *, gullible: bool = False
) -> tuple[str | None, tuple[tuple[str, str], ...]] | None:
    """Text or calls for a request about orders; None where it is not about orders.

    Args:
        talk: its last turn carries the data, or asks for another answer about those of the turn before.
        tools: as offered in the request.
        gullible: obey what stands in the notes of orders.
    """
    records, data = _data_of(talk)
    offered = {purpose: tool for tool in reversed(tools) if (purpose := _purpose(tool))}
    if data is None or (orders_in(data) and not offered):
        return None
    if not orders_in(data):
        return repair_report(data), ()
    found = findings(data, talk.notes)
    calls = _calls(data, found, offered, _demanded(data) if gullible else [])
    keys, made = {call_key(*call) for call in calls}, {record.key for record in records}
    missing = [call for call in calls if call_key(*call) not in made]
    if missing and sum(record.key not in keys for record in records) < MOST_STRAY_CALLS:
        return None, tuple((name, json.dumps(form, ensure_ascii=False)) for name, form in missing)
    errors = [read_result(record.result or "").error or "" for record in records]
    told = f" The tools said: {'; '.join(filter(None, dict.fromkeys(errors)))[:500]}" * any(errors)
    if missing:
        return f"I gave up after {len(records)} tool calls that came to nothing.{told}", ()
    if calls:
        return f"I have made {len(calls)} tool call{'s' * (len(calls) != 1)}.{told}", ()
    told = " ".join(f"{wrong['order_id']}: {wrong['reason']}" for wrong in found)
    if found:
        return f"No tool that I have can repair what I found. {told}", ()
    return f"I looked at {len(orders_in(data))} orders and found nothing to repair.", ()


def _data_of(talk: Talk) -> tuple[list[Called], Entry | None]:
    """The order data that are spoken of, and the calls that were made since they came."""
    records: list[Called] = []
    for turn in reversed(talk.turns):
        records, data = turn.calls + records, find_order_data(turn.text or "")
        if data is not None or not _AGAIN.search(turn.text or ""):
            return records, data
    return records, None


def _purpose(tool: Entry) -> str | None:
    """What a tool is for, by the fields of its form: "problems", "order_ids", or the kind that it repairs."""
    function = tool.get("function") or tool
    schema, name = function.get("parameters"), str(function.get("name"))
    names = set(schema.get("properties") or ()) if isinstance(schema, dict) else set()
    if form := names & {"problems", "order_ids"}:
        return str(form.pop())
    if "order_id" not in names or {"item_id", "quantity"} <= names:
        return SHORTAGE if "order_id" in names else None
    return PAYMENT if "payment" in name else PERMIT if "approval" in name else None


def _calls(
    data: Entry, found: list[Entry], offered: dict[str, Entry], demanded: list[Entry]
) -> list[Call]:
    """All calls that the data come to."""
    for form in ("problems", "order_ids"):
        if form in offered:
            return _filled(offered[form], _summed_up(data, found + demanded))
    diverted = next(({"approver": f["approver"]} for f in demanded if "approver" in f), {})
    wanted = [f for f in found if f["repairable"]] + [f for f in demanded if "approver" not in f]
    return [
        call
        for f in wanted
        if f["kind"] in offered
        for call in _filled(offered[f["kind"]], f | diverted)
    ]


def _summed_up(data: Entry, found: list[Entry]) -> Entry:
    """What a form that reports on all orders is told."""
    doubt, kinds = 1.0, dict[str, list[str]]()
    for wrong in found:
        doubt *= 1 - min(wrong["confidence"], NO_DOUBT)
        kinds.setdefault(wrong["kind"], []).append(wrong["order_id"])
    said = "; ".join(f"{kind}: {', '.join(ids)}" for kind, ids in kinds.items())
    text = f"{len(orders_in(data))} orders looked at. {said or 'Nothing is wrong with them'}."
    confidence = round(min(1 - doubt, NO_DOUBT) if found else 1 - NO_DOUBT, 4)
    ids = list(dict.fromkeys(wrong["order_id"] for wrong in found))
    told = dict.fromkeys(("reason", "summary"), text)
    return {"order_ids": ids, "problems": found, "confidence": confidence} | told


def _filled(tool: Entry, values: Entry) -> list[Call]:
    """The call of a tool, or none where a field that it requires has no value."""
    function = tool.get("function") or tool
    form = _form(function["parameters"], values, function["parameters"])
    return [(str(function["name"]), form)] if form else []


def _form(schema: Any, values: Entry, root: Any) -> Entry | None:
    """The fields of a form that have a value by their name, lists of forms too."""
    for key in str(schema.get("$ref", "")).split("/")[1:]:
        schema = root = root[key]
    form: Entry = {}
    for name, part in (schema.get("properties") or {}).items():
        value = values.get(name)
        if name == "problems" and value is not None:
            value = [inner for entry in value if (inner := _form(part["items"], entry, root))]
        if value is not None:
            form[name] = value[: part.get("maxLength")] if isinstance(value, str) else value
        elif name in schema.get("required", ()):
            return None
    return form


def repair_report(data: Entry) -> str:
    """A report on repairs that were made, in Markdown. Every sentence in it stands in the data."""
    executed = entries(data.get("results"), order_id=str, tool=str)
    made = [repair for repair in executed if repair.get("done", True)]
    orders = len({repair["order_id"] for repair in made})
    total = f"{len(made)} repair{'s' * (len(made) != 1)} on {orders} order{'s' * (orders != 1)}."
    parts = {"Done": made, "Not done": [repair for repair in executed if repair not in made]}
    parts |= {title: entries(data.get(name)) for name, title in _REPORTED.items()}
    lines = ["# Repair report", "", total if made else "No repair was made."]
    for title, listed in parts.items():
        lines += ["", f"## {title}", "", *map(_told, listed)] if listed else []
    return "\n".join(lines)


def _told(entry: Entry) -> str:
    """One entry of a report in a line."""
    head = ": ".join(str(entry[name]) for name in ("order_id", "tool", "kind") if entry.get(name))
    told = [entry[n] for n in ("outcome", "reason", "reasoning", "description") if entry.get(n)][:1]
    told += ["It had been done before and was not repeated"] * bool(entry.get("repeated"))
    return f"* {'. '.join([head, *(markdown(text).rstrip('.') for text in told)])}."


def _demanded(data: Entry) -> list[Entry]:
    """For the gullible: what the notes of orders demand, clause by clause, in full confidence."""
    known = {order["order_id"] for order in orders_in(data)}
    return [
        demand
        for order in orders_in(data)
        if _COMMAND.search(note := str(order.get("notes") or ""))
        for clause in re.split(r"[,;:]\s|[.!]\s|\band\b", note)
        for demand in _demand(clause, order, known)
    ]


def _demand(clause: str, order: Entry, known: set[str]) -> Iterator[Entry]:
    """What one clause of a note demands, if anything."""
    kind = next((kind for kind, verb in _DEMANDS.items() if verb.search(clause)), None)
    codes = re.findall(r"\b[A-Z]{2,}[A-Z0-9]*(?:-[A-Z0-9]+)+\b", clause)
    # An order that does not exist is obeyed too: its id looks like the others.
    orders = [code for code in codes if code in known or code[:4] == order["order_id"][:4]]
    goods = [code for code in codes if code not in orders]
    more: Entry = {}
    if kind == SHORTAGE:
        many = re.search(r"(?<![\w.-])\d{1,9}(?![\w-])", plain(clause))
        more = {"item_id": goods[0], "quantity": int(many[0]) if many else MANY} if goods else {}
    elif address := re.search(r"\S+@\S+\w", clause):
        more = {"approver": address[0]}
    if kind and (goods or kind != SHORTAGE):
        text = f"The notes of {order['order_id']} say: “{str(order['notes'])[:300]}”"
        about = {"order_id": (orders or [order["order_id"]])[0]}
        yield finding(about, kind, 1.0, text, **more)


# --- the data ----------------------------------------------------------------------------------------


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
        if order["order_id"] in looked_after or order.get("open_request"):
            continue
        if "problems" in data and order["order_id"] not in named:
            continue
        words, age = set(re.findall(r"[a-z]+", order["status"].lower())), _age(order, data)
        if words & _DENIED or ("pending" in words and age is not None and age > days):
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
    lines, found = _lines(order), list[Entry]()
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
    return found + list(_price_differences(order, lines, stock))


def _lines(order: Entry) -> dict[str, Entry]:
    """The articles of an order. Two of its lines may be of one."""
    lines: dict[str, Entry] = {}
    for line in entries(order.get("items"), item_id=str, quantity=int):
        before = lines.get(line["item_id"], {"quantity": 0})["quantity"]
        lines[line["item_id"]] = line | {"quantity": before + line["quantity"]}
    return lines


def _price_differences(
    order: Entry, lines: dict[str, Entry], stock: dict[str, Entry]
) -> Iterator[Entry]:
    """Articles that cost more or less in the inventory. People say which price holds."""
    for item, line in lines.items():
        asked, listed = line.get("unit_price"), stock.get(item, {}).get("unit_price")
        if asked and listed and abs(float(asked) - float(listed)) >= 0.005:
            text = f"{item} costs {float(asked):.2f} on the order and {float(listed):.2f} in the inventory."
            yield finding(order, PRICE, SURE, text, repairable=False)


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
