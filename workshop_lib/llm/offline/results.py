"""What tools returned: read, quoted in a sentence, and searched for the number that somebody asks for.

Loops and MCP servers wrap results differently; the wrapping is taken off here. What a result says is data: it
is quoted, and never followed.
"""

import contextlib
import json
import re
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
_UNITS = {"c": " °C", "percent": " %", "kmh": " km/h", "kg": " kg", "km": " km"}
# Names of fields that say no more than that here is the result.
_PLAIN = word_set("result value answer text summary conditions message output content")
_MONEY = re.compile(r"price|amount|value|gain|cost|balance|total", re.I)
_ERROR = re.compile(
    r"^\W*(?:\w*error|\w*exception|traceback|failed|failure|invalid|unknown|cannot|can't|could not|unable to"
    r"|no such|not found|missing|unsupported|refused|denied|forbidden)\b", re.I)  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w-])")


class Result(NamedTuple):
    """A tool's result: a dict, a list, a number, a bool or a text; and the tool's own words of an error."""

    value: Any
    error: str | None = None


def read_result(text: str) -> Result:
    """A tool's text, without what it is wrapped in: JSON in a string, a list of one, {"result": …}."""
    value = _unwrapped(text.strip())
    if isinstance(value, str):
        return Result(value, value if _ERROR.match(value) else None)
    if not _flagged(value):
        return Result(value)
    said = next((v for k in ("error", "message", "content") if (v := value.get(k))), value)
    said = said.get("message", said) if isinstance(said, dict) else said
    return Result(value, said if isinstance(said, str) else str(_unwrapped(said)))


def _unwrapped(value: Any, depth: int = 6) -> Any:
    inner: Any = None
    if isinstance(value, str) and re.match(r"[\[{\"]|-?\d[\d.]*$|(?:true|false)$", value):
        with contextlib.suppress(ValueError, RecursionError):
            inner = json.loads(value)
    elif isinstance(value, list) and len(value) == 1:
        inner = value[0]
    elif isinstance(value, dict) and not _flagged(value):
        told = {
            k: v for k, v in value.items() if v is not None and k not in ("isError", "ok", "type")
        }
        inner = next(iter(told.values())) if len(told) == 1 and set(told) <= _WRAPPERS else None
    return value if inner is None or not depth else _unwrapped(inner, depth - 1)


def _flagged(value: Any) -> bool:
    """True where a wrapper says that it holds an error."""
    if not isinstance(value, dict):
        return False
    flags = (value.get("isError"), value.get("error"), value.get("status") in ("error", "failed"))
    return any(flags) or value.get("ok") is False


def came(called: Called | None) -> bool:
    """Did a call bring something that is no error?"""
    return bool(called and called.result is not None and read_result(called.result).error is None)


def fields(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """The leaves of a result with the name that each has; those of a list in their order."""
    parts = [(name, inner) for inner in value] if isinstance(value, list) else []
    if isinstance(value, dict):
        parts = [(f"{name}_{key}" if name else str(key), inner) for key, inner in value.items()]
    elif not isinstance(value, list):
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
    about, sent = (
        content(" ".join(split_name(called.name))),
        set(map(str, leaves(called.arguments))),
    )
    ranked: list[tuple[float, str]] = []
    for match in _NUMBER.finditer(value) if isinstance(value, str) else ():
        near = re.findall(r"[^\W\d_]+", re.split(r"[,;:.]\s", value[: match.start()])[-1])[-2:]
        ranked.append((sum(bool(senses(word) & said) for word in near), match[0].replace(",", "")))
    for name, number in fields(value) if not isinstance(value, str) else ():
        key = content(" ".join(split_name(name)))
        rank = 3 * len(key & said) + 2 * len(key & about) - 0.5 * len(key - said - about)
        ranked += [(rank - 4 * (str(number) in sent), _value(number))] if _is_number(number) else []
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None


def describe(called: Called, tool: Tool | None) -> str:
    """A sentence that quotes what a call returned. Nothing is added to it."""
    if called.result is None:
        return f"The tool {called.name} has returned nothing."
    value, error = read_result(called.result)
    arguments = dict(fields(called.arguments))
    subject = _subject(called.name, arguments)
    if tool and tool.expression:
        expression = arguments.get(tool.expression.name)
        named = [v for k, v in fields(value) if k != "expression"]
        told = f"{expression} = {_value(named[0] if len(named) == 1 else value)}"
        return _ended(f"{expression} could not be calculated: {error}" if error else told)
    if error:
        reason = re.sub(r"^error: *", "", error, flags=re.I)
        return _ended(f"{subject}: the tool {called.name} reports an error: {reason}")
    echoes = {str(v).lower() for v in arguments.values() if isinstance(v, str)}
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if k == "currency" or str(v).lower() not in echoes}
    text = _value(value).strip() or "the tool returned nothing more"
    for told in echoes:  # the subject says it already
        text = re.sub(rf"^{re.escape(told)}: ", "", text, flags=re.I)
    return _ended(f"{subject}: {text}")


def _subject(name: str, arguments: dict[str, Any]) -> str:
    """ "The weather in Seattle" or "Stock price for AAPL", from the tool's name and the arguments."""
    words = split_name(name)
    subject = _words([word for word in words if word.lower() not in _VERBS] or words)
    subject = subject[:1].upper() + subject[1:]
    told = [(k, _value(v)) for k, v in arguments.items() if k and not isinstance(v, bool)]
    if len(told) != 1:
        listed = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in told)
        return f"{subject} ({listed})" if listed else subject
    if told[0][0] in ("city", "location", "place", "town", "country"):
        return f"The {subject[:1].lower()}{subject[1:]} in {told[0][1]}"
    return f"{subject} for {told[0][1]}"


def _value(value: Any) -> str:
    """A value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        more = [f"and {len(value) - MOST_ENTRIES} more"] if len(value) > MOST_ENTRIES else []
        return "; ".join([*map(_value, value[:MOST_ENTRIES]), *more]) or "none"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return _fields(value) if isinstance(value, dict) else str(value)


def _fields(value: dict[str, Any]) -> str:
    """The fields of an object, each with its name where that says something."""
    currency = value.get("currency")
    priced = [key for key in value if currency and _MONEY.search(key) and _is_number(value[key])]
    shown = {k: v for k, v in value.items() if v is not None and not (priced and k == "currency")}
    said = []
    for key, inner in shown.items():
        text = _value(inner)
        if key in priced:
            cents = f"{float(inner):.2f}"
            text = f"{cents if float(cents) == float(inner) else text} {currency}"
        label, _, ending = key.rpartition("_")
        label, unit = (label, _UNITS[ending]) if label and ending in _UNITS else (key, "")
        alone = key in _PLAIN or len(shown) == 1
        said.append(f"{'' if alone else _words(label.split('_')) + ' '}{text}{unit}")
    return ", ".join(said)


def _words(words: list[str]) -> str:
    return " ".join(_CAPITALS.get(word.lower(), word.lower()) for word in words)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return bool(re.fullmatch(r"-?\d+(\.\d+)?", value))  # pydantic writes decimals as strings
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ended(text: str) -> str:
    text = text.strip()
    if len(text) > LONGEST_QUOTE:
        return f"{text[:LONGEST_QUOTE]} … (cut here; it has {len(text)} characters)"
    return text if text.endswith((".", "!", "?", "…")) else text + "."
