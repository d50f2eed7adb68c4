"""The other side of a run's calls: the workflows they started in other teams' namespaces.

The server writes a link into the caller's history when a Nexus operation has started. Here the links are
followed. An MCP call leaves none: there the team's namespace is asked for the call's key.
Left out: synchronous operations. They start no workflow, so there is nothing to follow.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import LinkedRun, history_of, read_history
from workshop_lib.lab.watching.pending import waits_for
from workshop_lib.lab.watching.waiting import NoAnswer, watch
from workshop_lib.temporal.connect import connect

KEY = "idempotency_key"  # of an MCP call
MOST_RUNS = 20  # of a long chat only the latest are followed
_CALL = timedelta(seconds=5)


async def linked_runs(handle: WorkflowHandle[Any, Any], timeout: float = 15) -> list[LinkedRun]:
    """The runs that a run's Nexus operations have started, in the order of the operations."""
    async with asyncio.timeout(timeout):
        history = await handle.fetch_history()
        return await follow(handle._client, history.events)


async def mcp_runs(
    handle: WorkflowHandle[Any, Any], namespace: str, timeout: float = 45
) -> list[str]:
    """Ids of the runs in a team's namespace that a chat's latest MCP call has started.

    Waits until there is one. The team's server has noted the call's idempotency key with the run.

    Raises:
        WorkshopError: there was none within `timeout` seconds, or the chat has answered without one.
        NobodyPolls: the chat itself has no worker.
    """
    team = await connect(namespace)

    async def noted_runs() -> list[str]:
        while True:
            with contextlib.suppress(RPCError):  # the chat is just being started
                history = await history_of(handle)
                made = [r.input for r in history.activities if r.name.endswith(".call-tool")]
                key = (made[-1]["meta"] or {}).get(KEY) if made else None
                runs = [run async for run in team.list_workflows(limit=MOST_RUNS)] if key else []
                noted = [run.id for run in runs if (await run.memo()).get(KEY) == key]
                if noted:
                    return noted
                if not made and 0 < history.asked == history.answered:
                    raise WorkshopError(
                        "The chat has answered, and called no tool of a team's.",
                        fix="ask again while the team's MCP server runs; the reply says what it missed.",
                    )
            await asyncio.sleep(0.1)  # there is no event for a run in another namespace

    try:
        return await watch(noted_runs(), handle, timeout=timeout)
    except NoAnswer:
        raise WorkshopError(
            f"A run of the call in {namespace} did not come within {timeout:g} s."
            f" The chat: {'; '.join(await waits_for(handle))}.",
            fix=f"mend what the chat waits for, and see that the team's namespace is {namespace}.",
        ) from None


async def follow(client: Client, events: Iterable[HistoryEvent]) -> list[LinkedRun]:
    """The same for a history that is at hand.

    Args:
        client: of any namespace of that server. A namespace that it may not read is left out.
    """
    linked = read_history(events).linked[-MOST_RUNS:]
    read = await asyncio.gather(*(_with_events(client, run) for run in linked))
    return [run for run in read if run is not None]


def handle_of(client: Client, run: LinkedRun) -> WorkflowHandle[Any, Any]:
    """A handle of another team's run, by way of a client of any namespace of that server."""
    theirs = Client(**client.config() | {"namespace": run.namespace})
    return theirs.get_workflow_handle(run.workflow_id, run_id=run.run_id)


async def _with_events(client: Client, run: LinkedRun) -> LinkedRun | None:
    try:
        history = await handle_of(client, run).fetch_history(rpc_timeout=_CALL)
    except RPCError:
        return None
    return replace(run, events=history.events)
