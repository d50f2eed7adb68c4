"""What a model is told of a tool, and what it is told when a call cannot be done.

The same words wherever a tool is offered (here, through Nexus, through MCP). Pure, so that workflow code may
use it. Left out: the tools, and doing a call.
"""

import json
import re
from typing import Any

from pydantic import BaseModel, ValidationError

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


def flat_schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments, without the titles that tell a model nothing."""
    schema = arguments.model_json_schema()
    schema.pop("title", None)
    schema.pop("description", None)
    for prop in schema.get("properties", {}).values():
        prop.pop("title", None)
    return schema


def integer(value: Any) -> Any:
    """An argument before it is read as an integer: JSON Schema calls 5.0 one too, and Python does not."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number(value: Any) -> Any:
    """An argument before it is read as a number: true is none, though Python would take it for 1."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


def explain_validation(error: ValidationError) -> str:
    """A pydantic error as one line that a model can act on; the offending values are left out."""
    parts = (
        f"{'.'.join(str(part) for part in e['loc']) or 'arguments'}: {e['msg']}"
        for e in error.errors(include_input=False, include_url=False)
    )
    # The names are the model's: they may hold line breaks.
    return " ".join(f"wrong arguments: {'; '.join(parts)}".split())
