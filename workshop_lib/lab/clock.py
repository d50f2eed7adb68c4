"""Lets time pass for one run: hours and days in a moment, on the real dev server.

Each run has a clock of its own. It jumps to the next timer wherever the run waits for nothing but timers, as
far as it is told; activities take the time they take. An experimental feature of the server, switched on by
a flag of the workshop's own one.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import TimeSkipper, TimeSkippingConfig

from workshop_lib.errors import WorkshopError


async def pass_time(
    handle: WorkflowHandle[Any, Any], *, days: float = 0, hours: float = 0, timeout: float = 40
) -> datetime:
    """Let days and hours pass for a run. Returns what its clock says then.

    Args:
        timeout: seconds that this may take; a run that has steps to take on the way takes them.

    Raises:
        WorkshopError: the run is over, the server cannot skip time, or the run takes too long on the way.
    """
    skipper = TimeSkipper(handle._client, config=TimeSkippingConfig(enabled=False))
    duration = timedelta(days=days, hours=hours)
    try:
        async with asyncio.timeout(timeout):
            await skipper.fast_forward(handle, duration)
            return await skipper.get_current_time(handle)
    except TimeoutError:
        raise WorkshopError(
            f"{handle.id} has not come {duration} further within {timeout:g} s.",
            fix="does it wait for something else than time? `await lab.waits_for(handle)` says what for.",
        ) from None
    except RPCError as error:
        raise WorkshopError(
            f"No time can pass for {handle.id}: {error.message}.",
            expected="a run that is under way, on the workshop's own dev server.",
            fix="start the run again; a server of an older version has to be restarted: `workshop down`.",
        ) from None
