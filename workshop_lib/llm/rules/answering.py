"""Words around tool results. Every value in an answer is quoted from a result or from the question.

Left out: judgement. Where one result must be compared with another, only their numbers are.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from workshop_lib.llm.rules.conversation import Record
from workshop_lib.llm.rules.lexicon import words_in
from workshop_lib.llm.rules.results import Result, read_result
from workshop_lib.llm.rules.tool_schema import Tool

LONGEST_QUOTE = 1500  # characters of one result that an answer repeats

_VERBS = words_in(
    """
        get fetch lookup find show read check query retrieve calculate compute look up do run
        list
        """
)
_CAPITALS = {
    "ip": "IP",
    "roi": "ROI",
    "id": "ID",
    "url": "URL",
    "usd": "USD",
    "eur": "EUR",
    "api": "API",
    "jira": "Jira",
}
_UNITS = {
    "_c": " °C", "_celsius": " °C", "_f": " °F", "_fahrenheit": " °F", "_percent": " %", "_pct": " %",
    "_percentage": " %", "_kmh": " km/h", "_kph": " km/h", "_mph": " mph", "_mm": " mm",
    "_km": " km", "_kg": " kg",
    "_usd": " USD", "_eur": " EUR", "_gbp": " GBP", "_days": " days", "_years": " years", "_ms": " ms",
    "_seconds": " s", "_hours": " hours", "_minutes": " minutes",
}  # fmt: skip
# Names of fields that say no more than that here is the result.
_PLAIN_FIELDS = words_in(
    """
        result value answer text summary description conditions condition message output content
        """
)
_SELF_EXPLAINING = re.compile(r"°|km/h|mph")
_WARMER = re.compile(
    r"\b(warmer|hotter|higher|more expensive|pricier|bigger|greater|larger|warmest|hottest|"
    r"highest|most|more|longer|better)\b",
    re.IGNORECASE,
)
_COLDER = re.compile(
    r"\b(colder|cooler|lower|cheaper|less expensive|smaller|coldest|coolest|lowest|cheapest|"
    r"fewer|least|less)\b",
    re.IGNORECASE,
)


def describe_record(record: Record, tool: Tool | None) -> str:
    """A sentence that quotes what a call returned; empty where nothing came back."""
    if record.result is None:
        return ""
    result = read_result(record.result)
    arguments = _leaf_arguments(record.arguments or {})
    subject = _subject(record.tool, arguments)
    if tool is not None and tool.calculates:
        expression = str(arguments.get(tool.required[0].name, ""))
        return _calculation(expression, result)
    if result.error is not None:
        reason = re.sub(r"^error: *", "", _cut(result.error), flags=re.IGNORECASE)
        return f"{subject}: the tool {record.tool} reports an error: {_ended(reason)}"
    return _quoted(subject, arguments, result)


def compare(question: str, named: Sequence[tuple[str, str]]) -> str:
    """Which of two or more numbers a question with "warmer" or "cheaper" means; else empty.

    Args:
        named: what each number belongs to, and the number.
    """
    high, low = _WARMER.search(question), _COLDER.search(question)
    if len(named) < 2 or not (high or low) or len({float(number) for _, number in named}) == 1:
        return ""
    pick = max if high and not low else min
    name, number = pick(named, key=lambda pair: float(pair[1]))
    word = (high or low)[0].lower() if (high or low) else ""  # type: ignore[index]
    return f"Of these, {name} is {word if not word.endswith(('est', 'most')) else 'the ' + word} ({number})."


def say_what_is_missing(tool: Tool, missing: Sequence[str]) -> str:
    """Why a tool that fits is not called."""
    wanted = _listed([name.replace("_", " ") for name in missing]) or "other arguments"
    return (
        f"I cannot answer that as it stands: the nearest tool is {tool.name}, and it needs {wanted}, "
        "which I do not find in your message. I make no values up: please name it."
    )


def list_tools(tools: Sequence[Tool]) -> str:
    """The tools in one line."""
    if not tools:
        return "I have no tools here."
    described = [
        f"{tool.name} ({first_sentence(tool.description)})" if tool.description else tool.name
        for tool in tools[:20]
    ]
    return f"Tools I have: {'; '.join(described)}."


def first_sentence(text: str) -> str:
    """A description's first sentence, without its full stop."""
    first = re.split(r"(?<=[a-z\d)])\.(?:\s|$)|\n", text.strip(), maxsplit=1)[0]
    return first.strip().rstrip(".")[:160]


def label_of(arguments: dict[str, Any]) -> str:
    """What a call was about, in a word or two."""
    return ", ".join(_value(value) for value in _leaf_arguments(arguments).values())


