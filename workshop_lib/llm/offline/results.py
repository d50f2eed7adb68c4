"""What tools returned: read, quoted in a sentence, and searched for the number that somebody asks for.

Loops and MCP servers wrap results differently; the wrapping is taken off here. What a result says is
data: it is quoted, and never followed.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from workshop_lib.llm.offline.schema import Tool
from workshop_lib.llm.offline.talk import Called, leaves
from workshop_lib.llm.offline.words import content, senses, split_name, word_set

LONGEST_QUOTE = 1500  # characters of one result that an answer repeats
MOST_ENTRIES = 20  # of a list

_WRAPPERS = word_set("result output data content response value text structuredContent")
_VERBS = word_set(
    "get fetch lookup find show read check query calculate compute look up do run list"
)
_CAPITALS = {word.lower(): word for word in ("IP", "ROI", "ID", "URL", "USD", "EUR", "API", "Jira")}
_UNITS = {"c": " °C", "celsius": " °C", "percent": " %", "kmh": " km/h", "kg": " kg", "km": " km"}
# Names of fields that say no more than that here is the result.
_PLAIN = word_set("result value answer text summary conditions message output content")
_MONEY = re.compile(r"price|amount|value|gain|cost|balance|principal(?!.*percent)", re.I)
_ERROR = re.compile(
    r"^\W*(?:\w*error|\w*exception|traceback|failed|failure|invalid|unknown|cannot|can't|could not"
    r"|unable to|no such|not found|missing|unsupported|refused|denied|forbidden)\b", re.I)  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w-])")
_LOW = r"less|fewer|least|\w*(?:cold|cool|low|cheap|small|young|light)e(?:r|st)"
_COMPARES = re.compile(
    rf"\b(?P<low>{_LOW})\b|\b(?:(?:more|most)(?: \w+)?"
    r"|(?!whether|weather|number|other|after|water)\w{3,}(?:er|est))\b", re.I)  # fmt: skip


class Result(NamedTuple):
    """A tool's result: a dict, a list, a number, a bool or a text; and the tool's own words of an error."""

    value: Any
    error: str | None = None


def read_result(text: str) -> Result:
    """A tool's text, unwrapped."""
    value: Any = text.strip()
    for _ in range(6):
        inner = _inside(value)
        if inner is value:
            break
        value = inner
    if isinstance(value, str):
        return Result(value, value if _ERROR.match(value) else None)
    if not isinstance(value, dict) or not _flagged(value):
        return Result(value)
    said = next(
        (v for k in ("error", "message", "detail", "content") if (v := value.get(k))), value
    )
    said = said.get("message", said) if isinstance(said, dict) else said
    return Result(value, said if isinstance(said, str) else read_result(json.dumps(said)).value)


def came(called: Called | None) -> bool:
    """Did a call bring something that is no error?"""
    return bool(called and called.result is not None and read_result(called.result).error is None)


