"""The conversation as the rules need it: turns, each with what was asked, called, returned and answered.

The calls that were made are the memory: nothing that was said earlier is understood a second time. It
forgives what windows do to a conversation: a start in the middle, content in parts, a result without its
call.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from workshop_lib.llm.messages import json_object


@dataclass
class Called:
    """A tool call that was made; no arguments where their JSON was malformed."""

    name: str
    arguments: dict[str, Any] | None
    result: str | None = None

    @property
    def key(self) -> str:
        """Equal for equal calls."""
        return call_key(self.name, self.arguments)


@dataclass
class Turn:
    """A user's message and everything that followed it; `text` is None before the first message in view."""

    text: str | None
    calls: list[Called] = field(default_factory=list)
    answer: str | None = None


@dataclass
class Talk:
    """All that a request shows of a conversation: system messages, and turns of which the last is open."""

    notes: list[str]
    turns: list[Turn]

    def __post_init__(self) -> None:
        self.turns = self.turns or [Turn(None)]
        self.earlier, self.now = self.turns[:-1], self.turns[-1].calls
        self.text = (self.turns[-1].text or "").strip()
        self.told = [turn.text for turn in self.earlier if turn.text]

    def calls_before(self) -> list[Called]:
        """The calls of earlier turns that brought something, latest first."""
        calls = [call for turn in self.earlier for call in turn.calls]
        return [call for call in reversed(calls) if call.result is not None and call.arguments]


def read_talk(messages: Sequence[dict[str, Any]]) -> Talk:
    """The turns of a list of messages; there is always at least one."""
    notes, turns, by_id = list[str](), list[Turn](), dict[str, Called]()
    for message in messages:
        role, text = message.get("role"), text_of(message.get("content"))
        if role in ("system", "developer"):
            notes.append(text)
            continue
        if role == "user" or not turns:
            turns.append(Turn(text if role == "user" else None))
        if role == "assistant":
            turns[-1].answer = text or turns[-1].answer
        for call in message.get("tool_calls") or ():
            by_id[call.get("id") or ""] = called = _called(call.get("function") or {})
            turns[-1].calls.append(called)
        if role == "tool" and (made := by_id.get(message.get("tool_call_id") or "")):
            made.result = text
    return Talk(notes, turns)


def call_key(name: str, arguments: Any) -> str:
    """A text that is equal for equal calls."""
    return f"{name}:{json.dumps(arguments, sort_keys=True, default=str)}"


def leaves(value: Any) -> Iterator[Any]:
    """The single values in arguments, lists and objects opened."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    elif value is not None:
        yield value


def text_of(body: Any) -> str:
    """The text of a message's content, which may be a string or a list of parts."""
    if isinstance(body, list):
        parts = (part.get("text") if isinstance(part, dict) else str(part) for part in body)
        return "\n".join(part for part in parts if isinstance(part, str))
    return body if isinstance(body, str) else ""


def _called(function: dict[str, Any]) -> Called:
    return Called(function.get("name") or "", json_object(function.get("arguments") or "{}"))