def _calculation(expression: str, result: Result) -> str:
    if result.error is not None:
        return f"{expression} could not be calculated: {_ended(_cut(result.error))}"
    value = result.value
    fields = {key: field for key, field in result.fields.items() if key != "expression"}
    if len(fields) == 1:
        value = next(iter(fields.values()))
    if isinstance(value, str) and (
        expression.replace(" ", "") in value.replace(" ", "") or " " in value
    ):
        return _ended(_cut(value))
    if fields and len(fields) > 1:
        return f"{expression}: {_ended(_cut(_fields(fields)))}"
    return f"{expression} = {_cut(_value(value))}"


def _subject(tool: str, arguments: dict[str, Any]) -> str:
    """ "The weather in Seattle" or "Stock price for AAPL", from the tool's name and the arguments."""
    words = (
        re.sub(r"(?<=[a-z])(?=[A-Z])", " ", tool)
        .replace("_", " ")
        .replace("-", " ")
        .lower()
        .split()
    )
    words = [word for word in words if word not in _VERBS] or words
    name = " ".join(_CAPITALS.get(word, word) for word in words)
    name = name[:1].upper() + name[1:]
    texts = [(key, value) for key, value in arguments.items() if not isinstance(value, bool)]
    if len(texts) == 1:
        key, value = texts[0]
        if key in ("city", "location", "place", "town", "country"):
            return f"The {name[:1].lower() + name[1:]} in {_value(value)}"
        return f"{name} for {_value(value)}"
    if texts:
        listed = ", ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in texts)
        return f"{name} ({listed})"
    return name


def _quoted(subject: str, arguments: dict[str, Any], result: Result) -> str:
    echoes = {str(value).lower() for value in arguments.values()}
    fields = {
        key: value
        for key, value in result.fields.items()
        if value is not None
        and not (isinstance(value, str) and value.lower() in echoes and key != "currency")
    }
    if fields:
        return f"{subject}: {_ended(_cut(_fields(fields)))}"
    if isinstance(result.value, dict):
        return f"{subject}: the tool returned nothing more than the question held."
    text = _value(result.value).strip()
    if not text:
        return f"{subject}: the tool returned an empty result."
    for value in arguments.values():
        if isinstance(value, str) and text.lower().startswith(f"{value.lower()}: "):
            text = text[len(value) + 2 :]  # the subject says it already
    if re.match(r"[A-Z].*\b(is|are|was|has|have|will)\b", text) or len(text) > 200:
        return _ended(_cut(text))
    return f"{subject}: {_ended(_cut(text))}"


def _fields(fields: dict[str, Any]) -> str:
    currency = fields.get("currency")
    said: list[str] = []
    for key, value in fields.items():
        if key == "currency" and any(_is_money(other) for other in fields):
            continue
        unit = next((sign for ending, sign in _UNITS.items() if key.lower().endswith(ending)), "")
        label = key
        if unit:
            label = re.sub(r"_[a-z]+$", "", key)
        if (
            currency
            and _is_money(key)
            and isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            unit = f" {currency}"
        written = _value(value, money=_is_money(key)) + unit
        words = " ".join(_CAPITALS.get(word, word) for word in label.lower().split("_"))
        if (
            label in _PLAIN_FIELDS
            or _SELF_EXPLAINING.search(unit)
            or len(fields) == 1
            or (currency and len(fields) == 2 and _is_money(key))
        ):
            said.append(written)
        else:
            said.append(f"{words} {written}")
    return ", ".join(said)


def _is_money(key: str) -> bool:
    return bool(
        re.search(r"price|amount|value|gain|cost|total_price|balance|principal|profit", key.lower())
    ) and not key.lower().endswith(("percent", "pct"))


def _value(value: Any, *, money: bool = False) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if money and value != int(value) and round(value, 2) == value:
            return f"{value:.2f}"
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    if isinstance(value, list):
        shown = "; ".join(
            _fields({k: v for k, v in item.items() if v is not None})
            if isinstance(item, dict)
            else _value(item)
            for item in value[:20]
        )
        return (
            shown + (f"; and {len(value) - 20} more" if len(value) > 20 else "")
            if value
            else "none"
        )
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _leaf_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in arguments.items():
        leaves |= value if isinstance(value, dict) else {key: value}
    return leaves


def _cut(text: str) -> str:
    if len(text) <= LONGEST_QUOTE:
        return text
    return f"{text[:LONGEST_QUOTE]} … (cut here; the result has {len(text)} characters)"


def _ended(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…", ".)")) else text + "."


def _listed(items: list[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