def fields(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """The leaves of a result with the name that each has; those of a list in their order."""
    if isinstance(value, dict):
        parts = [(f"{name}_{key}" if name else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        parts = [(name, inner) for inner in value]
    else:
        return [(name, value)]
    return [leaf for key, inner in parts for leaf in fields(inner, key)]


def number_in(called: Called, hint: str) -> str | None:
    """The number that a result is about, as it is written there; None where it holds none.

    Args:
        hint: the words of the question; a number that they name wins over one that comes first.
    """
    if not came(called):
        return None
    value, said = read_result(called.result or "").value, content(hint)
    if isinstance(value, str):
        return _number_in_text(value, said)
    about, sent = (
        content(" ".join(split_name(called.name))),
        set(map(str, leaves(called.arguments))),
    )
    best, worth = None, -99.0
    for name, number in fields(value):
        key = content(" ".join(split_name(name)))
        rank = 3 * len(key & said) + 2 * len(key & about) - 0.5 * len(key - said - about)
        rank += bool(_MONEY.search(name) or "total" in name) - 4 * (str(number) in sent)
        if _is_number(number) and rank > worth:
            best, worth = number, rank
    return None if best is None else _written(best)


def _number_in_text(text: str, said: set[str]) -> str | None:
    best, worth = None, -1
    for match in _NUMBER.finditer(text):
        before = re.split(r"[,;:.]\s", text[: match.start()])[-1]
        near = (
            re.findall(r"[^\W\d_]+", before)[-2:]
            + re.findall(r"[^\W\d_]+", text[match.end() :])[:1]
        )
        rank = sum(bool(senses(word) & said) for word in near)
        if rank > worth:
            best, worth = match[0].replace(",", ""), rank
    return best


def describe(called: Called, tool: Tool | None) -> str:
    """A sentence that quotes what a call returned. Nothing is added to it."""
    if called.result is None:
        return f"The tool {called.name} has returned nothing."
    value, error = read_result(called.result)
    arguments = dict(fields(called.arguments))
    if tool and tool.expression:
        expression = arguments.get(tool.expression.name)
        if error:
            return _ended(f"{expression} could not be calculated: {error}")
        named = [v for k, v in fields(value) if k != "expression"]
        return _ended(f"{expression} = {_value(named[0] if len(named) == 1 else value)}")
    subject = _subject(called.name, arguments)
    if error:
        reason = re.sub(r"^error: *", "", error, flags=re.I)
        return _ended(f"{subject}: the tool {called.name} reports an error: {reason}")
    if isinstance(value, dict):
        echoes = {str(v).lower() for v in arguments.values() if isinstance(v, str)}
        new = {k: v for k, v in value.items() if k == "currency" or str(v).lower() not in echoes}
        return _ended(f"{subject}: {_fields(new) or 'nothing more than the question held'}")
    text = _value(value).strip() or "the tool returned an empty result"
    for told in arguments.values():  # the subject says it already
        text = re.sub(rf"^{re.escape(str(told))}: ", "", text, flags=re.I)
    whole = re.match(r"[A-Z].*\b(?:is|are|was|has|have|will)\b", text) or len(text) > 200
    return _ended(text if whole else f"{subject}: {text}")


def compare(question: str, calls: Sequence[Called]) -> str:
    """Which of several results a question with "warmer" or "cheapest" means; empty where it asks for none."""
    word = _COMPARES.search(question)
    numbers = [(float(found), called) for called in calls if (found := number_in(called, question))]
    if not word or len(calls) < 2 or len(numbers) < len(calls) or len({n for n, _ in numbers}) == 1:
        return ""
    number, called = (min if word["low"] else max)(numbers, key=lambda pair: pair[0])
    names = ", ".join(map(str, leaves(called.arguments)))
    return f"Of these, {names} is {'the ' * word[0].endswith('st')}{word[0].lower()} ({_written(number)})."


def _subject(name: str, arguments: dict[str, Any]) -> str:
    """ "The weather in Seattle" or "Stock price for AAPL", from the tool's name and the arguments."""
    words = [word.lower() for word in split_name(name)]
    words = [word for word in words if word not in _VERBS] or words
    subject = " ".join(_CAPITALS.get(word, word) for word in words)
    subject = subject[:1].upper() + subject[1:]
    told = [(k, _value(v)) for k, v in arguments.items() if k and not isinstance(v, bool)]
    if len(told) != 1:
        listed = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in told)
        return f"{subject} ({listed})" if listed else subject
    if told[0][0] in ("city", "location", "place", "town", "country"):
        return f"The {subject[:1].lower()}{subject[1:]} in {told[0][1]}"
    return f"{subject} for {told[0][1]}"


def _fields(named: dict[str, Any]) -> str:
    """The fields of an object, each with its name where that says something."""
    currency, said = named.get("currency"), []
    money = [key for key in named if _MONEY.search(key) and _is_number(named[key])]
    for key, value in named.items():
        if value is None or (key == "currency" and money):
            continue
        label, _, ending = key.rpartition("_")
        unit = _UNITS.get(ending, "") if label else ""
        words = " ".join(_CAPITALS.get(word, word) for word in (label if unit else key).split("_"))
        alone = key in _PLAIN or unit == " °C" or len(named) - bool(currency and money) == 1
        unit = f" {currency}" if currency and key in money else unit
        said.append(f"{'' if alone else words + ' '}{_value(value, money=key in money)}{unit}")
    return ", ".join(said)


def _value(value: Any, *, money: bool = False) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and money and round(value, 2) == value != int(value):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return _fields(value)
    if isinstance(value, list):
        more = [f"and {len(value) - MOST_ENTRIES} more"] if len(value) > MOST_ENTRIES else []
        return "; ".join([*map(_value, value[:MOST_ENTRIES]), *more]) or "none"
    return _written(value)


def _written(value: Any) -> str:
    whole = isinstance(value, float) and value == int(value) and abs(value) < 1e15
    return str(int(value)) if whole else str(value)


def _inside(value: Any) -> Any:
    """What is inside of JSON in a string, a list of one, MCP's text parts, or {"result": …}."""
    if isinstance(value, str) and (
        value[:1] in '{["' or re.fullmatch(r"-?\d[\d.]*|true|false", value)
    ):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, list) and len(value) == 1:
        return value[0]
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, dict) and "text" in v for v in value)
    ):
        return "\n".join(str(part["text"]) for part in value)
    if not isinstance(value, dict) or _flagged(value):
        return value
    told = {k: v for k, v in value.items() if v is not None and k not in ("isError", "ok", "type")}
    return next(iter(told.values())) if len(told) == 1 and set(told) <= _WRAPPERS else value


def _flagged(value: dict[str, Any]) -> bool:
    """True where a wrapper says that it holds an error."""
    wrong = value.get("isError") or value.get("error") or value.get("status") in ("error", "failed")
    return bool(wrong or value.get("ok") is False)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return bool(re.fullmatch(r"-?\d+(\.\d+)?", value))  # pydantic writes decimals as strings
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ended(text: str) -> str:
    text = text.strip()
    if len(text) > LONGEST_QUOTE:
        return f"{text[:LONGEST_QUOTE]} … (cut here; it has {len(text)} characters)"
    return text if text.endswith((".", "!", "?", "…")) else text + "."
