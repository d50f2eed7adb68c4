"""What a model wrote when it asked for a tool call, and whether that can be done.

Pure, so that workflow code may use it. Left out: doing it.
"""

import json
from typing import Any

from workshop_lib.llm.messages import ToolCall, ToolSpec


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


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """A call's arguments, or None where the model did not write a JSON object that can be sent on."""
    try:
        arguments = json.loads(call.arguments or "{}")
        json.dumps(arguments, ensure_ascii=False).encode()  # half a character cannot be sent on
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
