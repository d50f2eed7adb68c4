"""Short labels for the timeline: a name, an argument, a length of time in a few words.

What people typed and what tools were given is shown in a few words, on one line, and trusted in nothing:
whoever puts it into a page escapes it.
"""

import json
from typing import Any

from workshop_lib import harmless

LABEL_LIMIT = 40  # characters of a message or of a tool's arguments
NOTE_LIMIT = 100  # characters of an error
MCP = "temporalio.mcp."  # how the names of an MCP server's activities begin


def shorten(text: object, limit: int = LABEL_LIMIT) -> str:
    """One line of printable characters, cut with an ellipsis. What others typed is not trusted."""
    return harmless.line(text, limit)


def step_name(name: str) -> str:
    """The name of a step; MCP calls are named by server and call."""
    if not name.startswith(MCP):
        return name
    server, _, call = name.removeprefix(MCP).rpartition(".")
    return f"{call} (MCP {server})"


def detail_of(value: Any) -> str:
    """A short label for an argument: the message in it if there is one, else its plain values."""
    if isinstance(value, str):
        return f"“{shorten(value, LABEL_LIMIT - 2)}”" if value.strip() else ""
    if isinstance(value, bool | int | float):
        return str(value)
    if not isinstance(value, dict):
        return ""
    name, arguments = value.get("name", value.get("tool_name")), value.get("arguments")
    if isinstance(name, str) and arguments is not None:
        return shorten(f"{name}({_plain(arguments)})")
    for key in ("message", "question", "query", "text"):
        if isinstance(value.get(key), str):
            return detail_of(value[key])
    return shorten(_plain(value))


def _plain(arguments: Any) -> str:
    """The plain values of a tool's arguments, which may be JSON text."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return str(arguments)
    if not isinstance(arguments, dict):
        return ""
    pairs = ((k, v) for k, v in arguments.items() if isinstance(v, str | int | float))
    return ", ".join(f"{key}={value}" for key, value in pairs)


def duration(seconds: float) -> str:
    """A length of time as people say it: "0.21 s", "5.1 s", "3 min 5 s", "2 h 5 min", "1 d 3 h"."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    for unit, large, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {large} {int(seconds % unit // part)} {small}"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
