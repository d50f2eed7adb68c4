"""The offline model's reply to a request: a pure function of messages and tools.

The same request gets the same reply, in every process and at every attempt. A reply is either tool calls
or a text, and a text holds nothing but what tools returned, what the conversation says, and what the
rules themselves are. Left out: all that a language model could do beyond that, said where it is asked
for.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from workshop_lib.llm.offline.match import OPTIONAL, pair
from workshop_lib.llm.offline.order_desk import order_desk
from workshop_lib.llm.offline.plan import Later, Plan, Planner, Step
from workshop_lib.llm.offline.recall import (
    NOTED,
    asks_for_summary,
    facts,
    list_tools,
    recall,
    small_talk,
    summarise,
    told_before,
)
from workshop_lib.llm.offline.results import came, describe, fields, number_in, read_result
from workshop_lib.llm.offline.schema import Slot, Tool, read_tools
from workshop_lib.llm.offline.spans import find_spans
from workshop_lib.llm.offline.sums import BACK
from workshop_lib.llm.offline.talk import Called, Talk, call_key, read_talk
from workshop_lib.llm.offline.words import plain

LONGEST = 2000  # characters of a message that the rules read
MOST_CALLS = 8  # tool calls in one reply
MOST_WORDS = 8  # of a follow-up such as `and in Portland?`
MOST_STRAY_CALLS = 4  # calls of a turn that came to nothing, after which the rules give up

_REFUSAL = "I cannot answer that: I am a set of rules that call tools, not a language model."
_NEEDS = "which I do not find in your message. I make no values up: please name it."
_OTHER_TIME = re.compile(
    r"\b(?:tomorrow|yesterday|(?:next|last|this) (?:week\w*|month|year))\b", re.I
)
_DENIAL = re.compile(r"\W*(?:please )?(?:don't|do not|never)\b", re.I)


Done = dict[int, Called]  # the calls that are made, by step


class Reply(NamedTuple):
    """What the offline model answers: words, or name and JSON arguments of each tool call."""

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
    talk = read_talk(messages)
    about_orders = order_desk(talk, tools, gullible=gullible)
    if about_orders is not None:
        return Reply(*about_orders)
    if asks_for_summary(talk):
        return Reply(summarise(talk))
    usable = read_tools(tools)
    if not talk.text:
        return Reply(f"I see no question. {list_tools(usable)}")
    if len(talk.text) > LONGEST:
        return Reply(f"I cannot answer that: it has {len(talk.text)} characters, I read {LONGEST}.")
    said = None if talk.now else recall(talk, usable) or small_talk(plain(talk.text), usable)
    return Reply(said) if said else _serve(talk, usable)


def _serve(talk: Talk, tools: tuple[Tool, ...]) -> Reply:
    """The next tool calls, or the answer when all results are there."""
    plan = _planned(talk, tools)
    calls, done = _carried_out(plan, talk)
    wanted = {call_key(*call) for call in calls} | {called.key for called in done.values()}
    stray = [called for called in talk.now if called.arguments is None or called.key not in wanted]
    if calls and len(stray) < MOST_STRAY_CALLS:
        written = [(name, json.dumps(values, ensure_ascii=False)) for name, values in calls]
        return Reply(calls=tuple(written[:MOST_CALLS]))
    said = [describe(done[i], step.tool) for i, step in enumerate(plan.steps) if i in done]
    said += _loose_ends(plan, done, talk)
    if calls or (not any(said) and talk.now):
        by_name = {tool.name: tool for tool in tools}
        gave_up = f"I gave up after {len(stray)} tool calls that came to nothing." if calls else ""
        said += [gave_up, *(describe(called, by_name.get(called.name)) for called in stray)]
    return Reply(" ".join(dict.fromkeys(text for text in said if text)) or _nothing(talk, tools))


def _loose_ends(plan: Plan, done: Done, talk: Talk) -> list[str]:
    """What could not be done, and why."""
    said = []
    lacking = [step.tool.name for i, step in enumerate(plan.steps) if i not in done]
    if lacking and all(map(came, done.values())):
        said.append(f"I do not find what {lacking[0]} needs in what came back.")
    parts = [part for part in plan.unserved if re.match(r"\W*(?:wh\w+|how)\b", part, re.I)]
    parts = [part.strip(" ?.,!") for part in parts if plan.steps]
    said += [f"I have no tool for this part: “{part}”." for part in parts]
    slots = [slot.want for step in plan.steps for slot in step.tool.slots]
    dated = "date" in slots or any(step.tool.expression for step in plan.steps)
    if _OTHER_TIME.search(talk.text) and slots and not dated:
        said.append(f"The tool {plan.steps[0].tool.name} takes no date: this is what it says now.")
    for found in plan.asks:
        wanted = []
        for slot in found.missing:
            choices = ", ".join(dict.fromkeys(map(str, slot.choices.values())))
            about = ", ".join(filter(None, (slot.description, choices and f"one of {choices}")))
            wanted.append(" ".join(slot.path).replace("_", " ") + (f" ({about})" if about else ""))
        nearest = f"the nearest tool is {found.tool.name}, and it needs {' and '.join(wanted)}"
        said.append(f"I cannot do that as it stands: {nearest}, {_NEEDS}")
    return said


def _nothing(talk: Talk, tools: Sequence[Tool]) -> str:
    """What is said where there is nothing to call."""
    text = plain(talk.text)
    if told := [] if "?" in text else facts([text]):
        return NOTED.format(" and ".join(f"{what} is {value}" for what, value in told))
    refusal = f"{_REFUSAL} {list_tools(tools)}"
    return "All right: I call no tool." if _DENIAL.match(text) else refusal


def _planned(talk: Talk, tools: tuple[Tool, ...]) -> Plan:
    """The plan of a message: by itself, together with the question it answers, or as a follow-up."""
    text, asked = plain(talk.text), _asked_before(talk)
    for what, value in facts(told_before(talk)):  # `my favourite city` is the city that was told
        text = re.sub(rf"\bmy {re.escape(what)}\b", value.replace("\\", ""), text, flags=re.I)
    told = facts([text]) and not re.search(r"\?|[.!;,] \w", text)
    if _DENIAL.match(text) or (told and not asked):
        return Plan()
    own = Planner(text, tools, talk).make()
    if own.steps and not own.asks:
        return own
    if asked:
        both = Planner(f"{asked} {text}", tools, talk).make()
        if both.steps or both.asks:
            return both
    short = len(text.split()) <= MOST_WORDS
    return (Planner(text, tools, talk).again() if short else None) or own


def _asked_before(talk: Talk) -> str:
    """The questions that are still open because a value was asked for."""
    texts: list[str] = []
    for turn in reversed(talk.earlier):
        if not turn.answer or _NEEDS not in turn.answer or not turn.text:
            break
        texts.insert(0, plain(turn.text))
    return " ".join(texts)


# --- carrying out a plan -----------------------------------------------------------------------------


def _carried_out(plan: Plan, talk: Talk) -> tuple[list[tuple[str, dict[str, Any]]], Done]:
    """The calls that can be made now, and those that are made."""
    done: Done = {}
    calls: list[tuple[str, dict[str, Any]]] = []
    made = {called.key: called for called in talk.now if called.arguments is not None}
    for index, step in enumerate(plan.steps):
        arguments = _arguments(step, plan, done, talk)
        if arguments is None:
            continue
        if called := made.get(call_key(step.tool.name, arguments)):
            done[index] = called
        elif (step.tool.name, arguments) not in calls:
            calls.append((step.tool.name, arguments))
    return calls, done


def _arguments(step: Step, plan: Plan, done: Done, talk: Talk) -> dict[str, Any] | None:
    """The arguments of a step; None while it waits for a result, or where that lacks what it needs."""
    arguments: dict[str, Any] = {}
    for slot, value in step.values.items():
        if isinstance(value, Later):
            value = _from_result(slot, done.get(value.step), value.hint)
        elif slot is step.tool.expression:
            value = _filled(str(value), plan, done, talk)
        if value is None:
            return None
        node = arguments
        for key in slot.path[:-1]:
            node = node.setdefault(key, {})
        node[slot.name] = value
    return arguments


def _filled(expression: str, plan: Plan, done: Done, talk: Talk) -> str | None:
    """An expression with the numbers of results in the place of `§`."""
    for mark in sorted(set(re.findall(rf"{BACK}\d*", expression)), reverse=True):
        step = int(mark[1:]) if mark[1:] else None
        called = next(iter(talk.calls_before()), None) if step is None else done.get(step)
        hint = talk.text if step is None else f"{plan.steps[step].hint} {talk.text}"
        number = number_in(called, hint) if called else None
        if number is None:
            return None
        expression = expression.replace(mark, number)
    return expression


def _from_result(slot: Slot, called: Called | None, hint: str) -> Any:
    """A value for a slot, copied from a result."""
    if called is None or not came(called):
        return None
    if slot.want == "number":
        number = number_in(called, hint)
        return None if number is None else json.loads(number)
    leaves = [str(value) for _, value in fields(read_result(called.result or "").value)]
    if slot.choices:
        words = [word for text in leaves for word in re.findall(r"[\w-]+", text)]
        return next((slot.choices[word] for word in words if word in slot.choices), None)
    spans = [span for text in leaves for span in find_spans(text)]
    suited = [(pair(s, slot) or 0.0, -place, s.text) for place, s in enumerate(spans)]
    best = max(suited, default=(0.0, 0, ""))
    return best[2] if best[0] >= OPTIONAL else None
