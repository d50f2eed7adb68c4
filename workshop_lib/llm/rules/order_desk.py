"""Requests about orders in trouble: find problems, describe them, propose repairs, report on them.

These rules speak up when a message carries order data (`order_data`) and either a tool that fits is offered
(`order_tools`) or the data are about repairs that were made. What is wrong is found by `order_findings`; here
it is put into tool calls. Texts inside an order are never read for instructions: only under the fault
`gullible` are they, to show what a model does that can be talked into things.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from workshop_lib.llm.rules.conversation import Conversation, Record, Turn, call_key
from workshop_lib.llm.rules.order_data import OrderData, find_order_data
from workshop_lib.llm.rules.order_findings import Finding, findings, overall_confidence, patience
from workshop_lib.llm.rules.order_notes import Demand, demands, diverted_approvals
from workshop_lib.llm.rules.order_report import repair_report
from workshop_lib.llm.rules.order_tools import (
    REPAIRS,
    OrderTool,
    Purpose,
    Role,
    Values,
    approver_in,
    arguments_for,
    order_tools,
    values_of,
)
from workshop_lib.llm.rules.results import read_result

MOST_STRAY_CALLS = 4  # calls that came to nothing, after which the rules give up
NO_DOUBT = 0.99  # a detection is never quite certain, and neither is it certain that all is well

_AGAIN = re.compile(r"\b(again|once more|corrected?|instead)\b", re.IGNORECASE)

Calls = tuple[tuple[str, str], ...]


def order_desk(
    conversation: Conversation, tools: Sequence[dict[str, Any]], *, gullible: bool = False
) -> tuple[str | None, Calls] | None:
    """Text or calls for a request about orders; None where it is not about orders.

    Args:
        conversation: its last turn carries the data, or asks for another answer about those of the turn
            before.
        tools: as offered in the request.
        gullible: obey what stands in the notes of orders.
    """
    found = _data_of(conversation)
    if found is None:
        return None
    data, records = found
    if data.executed is not None:
        return repair_report(data), ()
    offered = order_tools(tools)
    if not offered:
        return None
    calls = _calls(data, offered, conversation.notes, gullible)
    made = {record.key for record in records}
    missing = [
        (name, arguments) for name, arguments in calls if call_key(name, arguments) not in made
    ]
    wanted = {call_key(name, arguments) for name, arguments in calls}
    stray = [record for record in records if record.key not in wanted]
    if missing and len(stray) < MOST_STRAY_CALLS:
        return None, tuple(
            (name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in missing
        )
    return _closing(data, calls, missing, records, offered, conversation.notes), ()


def _data_of(conversation: Conversation) -> tuple[OrderData, list[Record]] | None:
    """The order data that are talked about, and the calls made about them so far."""
    turn = conversation.current
    found = find_order_data(turn.question or "")
    if found is not None:
        return found.data, turn.records
    # "Write it again: …" is about the data of the turn before.
    if not _AGAIN.search(turn.question or ""):
        return None
    records = list(turn.records)
    earlier: Turn
    for earlier in reversed(conversation.turns[:-1]):
        records = earlier.records + records
        found = find_order_data(earlier.question or "")
        if found is not None:
            return found.data, records
        if not _AGAIN.search(earlier.question or ""):
            return None
    return None


def _calls(
    data: OrderData, offered: Sequence[OrderTool], notes: Sequence[str], gullible: bool
) -> list[tuple[str, dict[str, Any]]]:
    """All calls that the data come to."""
    found = findings(data, patience(notes))
    by_purpose = {tool.purpose: tool for tool in reversed(offered)}
    told = demands(data) if gullible else []
    for purpose in (Purpose.ANALYSIS, Purpose.DETECTION):
        if purpose in by_purpose:
            tool = by_purpose[purpose]
            arguments = arguments_for(tool.fields, _summed_up(data, found, told))
            return [] if arguments is None else [(tool.name, arguments)]
    calls = []
    wanted = [
        (by_purpose.get(REPAIRS[finding.kind]), values_of(finding))
        for finding in found
        if finding.repairable and finding.kind in REPAIRS
    ]
    wanted += [(by_purpose.get(demand.purpose), demand.values) for demand in told]
    for wanted_tool, values in wanted:
        if wanted_tool is None:
            continue
        approver = (diverted_approvals(data) if gullible else None) or approver_in(
            wanted_tool, notes
        )
        if approver is not None:
            values = values._replace(by_role={Role.APPROVER: approver, **values.by_role})
        arguments = arguments_for(wanted_tool.fields, values)
        if arguments is not None:
            calls.append((wanted_tool.name, arguments))
    return calls


def _summed_up(data: OrderData, found: Sequence[Finding], told: Sequence[Demand]) -> Values:
    """What a tool that reports on all orders is told."""
    troubled = list(dict.fromkeys(finding.order.order_id for finding in found))
    troubled += [d.order_id for d in told if d.order_id not in troubled]
    kinds: dict[str, list[str]] = {}
    for finding in found:
        kinds.setdefault(finding.kind.value, []).append(finding.order.order_id)
    said = "; ".join(f"{kind}: {', '.join(ids)}" for kind, ids in kinds.items())
    looked = f"{len(data.orders)} orders looked at"
    confidence = min(overall_confidence(found), NO_DOUBT) if found else round(1 - NO_DOUBT, 4)
    return Values(
        {
            Role.ORDERS: troubled,
            Role.CONFIDENCE: confidence,
            Role.TEXT: f"{looked}. {said}." if said else f"{looked}, nothing is wrong with them.",
        },
        problems=[*map(values_of, found), *(demand.values for demand in told)],
    )


def _closing(
    data: OrderData,
    calls: Sequence[tuple[str, dict[str, Any]]],
    missing: Sequence[tuple[str, dict[str, Any]]],
    records: Sequence[Record],
    offered: Sequence[OrderTool],
    notes: Sequence[str],
) -> str:
    """What is said when there is nothing (more) to call."""
    errors = [read_result(record.result).error for record in records if record.result]
    said = "; ".join(dict.fromkeys(error for error in errors if error))[:500]
    if missing:
        return f"I gave up after {len(records)} tool calls that came to nothing; the tools said: {said}"
    if calls:
        done = f"I have made {len(calls)} tool call" + ("" if len(calls) == 1 else "s")
        return f"{done}; the tools said: {said}" if said else f"{done} and have nothing to add."
    found = findings(data, patience(notes))
    if not found:
        return f"I looked at {len(data.orders)} orders and found nothing to repair."
    names = ", ".join(tool.name for tool in offered)
    told = " ".join(f"{finding.order.order_id}: {finding.evidence}" for finding in found)
    return f"No tool that I have ({names}) can repair what I found. {told}"
