"""Runs a learner's workflow for a check, on a worker that exists for that one run."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from temporalio.client import Client, Plugin, WorkflowHandle
from temporalio.service import RPCError

from workshop_lib.lab.classroom import new_id, seconds, spec
from workshop_lib.lab.watching.waiting import result
from workshop_lib.lab.workers.threads import start_worker


@contextlib.asynccontextmanager
async def running(
    client: Client,
    workflow: type,
    *arguments: Any,
    activities: Sequence[Callable[..., Any]] = (),
    client_plugins: Sequence[Callable[[], Plugin]] = (),
) -> AsyncIterator[WorkflowHandle[Any, Any]]:
    """A run of the workflow while the block lasts.

    The queue is new each time and a run that has not come to its end is terminated: a wrong attempt must
    not speak up in the next one. The worker serves the other activities of the workflow's cell, too: a
    solution may have some of its own.
    """
    name = new_id(f"check-{workflow.__name__}")
    served = {run.__name__: run for run in [*activities_beside(workflow), *activities]}
    checked = spec(
        name,
        workflows=[workflow],
        activities=[*served.values()],
        client_plugins=client_plugins,
    )
    worker = await start_worker(checked, announce=False)
    try:
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            workflow.__name__, args=arguments, id=name, task_queue=checked.task_queue
        )
        try:
            yield handle
        finally:
            with contextlib.suppress(RPCError):  # it has ended, as it should
                await handle.terminate("the check is over", rpc_timeout=seconds(5))
    finally:
        await asyncio.to_thread(worker.stop)


async def trial(
    client: Client,
    workflow: type,
    argument: Any,
    activities: Sequence[Callable[..., Any]],
    timeout: float = 15,
    client_plugins: Sequence[Callable[[], Plugin]] = (),
    patient: bool = True,
) -> tuple[WorkflowHandle[Any, Any], Any]:
    """Run the workflow once. Returns the run, for a look at its history, and its result.

    Args:
        patient: False where no activity is meant to fail: one that keeps failing ends the wait.
    """
    run = running(client, workflow, argument, activities=activities, client_plugins=client_plugins)
    async with run as handle:
        return handle, await result(handle, timeout=timeout, patient=patient)


def activities_beside(workflow: type) -> list[Callable[..., Any]]:
    """The activities that are defined in the same module."""
    return [
        thing
        for thing in vars(sys.modules[workflow.__module__]).values()
        if hasattr(thing, "__temporal_activity_definition")
        and getattr(thing, "__module__", None) == workflow.__module__
    ]
