"""What a session shows, and what one run of it hands to another.

All of it is JSON. Left out: what makes it (`chat`), and what of it a model is sent (`conversation`).
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field
from temporalio.contrib.workflow_streams import WorkflowStreamState

from workshop_lib.agents.conversation.state import ConversationState
from workshop_lib.temporal.bounded import cut

KNOWN_REPLIES = 50  # that the next run knows; by default a server lets ten messages wait at once
MAX_KNOWN_CHARS = (
    200_000  # of their texts together; of those that are too much the beginning is known
)


class Reply(BaseModel):
    """The answer to one message.

    Attributes:
        turn: 1 for the first message of the session.
        model_calls: calls to the model that this turn needed and whose answers are in the history.
        tool_calls: names of the tools called, in order.
        tokens: that the turn has cost, those of a summary included.
        notice: what the user should know of the session; mostly empty.
        failed: no answer was found; the text says why.
        stopped: that is because the user has stopped the turn (`cancel_turn`).
    """

    text: str
    turn: int
    model_calls: int = 0
    tool_calls: list[str] = []
    tokens: int = Field(0, repr=False)
    notice: str = ""
    failed: bool = False
    stopped: bool = False

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What a notebook shows: the notice only where there is one, and a failure."""
        usual = (("notice", ""), ("failed", False), ("stopped", False))
        return [pair for pair in super().__repr_args__() if pair not in usual]


class TranscriptLine(BaseModel):
    """One line of the conversation as people saw it; a note says what is not there any more."""

    turn: int
    speaker: Literal["user", "agent", "note"]
    text: str


class RunBefore(BaseModel):
    """Where the beginning of a conversation can be read: the first lines of another run, and those before."""

    workflow_id: str
    run_id: str
    lines: int


class Carried(BaseModel):
    """What a run begins with that goes on from another: the next of a session, or the first of a fork.

    Attributes:
        conversation: what it comes to so far.
        before: where it can be read.
        replies: the latest, by the ids of the messages' updates.
        begun: when the session began, as ISO 8601.
        stream: of a session that streams: how far it came.
    """

    conversation: ConversationState = ConversationState()
    before: RunBefore | None = None
    replies: dict[str, Reply] = {}
    begun: str = ""
    stream: WorkflowStreamState | None = None


class Effect(BaseModel):
    """Something that a tool may have changed.

    Attributes:
        turn: in which it was called.
        what: the call, and what such a call changes.
    """

    turn: int
    what: str


def bounded(replies: dict[str, Reply]) -> dict[str, Reply]:
    """The latest replies, as much of their texts as another run should begin with."""
    left, kept = MAX_KNOWN_CHARS, []
    for update_id, reply in [*replies.items()][: -KNOWN_REPLIES - 1 : -1]:
        text = cut(reply.text, left)
        left = max(0, left - len(text))
        kept.append((update_id, reply.model_copy(update={"text": text})))
    return dict(reversed(kept))
