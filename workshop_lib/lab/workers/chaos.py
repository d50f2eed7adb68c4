"""A chaos plan in the classroom: workers in processes of their own, which come back when the plan kills them.

So does the dev server. Left out: the plan, and the faults it makes (`temporal.chaos`).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server.lifecycle import ensure_server
from workshop_lib.lab.workers.process import WorkerProcess, start_process
from workshop_lib.machine.records import live_record
from workshop_lib.settings import get_settings
from workshop_lib.temporal.chaos.experiment import Experiment
from workshop_lib.temporal.chaos.plan import ChaosPlan, Place
from workshop_lib.temporal.chaos.plan_file import chaos_plan
from workshop_lib.temporal.connect import address_is_users
from workshop_lib.temporal.worker import WorkerSpec

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # seconds


@asynccontextmanager
async def chaos(
    plan: ChaosPlan | str | Path | dict[str, Any],
    *specs: WorkerSpec,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Experiment]:
    """Workers whose work goes wrong as a plan says, while the block runs.

        async with lab.chaos(plan, orchestrator(), finance()) as experiment:
            print(await chat.send("What is 6 * 7?"))
        print(experiment.report())

    Args:
        plan: a path, YAML text, data, or a plan that is made of these already.
        specs: the workers, each in a process of its own.
        env: set in their environment, in addition to this process's.

    Raises:
        WorkshopError: it is no plan, or a worker does not start.
    """
    experiment = Experiment.begin(chaos_plan(plan))
    workers: dict[str, WorkerProcess] = {}
    keeping: asyncio.Task[None] | None = None
    try:
        for spec in specs:
            workers[spec.name] = await start_process(spec, chaos=experiment, env=env)
        keeping = asyncio.create_task(_keep(workers, experiment, env))
        yield experiment
    finally:
        if keeping:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await _bring_server_back(experiment)  # it may have been killed last thing
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers.values()))


async def _keep(
    workers: dict[str, WorkerProcess], experiment: Experiment, env: Mapping[str, str] | None
) -> None:
    """Start again what is killed."""
    while True:
        await _bring_server_back(experiment)
        for name, worker in workers.items():
            if worker.alive:
                continue
            try:
                workers[name] = await start_process(worker.spec, chaos=experiment, env=env)
            except (
                WorkshopError
            ) as error:  # the server is away at this moment, say; there is a next one
                logger.warning("worker %s: %s", name, error.what)
        await asyncio.sleep(LOOK_EVERY)


async def _bring_server_back(experiment: Experiment) -> None:
    if not any(fault.place is Place.SERVER for fault in experiment.plan.faults):
        return
    if address_is_users() or live_record(get_settings().state_dir):
        return
    with contextlib.suppress(WorkshopError):
        await asyncio.to_thread(ensure_server)
