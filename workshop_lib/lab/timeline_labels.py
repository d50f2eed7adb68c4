"""Short labels out of payloads and failures, for the timeline.

What people typed and what tools were given is shown in a few words, on one line, and trusted in nothing:
the view escapes it. A payload that is not plain JSON (encrypted, binary) gets no label.

Left out: codecs. A timeline needs no key to be drawn.
"""

import json
from collections.abc import Sequence
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from workshop_lib import harmless

MCP_PREFIX = "temporalio.mcp."
LABEL_LIMIT = 40  # characters of a message or of a tool's arguments
NOTE_LIMIT = 100  # characters of an error


def shorten(text: object, limit: int = LABEL_LIMIT) -> str:
    """One line of printable characters, cut with an ellipsis. What others typed is not trusted."""
    return harmless.line(text, limit)


def decode(payload: Payload) -> Any:
    """The value of a JSON payload, or None: encrypted or binary payloads get no label."""
    if not payload.metadata.get("encoding", b"").startswith(b"json/"):
        return None
    try:
        return json.loads(payload.data)
    except ValueError:
        return None


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


def first_detail(payloads: Sequence[Payload]) -> str:
    """A label for the first of a call's arguments."""
    return detail_of(decode(payloads[0])) if payloads else ""


def summary_of(event: HistoryEvent) -> str:
    """What the workflow's author wrote about a timer or an activity."""
    text = decode(event.user_metadata.summary) if event.user_metadata.HasField("summary") else None
    return shorten(text) if isinstance(text, str) else ""


def activity_label(name: str, payloads: Sequence[Payload]) -> tuple[str, str]:
    """The name and the detail of an activity; MCP calls are named by server and call."""
    if name.startswith(MCP_PREFIX):
        server, _, call = name.removeprefix(MCP_PREFIX).rpartition(".")
        name = f"{call} (MCP {server})"
    return name, first_detail(payloads)


def failure_text(failure: Failure) -> str:
    """A failure in one line: its innermost message, which is the one that says what happened."""
    while failure.HasField("cause"):
        failure = failure.cause
    text = failure.message
    if failure.HasField("timeout_failure_info") and "timeout" not in text.lower():
        text = f"timeout {text}"
    return shorten(text, NOTE_LIMIT)
