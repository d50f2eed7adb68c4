"""Carrying out a plan: which of its calls can be made now, with the values that results have brought.

A value that is taken from a result goes through the same assignment as one from a message: it must suit
the slot. Nothing else of a result is read.
"""

import json
import re
from typing import Any

from workshop_lib.llm.offline.match import pair
from workshop_lib.llm.offline.plan import Later, Plan, Step
from workshop_lib.llm.offline.results import came, fields, number_in, read_result
from workshop_lib.llm.offline.schema import Slot
from workshop_lib.llm.offline.spans import find_spans
from workshop_lib.llm.offline.sums import BACK
from workshop_lib.llm.offline.talk import Called, Talk, call_key
from workshop_lib.llm.offline.words import content, split_name

Done = dict[int, Called]  # the calls that are made, by step


def carry(plan: Plan, talk: Talk) -> tuple[list[tuple[str, dict[str, Any]]], Done]:
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
    leaves = [(name, str(value)) for name, value in fields(read_result(called.result or "").value)]
    if slot.choices:
        words = [word for _, text in leaves for word in re.findall(r"[\w-]+", text)]
        return next((slot.choices[word] for word in words if word in slot.choices), None)
    about = content(" ".join(split_name(called.name)))
    named = [
        text
        for name, text in leaves
        if content(" ".join(split_name(name))) & slot.name_words - about
    ]
    spans = [s for text in [*named, *(text for _, text in leaves)] for s in find_spans(text)]
    suited = [(pair(s, slot) or 0.0, -place, s.text) for place, s in enumerate(spans)]
    best = max(suited, default=(0.0, 0, ""))
    return best[2] if best[0] >= 1.9 else named[0] if named else None
