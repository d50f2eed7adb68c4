"""A worker is killed at every place of a repair, and at the end each repair was made once.

As in `test_kill_points`: a real process that kills itself with SIGKILL at the named place, and a second one
that finishes what the first began. Most of the time of such a case is waiting for the server to notice, so
the cases of one step run at the same time, each with a store, a queue and processes of its own.
"""

import asyncio
import itertools
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from forked_worker import ForkedWorker
from repair_ground import FULL_WAY, LIMIT, a_name, assert_repaired_once, reached
from temporalio.client import Client

from workshop_lib.lab.chaos import KillPoint, Where, kill_points
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import RepairOutcome, RepairStatus, State
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.worker import repair as repair_spec

SPEC = repair_spec()
OF_THE_AGENT = {"ProactiveRepair", "notify"}  # a single repair does not pass them
FIRST = [
    point
    for point in kill_points(SPEC.workflow_names, SPEC.activity_names)
    if point.name not in OF_THE_AGENT
]
REPAIRS = {"request_approval", "order_inventory", "request_payment_update"}
# After the commit of a repair and before its result is known: there a retry would do it again.
AGAIN = {Where.ACTIVITY_RESULT, Where.ACTIVITY_REPORT}
# Two of the four repairs are made by the same tool; the report is saved twice. And workflow tasks further
# on, in which the workflow has decided and nobody has heard of it yet.
LATER = [
    *(
        replace(point, occurrence=2)
        for point in FIRST
        if point.name in ("order_inventory", "save_report")
    ),
    *(KillPoint(Where.TASK_AFTER, "OrderRepair", number) for number in (4, 5, 6, 7, 8)),
]
CASES = {
    step: list(points)
    for step, points in itertools.groupby([*FIRST, *LATER], lambda p: f"{p.name}#{p.occurrence}")
}


class Case:
    """A repair, its store, and the workers that serve it."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._env = {"WORKSHOP_STATE_DIR": str(folder)}
        self._workers: list[ForkedWorker] = []
        folder.mkdir()
        self.queue = a_name("kills")
        self.store = OrderStore(f"sqlite:///{folder / 'orders.db'}")

    async def worker(self, kill_at: KillPoint | None = None) -> ForkedWorker:
        worker = ForkedWorker(SPEC.with_queue(self.queue), self._env, kill_at)
        self._workers.append(worker)
        await worker.start()
        return worker

    async def repair(self, *, auto_approve: bool) -> RepairClient:
        return await RepairClient.start(
            self._client, task_queue=self.queue, auto_approve=auto_approve
        )

    def clear(self) -> None:
        for worker in self._workers:
            worker.clear()


def test_every_step_of_a_repair_has_its_kill_points() -> None:
    names = {*SPEC.workflow_names, *SPEC.activity_names}
    assert {point.name for point in FIRST} | OF_THE_AGENT == names
    places = {(point.where, point.name) for points in CASES.values() for point in points}
    steps = [where for where in Where if where.startswith("activity")]
    assert places >= {*itertools.product(steps, set(SPEC.activity_names) - OF_THE_AGENT)}


@pytest.mark.parametrize("points", CASES.values(), ids=CASES)
async def test_a_repair_survives_a_kill_anywhere(
    points: Sequence[KillPoint], client: Client, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as together:
        for number, point in enumerate(points):
            together.create_task(one_kill(point, Case(client, tmp_path / str(number))))


async def one_kill(point: KillPoint, case: Case) -> None:
    try:
        doomed = await case.worker(kill_at=point)
        repair = await case.repair(auto_approve=True)
        assert await doomed.exited() == -signal.SIGKILL, point
        await case.worker()
        outcome = await repair.outcome()
        assert outcome.state is State.COMPLETED, point
        assert_repaired_once(case.store)
        check_results(point, outcome, await repair.status())
        await check_reports(repair, outcome)
    finally:
        case.clear()


def check_results(point: KillPoint, outcome: RepairOutcome, status: RepairStatus) -> None:
    assert [change.state for change in status.states] == FULL_WAY
    repeated = sum(result.repeated for result in outcome.results)
    if point.name in REPAIRS and point.where in AGAIN:
        assert repeated == 1, point  # it was asked for again, and not made again
    elif point.name in REPAIRS and point.where is Where.ACTIVITY_INSIDE:
        assert repeated <= 1, point  # killed before or after the commit
    else:
        assert repeated == 0, point


async def check_reports(repair: RepairClient, outcome: RepairOutcome) -> None:
    """The report is complete, in words and in files."""
    report = await repair.report()
    assert len(report.files) == 4 and report.execution == outcome.report
    text = report.execution or ""
    assert len(outcome.results) == 4
    assert all(result.order_id in text and result.tool in text for result in outcome.results)
    for name in report.files:
        content = await asyncio.to_thread(Path(name).read_bytes)
        assert content.startswith(b"%PDF" if name.endswith(".pdf") else b"#")


async def test_a_decision_outlives_the_worker_that_showed_the_plan(
    client: Client, tmp_path: Path
) -> None:
    case = Case(client, tmp_path / "store")
    try:
        first = await case.worker()
        repair = await case.repair(auto_approve=False)
        digest = (await reached(repair, State.PENDING_APPROVAL)).plan_digest
        assert digest
        first.clear()
        # Nobody serves; the decision waits at the server.
        deciding = asyncio.create_task(repair.approve(digest, decided_by="Minerva"))
        await case.worker()
        async with asyncio.timeout(LIMIT):
            assert (await deciding).decided_by == "Minerva"
        assert (await repair.outcome()).state is State.COMPLETED
        assert_repaired_once(case.store)
    finally:
        case.clear()
