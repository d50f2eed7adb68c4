"""The offline model's reply to a request: a pure function of messages and tools.

The same request gets the same reply, in every process and at every attempt. A reply is either tool calls or
a text, and a text holds nothing but what tools returned, what the conversation says, and what the rules
themselves are. Left out: all that a language model could do beyond that, said where it is asked for.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from workshop_lib.llm.rules.answering import (
    compare,
    describe_record,
    label_of,
    list_tools,
    say_what_is_missing,
)
from workshop_lib.llm.rules.calculation import calculator, spell
from workshop_lib.llm.rules.conversation import Conversation, Record, call_key, read_conversation
from workshop_lib.llm.rules.memory import recall
from workshop_lib.llm.rules.order_desk import order_desk
from workshop_lib.llm.rules.pieces import DENIAL
from workshop_lib.llm.rules.results import Result, number_in, read_result
from workshop_lib.llm.rules.small_talk import small_talk
from workshop_lib.llm.rules.tool_choice import call_with
from workshop_lib.llm.rules.tool_schema import Tool, read_tool
from workshop_lib.llm.rules.understanding import LONGEST, understand
from workshop_lib.llm.rules.wants import Understanding, Want
from workshop_lib.llm.rules.wording import plain_signs

MOST_CALLS = 8  # tool calls in one reply
MOST_STRAY_CALLS = 4  # calls in a turn that came to nothing, after which the rules give up

_REFUSAL = "I cannot answer that: I am a set of rules that call tools, not a language model."
_OTHER_TIME = re.compile(
    r"\b(tomorrow|yesterday|next (?:week|weekend|month|year|\w+day)|last (?:week|weekend|month|"
    r"year|night|\w+day)|"
    r"this weekend|forecast|in (?:19|20)\d\d|\d{4}-\d\d-\d\d|on \w+day)\b",
    re.IGNORECASE,
)


class Reply(NamedTuple):
    """What the offline model answers.

    Attributes:
        text: the words, or None where it calls tools.
        calls: name and JSON arguments of each tool call.
    """

    text: str | None = None
    calls: tuple[tuple[str, str], ...] = ()


def reply(
    messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], *, gullible: bool = False
) -> Reply:
    """The reply to a request in the shape of the chat completions API.

    Args:
        messages: the conversation, oldest first. It may begin in the middle.
        tools: as offered in the request; there may be none.
        gullible: obey instructions in the data, as the fault of that name wants it.
    """
    conversation = read_conversation(messages)
    about_orders = order_desk(conversation, tools, gullible=gullible)
    if about_orders is not None:
        return Reply(*about_orders)
    usable = [read_tool(tool) for tool in tools]
    question = (conversation.current.question or "").strip()
    if not question:
        return Reply(f"I see no question. {list_tools(usable)}")
    if len(question) > LONGEST:
        return Reply(
            f"I cannot answer that: your message has {len(question)} characters, and the rules that I am "
            f"read up to {LONGEST}. Please ask in a shorter one."
        )
    recalled = recall(conversation, {tool.name: tool for tool in usable})
    if recalled is not None:
        return Reply(recalled)
    understood = understand(conversation, usable)
    if understood.wants:
        return _serve(conversation, understood, usable)
    if conversation.current.records:
        return Reply(_all_results(conversation, usable))
    if understood.problem is not None:
        return Reply(understood.problem)
    if DENIAL.match(plain_signs(question)):
        return Reply("All right: I call no tool.")
    talk = small_talk(plain_signs(question), usable)
    if talk is not None and not understood.missing:
        return Reply(talk)
    if understood.missing:
        tool, slots = understood.missing[0]
        return Reply(say_what_is_missing(tool, [slot.name for slot in slots]))
    return Reply(f"{_REFUSAL} {list_tools(usable)}")


def _serve(conversation: Conversation, understood: Understanding, tools: Sequence[Tool]) -> Reply:
    """The next tool calls for what is wanted, or the answer when all results are there."""
    turn = conversation.current
    records = {record.key: record for record in turn.records if record.arguments is not None}
    planned: dict[str, tuple[str, dict[str, Any]]] = {}
    open_calls: dict[str, tuple[str, dict[str, Any]]] = {}
    for want in understood.wants:
        for tool, arguments in _stages(want, records, tools).calls:
            key = call_key(tool.name, arguments)
            planned[key] = (tool.name, arguments)
            if key not in records:
                open_calls[key] = (tool.name, arguments)
    stray = sum(record.arguments is None or record.key not in planned for record in turn.records)
    if open_calls and stray < MOST_STRAY_CALLS:
        batch = list(open_calls.values())[:MOST_CALLS]
        return Reply(
            calls=tuple(
                (name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in batch
            )
        )
    parts = [_answer(want, records, tools) for want in understood.wants]
    if open_calls:
        said = sorted({r.result for r in turn.records if r.result and r.key not in planned})
        parts.append(
            f"I gave up after {stray} tool calls that came to nothing; the tools said: "
            f"{'; '.join(said)[:500]}"
        )
    parts += [
        f"I have no tool for this part: “{piece.strip(' ?.,!')}”."
        for piece in understood.unanswered
    ]
    parts += [
        say_what_is_missing(tool, [slot.name for slot in slots])
        for tool, slots in understood.missing
    ]
    if understood.problem:
        parts.append(understood.problem)
    return Reply(" ".join(dict.fromkeys(part for part in parts if part)))


class _Stages(NamedTuple):
    """The calls that a want comes to, as far as results allow to say.

    Attributes:
        calls: all calls so far, made or not.
        note: why a later stage cannot be reached.
    """

    calls: list[tuple[Tool, dict[str, Any]]]
    note: str = ""


def _stages(want: Want, records: dict[str, Record], tools: Sequence[Tool]) -> _Stages:
    """First the want's own calls, then what is computed from them, then the tool that takes the outcome."""
    calls = [(want.tool, arguments) for arguments in want.calls]
    if want.chain is None and want.fills is None:
        return _Stages(calls)
    results = [_result(records, want.tool, arguments) for arguments in want.calls]
    if any(result is None for result in results):
        return _Stages(calls)
    read = [result for result in results if result is not None]
    if any(result.error for result in read):
        return _Stages(calls)
    if want.chain is not None:
        computer = calculator(tools)
        if computer is None:
            return _Stages(
                calls, "I have no tool that calculates, so I leave the arithmetic to you."
            )
        outcome: list[Result] = []
        for template in want.chain.templates:
            expression = _filled_in(template, read)
            spelled = spell(expression, computer) if expression else None
            if spelled is None:
                return _Stages(calls, "What came back holds no number that I could calculate with.")
            arguments = call_with(computer, {computer.required[0].path: spelled})
            calls.append((computer, arguments))
            result = _result(records, computer, arguments)
            if result is not None:
                outcome.append(result)
        if len(outcome) < len(want.chain.templates) or any(result.error for result in outcome):
            return _Stages(calls)
        read = outcome
    if want.fills is not None:
        final = _with_outcome(want, read, _result(records, want.tool, want.calls[0]))
        if final is None:
            return _Stages(
                calls, f"What came back does not give {want.fills[0].name} what it needs."
            )
        calls.append((want.fills[0], final))
    return _Stages(calls)


