"""What a session begins with and shows, and what one run of it hands to another.

All of it is JSON. Left out: what makes it (`chat`), and what of it a model is sent (`conversation`).
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field
from temporalio.contrib.workflow_streams import WorkflowStreamState

from workshop_lib.agents.conversation.spending import Budget
from workshop_lib.agents.conversation.state import ConversationState
from workshop_lib.mcp.addresses import Transport
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
        """What a notebook shows: the notice only where there is one, and a failure or a stop."""
        usual = [("notice", ""), ("failed", self.stopped), ("stopped", False)]
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
        asked_until: when the latest of all that was taken before was asked, where it is known (Unix seconds).
        begun: when the session began, as ISO 8601.
        stream: of a session that streams: how far it came.
        known_tools: fingerprints of the tools of MCP servers, by team and name.
    """

    conversation: ConversationState = ConversationState()
    before: RunBefore | None = None
    replies: dict[str, Reply] = {}
    asked_until: float = 0.0
    begun: str = ""
    stream: WorkflowStreamState | None = None
    known_tools: dict[str, str] = {}


class Effect(BaseModel):
    """Something that a tool may have changed.

    Attributes:
        turn: in which it was called.
        what: the call, and what such a call changes.
    """

    turn: int
    what: str


class SessionLimits(BaseModel):
    """How much a run may hold until the session goes on in a new one; the server may ask for that before.

    Well below what ends a run on a Temporal server (2,000 updates, 51,200 events, 50 MiB): messages that are
    accepted already are still answered.
    """

    updates: int = Field(1_800, gt=0)
    events: int = Field(20_000, gt=0)
    history_bytes: int = Field(20_000_000, gt=0)


class ChatStart(BaseModel):
    """Input of a session.

    Attributes:
        user: who is asking, for lists of sessions.
        instructions: the system message; None for the chat's own.
        team_timeout: seconds that a call to another team may take, waiting for it included.
        stream: publish the reply piece by piece while it is written, in loops that can.
        mcp_transport: how the loop with MCP reaches the teams' servers.
        budget: what the session may cost in all; None for as much as it takes.
        limits: lower ones for a test.
        carried: where the session goes on from; None for a new one.
    """

    user: str = ""
    instructions: str | None = None
    team_timeout: float = Field(60, gt=0)
    stream: bool = False
    mcp_transport: Transport = "http"
    budget: Budget | None = None
    limits: SessionLimits = SessionLimits()
    carried: Carried | None = None


class ForkPoint(BaseModel):
    """What a run knows of the end of a turn, from which another session may go on.

    Attributes:
        first_turn, last_turn: the turns of this run that have ended.
        effects: what its tools may have changed after that turn.
        start: the other session's input, where the turn is one of this run's or the last one before.
    """

    first_turn: int
    last_turn: int
    effects: list[Effect]
    start: ChatStart | None


def bounded(replies: dict[str, Reply]) -> dict[str, Reply]:
    """The latest replies, as much of their texts as another run should begin with."""
    left, kept = MAX_KNOWN_CHARS, []
    for update_id, reply in [*replies.items()][: -KNOWN_REPLIES - 1 : -1]:
        text = cut(reply.text, left)
        left = max(0, left - len(text))
        kept.append((update_id, reply.model_copy(update={"text": text})))
    return dict(reversed(kept))
