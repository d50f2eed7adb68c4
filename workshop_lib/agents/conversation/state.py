"""A conversation as a workflow holds it, turn by turn, and as a run hands it on.

A session owns one `Conversation`, and begins and ends its turns; its loop adds what model and tools say and
asks what the model is sent. What it comes to at the end of a turn is a `ConversationState`: small, JSON, and
all that another run needs to go on from there. Left out: how much a model is sent (`policy`), and the
transcript that people read, which is the session's (`chat`).
"""

from typing import Any, Generic

from pydantic import BaseModel, TypeAdapter

from workshop_lib.agents.conversation.policy import ContextPolicy, Part, field_of


class ConversationState(BaseModel):
    """A conversation at the end of a turn.

    Attributes:
        turn: how many turns it has had.
        opening: how it began, once its first message has left `turns`.
        turns: the latest turns, oldest first; the last one is number `turn`. A turn is its parts as JSON, in
            the form of the loop that they come from.
    """

    turn: int = 0
    opening: str | None = None
    turns: list[list[dict[str, Any]]] = []


class Conversation(Generic[Part]):
    """The turns of one run of a session, with what it knows of those before.

    Args:
        part_type: what a turn is made of: `Message`, or `dict` for items of the Agents SDK.
        state: where the conversation stands; left out, it begins.
        policy: how much of it a model is sent.
    """

    def __init__(
        self,
        part_type: type[Part],
        state: ConversationState | None = None,
        policy: ContextPolicy | None = None,
    ) -> None:
        state = state or ConversationState()
        self._policy = policy or ContextPolicy()
        self._form: TypeAdapter[list[Part]] = TypeAdapter(list[part_type])  # type: ignore[valid-type]
        self._turns = [self._form.validate_python(turn) for turn in state.turns]
        self._begun_at = state.turn
        self._first = state.turn - len(state.turns) + 1  # the number of the first turn that is here
        self._opening = state.opening

    @property
    def turn(self) -> int:
        """The number of the turn under way, or else of the last one; 1 is the first of the session."""
        return self._first - 1 + len(self._turns)

    def ask(self, message: str) -> None:
        """A turn begins, with the user's message."""
        self._turns.append(self._form.validate_python([{"role": "user", "content": message}]))

    def add(self, *parts: Part) -> None:
        """What model and tools have said in the turn under way. Calls are added together with their results,
        or right before: a provider refuses one without the other."""
        self._turns[-1].extend(parts)

    def turn_is(self, parts: list[Part]) -> None:
        """All parts of the turn under way, the user's message first: for a loop that keeps them itself."""
        self._turns[-1] = list(parts)

    def answered(self, text: str) -> None:
        """The turn ends, with the answer that the user was given, unless the model's own words are there."""
        last = self._turns[-1][-1]
        if field_of(last, "role") != "assistant" or field_of(last, "tool_calls"):
            self._turns[-1] += self._form.validate_python([{"role": "assistant", "content": text}])

    def latest(self) -> list[Part]:
        """The parts that a model may be sent, none of them cut, the turn under way at their end."""
        return [part for turn in self._policy.latest(self._turns) for part in turn]

    def sent(self, instructions: str) -> tuple[str, list[Part]]:
        """What the model is sent now: the system message, and the parts after it.

        Args:
            instructions: the system message as it would be for a short conversation.
        """
        latest = self._policy.latest(self._turns)
        opening = self._opening_without(self._turns[: len(self._turns) - len(latest)])
        parts = [part for turn in latest for part in turn]
        return self._policy.select(instructions, parts, opening)

    def state(self, turn: int | None = None) -> ConversationState:
        """What the conversation came to at the end of a turn: of one that this run has had, or of the one
        that it began with. By default the last one.

        Raises:
            ValueError: it is none of these.
        """
        turn = self.turn if turn is None else turn
        if not self._begun_at <= turn <= self.turn:
            raise ValueError(f"this run has the turns {self._begun_at} to {self.turn}, not {turn}")
        turns = self._turns[: turn - self._first + 1]
        latest = self._policy.latest(turns)
        return ConversationState(
            turn=turn,
            opening=self._opening_without(turns[: len(turns) - len(latest)]),
            turns=[
                self._form.dump_python(self._policy.fitting(kept), mode="json") for kept in latest
            ],
        )

    def _opening_without(self, dropped: list[list[Part]]) -> str | None:
        """How the conversation began, where its beginning is among what is left out."""
        if self._opening is None and dropped:
            return self._policy.opening_of(str(field_of(dropped[0][0], "content")))
        return self._opening
