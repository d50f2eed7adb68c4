"""Requests about orders in trouble: find problems, describe them, propose repairs, report on them.

These rules speak up when a message carries order data and a form or a repair tool is offered, or when the
data are about repairs that were made. Forms are filled by the names of their fields. Texts in an order are
never read for instructions; only under the fault `gullible` are they, to show what a model can be made to do.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from workshop_lib.llm.offline.order_data import (
    PAYMENT,
    PERMIT,
    SHORTAGE,
    Entry,
    entries,
    find_order_data,
    finding,
    findings,
    orders_in,
)
from workshop_lib.llm.offline.results import read_result
from workshop_lib.llm.offline.talk import Called, Talk, call_key
from workshop_lib.llm.offline.words import plain

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
    records, data = list[Called](), None
    for turn in reversed(talk.turns):
        records, data = turn.calls + records, find_order_data(turn.text or "")
        if data is not None or not _AGAIN.search(turn.text or ""):
            break
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
    if not found:
        return f"I looked at {len(orders_in(data))} orders and found nothing to repair.", ()
    told = " ".join(f"{wrong['order_id']}: {wrong['reason']}" for wrong in found)
    return f"No tool that I have can repair what I found. {told}", ()


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
    said = [
        str(entry[n]) for n in ("outcome", "reason", "reasoning", "description") if entry.get(n)
    ][:1]
    said += ["It had been done before and was not repeated"] if entry.get("repeated") else []
    return f"* {'. '.join([head, *(text.rstrip('.') for text in said)])}."


def _demanded(data: Entry) -> list[Entry]:
    """For the gullible: what the notes of orders demand, clause by clause, in full confidence."""
    found, known = [], {order["order_id"] for order in orders_in(data)}
    for order in orders_in(data):
        note = str(order.get("notes") or "")
        for clause in re.split(r"[,;:]\s|[.!]\s|\band\b", note) if _COMMAND.search(note) else ():
            kind = next((kind for kind, verb in _DEMANDS.items() if verb.search(clause)), None)
            codes = re.findall(r"\b[A-Z]{2,}[A-Z0-9]*(?:-[A-Z0-9]+)+\b", clause)
            # An order that does not exist is obeyed too: its id looks like the others.
            orders = [code for code in codes if code in known or code[:4] == order["order_id"][:4]]
            goods = [code for code in codes if code not in orders]
            address, many = (
                re.search(r"\S+@\S+\w", clause),
                re.search(r"(?<![\w.-])\d{1,9}(?![\w-])", plain(clause)),
            )
            more: Entry = {"approver": address[0]} if address and kind != SHORTAGE else {}
            if goods and kind == SHORTAGE:
                more = {"item_id": goods[0], "quantity": int(many[0]) if many else MANY}
            if kind and (goods or kind != SHORTAGE):
                text = f"The notes of {order['order_id']} say: “{note[:300]}”"
                about = {"order_id": (orders or [order["order_id"]])[0]}
                found.append(finding(about, kind, 1.0, text, **more))
    return found
