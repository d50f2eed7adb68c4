"""Queries and updates of clients, sent again where they got lost.

Of several queries that reach a worker while it takes a finished run out of its cache, the SDK (1.35) answers
one and forgets the others, and whoever asked waits until its own limit for an answer that nobody owes it. A
query changes nothing, so it may be asked again.

Under its id an update is taken once, however often it is sent. So it is sent again where the server has
lost it or cannot take it just now, and where the workflow says that its next run will take it (`ROLLOVER`).
And when somebody stops waiting (a cell that is interrupted, a time limit) and asks the same again, that finds
the first. Once it is answered, or something else was answered after it, the same words are a new update.

Left out: lists of runs (`lookup`).
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

T = TypeVar("T")

PAUSE = 0.2  # seconds; the server has no event for when it takes updates again
# A workflow task was lost with its worker, or the run is just continuing as new; the server is busy.
PASSING = {
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.ABORTED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
}
_NOT_ANSWERED = {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}
# The type of a refusal that counts for this run only: the next one takes the same update.
ROLLOVER = "Rollover"

# Of each workflow what was asked there and given up, with the id of that update.
_given_up: dict[str, list[tuple[str, str]]] = {}


async def update(
    workflow_id: str,
    what: str,
    attempt: Callable[[str, timedelta], Awaitable[T]],
    timeout: timedelta,
) -> T:
    """Ask until there is an answer.

    Args:
        what: says what is asked; the same text is the same update, if that was given up.
        attempt: asks once, under the given id and for at most the given time.

    Raises:
        TimeoutError: no answer within `timeout`. The update is not lost.
        RPCError: the server refuses it for good. What else `attempt` raises counts as an answer.
    """
    before = next((pair for pair in _given_up.get(workflow_id, ()) if pair[0] == what), None)
    if before:
        _given_up[workflow_id].remove(before)
    update_id = before[1] if before else uuid.uuid4().hex
    try:
        # The second is for the attempt's own, more telling end.
        async with asyncio.timeout(timeout.total_seconds() + 1):
            return await _update(attempt, update_id, timeout)
    except (asyncio.CancelledError, TimeoutError, RPCError):
        before = what, update_id
        _given_up.setdefault(workflow_id, []).append(before)
        raise
    finally:
        if not before:  # whatever was given up there has been answered by now, in its turn
            _given_up.pop(workflow_id, None)


async def _update(
    attempt: Callable[[str, timedelta], Awaitable[T]], update_id: str, timeout: timedelta
) -> T:
    now = asyncio.get_running_loop().time
    end = now() + timeout.total_seconds()
    while True:
        try:
            # While no worker takes it, the SDK repeats the call by itself.
            return await attempt(update_id, timedelta(seconds=max(0.1, end - now())))
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError from None  # as which the SDK does not pass it on
            raise TimeoutError from None
        except WorkflowUpdateFailedError as error:
            if getattr(error.cause, "type", "") != ROLLOVER:
                raise
            if now() >= end:
                raise TimeoutError from None
        except RPCError as error:
            if error.status in _NOT_ANSWERED:
                raise TimeoutError from None
            if error.status not in PASSING:
                raise
            if now() >= end:
                raise TimeoutError from None
        await asyncio.sleep(PAUSE)


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
        patience: for a run with a history so long that its replay takes time; see `patience_for`.

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


def patience_for(run: WorkflowExecutionDescription) -> timedelta:
    """Time that a worker which has never seen a run may need to replay it, on a slow and busy machine."""
    return timedelta(seconds=(run.history_length or 0) / EVENTS_A_SECOND)
