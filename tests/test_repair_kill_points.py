"""A worker is killed at every place of a repair, and at the end each repair was made once.

As in `test_kill_points`: a real process that kills itself with SIGKILL at the named place, and a second one
that finishes what the first began. The store is a file that both share.
"""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from repair_ground import FULL_WAY, LIMIT, assert_repaired_once, reached
from temporalio.client import Client

from workshop_lib.lab.chaos import KillPoint, Where, kill_points
from workshop_lib.lab.worker_process import WorkerProcess, start_process
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import State
from workshop_lib.repair.store import OrderStore, open_store
from workshop_lib.repair.worker import repair as repair_spec
from workshop_lib.worker_spec import WorkerSpec

SPEC = repair_spec()
OF_THE_AGENT = {"ProactiveRepair", "notify"}  # a single repair does not pass them
FIRST = [
    point
    for point in kill_points(SPEC.workflow_names, SPEC.activity_names)
    if point.name not in OF_THE_AGENT
]
# Two of the four repairs are made by the same tool; the report is saved twice.
SECOND = [
    replace(point, occurrence=2)
    for point in FIRST
    if point.name in ("order_inventory", "save_report")
    and point.where in (Where.ACTIVITY_RESULT, Where.ACTIVITY_BEFORE)
]
# Workflow tasks between the repairs, in which the workflow has decided and nobody has heard of it yet.
LATER = [KillPoint(Where.TASK_AFTER, "OrderRepair", number) for number in (5, 7, 9)]
# After the commit of a repair and before its result is known: the places where a retry would do it again.
AGAIN = {Where.ACTIVITY_RESULT, Where.ACTIVITY_REPORT}
REPAIRS = {"request_approval", "order_inventory", "request_payment_update"}


class Workers:
    """Worker processes of one test, ended afterwards."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = replace(spec, name=f"kills-{uuid.uuid4().hex[:8]}")
        self._started: list[WorkerProcess] = []

    async def start(self, kill_at: KillPoint | None = None) -> WorkerProcess:
        worker = await start_process(self.spec, kill_at=kill_at)
        self._started.append(worker)
        return worker

    def clear(self) -> None:
        for worker in self._started:
            if worker.alive:
                worker.kill()


@pytest.fixture
def store(settings_env: Callable[..., None], tmp_path: Path) -> OrderStore:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    return open_store()


@pytest_asyncio.fixture
async def workers(client: Client, queue: str, store: OrderStore) -> AsyncIterator[Workers]:
    started = Workers(SPEC.with_queue(queue))
    yield started
    started.clear()


def test_every_step_of_a_repair_has_its_kill_points() -> None:
    assert {point.name for point in FIRST} | OF_THE_AGENT == {
        *SPEC.workflow_names,
        *SPEC.activity_names,
    }
    assert {(point.where, point.name) for point in FIRST} >= {
        (where, name) for where in AGAIN for name in REPAIRS
    }


@pytest.mark.parametrize("point", [*FIRST, *SECOND, *LATER], ids=str)
async def test_a_repair_survives_a_kill_anywhere(
    point: KillPoint, client: Client, workers: Workers, store: OrderStore
) -> None:
    doomed = await workers.start(kill_at=point)
    repair = await RepairClient.start(client, task_queue=workers.spec.task_queue, auto_approve=True)
    assert await doomed.exited(LIMIT) == -signal.SIGKILL
    await workers.start()
    outcome = await repair.outcome()
    assert outcome.state is State.COMPLETED
    assert_repaired_once(store)
    status = await repair.status()
    assert [change.state for change in status.states] == FULL_WAY
    repeated = [result for result in outcome.results if result.repeated]
    if point.name in REPAIRS and point.where in AGAIN:
        assert len(repeated) == 1  # it was asked for again, and not made again
    elif point.where is not Where.ACTIVITY_INSIDE:
        assert not repeated
    # The report is complete, in words and in files.
    report = await repair.report()
    assert len(report.files) == 4 and report.execution == outcome.report
    for result in outcome.results:
        assert result.order_id in (report.execution or "") and result.tool in (
            report.execution or ""
        )
    for name in report.files:
        content = await asyncio.to_thread(Path(name).read_bytes)
        assert content.startswith(b"%PDF" if name.endswith(".pdf") else b"#")


async def test_a_decision_survives_the_worker_that_took_it(
    client: Client, workers: Workers, store: OrderStore
) -> None:
    first = await workers.start()
    repair = await RepairClient.start(client, task_queue=workers.spec.task_queue)
    digest = (await reached(repair, State.PENDING_APPROVAL)).plan_digest
    assert digest
    first.kill()
    # Nobody serves; the decision waits at the server.
    deciding = asyncio.create_task(repair.approve(digest, decided_by="Minerva"))
    await workers.start()
    async with asyncio.timeout(LIMIT):
        recorded = await deciding
    assert recorded.decided_by == "Minerva"
    assert (await repair.outcome()).state is State.COMPLETED
    assert_repaired_once(store)
