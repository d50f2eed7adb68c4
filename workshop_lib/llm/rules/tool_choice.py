"""Which tool a piece of a question asks for, and with which arguments.

Tools are compared with the words of the question by their terms; arguments are taken from the text by their
kind. A tool is only called when every required argument is found there: nothing is made up. Left out: what
the rest of the conversation may add, which `understanding` knows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workshop_lib.llm.rules.entities import Amount, Entity, amounts, find, quoted
from workshop_lib.llm.rules.lexicon import (
    CHANGE,
    CREATIVE,
    FUNCTION_WORDS,
    OPINION,
    TIME_WORDS,
    words_in,
)
from workshop_lib.llm.rules.tool_schema import ENTITY_KINDS, Slot, Tool
from workshop_lib.llm.rules.wording import plain, terms_of, words_of

ENOUGH = 2.0  # of evidence, to think of a tool at all
NAME_MATCH, DESCRIPTION_MATCH, SHAPE_MATCH, UNIT_MATCH = 3.0, 1.0, 2.0, 1.0

_FROM_WORDS = frozenset({"from", "source", "origin", "base", "departure", "start", "sender"})
_TO_WORDS = frozenset({"to", "target", "destination", "arrival", "end", "into"})
_LEADING = words_in(
    "for about that to of me the a an this following phrase word words text sentence on up"
)
_NO = re.compile(r"\b(without|no|not|don't|skip|exclude)\s+(\w+\s+)?$", re.IGNORECASE)


@dataclass
class Filled:
    """Arguments found for a tool.

    Attributes:
        calls: the arguments of each call; several where the question names several things.
        missing: required slots for which nothing was found. Then there are no calls.
        partial: what was found although something is missing.
        used: the things that went into the calls.
        spare: numbers that went nowhere.
        alternatives: further values for a slot, each worth a call of its own.
    """

    calls: list[dict[str, Any]] = field(default_factory=list)
    missing: list[Slot] = field(default_factory=list)
    partial: dict[tuple[str, ...], Any] = field(default_factory=dict)
    used: list[Entity] = field(default_factory=list)
    spare: list[Amount] = field(default_factory=list)
    alternatives: list[tuple[Slot, Any]] = field(default_factory=list)


def content_words(text: str) -> list[str]:
    """The words of a text that say something."""
    return [word for word in words_of(text) if word not in FUNCTION_WORDS and not word[0].isdigit()]


def evidence(tool: Tool, text: str) -> tuple[float, set[str]]:
    """How much in a text speaks for a tool, and the words that do."""
    things = [entity for slot in tool.required for entity in _entities(slot, text)]
    bare = text
    for entity in things:
        if entity.known:
            bare = bare[: entity.start] + " " * (entity.end - entity.start) + bare[entity.end :]
    score, matched = 0.0, set()
    seen: set[str] = set()
    for word in words_of(bare):
        if (word in FUNCTION_WORDS and word not in ("say", "find")) or word[0].isdigit():
            continue
        terms = terms_of(word)
        if terms & seen:
            continue
        if terms & tool.name_terms:
            score += NAME_MATCH
        elif terms & tool.description_terms and word not in TIME_WORDS:
            score += DESCRIPTION_MATCH
        else:
            continue
        seen |= terms
        matched.add(word)
    if (
        things
        and matched
        and all(word in matched or word in TIME_WORDS for word in content_words(bare))
    ):
        score = max(score, ENOUGH)  # nothing else is said
    shaped = [slot for slot in tool.required if slot.kind == "code" and slot.shape]
    if shaped:
        shapes = [entity for slot in shaped for entity in find(slot, text)]
        if any(entity.known for entity in shapes):
            score += SHAPE_MATCH
        elif shapes:
            score -= SHAPE_MATCH  # a code, but not one of its own
    units = {
        slot.unit
        for slot in tool.required
        if slot.unit in ("percent", "fraction", "years", "money")
    }
    found = {amount.unit for amount in amounts(text)} | ({"fraction"} if "%" in text else set())
    if len(units & found) > 1:
        score += UNIT_MATCH * len(units & found)
    kinds_twice = {
        slot.kind for slot in tool.required if sum(s.kind == slot.kind for s in tool.required) > 1
    }
    for kind in kinds_twice & {"currency", "language"}:
        pair = next(slot for slot in tool.required if slot.kind == kind)
        if len({entity.value for entity in find(pair, text)}) > 1:
            score += ENOUGH  # "how many euros are 50 dollars" needs no verb
    if not matched and things and all(entity.known for entity in things):
        # "AAPL?" says enough where nothing else is said
        rest = [w for w in content_words(bare) if w not in TIME_WORDS]
        kinds = {slot.kind for slot in tool.required}
        if not rest and kinds <= {"ticker", "code", "email", "ip", "url"}:
            score += ENOUGH
    return score, matched


def is_blocked(tool: Tool, text: str) -> bool:
    """True for a wish for a poem, an opinion or a change, unless that is what the tool is for."""
    for pattern in (CREATIVE, OPINION, CHANGE):
        match = pattern.search(text)
        if match:
            words = content_words(match.group())
            terms = {term for word in words for term in terms_of(word)}
            if not words or not terms & tool.name_terms:
                return True
    return False


def fill(tool: Tool, text: str, spare: str = "", keyword: str | None = None) -> Filled:
    """The arguments of a tool from a text.

    Args:
        spare: further text of the same message, looked at where the first has nothing.
        keyword: the word that spoke for the tool; a free text begins behind it.
    """
    result = Filled()
    values = result.partial
    order = [slot.path for slot in tool.slots]
    several: Slot | None = None
    by_kind: dict[str, list[Slot]] = {}
    for slot in tool.slots:
        by_kind.setdefault(slot.kind, []).append(slot)
    for kind, slots in by_kind.items():
        if kind in ("number", "integer", "boolean", "text", "expression"):
            continue
        if kind == "code" and len(slots) > 1:
            _fill_codes(slots, text, spare, result)
            continue
        if kind != "enum" and len(slots) > 1:
            _fill_pair(slots, text, spare, result)
            continue
        for slot in slots:
            found = find(slot, text)
            if not found and slot.required:
                found = find(slot, spare)
            if not slot.required:
                found = tuple(e for e in found if e.known or set(slot.words) & set(words_of(text)))
            if not found:
                continue
            result.used += found if slot.required or slot.many else found[:1]
            if slot.many:
                values[slot.path] = [entity.value for entity in found]
            elif (
                slot.required
                and kind in ENTITY_KINDS
                and kind != "enum"
                and len(found) > 1
                and several is None
            ):
                several = slot
                values[slot.path] = [entity.value for entity in found]
            else:
                values[slot.path] = _typed_choice(slot, found[0].value)
    numbers = _free_numbers(text, result.used)
    if spare and len(numbers) < sum(
        s.required and s.kind in ("number", "integer") for s in tool.slots
    ):
        numbers += _free_numbers(spare, [])
    result.spare = _fill_numbers(tool, numbers, values)
    for slot in by_kind.get("boolean", []):
        named = next(
            (
                m
                for w in slot.words
                if len(w) > 3
                for m in re.finditer(rf"\b{re.escape(w)}\w*", text, re.IGNORECASE)
            ),
            None,
        )
        if named and any(word not in tool.name for word in slot.words):
            values[slot.path] = not _NO.search(text[: named.start()])
    texts = by_kind.get("text", [])
    for slot in texts:
        written = _named_text(text, slot)
        if written is None and (len(texts) == 1 or slot is texts[0]):
            written = _free_text(text, keyword, tool, result.used)
        if written and (slot.required or slot.name in text.lower()):
            values[slot.path] = [written] if slot.many else written
    result.missing = [slot for slot in tool.required if slot.path not in values]
    values = result.partial = {path: values[path] for path in order if path in values}
    if result.missing or not tool.callable:
        return result
    if several is not None:
        many = values[several.path]
        result.calls = [_nested({**values, several.path: value}) for value in many]
    else:
        only = [slot for slot in tool.required if slot.kind in ("number", "integer")]
        if len(tool.required) == len(only) == 1 and not only[0].many and len(result.spare) >= 1:
            more = [_number(only[0], a.value) for a in result.spare if a.unit == ""]
            result.calls = [
                _nested({**values, only[0].path: value})
                for value in (values[only[0].path], *(v for v in more if v is not None))
            ]
        else:
            others = [{**values, slot.path: value} for slot, value in result.alternatives]
            result.calls = [_nested(each) for each in (values, *others)]
    return result


def call_with(tool: Tool, values: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """The arguments of a call from values by path, in the order of the schema."""
    return _nested({slot.path: values[slot.path] for slot in tool.slots if slot.path in values})


def operation_call(tools: Sequence[Tool], expression: str) -> tuple[Tool, dict[str, Any]] | None:
    """A call to a tool like add(a, b) for an expression of one operation, if there is such a tool."""
    match = re.fullmatch(r"(-?[\d.]+) (\*\*|[-+*/]) (-?[\d.]+)", expression)
    if not match:
        return None
    words = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "**": "power"}
    terms = terms_of(words[match[2]])
    for tool in tools:
        slots = [slot for slot in tool.required if slot.kind in ("number", "integer")]
        if terms & tool.name_terms and len(slots) == len(tool.required) == 2:
            values = [_number(slots[0], match[1]), _number(slots[1], match[3])]
            if None not in values:
                return tool, _nested({slots[0].path: values[0], slots[1].path: values[1]})
    return None


def _entities(slot: Slot, text: str) -> tuple[Entity, ...]:
    return find(slot, text) if slot.kind in ENTITY_KINDS - {"enum", "name"} else ()


def _fill_pair(slots: list[Slot], text: str, spare: str, result: Filled) -> None:
    """Two slots of one kind, such as from and to: by the word in front, else in order."""
    found = find(slots[0], text) or find(slots[0], spare)
    if slots[0].kind == "currency":
        signs = [entity for entity in found if text[entity.start : entity.end] in "$€£¥"]
        found = tuple(e for e in found if e not in signs) if len(found) > 2 else found
    left = list(found)
    for slot in slots:
        direction = set(slot.words) & (_FROM_WORDS | _TO_WORDS)
        if not direction:
            continue
        heads = r"from" if direction & _FROM_WORDS else r"to|into|in"
        for entity in left:
            if re.search(rf"\b({heads})\s+(the\s+)?$", text[: entity.start], re.IGNORECASE):
                result.partial[slot.path] = entity.value
                result.used.append(entity)
                left.remove(entity)
                break
    if (
        len(left) > 1
        and re.search(r"\d\s*$|^\s*\d", text[: left[1].start])
        and re.match(r".*how (many|much)", text, re.IGNORECASE)
    ):
        # "how many euros are 50 dollars": what has the number is converted from
        left.sort(key=lambda entity: not re.search(r"\d\s*$", text[: entity.start]))
    for slot in sorted(slots, key=lambda slot: bool(set(slot.words) & _TO_WORDS)):
        if slot.path not in result.partial and left:
            entity = left.pop(0)
            result.partial[slot.path] = entity.value
            result.used.append(entity)
    result.alternatives = [(slots[-1], entity.value) for entity in left]


def _fill_codes(slots: list[Slot], text: str, spare: str, result: Filled) -> None:
    """Codes of different shapes: each slot takes one of its own shape, then one that is left."""
    taken: set[str] = set()
    for known in (True, False):
        for slot in slots:
            if slot.path in result.partial:
                continue
            found = [e for e in find(slot, text) or find(slot, spare) if e.value not in taken]
            entity = next((e for e in found if e.known is known), None)
            if entity is not None and (slot.required or entity.known):
                result.partial[slot.path] = entity.value
                result.used.append(entity)
                taken.add(entity.value)


def _free_numbers(text: str, used: list[Entity]) -> list[Amount]:
    return [
        amount
        for amount in amounts(text)
        if not any(
            amount.start < e.end and e.start < amount.end and text[e.start : e.end] not in "$€£¥"
            for e in used
        )
    ]


def _fill_numbers(
    tool: Tool, numbers: list[Amount], values: dict[tuple[str, ...], Any]
) -> list[Amount]:
    """Give numbers to number slots: by unit or name first, then in order. What is left over is returned."""
    slots = [slot for slot in tool.slots if slot.kind in ("number", "integer")]
    left = list(numbers)

    def give(slot: Slot, amount: Amount) -> None:
        value = _number(slot, amount.value, percent=amount.unit == "percent")
        if value is not None:
            values[slot.path] = value
            left.remove(amount)

    for test in (_is_named, _has_unit):
        for slot in slots:
            if slot.many or slot.path in values:
                continue
            amount = next((amount for amount in left if test(slot, amount)), None)
            if amount is not None:
                give(slot, amount)
    for slot in slots:
        if slot.path in values or not slot.required:
            continue
        fitting = [amount for amount in left if _may_fill(slot, amount)]
        if slot.many and fitting:
            many = [_number(slot, amount.value) for amount in fitting]
            values[slot.path] = [value for value in many if value is not None]
            left = [amount for amount in left if amount not in fitting]
        elif fitting:
            give(slot, fitting[0])
    return left


def _is_named(slot: Slot, amount: Amount) -> bool:
    if not _may_fill(slot, amount):
        return False
    return amount.before in slot.words and amount.before not in _FROM_WORDS | _TO_WORDS


def _has_unit(slot: Slot, amount: Amount) -> bool:
    unit = "percent" if slot.unit == "fraction" else slot.unit
    return bool(amount.unit) and (
        amount.unit == unit or amount.unit.rstrip("s") in {w.rstrip("s") for w in slot.words}
    )


def _may_fill(slot: Slot, amount: Amount) -> bool:
    unit = "percent" if slot.unit == "fraction" else slot.unit
    special = ("percent", "years", "months", "days", "money")
    if unit in special:
        return amount.unit in (unit, "")
    if unit == "quantity":
        return amount.unit not in special
    return True


def _number(slot: Slot, text: str, *, percent: bool = False) -> int | float | None:
    """A number in the type and meaning of its slot, or None where it does not fit."""
    value = float(text)
    if slot.unit == "fraction" and (percent or value >= 1):
        value = round(value / 100, 12)
    if value == int(value):
        return int(value)
    return None if slot.kind == "integer" else value


def _typed_choice(slot: Slot, value: str) -> Any:
    return next((choice for choice in slot.choices if str(choice) == value), value)


def _named_text(text: str, slot: Slot) -> str | None:
    """What stands in quotes behind the slot's own name: "with subject 'Hi'"."""
    for mark in quoted(text):
        ahead = re.search(r"([A-Za-z]+)\W*(?:is|as|of|saying)?\W*$", text[: mark.start])
        if ahead and ahead[1].lower() in slot.words:
            return mark.value
    return None


def _free_text(text: str, keyword: str | None, tool: Tool, used: list[Entity]) -> str | None:
    """Words to pass on as they are: in quotes, after a colon, or behind the word that named the tool."""
    marks = quoted(text)
    if marks:
        return marks[0].value
    colon = re.search(r":\s+(.+?)\s*$", text)
    if colon:
        return colon[1]
    if not keyword:
        return None
    behind = re.search(rf"\b{re.escape(keyword)}\w*\b\s*(.+)$", text, re.IGNORECASE | re.DOTALL)
    if not behind:
        return None
    body = behind[1]
    for entity in used:
        named = re.escape(text[entity.start : entity.end])
        body = re.sub(rf"[\s,]*\b(?:in|into|to|from|for)?\s*\b{named}\b.*$", "", body)
    words = body.strip().split()
    while words and (plain(words[0]) in _LEADING or terms_of(plain(words[0])) & tool.name_terms):
        words.pop(0)
    body = " ".join(words).strip(" ?!.,")
    return body if body and body.lower() not in FUNCTION_WORDS else None


def _nested(values: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for path, value in values.items():
        target = arguments
        for step in path[:-1]:
            target = target.setdefault(step, {})
        target[path[-1]] = value
    return arguments
