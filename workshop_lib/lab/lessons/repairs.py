"""Waiting for a repair in a notebook."""

from datetime import timedelta

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import RepairStatus


async def repair_reaches(repair: RepairClient, *states: str, timeout: float = 60) -> RepairStatus:
    """Wait until a repair, or the proactive agent's cycle, is in one of these states.

    Raises:
        WorkshopError: it has ended in another one, or is not there within `timeout` seconds.
    """
    status = await repair.wait_until(lambda now: now.state in states, timedelta(seconds=timeout))
    if status.state not in states:
        raise WorkshopError(
            f"{repair.workflow_id} has ended as {status.state}: {status.reason or 'no reason given'}",
            expected=" or ".join(states),
        )
    return status
