"""What the model is sent of a conversation: one policy, in one place.

Without a policy every call carries everything said so far, and both the bill and the event history grow
with the square of the conversation. This one sends the instructions, a note of how the conversation began,
and the latest messages. Left out: summaries by a model.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from workshop_lib.llm.messages import Message
from workshop_lib.temporal.bounded import as_text, cut

OPENING_NOTE = "The conversation began with: "

Part = TypeVar("Part")


class ContextWindow(BaseModel):
    """A sliding window over the messages.

    Attributes:
        max_messages: how many messages are kept, counted back from the latest. The turn that is under way
            is always kept whole, and the window never begins in the middle of a turn: a tool's result
            without its call is refused by most providers.
        max_result_chars: a tool's result is cut to this length.
        opening_chars: how much of the first message the note repeats.
        max_bytes: of all that is kept, as JSON. Where it is more, long texts in it are cut further: a
            request that is too large for the server would hold the conversation up for ever.
    """

    model_config = ConfigDict(frozen=True)

    max_messages: int = 16
    max_result_chars: int = 2_000
    opening_chars: int = 200
    max_bytes: int = 500_000

    def select(self, instructions: str, messages: Sequence[Message]) -> list[Message]:
        """The messages to send, for a conversation of any length.

        Args:
            instructions: the system message.
            messages: the whole conversation, oldest first, beginning with a user's message.
        """
        roles = [message.role for message in messages]
        first = self._first_kept(roles)
        system = self._system(instructions, messages[0].content if first else None)
        kept = [self._shortened(m) for m in messages[first:]]
        return [Message.system(system), *self._fitting(kept, _shorter_message)]

    def select_items(
        self, instructions: str, items: Sequence[Any], opening: str | None = None
    ) -> tuple[str, list[Any]]:
        """The same for the items of the Agents SDK: the instructions and the items to send.

        Args:
            items: dicts, oldest first; those with a "role" are messages, the others tool calls and results.
            opening: the first message, where `items` are only the latest of a conversation.
        """
        first = self._first_kept(_roles(items))
        if first and opening is None:
            opening = str(items[0].get("content"))
        system = self._system(instructions, opening)
        kept = [self._shortened_item(item) for item in items[first:]]
        return system, self._fitting(kept, _shorter_item)

    def latest_items(self, items: Sequence[Any]) -> list[Any]:
        """The items that a model can still be sent, now or later in the conversation."""
        return list(items[self._first_kept(_roles(items)) :])

    def _first_kept(self, roles: Sequence[str]) -> int:
        """Index of the first message in the window: where a user speaks."""
        users = [
            index
            for index in range(max(0, len(roles) - self.max_messages), len(roles))
            if roles[index] == "user"
        ]
        if users:
            return users[0]
        # The turn under way alone is longer than the window: keep it whole.
        return max((i for i, role in enumerate(roles) if role == "user"), default=0)

    def _system(self, instructions: str, opening: str | None) -> str:
        """The instructions, with a note of how a conversation began whose beginning is left out."""
        if opening is None:
            return instructions
        return f"{instructions}\n{OPENING_NOTE}{opening[: self.opening_chars]}"

    def _shortened_item(self, item: Any) -> Any:
        if item.get("type") != "function_call_output":
            return item
        output = item.get("output")
        if isinstance(output, list):  # parts, as from MCP
            output = "\n".join(_text_of(part) for part in output)
        return item | {"output": as_text(output, self.max_result_chars)}

    def _shortened(self, message: Message) -> Message:
        text = message.content or ""
        if message.role != "tool" or len(text) <= self.max_result_chars:
            return message
        return message.model_copy(update={"content": cut(text, self.max_result_chars)})

    def _fitting(self, parts: list[Part], shorter: Callable[[Part, int], Part]) -> list[Part]:
        """The parts, each cut to ever less until all of them fit."""
        most = self.max_bytes
        while most > 100 and _bytes(parts) > self.max_bytes:
            most //= 2
            parts = [shorter(part, most) for part in parts]
        return parts


def _bytes(parts: Sequence[Any]) -> int:
    written = json.dumps(parts, default=lambda part: part.model_dump(), ensure_ascii=False)
    return len(written.encode(errors="replace"))


def _shorter_message(message: Message, most: int) -> Message:
    calls = [
        call.model_copy(update={"arguments": cut(call.arguments, most), "extras": None})
        if len(call.arguments) > most
        else call
        for call in message.tool_calls
    ]
    too_much = message.extras and _bytes([message.extras]) > most
    return message.model_copy(
        update={
            "content": cut(message.content, most) if message.content else message.content,
            "tool_calls": calls,
            "extras": None if too_much else message.extras,
        }
    )


def _shorter_item(item: Any, most: int) -> Any:
    """An item of the SDK with no text in it that is longer than `most`; its names and ids are shorter."""
    if isinstance(item, str):
        return cut(item, most)
    if isinstance(item, dict):
        return {name: _shorter_item(part, most) for name, part in item.items()}
    return [_shorter_item(part, most) for part in item] if isinstance(item, list) else item


def _text_of(part: Any) -> str:
    """A part of a tool's output as text; an image or a file is only named."""
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    return f"({part.get('type', 'a part') if isinstance(part, dict) else 'a part'} that is no text)"


def _roles(items: Sequence[Any]) -> list[str]:
    """Who speaks in each of the SDK's items; calls and results of tools have no role of their own."""
    return [str(item.get("role", "tool")) for item in items]
