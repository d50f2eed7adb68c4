"""Waiting for a repair in a notebook."""

import asyncio
from datetime import timedelta

from temporalio.client import WorkflowExecutionStatus

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import ENDS, RepairStatus


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
        over = status.state in ENDS and not await _runs(repair)
        if now() >= end or over:
            raise WorkshopError(
                f"{repair.workflow_id} is in the state {status.state}: {status.reason or 'no reason given'}",
                expected=" or ".join(states),
                fix="is its worker running? `await lab.waits_for(repair.handle)` says what it waits for.",
            )
        await asyncio.sleep(0.1)  # a query can be asked and not waited for


async def _runs(repair: RepairClient) -> bool:
    """The proactive agent goes on after a cycle that has ended; a single repair does not."""
    described = await repair.handle.describe(rpc_timeout=timedelta(seconds=10))
    return described.status is WorkflowExecutionStatus.RUNNING
