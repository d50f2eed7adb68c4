"""What the model is sent of a conversation: one policy, in one place.

Without a policy every call carries everything said so far, and both the bill and the event history grow
with the square of the conversation. This one sends the instructions, a note of how the conversation began,
and the latest messages. Left out: summaries by a model.
"""

from collections.abc import Sequence

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
        first = self._first_kept(messages)
        system = instructions
        if first > 0:
            opening = (messages[0].content or "")[: self.opening_chars]
            system = f"{instructions}\n{OPENING_NOTE}{opening}"
        return [Message.system(system), *(self._shortened(m) for m in messages[first:])]

    def _first_kept(self, messages: Sequence[Message]) -> int:
        """Index of the first message in the window: where a user speaks."""
        users = [
            index
            for index in range(max(0, len(messages) - self.max_messages), len(messages))
            if messages[index].role == "user"
        ]
        if users:
            return users[0]
        # The turn under way alone is longer than the window: keep it whole.
        return max((i for i, m in enumerate(messages) if m.role == "user"), default=0)

    def _shortened(self, message: Message) -> Message:
        text = message.content or ""
        if message.role != "tool" or len(text) <= self.max_result_chars:
            return message
        left_out = len(text) - self.max_result_chars
        cut = f"{text[: self.max_result_chars]} … ({left_out} characters left out)"
        return message.model_copy(update={"content": cut})
