"""The list of chat sessions, as the server has it. Left out: talking to one (`sessions`)."""

from collections.abc import AsyncIterator
from datetime import datetime

from pydantic import BaseModel
from temporalio.client import Client

from workshop_lib.agents.sessions import LOOPS
from workshop_lib.temporal import lookup
from workshop_lib.temporal.search_attributes import SESSION_OWNER, equals


class SessionInfo(BaseModel):
    """A line of the list of sessions."""

    session: str
    loop: str
    workflow_id: str
    status: str
    started: datetime | None


async def list_sessions(client: Client, owner: str | None = None) -> AsyncIterator[SessionInfo]:
    """The sessions that the server knows, or those that somebody has started, latest first."""
    where = "" if owner is None else equals(SESSION_OWNER, owner)
    async for run in lookup.list_runs(client, LOOPS, where):
        yield SessionInfo(
            session=run.workflow_id.removeprefix(f"chat-{run.kind}-"),
            loop=run.kind,
            workflow_id=run.workflow_id,
            status=run.status,
            started=run.started,
        )
