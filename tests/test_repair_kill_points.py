"""Workers are killed at every place of a repair, and at the end each repair was made once.

As in `test_kill_points`: real processes that kill themselves with SIGKILL at the named place, and others
that go on. Here each repair is killed many times: the worker that takes over dies at the same place of the
next step. Most of this is waiting for the server to notice, so the repairs run side by side, each with a
store, a queue and processes of its own.
"""

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from repair_ground import FULL_WAY, LIMIT, a_name, assert_repaired_once, reached
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from workshop_lib.lab.workers.kill_points import KillPoint, Where, kill_points
from workshop_lib.lab.workers.process import WorkerProcess, start_process
from workshop_lib.llm.gateway import load
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import RepairOutcome, State
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.worker import repair as repair_spec

SPEC = repair_spec()
OF_THE_AGENT = {"ProactiveRepair", "notify"}  # a single repair does not pass them
REPAIRS = {"request_approval", "order_inventory", "request_payment_update"}
# The steps of a repair in the order in which the plan of the sample orders passes them.
WAY = [
    "look_at_orders",
    "detect_problems",
    "analyze_problems",
    "plan_repair",
    "save_report",
    "order_inventory",
    "request_payment_update",
    "request_approval",
    "order_inventory",
    "write_report",
    "save_report",
]
# Workflow tasks, one before each step and one after the last: the first worker dies at its first one, each
# other does the one that its predecessor died at and dies at the next.
TASKS = [1, *[2] * len(WAY)]
# After the commit of a repair and before its result is known: there a retry would do it again.
AGAIN = {Where.ACTIVITY_RESULT, Where.ACTIVITY_REPORT}


def deaths(where: Where) -> list[KillPoint]:
    """Where one repair's workers die, one after the other."""
    if where in (Where.TASK_BEFORE, Where.TASK_AFTER):
        return [KillPoint(where, "OrderRepair", number) for number in TASKS]
    return [KillPoint(where, name) for name in WAY]


class Case:
    """A repair, its store, and the workers that serve it."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._env = {"WORKSHOP_STATE_DIR": str(folder)}
        self._workers: list[WorkerProcess] = []
        folder.mkdir()
        self.queue = a_name("kills")
        self.store = OrderStore(f"sqlite:///{folder / 'orders.db'}")

    async def worker(self, kill_at: KillPoint | None = None) -> WorkerProcess:
        spec = replace(SPEC.with_queue(self.queue), name=a_name("kills"), warm_ups=[load])
        worker = await start_process(spec, kill_at=kill_at, env=self._env)
        self._workers.append(worker)
        return worker

    async def repair(self, *, auto_approve: bool) -> RepairClient:
        return await RepairClient.start(
            self._client, task_queue=self.queue, auto_approve=auto_approve
        )

    def clear(self) -> None:
        for worker in self._workers:
            worker.kill()


def test_every_step_of_a_repair_has_its_kill_points() -> None:
    every = kill_points(
        [name for name in SPEC.workflow_names if name not in OF_THE_AGENT],
        [name for name in SPEC.activity_names if name not in OF_THE_AGENT],
    )  # no operation is among its steps
    died = {
        (point.where, point.name)
        for where in {point.where for point in every}
        for point in deaths(where)
    }
    assert died == {(point.where, point.name) for point in every}


# Not all at once: these are many processes. How long it takes is up to the server's timers.
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "places",
    [
        # One task and one activity, whose repair is done and not known; the others with `-m long`.
        [Where.TASK_AFTER, Where.ACTIVITY_REPORT],
        pytest.param([Where.ACTIVITY_BEFORE, Where.ACTIVITY_RESULT], marks=pytest.mark.long),
        pytest.param([Where.ACTIVITY_INSIDE, Where.TASK_BEFORE], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
async def test_a_repair_survives_kills_at_every_step(
    places: Sequence[Where], client: Client, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as together:
        for where in places:
            together.create_task(killed_again_and_again(where, Case(client, tmp_path / where)))


async def killed_again_and_again(where: Where, case: Case) -> None:
    try:
        first, *others = deaths(where)
        doomed = await case.worker(kill_at=first)
        repair = await case.repair(auto_approve=True)
        for point in [*others, None]:
            assert await doomed.exited(LIMIT) == -signal.SIGKILL, (where, point)
            doomed = await case.worker(kill_at=point)
        outcome = await repair.outcome()
        assert outcome.state is State.COMPLETED, where
        assert_repaired_once(case.store)
        assert [change.state for change in (await repair.status()).states] == FULL_WAY
        if where in (Where.TASK_BEFORE, Where.TASK_AFTER):
            attempts = await attempts_of_tasks(repair)
            assert len(attempts) == len(TASKS)
            assert (
                min(attempts) >= 2
            )  # each was lost once, and more often where the machine is slow
        repeated = sum(result.repeated for result in outcome.results)
        if where in AGAIN:
            assert repeated == 4  # each was asked for again, and none was made again
        elif where is not Where.ACTIVITY_INSIDE:  # there it is killed before or after the commit
            assert repeated == 0, where
        await check_reports(repair, outcome)
    finally:
        case.clear()


async def attempts_of_tasks(repair: RepairClient) -> list[int]:
    """How often each workflow task was begun until it was done."""
    attempts = [0]
    async for event in repair.handle.fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
            attempts[-1] += 1
        elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            attempts.append(0)
    return attempts[:-1]


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
        first.kill()
        # Nobody serves; the decision waits at the server.
        deciding = asyncio.create_task(repair.approve(digest, decided_by="Minerva"))
        await case.worker()
        async with asyncio.timeout(LIMIT):
            assert (await deciding).decided_by == "Minerva"
        assert (await repair.outcome()).state is State.COMPLETED
        assert_repaired_once(case.store)
    finally:
        case.clear()
