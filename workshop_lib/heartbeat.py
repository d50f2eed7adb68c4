"""How the server learns within seconds that a worker has died: heartbeats, and a short limit for tasks.

Without them a killed worker is noticed only when the activity's whole time is over, or after the ten
seconds that a workflow task may take by default.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from temporalio import activity
from temporalio.common import RetryPolicy

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
