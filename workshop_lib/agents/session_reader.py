"""The runs that a conversation is a chain of, read from outside: from the latest back to its first line.

A session goes on in a new run when one has enough, and a fork goes on from a run of another session. Each run
knows where the lines before its own can be read. Left out: how a message finds the latest run, which the
server sees to (`sessions`).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.agents.chat import ChatSession
from workshop_lib.agents.session_state import (
    ChatStart,
    Effect,
    ForkPoint,
    RunBefore,
    TranscriptLine,
)
from workshop_lib.errors import WorkshopError
from workshop_lib.temporal import client_retries

REMOVED = TranscriptLine(
    turn=0, speaker="note", text="The server does not keep what was said before any more."
)


@dataclass
class SessionRun:
    """A run of a conversation.

    Attributes:
        handle: of this run, and no later one.
        lines: how many of its lines belong to the conversation; None for all of them.
        patience: what a worker may need to replay it.
    """

    handle: WorkflowHandle[ChatSession, int]
    lines: int | None
    patience: timedelta

    async def ask(self, query: Any, *args: Any) -> Any:
        """What the run answers to a query.

        Raises:
            RPCError: nobody answered, or the server does not keep the run any more.
        """
        return await client_retries.query(self.handle, query, args=args, patience=self.patience)

    async def transcript(self) -> list[TranscriptLine]:
        """The lines of this run. Raises as `ask`."""
        lines: list[TranscriptLine] = []
        while page := await self.ask(ChatSession.history, len(lines)):
            lines += page
        return lines[: self.lines]


async def runs_of(client: Client, workflow_id: str) -> AsyncIterator[SessionRun]:
    """The runs of a conversation, the latest first.

    Raises:
        RPCError: of status NOT_FOUND: the server does not keep the next one any more. Else nobody answered.
    """
    run_id, lines = "", None
    while True:
        found = await client.get_workflow_handle(workflow_id, run_id=run_id or None).describe(
            rpc_timeout=timedelta(seconds=10)
        )
        run: SessionRun = SessionRun(
            client.get_workflow_handle(workflow_id, run_id=found.run_id, result_type=int),
            lines,
            client_retries.patience_for(found),
        )
        yield run
        before: RunBefore | None = await run.ask(ChatSession.before)
        if before is None:
            return
        workflow_id, run_id, lines = before.workflow_id, before.run_id, before.lines


async def fork_point(
    client: Client, workflow_id: str, session: str, turn: int
) -> tuple[ChatStart, list[Effect]]:
    """The input of a session that goes on from before a turn, and the effects from there on.

    Args:
        session: what people call it.

    Raises:
        WorkshopError: there is no such turn, or the server does not keep it any more.
        RPCError: nobody answered.
    """
    last, effects = 0, list[Effect]()
    until: int | None = None  # of a session that this one goes on from, only what belongs to both
    try:
        async for run in runs_of(client, workflow_id):
            found: ForkPoint = await run.ask(ChatSession.fork_point, turn - 1)
            last = last or found.last_turn
            if not 1 <= turn <= last:
                break
            effects = [e for e in found.effects if until is None or e.turn <= until] + effects
            until = found.first_turn - 1
            if found.start:
                return found.start, effects
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
    if 1 <= turn <= last:
        raise WorkshopError(f"The server does not keep turn {turn} any more.")
    raise WorkshopError(
        f"The session {session!r} has no turn {turn} that could be changed.",
        expected=f"a number from 1 to {last}." if last else "a session that has begun.",
    )
