"""The arguments of a tool: what a model is told of them, and what it is told when they do not fit.

The same words wherever a tool is offered (here, through Nexus, through MCP). Left out: the tools.
"""

from typing import Any

from pydantic import BaseModel, ValidationError


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
