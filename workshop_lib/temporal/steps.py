"""What the steps of our workflows have in common: limits, heartbeats, and why one has failed for good.

Without heartbeats and short limits a killed worker is noticed only when an activity's whole time is over, or
after the ten seconds that a workflow task may take by default. Left out: how many tries a step gets, which
stands where it is called.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from temporalio import activity
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

# The server waits this long for a sign of life before it gives the activity to another worker. Short, so
# that a killed agent goes on at once; long enough for a worker whose two cores are busy.
HEARTBEAT_TIMEOUT = timedelta(seconds=1.5)
# A worker that is very busy misses one all the same. Such a step must not run out of time for it: it is tried
# again soon, and for minutes.
SOON_AGAIN = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=2)
)
# How often a worker passes an activity's heartbeats on to the server. The SDK's own choice, four fifths of
# the timeout, leaves 0.3 s for a late one, and an activity given up is a model call paid for twice.
HEARTBEAT_INTERVAL = HEARTBEAT_TIMEOUT / 2
# How long a worker may hold a workflow task before another gets it. Ours take milliseconds, and one that is
# lost with its worker should not keep a person waiting.
TASK_TIMEOUT = timedelta(seconds=4)


@contextlib.asynccontextmanager
async def heartbeating(every: float = 0.4) -> AsyncIterator[None]:
    """Heartbeat in the background while the block runs.

    Args:
        every: seconds between heartbeats; well below `HEARTBEAT_TIMEOUT`.
    """

    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    # A timer and no task: most activities are over before the first heartbeat, and a task for each
    # would be a measurable part of a turn.
    def beat() -> None:
        nonlocal timer
        activity.heartbeat()
        timer = loop.call_later(every, beat)

    timer = loop.call_later(every, beat)
    try:
        yield
    finally:
        timer.cancel()


def reason_of(error: BaseException) -> str:
    """The text of the innermost failure, or of the first one that an application raised on purpose.

    Temporal wraps a failure once for every border that it has crossed: an activity's in an `ActivityError`,
    an operation's in a `NexusOperationError` around that. People and models are told what stands inside.
    """
    cause = error
    while not isinstance(cause, ApplicationError) and cause.__cause__:
        cause = cause.__cause__
    return str(getattr(cause, "message", None) or cause or error)
