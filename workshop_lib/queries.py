"""Queries that are asked again where they got lost.

A worker that has just finished a run takes it out of its cache. Of several queries that reach it in that
moment the SDK (1.35) answers one and forgets the others, and whoever asked waits until its own limit for an
answer that nobody owes it. A query changes nothing, so it may be asked again.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

# Growing, so that a worker that has a long history to replay first still gets the time for it.
ATTEMPTS = (timedelta(seconds=1), timedelta(seconds=3), timedelta(seconds=6))
# The server itself gives a query up after half a minute; what a worker has replayed by then is not lost.
AGAIN = timedelta(seconds=30)
EVENTS_A_SECOND = 200  # of a replay on a slow and busy machine; elsewhere ten times as many
# The last: no worker has polled lately. One that is just starting will.
_NO_ANSWER = (
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.FAILED_PRECONDITION,
)


async def query(
    handle: WorkflowHandle[Any, Any],
    name: Any,
    result_type: Any = None,
    *,
    args: Sequence[Any] = (),
    patience: timedelta = timedelta(0),
) -> Any:
    """The answer of a workflow, within ten seconds and the patience that is given.

    Args:
        name: the query's name or its method.
        result_type: what the answer is read as; a method's own where it is left out.
        patience: for a run with a history so long that its replay takes time; see `patience_with`.

    Raises:
        RPCError: no answer came in all this time, or the server refused: there is no such run, no worker.
        WorkflowQueryFailedError: the workflow cannot answer.
    """
    limits = [*ATTEMPTS, *[AGAIN] * round(patience / AGAIN)]
    for limit in limits[:-1]:
        try:
            return await handle.query(name, args=args, result_type=result_type, rpc_timeout=limit)
        except RPCError as error:
            if error.status not in _NO_ANSWER:
                raise
        if limit == AGAIN:  # a refusal comes at once
            await asyncio.sleep(1)
    return await handle.query(name, args=args, result_type=result_type, rpc_timeout=limits[-1])


async def patience_with(handle: WorkflowHandle[Any, Any]) -> timedelta:
    """Time that a worker which has never seen a run may need to replay it, on a slow and busy machine.

    Raises:
        RPCError: there is no such run.
    """
    found = await handle.describe(rpc_timeout=timedelta(seconds=10))
    return timedelta(seconds=(found.history_length or 0) / EVENTS_A_SECOND)
