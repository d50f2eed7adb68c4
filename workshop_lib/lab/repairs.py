"""Waiting for a repair in a notebook."""

import asyncio

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import LAST_STATES, RepairStatus


async def repair_reaches(repair: RepairClient, *states: str, timeout: float = 60) -> RepairStatus:
    """Wait until a repair is in one of these states. Returns its status.

    Raises:
        WorkshopError: it is not, within `timeout` seconds; the text says where it is.
    """
    now = asyncio.get_running_loop().time
    end = now() + timeout
    while True:
        status = await repair.status()
        if status.state in states:
            return status
        if now() >= end or status.state in LAST_STATES:
            raise WorkshopError(
                f"{repair.workflow_id} is in the state {status.state}: {status.reason or 'no reason given'}",
                expected=" or ".join(states),
                fix="is its worker running? `await lab.waits_for(repair.handle)` says what it waits for.",
            )
        await asyncio.sleep(0.1)  # a query can be asked and not waited for
