"""Runs a learner's workflow for a check, on a worker that exists for that one run."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from temporalio.client import Client, WorkflowHandle

from workshop_lib.lab.classroom import new_id, spec
from workshop_lib.lab.waiting import result
from workshop_lib.lab.workers import start_worker


async def trial(
    client: Client,
    workflow: type,
    argument: Any,
    activities: Sequence[Callable[..., Any]],
    timeout: float = 15,
) -> tuple[WorkflowHandle[Any, Any], Any]:
    """Run the workflow once. Returns the run, for a look at its history, and its result."""
    checked = spec(f"check-{workflow.__name__}", workflows=[workflow], activities=activities)
    worker = await start_worker(checked, announce=False)
    try:
        handle = await client.start_workflow(
            workflow.__name__, argument, id=new_id(checked.name), task_queue=checked.task_queue
        )
        return handle, await result(handle, timeout=timeout)
    finally:
        await asyncio.to_thread(worker.stop)
