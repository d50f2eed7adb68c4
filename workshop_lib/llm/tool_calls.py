"""What a model is told of a tool, and whether what it wrote when it asked for a call can be done.

Pure, so that workflow code may use it. Left out: doing it.
"""

import json
import re
from typing import Any

from workshop_lib.llm.messages import ToolCall, ToolSpec

MAX_SCHEMA = 20_000  # bytes, as JSON


def problem_with(call: ToolCall, tools: list[ToolSpec]) -> str | None:
    """What makes a tool call impossible, in words for the model, or None.

    Pure, so that workflow code may call it. Types and values of arguments are left to the tool.
    """
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return f"there is no tool {call.name!r}; there are {', '.join(t.name for t in tools) or 'none'}"
    arguments = arguments_of(call)
    if arguments is None:
        return "the arguments are not a JSON object; write the call again"
    missing = [name for name in tool.parameters.get("required", []) if name not in arguments]
    if missing:
        return f"missing arguments: {', '.join(missing)}"
    return None


def free_name(name: str, owner: str, taken: set[str]) -> str:
    """A tool's name as providers take it (64 characters; letters, digits, _ and -), and as no other tool's.

    Args:
        owner: stands in front where the name is taken.
    """
    wanted = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "tool"
    if wanted in taken:
        wanted = re.sub(r"[^A-Za-z0-9_-]", "_", f"{owner or 'other'}_{wanted}")[:64]
    free, number = wanted, 2
    while free in taken:
        free, number = f"{wanted[:60]}_{number}", number + 1
    return free


def readable_schema(schema: Any) -> bool:
    """Whether a tool's schema says what a call needs, at a bearable length: anybody may have written it."""
    try:
        length = len(json.dumps(schema).encode())
    except (TypeError, ValueError, RecursionError):
        return False
    if not isinstance(schema, dict) or length > MAX_SCHEMA:
        return False
    required, properties = schema.get("required", []), schema.get("properties", {})
    return (
        schema.get("type", "object") == "object"
        and isinstance(properties, dict)
        and all(isinstance(prop, dict | bool) for prop in properties.values())
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
    )


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """A call's arguments, or None where the model did not write a JSON object that can be sent on."""
    try:
        arguments = json.loads(call.arguments or "{}")
        json.dumps(arguments, ensure_ascii=False).encode()  # half a character cannot be sent on
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
