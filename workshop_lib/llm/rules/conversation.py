"""A conversation as the offline rules read it: turns, each with what was called and what came back.

It takes messages in the shape of the chat completions API and forgives what windows and SDKs do to them:
a start in the middle, content in parts, a result without its call. Left out: what the words mean.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """A tool call that was made.

    Attributes:
        arguments: as read from the call's JSON; None where that was malformed.
        result: the tool's text; None where none came.
    """

    tool: str
    arguments: dict[str, Any] | None
    result: str | None = None

    @property
    def key(self) -> str:
        """Equal for equal calls."""
        return call_key(self.tool, self.arguments)


@dataclass
class Turn:
    """A user's message and everything that followed it.

    Attributes:
        question: None for what stands before the first user's message that can be seen.
        answer: what the assistant said in the end; None while the turn is open.
    """

    question: str | None
    records: list[Record] = field(default_factory=list)
    answer: str | None = None


@dataclass
class Conversation:
    """All that a request shows of a conversation.

    Attributes:
        notes: texts of the system messages.
        turns: oldest first. The last one is open.
    """

    notes: list[str]
    turns: list[Turn]

    @property
    def current(self) -> Turn:
        """The turn to be answered."""
        return self.turns[-1]

    @property
    def begins_in_the_middle(self) -> bool:
        """True where older messages have been left out in front."""
        return self.turns[0].question is None


def call_key(tool: str, arguments: Any) -> str:
    """A text that is equal for equal calls."""
    return f"{tool}:{json.dumps(arguments, sort_keys=True, default=str)}"


def read_conversation(messages: Sequence[dict[str, Any]]) -> Conversation:
    """The turns of a list of messages. There is always at least one."""
    conversation = Conversation(notes=[], turns=[])
    by_id: dict[str, Record] = {}
    for message in messages:
        role, text = message.get("role"), _text(message.get("content"))
        if role in ("system", "developer"):
            conversation.notes.append(text)
            continue
        if role == "user" or not conversation.turns:
            conversation.turns.append(Turn(text if role == "user" else None))
        turn = conversation.turns[-1]
        if role == "assistant":
            turn.answer = text or turn.answer
            for call in message.get("tool_calls") or ():
                record = _record(call)
                turn.records.append(record)
                by_id[call.get("id") or ""] = record
        elif role == "tool":
            known = by_id.get(message.get("tool_call_id") or "")
            if known is not None:
                known.result = text
    if not conversation.turns:
        conversation.turns.append(Turn(None))
    return conversation


def _record(call: dict[str, Any]) -> Record:
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = None
    return Record(function.get("name") or "", arguments if isinstance(arguments, dict) else None)


def _text(content: Any) -> str:
    """The text of a message's content, which may be a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else str(part) for part in content)
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""
