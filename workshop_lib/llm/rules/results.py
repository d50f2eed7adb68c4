"""What a tool returned, read: JSON or text, a value or an error.

Loops, SDKs and MCP servers wrap results differently; the wrapping is taken off here. What a result says is
data: nothing in it is ever followed. Left out: the sentence that quotes it.
"""

import json
import re
from typing import Any, NamedTuple

_WRAPPERS = (
    "result",
    "results",
    "output",
    "data",
    "content",
    "response",
    "value",
    "text",
    "structuredContent",
)
_ERROR_TEXT = re.compile(
    r"^\W*(\w*error\b|\w*exception\b|traceback|failed\b|failure\b|invalid\b|unknown\b|cannot\b|"
    r"can't\b|could not\b"
    r"|unable to\b|no such\b|not found\b|missing\b|unsupported\b|tool .{1,80}(failed|not found|"
    r"does not exist)"
    r"|an error occurred|refused\b|denied\b|unauthori[sz]ed\b|forbidden\b)",
    re.IGNORECASE,
)
_PAIR = re.compile(r"(\w+)=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|Decimal\('[^']*'\)|[^\s,()]+)")
_NUMBER = re.compile(
    r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.]*\d)"
)


class Result(NamedTuple):
    """A tool's result.

    Attributes:
        value: a dict, a list, a number, a bool or a text.
        error: the tool's own words, where it failed.
    """

    value: Any
    error: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The result's named values, flat; empty where it has no names."""
        return _flat(self.value) if isinstance(self.value, dict) else {}


def read_result(text: str) -> Result:
    """A tool's text, unwrapped."""
    value = _unwrapped(_parsed(text))
    error = _error_of(value)
    return Result(value, error)


def number_in(result: Result, hints: frozenset[str] = frozenset()) -> str | None:
    """The number that a result is about, as it is written there; None where there is none or a doubt.

    Args:
        hints: lower-case words of the question; a field named by one of them wins.
    """
    if result.error:
        return None
    value = result.value
    if _is_number(value):
        return _digits(value)
    if isinstance(value, str):
        after = re.search(r"=\s*(-?[\d,]*\.?\d+(?:[eE][-+]?\d+)?)\s*\W*$", value)
        if after:
            return after[1].replace(",", "")
        numbers = _NUMBER.findall(value)
        return numbers[0].replace(",", "") if len(set(numbers)) == 1 else None
    numeric = {key: field for key, field in result.fields.items() if _is_number(field)}
    named = [key for key in numeric if hints & set(key.lower().split("_"))]
    for keys in (
        named,
        [
            key
            for key in numeric
            if re.search(r"price|value|total|amount|result|answer|temperature|converted", key)
        ],
        list(numeric),
    ):
        if len(keys) == 1 or (keys and keys is named):
            return _digits(numeric[keys[0]])
    if len(numeric) > 1:
        return _digits(next(iter(numeric.values())))
    return None


def _parsed(text: str) -> Any:
    stripped = text.strip()
    if stripped[:1] in '{["' or re.fullmatch(
        r"-?\d+(\.\d+)?([eE][-+]?\d+)?|true|false|null", stripped
    ):
        try:
            return json.loads(stripped)
        except ValueError:
            return text.strip()
    # A pydantic model that was turned into a string: ticker='AAPL' price=185.5
    body = re.fullmatch(r"\w*\(?((?:\w+=.+?)(?:[\s,]+\w+=.+?)*)\)?", stripped, re.DOTALL)
    pairs = _PAIR.findall(stripped) if body and len(stripped) < 2000 else []
    if pairs and len("".join(f"{key}={value}" for key, value in pairs)) >= 0.7 * len(
        stripped
    ) - 2 * len(pairs):
        return {key: _literal(value) for key, value in pairs}
    return stripped


def _literal(text: str) -> Any:
    decimal = re.fullmatch(r"Decimal\('([^']*)'\)", text)
    text = decimal[1] if decimal else text
    if text[:1] in "'\"":
        return text[1:-1]
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:
        return text


def _unwrapped(value: Any) -> Any:
    for _ in range(6):
        if isinstance(value, str):
            inner = _parsed(value)
            if isinstance(inner, str):
                return inner
            value = inner
        elif isinstance(value, list) and len(value) == 1:
            value = value[0]
        elif (
            isinstance(value, list)
            and value
            and all(isinstance(part, dict) and part.get("type") == "text" for part in value)
        ):
            value = "\n".join(str(part.get("text", "")) for part in value)
        elif isinstance(value, dict) and value.get("type") == "text" and "text" in value:
            value = value["text"]
        elif (
            isinstance(value, dict)
            and not _flagged(value)
            and (
                keys := [
                    key
                    for key in value
                    if value[key] is not None and key not in ("isError", "ok", "success", "status")
                ]
            )
            and len(keys) == 1
            and keys[0] in _WRAPPERS
        ):
            value = value[keys[0]]
        else:
            return value
    return value


def _flagged(value: dict[str, Any]) -> bool:
    """True where a wrapper says that it holds an error."""
    return bool(
        value.get("isError") or value.get("is_error") or value.get("error")
        or value.get("ok") is False or value.get("success") is False
        or str(value.get("status", "")).lower() in ("error", "failed", "failure")
    )  # fmt: skip


def _error_of(value: Any) -> str | None:
    if isinstance(value, dict) and _flagged(value):
        for key in ("error", "message", "detail", "reason", "content", "text", "result"):
            inner = value.get(key)
            if inner and not isinstance(inner, bool):
                inner = _unwrapped(inner)
                if isinstance(inner, dict):
                    inner = inner.get("message") or inner.get("detail") or json.dumps(inner)
                return str(inner)
        return json.dumps(value)
    if isinstance(value, str) and _ERROR_TEXT.match(value):
        return value
    return None


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, field in value.items():
        name = f"{prefix}_{key}" if prefix else str(key)
        if isinstance(field, dict):
            fields |= _flat(field, name)
        else:
            fields[name] = field
    return fields


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return bool(re.fullmatch(r"-?\d+(\.\d+)?", value))  # pydantic writes decimals as strings
    return isinstance(value, int | float) and not isinstance(value, bool)


def _digits(value: Any) -> str:
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return str(value)
