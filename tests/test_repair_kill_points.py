"""A repair waits for a decision while nobody serves it.

What a kill at each place of a repair costs is tried in `test_crash_lattice`. Here the worker is gone while a
person decides, and another carries it out.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

from repair_ground import LIMIT, a_name, assert_repaired_once, reached
from temporalio.client import Client

from workshop_lib.lab.workers.process import start_process
from workshop_lib.llm.gateway import load
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import State
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.worker import repair as repair_spec


async def test_a_decision_outlives_the_worker_that_showed_the_plan(
    client: Client, tmp_path: Path
) -> None:
    spec = repair_spec().with_queue(a_name("kills"))
    spec = replace(spec, name=a_name("kills"), warm_ups=[load])
    env = {"WORKSHOP_STATE_DIR": str(tmp_path)}
    worker = await start_process(spec, env=env)
    try:
        repair = await RepairClient.start(client, task_queue=spec.task_queue)
        digest = (await reached(repair, State.PENDING_APPROVAL)).plan_digest
        assert digest
        worker.kill()
        # Nobody serves; the decision waits at the server.
        deciding = asyncio.create_task(repair.approve(digest, decided_by="Minerva"))
        worker = await start_process(spec, env=env)
        async with asyncio.timeout(LIMIT):
            assert (await deciding).decided_by == "Minerva"
        assert (await repair.outcome()).state is State.COMPLETED
        assert_repaired_once(OrderStore(f"sqlite:///{tmp_path / 'orders.db'}"))
    finally:
        worker.kill()