def _filled_in(template: str, results: Sequence[Result]) -> str | None:
    """A chain's template with the numbers of the results; None where one is missing."""

    def number(match: re.Match[str]) -> str:
        if match[1].isdigit():
            found = number_in(results[int(match[1])])
        else:
            found = number_in(results[0], frozenset({match[1]}))
            if match[1] not in {w for key in results[0].fields for w in key.lower().split("_")}:
                found = None
        return found if found is not None else "\0"

    text = re.sub(r"\{(\w+)\}", number, template)
    return None if "\0" in text else text


def _with_outcome(
    want: Want, outcome: Sequence[Result], first: Result | None
) -> dict[str, Any] | None:
    """The arguments of the last tool, with the outcome put where they lack something."""
    tool, filled = want.fills if want.fills else (None, None)
    if tool is None or filled is None:
        return None
    values = dict(filled.partial)
    for slot in filled.missing:
        if slot.kind in ("number", "integer"):
            number = number_in(outcome[0])
            if number is None:
                return None
            value = float(number)
            values[slot.path] = int(value) if value == int(value) else value
        elif slot.kind == "currency" and first is not None and "currency" in first.fields:
            values[slot.path] = first.fields["currency"]
        elif slot.kind == "text":
            values[slot.path] = describe_record(
                Record(want.tool.name, want.calls[0], str(outcome[0].value)), want.tool
            )
        else:
            return None
    return call_with(tool, values)


def _answer(want: Want, records: dict[str, Record], tools: Sequence[Tool]) -> str:
    """What the results of a want say."""
    stages = _stages(want, records, tools)
    said: list[str] = []
    numbers: list[tuple[str, str]] = []
    for tool, arguments in stages.calls:
        record = records.get(call_key(tool.name, arguments))
        if record is None:
            continue
        if record.result is None:
            said.append(f"The tool {tool.name} has returned nothing.")
            continue
        said.append(describe_record(record, tool))
        number = number_in(read_result(record.result))
        if number is not None and tool is want.tool and not tool.calculates:
            numbers.append((label_of(arguments), number))
    if len(numbers) == len(want.calls):
        said.append(compare(want.text, numbers))
    if stages.note:
        said.append(stages.note)
    if _OTHER_TIME.search(want.text) and not want.tool.takes_date and not want.tool.calculates:
        said.append(f"The tool {want.tool.name} takes no date, so this is what it says now.")
    return " ".join(
        part if part.endswith((".", "!", "?", "…", ")")) else part + "." for part in said if part
    )


def _result(records: dict[str, Record], tool: Tool, arguments: dict[str, Any]) -> Result | None:
    record = records.get(call_key(tool.name, arguments))
    return read_result(record.result) if record and record.result is not None else None


def _all_results(conversation: Conversation, tools: Sequence[Tool]) -> str:
    """What the turn's calls returned, where the rules themselves would have asked for none of them."""
    by_name = {tool.name: tool for tool in tools}
    said = [
        describe_record(record, by_name.get(record.tool)) for record in conversation.current.records
    ]
    return " ".join(part for part in said if part) or f"{_REFUSAL} {list_tools(tools)}"
