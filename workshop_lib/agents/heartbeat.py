"""Heartbeats for activities that wait: how the server learns within seconds that a worker has died.

Without them a killed worker is noticed only when the activity's whole time is over.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from temporalio import activity

# The server waits this long for a sign of life before it gives the activity to another worker. Short, so
# that a killed agent goes on at once; long enough for a worker whose two cores are busy.
HEARTBEAT_TIMEOUT = timedelta(seconds=1.5)


@contextlib.asynccontextmanager
async def heartbeating(every: float = 0.4) -> AsyncIterator[None]:
    """Heartbeat in the background while the block runs.

    Args:
        every: seconds between heartbeats; well below `HEARTBEAT_TIMEOUT`.
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(every)
            activity.heartbeat()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
