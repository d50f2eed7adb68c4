"""What the model is sent of a conversation: one policy, in one place.

Without a policy every call carries everything said so far, and both the bill and the event history grow
with the square of the conversation. This one sends the instructions, a note of how the conversation began,
and the latest messages. Left out: summaries by a model.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from workshop_lib.llm.messages import Message

OPENING_NOTE = "The conversation began with: "


class ContextWindow(BaseModel):
    """A sliding window over the messages.

    Attributes:
        max_messages: how many messages are kept, counted back from the latest. The turn that is under way
            is always kept whole, and the window never begins in the middle of a turn: a tool's result
            without its call is refused by most providers.
        max_result_chars: a tool's result is cut to this length.
        opening_chars: how much of the first message the note repeats.
    """

    model_config = ConfigDict(frozen=True)

    max_messages: int = 16
    max_result_chars: int = 2_000
    opening_chars: int = 200

    def select(self, instructions: str, messages: Sequence[Message]) -> list[Message]:
        """The messages to send, for a conversation of any length.

        Args:
            instructions: the system message.
            messages: the whole conversation, oldest first, beginning with a user's message.
        """
        roles = [message.role for message in messages]
        first = self._first_kept(roles)
        system = self._system(instructions, messages[0].content if first else None)
        return [Message.system(system), *(self._shortened(m) for m in messages[first:])]

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
        return system, [self._shortened_item(item) for item in items[first:]]

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
        output = item.get("output")
        if item.get("type") != "function_call_output" or not isinstance(output, str):
            return item
        return item | {"output": self._cut(output)}

    def _shortened(self, message: Message) -> Message:
        text = message.content or ""
        if message.role != "tool" or len(text) <= self.max_result_chars:
            return message
        return message.model_copy(update={"content": self._cut(text)})

    def _cut(self, result: str) -> str:
        left_out = len(result) - self.max_result_chars
        if left_out <= 0:
            return result
        return f"{result[: self.max_result_chars]} … ({left_out} characters left out)"


def _roles(items: Sequence[Any]) -> list[str]:
    """Who speaks in each of the SDK's items; calls and results of tools have no role of their own."""
    return [str(item.get("role", "tool")) for item in items]
