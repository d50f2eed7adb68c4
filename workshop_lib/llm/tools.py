"""What a model is told of a tool, and what it is told when a call cannot be done.

The same words wherever a tool is offered (here, through Nexus, through MCP). Pure, so that workflow code may
use it. Left out: the tools, and doing a call.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from workshop_lib.harmless import faults
from workshop_lib.llm.messages import ToolCall, ToolSpec, json_object

MAX_SCHEMA = 20_000  # bytes, as JSON

Arguments = TypeVar("Arguments", bound=BaseModel)


class ToolInputError(ValueError):
    """A call that cannot be made as it stands. The text says why, for the model to correct itself."""


def spec_of(name: str, arguments: type[BaseModel], description: str | None = None) -> ToolSpec:
    """A pydantic model as a tool: its fields are what the tool takes.

    Args:
        description: what the tool is for; by default the first paragraph of the model's docstring.
    """
    schema = _untitled(arguments.model_json_schema())
    schema.pop("description", None)
    text = (arguments.__doc__ or "").split("\n\n")[0] if description is None else description
    return ToolSpec(name=name, description=" ".join(text.split()), parameters=schema)


def changes_of(arguments: type[BaseModel]) -> str:
    """What a call with such arguments changes, in words for a person: the model says so in a class variable
    `changes`. Empty for a tool that only looks things up."""
    return str(getattr(arguments, "changes", ""))


def arguments_for(call: ToolCall, tools: Sequence[ToolSpec]) -> dict[str, Any]:
    """A call's arguments. Their types and values are left to the tool.

    Raises:
        ToolInputError: no such tool, no JSON object, or a required argument is missing.
    """
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        names = ", ".join(tool.name for tool in tools) or "none"
        raise ToolInputError(f"there is no tool {call.name!r}; there are {names}")
    arguments = arguments_of(call)
    if arguments is None:
        raise ToolInputError("the arguments are not a JSON object; write the call again")
    missing = [name for name in tool.parameters.get("required", []) if name not in arguments]
    if missing:
        raise ToolInputError(f"missing arguments: {', '.join(missing)}")
    return arguments


def checked(model: type[Arguments], arguments: dict[str, Any]) -> Arguments:
    """Arguments as the tool's own type.

    Raises:
        ToolInputError: they do not fit.
    """
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        raise ToolInputError(explain_validation(error)) from None


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
    arguments = json_object(call.arguments or "{}")
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # half a character, or half a million digits
        return None
    return arguments


def integer(value: Any) -> Any:
    """An argument before it is read as an integer: JSON Schema calls 5.0 one too, and Python does not."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number(value: Any) -> Any:
    """An argument before it is read as a number: true is none, though Python would take it for 1."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


def explain_validation(error: ValidationError) -> str:
    """A pydantic error as one line that a model can act on."""
    return f"wrong arguments: {faults(error, 'arguments')}"


def _untitled(schema: Any) -> Any:
    """A schema without the titles that pydantic makes up: fewer tokens, same meaning."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _untitled(part) for name, part in value.items()}
        if key in ("properties", "$defs")
        else _untitled(value)
        for key, value in schema.items()
        if key != "title"
    }
