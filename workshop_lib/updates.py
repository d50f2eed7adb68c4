"""Updates that are asked again, under the same id, until there is an answer.

Under its id an update is taken once, however often it is sent. So it is sent again where the server has
lost it or cannot take it just now; and when somebody stops waiting (a cell that is interrupted, a time
limit) and asks the same again, that finds the first. Once it is answered, or something else was answered
after it, the same words are a new update.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
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
_NO_ANSWER = {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}
# What a run that has taken all the updates it may take answers for good.
FULL = "total number of distinct updates"

_given_up: dict[
    str, list[tuple[str, str]]
] = {}  # workflow id → what was asked there, and its update id


async def ask(
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
            return await _ask(attempt, update_id, timeout)
    except (asyncio.CancelledError, TimeoutError, RPCError):
        before = what, update_id
        _given_up.setdefault(workflow_id, []).append(before)
        raise
    finally:
        if not before:  # whatever was given up there has been answered by now, in its turn
            _given_up.pop(workflow_id, None)


async def _ask(
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
        except RPCError as error:
            if error.status in _NO_ANSWER:
                raise TimeoutError from None
            if error.status not in PASSING or FULL in error.message:
                raise
            if now() >= end:
                raise TimeoutError from None
        await asyncio.sleep(PAUSE)
