"""How much the model is sent of a conversation: one policy, in one place.

Without a policy every call carries everything said so far, and both the bill and the event history grow
with the square of the conversation. This one sends the instructions, a note of how the conversation began,
and the latest messages. Left out: summaries by a model.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from workshop_lib.llm.messages import Message, ToolCall
from workshop_lib.temporal.bounded import as_text, cut

OPENING_NOTE = "The conversation began with: "
SUMMARY_NOTE = "Summary of the earlier conversation (what was said; no instructions):\n"

Part = TypeVar("Part", bound=Any)  # `Message`, or an item of the Agents SDK


class ContextPolicy(BaseModel):
    """How much of a conversation a model is sent.

    Attributes:
        max_parts: how many messages, calls and results a turn may begin with. Where there are more, the
            oldest turns are left out. The turn that is under way is always kept whole, and what is kept never
            begins in the middle of a turn: a tool's result without its call is refused by most providers.
        kept_parts: how many are kept when some are summed up. Well below `max_parts`: a summary is a model
            call.
        max_summary_chars: of the summary of what was left out.
        max_result_chars: a tool's result is cut to this length.
        opening_chars: how much of the first message the note repeats.
        max_bytes: of all that is kept, as JSON. Where it is more, long texts in it are cut further: a
            request that is too large for the server would hold the conversation up for ever.
    """

    model_config = ConfigDict(frozen=True)

    max_parts: int = 24
    kept_parts: int = 8
    max_summary_chars: int = 2_400
    max_result_chars: int = 2_000
    opening_chars: int = 200
    max_bytes: int = 500_000

    def too_many(self, turns: Sequence[list[Part]], summed_up: bool) -> int:
        """How many turns at the beginning are to be left out, now that the last one begins.

        Args:
            summed_up: they will be, so that more of them go at once.
        """
        if sum(map(len, turns)) <= self.max_parts:
            return 0
        most = self.kept_parts if summed_up else self.max_parts
        count, first = 0, len(turns)
        for index in reversed(range(len(turns))):
            count += len(turns[index])
            if count > most and first < len(turns):
                break
            first = index
        return first

    def select(
        self,
        instructions: str,
        parts: Sequence[Part],
        opening: str | None = None,
        summary: str = "",
    ) -> tuple[str, list[Part]]:
        """The system message and the parts as they are sent.

        Args:
            instructions: the system message as it would be for a short conversation.
            parts: `Message`s, or items of the Agents SDK (dicts; those with a "role" are messages, the others
                tool calls and results), beginning with a user's message.
            opening: how the conversation began, where `parts` are not all of it.
            summary: of what was left out since.
        """
        if opening is not None:
            instructions = f"{instructions}\n{OPENING_NOTE}{self.opening_of(opening)}"
        if summary:
            instructions = f"{instructions}\n{SUMMARY_NOTE}{summary}"
        return instructions, self.fitting(parts)

    def fitting(self, parts: Sequence[Part]) -> list[Part]:
        """The parts, with long results cut, and other long texts where all of it is too much."""
        kept = [self._result_cut(part) for part in parts]
        most = self.max_bytes
        while most > 100 and _bytes(kept) > self.max_bytes:
            most //= 2
            kept = [_shorter(part, most) for part in kept]
        return kept

    def opening_of(self, message: str) -> str:
        """What is repeated of the first message."""
        return message[: self.opening_chars]

    def _result_cut(self, part: Part) -> Part:
        if isinstance(part, Message):
            text = part.content or ""
            if part.role != "tool" or len(text) <= self.max_result_chars:
                return part
            return part.model_copy(update={"content": cut(text, self.max_result_chars)})
        if part.get("type") != "function_call_output":
            return part
        output = as_text(plain_text(part.get("output")), self.max_result_chars)
        shortened: Part = part | {"output": output}
        return shortened


def field_of(part: Any, name: str) -> Any:
    """A field that a part of either kind may have, or None."""
    return getattr(part, name, None) if isinstance(part, Message) else part.get(name)


def plain_text(content: Any) -> str:
    """What a part says, as text, where it says it in parts of its own, too, as results of MCP do."""
    if isinstance(content, list):
        return "\n".join(_text_of(one) for one in content)
    return content if isinstance(content, str) else as_text(content or "")


def _bytes(parts: Sequence[Any]) -> int:
    written = json.dumps(parts, default=lambda part: part.model_dump(), ensure_ascii=False)
    return len(written.encode(errors="replace"))


def _shorter(part: Any, most: int) -> Any:
    """A part with no text in it that is longer than `most`; its names and ids are shorter."""
    if isinstance(part, str):
        return cut(part, most)
    if isinstance(part, dict):
        return {name: _shorter(inner, most) for name, inner in part.items()}
    if isinstance(part, list):
        return [_shorter(inner, most) for inner in part]
    if not isinstance(part, Message | ToolCall):
        return part
    texts = [name for name in ("content", "arguments", "tool_calls") if hasattr(part, name)]
    changes = {name: _shorter(getattr(part, name), most) for name in texts}
    # What a provider has signed is left whole or out.
    if _bytes([part.extras, getattr(part, "arguments", "")]) > most:
        changes["extras"] = None
    return part.model_copy(update=changes)


def _text_of(part: Any) -> str:
    """A part of a tool's output as text; an image or a file is only named."""
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    return f"({part.get('type', 'a part') if isinstance(part, dict) else 'a part'} that is no text)"
