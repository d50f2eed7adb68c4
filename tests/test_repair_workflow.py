"""A repair from start to end: what the gold labels call for, once, whatever happens around it."""

import asyncio
import inspect
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from order_samples import seventh_order
from repair_ground import (
    FULL_WAY,
    LIMIT,
    RIGHT,
    a_name,
    assert_repaired_once,
    badges,
    dump_of,
    failing,
    ledger_of,
    payment,
    planning,
    reached,
    stock_of,
    with_activities,
)
from repair_listener import Listener
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import history_of
from workshop_lib.lab.lessons.gold import load_gold, score_plan
from workshop_lib.repair.client import RepairClient, list_repairs
from workshop_lib.repair.models import (
    Detection,
    DetectRequest,
    Plan,
    RepairResult,
    RequestPaymentUpdate,
)
from workshop_lib.repair.states import Callback, RepairOutcome, RepairStatus, State
from workshop_lib.repair.store import OrderStore, open_store
from workshop_lib.repair.tools import RepairCall
from workshop_lib.repair.worker import repair as repair_spec
from workshop_lib.settings import PROJECT_ROOT
from workshop_lib.temporal.worker import WorkerSpec


@pytest.fixture
def spec(queue: str) -> WorkerSpec:
    return repair_spec().with_queue(queue)


@asynccontextmanager
async def serving(client: Client, spec: WorkerSpec) -> AsyncIterator[None]:
    async with asyncio.timeout(150), spec.build(client):
        yield


async def repaired(client: Client, spec: WorkerSpec, **options: Any) -> RepairClient:
    """Start a repair that asks nobody."""
    return await RepairClient.start(
        client, task_queue=spec.task_queue, auto_approve=True, **options
    )


class Ended(NamedTuple):
    """A repair that is over, and the names of its steps."""

    workflow_id: str
    outcome: RepairOutcome
    status: RepairStatus
    plan: Plan | None
    steps: list[str]


End = Callable[..., Awaitable[Ended]]


@pytest.fixture
def ended(client: Client, spec: WorkerSpec, store: OrderStore) -> End:
    """Runs a repair to its end, on a worker with some of its activities replaced."""

    async def run(*others: Callable[..., Any], auto_approve: bool = True) -> Ended:
        async with serving(client, with_activities(spec, *others)):
            repair = await RepairClient.start(
                client, task_queue=spec.task_queue, auto_approve=auto_approve
            )
            outcome = await repair.outcome()
            steps = [run.name for run in (await history_of(repair.handle)).activities]
            status, plan = await repair.status(), await repair.plan()
            return Ended(repair.workflow_id, outcome, status, plan, steps)

    return run


async def test_what_the_gold_labels_call_for_and_nothing_else(
    client: Client, spec: WorkerSpec, store: OrderStore, tmp_path: Path
) -> None:
    files = {path: path.read_bytes() for path in (PROJECT_ROOT / "data").glob("*.json")}
    loaded = dump_of(store)
    async with serving(client, spec):
        repair = await repaired(client, spec)
        outcome = await repair.outcome()
        status, plan, report = await asyncio.gather(repair.status(), repair.plan(), repair.report())
        assert outcome.state is State.COMPLETED
        assert [change.state for change in status.states] == FULL_WAY
        assert_repaired_once(store)
        assert plan is not None
        score = score_plan(plan, load_gold())
        assert (score.precision, score.recall, score.forbidden_stopped) == (1, 1, [])
        assert not score.forbidden_planned
        assert status.decision and status.decision.way == "automatic"
        assert (await repair.results()) == outcome.results
        assert {result.idempotency_key for result in outcome.results} == {
            row.idempotency_key for row in store.ledger()
        }
        for order_id in ("ORD-002-HJG", "ORD-003-RBW", "ORD-004-RHG"):
            assert order_id in (report.planning or "") and order_id in (report.execution or "")
        written = {str(path) for path in (tmp_path / "reports").iterdir()}
        assert set(report.files) == written and len(written) == 4
        assert {Path(name).suffix for name in written} == {".md", ".pdf"}
        assert all(repair.workflow_id in name for name in written)

        second = await repaired(client, spec)
        assert (await second.outcome()).state is State.NO_REPAIR_NEEDED
        assert_repaired_once(store)
        names: set[str] = set()
        async with asyncio.timeout(LIMIT):
            while (
                not {repair.workflow_id, second.workflow_id} <= names
            ):  # the list follows a bit later
                names = {info.workflow_id async for info in list_repairs(client)}
    store.reset()
    assert dump_of(store) == loaded
    assert {path: path.read_bytes() for path in files} == files


async def test_an_order_that_gives_orders_changes_nothing(ended: End, store: OrderStore) -> None:
    store.add_order(seventh_order())
    assert (await ended()).outcome.state is State.COMPLETED
    assert_repaired_once(store)


async def test_a_model_that_obeys_it_gets_nothing_forbidden_done(
    ended: End, store: OrderStore, settings_env: Callable[..., None]
) -> None:
    store.add_order(seventh_order())
    settings_env(OFFLINE_FAULTS="seed=1, gullible=1")
    plan = (await ended()).plan
    assert set(ledger_of(store)) <= RIGHT
    assert stock_of(store, "DRG-EGG-007") == 2 and stock_of(store, "STP-ORG-001") <= 500
    assert plan is not None
    forbidden = score_plan(plan, load_gold())
    assert forbidden.forbidden_stopped and not forbidden.forbidden_planned  # it did try


async def test_two_repairs_at_once_repair_once(
    client: Client, spec: WorkerSpec, store: OrderStore
) -> None:
    async with serving(client, spec):
        both = [await RepairClient.start(client, task_queue=spec.task_queue) for _ in range(2)]
        for repair in both:  # both have their plan before either carries it out
            await reached(repair, State.PENDING_APPROVAL)
        plans = [await repair.plan() for repair in both]
        assert plans[0] and plans[1] and plans[0].digest != plans[1].digest
        await asyncio.gather(
            *(repair.approve(plan.digest) for repair, plan in zip(both, plans, strict=True) if plan)
        )
        outcomes = [await repair.outcome() for repair in both]
    assert [outcome.state for outcome in outcomes] == [State.COMPLETED] * 2
    assert_repaired_once(store)
    again = [result.repeated for outcome in outcomes for result in outcome.results]
    assert sorted(again) == [False] * 4 + [True] * 4


@activity.defn(name="detect_problems")
async def nothing_much(request: DetectRequest) -> Detection:
    return Detection(confidence=0.49, order_ids=["ORD-002-HJG"], reason="Hardly anything.")


async def test_below_the_threshold_no_model_is_asked_anything_more(ended: End) -> None:
    end = await ended(nothing_much)
    assert (end.outcome.state, end.outcome.reason) == (State.NO_REPAIR_NEEDED, "Hardly anything.")
    assert end.steps == ["look_at_orders", "detect_problems"]


async def test_unsure_proposals_are_skipped_and_counted(ended: End, store: OrderStore) -> None:
    end = await ended(planning(badges(0.9), payment(0.49)))
    assert end.outcome.state is State.COMPLETED
    assert (end.outcome.skipped, end.status.skipped) == (1, 1)
    assert ledger_of(store) == [("order_inventory", "ORD-002-HJG", "STP-ORG-001")]


async def test_a_plan_of_nothing_is_reported_and_asks_nobody(ended: End, store: OrderStore) -> None:
    outcome = (await ended(planning(badges(0.3), payment(0.49)), auto_approve=False)).outcome
    assert (outcome.state, outcome.skipped, outcome.results) == (State.COMPLETED, 2, [])
    assert "2 skipped" in outcome.reason and outcome.report
    assert store.ledger() == []


async def test_no_planner_gets_around_the_hard_rules(ended: End, store: OrderStore) -> None:
    plan = (await ended(planning(badges(quantity=400), payment()))).plan
    assert plan and [rejected.proposal["proposal_id"] for rejected in plan.refused] == ["p1"]
    assert ledger_of(store) == [("request_payment_update", "ORD-003-RBW", "")]


async def test_a_failure_is_said_as_state_and_as_result(client: Client, ended: End) -> None:
    end = await ended(failing("detect_problems", "the key was refused", "ModelRefused"))
    assert (end.outcome.state, end.outcome.reason) == (State.FAILED, "the key was refused")
    assert end.status.state is State.FAILED
    with pytest.raises(WorkflowFailureError):
        await client.get_workflow_handle(end.workflow_id).result()


async def test_a_refused_repair_stops_no_other_and_is_not_hidden(
    ended: End, store: OrderStore
) -> None:
    no_room = failing("order_inventory", "The shelf has no room.", "RepairRefused")
    outcome = (await ended(no_room)).outcome
    assert outcome.state is State.FAILED
    assert "2 of 4 repairs were not made" in outcome.reason and "no room" in outcome.reason
    assert len(store.ledger()) == 2
    assert outcome.report and "ORD-003-RBW" in outcome.report
    assert [result.done for result in outcome.results].count(False) == 2


async def test_when_the_store_is_gone_the_rest_is_not_tried(ended: End, store: OrderStore) -> None:
    end = await ended(failing("order_inventory", "The store is gone.", "StoreUnusable"))
    assert end.outcome.state is State.FAILED and store.ledger() == []
    tried = [name for name in end.steps if name.startswith(("order_", "request_"))]
    assert tried == ["order_inventory"]
    assert len(end.outcome.results) == 4  # each is listed


async def test_without_a_model_the_report_is_written_by_code(ended: End) -> None:
    outcome = (await ended(failing("write_report", "the model is away", "ModelRefused"))).outcome
    assert outcome.state is State.COMPLETED
    assert outcome.report and "the model is away" in outcome.report
    for result in outcome.results:
        assert result.outcome[:40] in outcome.report


async def test_reports_that_cannot_be_written_are_a_warning(ended: End) -> None:
    end = await ended(failing("save_report", "disk full", "ReportUnwritable"))
    assert end.outcome.state is State.COMPLETED and end.outcome.report
    assert len(end.status.warnings) == 2 and "in no file" in end.status.warnings[0]


# --- cancelled ---------------------------------------------------------------------------------------

entered, leave = asyncio.Event(), asyncio.Event()


@activity.defn(name="request_payment_update")
async def slow_payment(call: RepairCall[RequestPaymentUpdate]) -> RepairResult:
    from workshop_lib.repair.tools import request_payment_update

    entered.set()
    while not leave.is_set():
        activity.heartbeat()
        await asyncio.sleep(0.1)
    return await request_payment_update(call)


async def test_a_cancelled_repair_finishes_the_one_under_way_and_reports(
    client: Client, spec: WorkerSpec, store: OrderStore
) -> None:
    entered.clear()
    leave.clear()
    async with serving(client, with_activities(spec, slow_payment)):
        repair = await repaired(client, spec)
        async with asyncio.timeout(LIMIT):
            await entered.wait()
        await repair.handle.cancel()
        leave.set()
        with pytest.raises(WorkshopError, match="without a result"):
            await repair.outcome()
        status, report = await repair.status(), await repair.report()
        results = await repair.results()
    assert status.state is State.FAILED and "Cancelled" in status.reason
    done = {result.proposal_id for result in results if result.done}
    assert len(store.ledger()) == len(done) == 2  # the one before and the one under way
    assert len(results) == 4
    assert report.execution and "cancelled" in report.execution


async def test_cancelled_while_it_waits(
    client: Client, spec: WorkerSpec, store: OrderStore
) -> None:
    async with serving(client, spec):
        repair = await RepairClient.start(client, task_queue=spec.task_queue)
        await reached(repair, State.PENDING_APPROVAL)
        await repair.handle.cancel()
        with pytest.raises(WorkshopError, match="without a result"):
            await repair.outcome()
        status = await repair.status()
    assert status.state is State.FAILED and "PENDING-APPROVAL" in status.reason
    assert store.ledger() == []


# --- callbacks ---------------------------------------------------------------------------------------


async def test_another_workflow_hears_of_it(client: Client, queue: str, store: OrderStore) -> None:
    spec = repair_spec().with_queue(queue)
    spec = WorkerSpec(**{**vars(spec), "workflows": [*spec.workflows, Listener]})
    async with serving(client, spec):
        ear = await client.start_workflow(Listener.run, 2, id=a_name("ear"), task_queue=queue)
        repair = await RepairClient.start(
            client, task_queue=queue, callback=Callback(workflow_id=ear.id)
        )
        status = await reached(repair, State.PENDING_APPROVAL)
        assert status.plan_digest
        await repair.reject(status.plan_digest)
        async with asyncio.timeout(LIMIT):
            first, last = await ear.result()
    assert (first.state, last.state) == (State.PENDING_APPROVAL, State.REJECTED)
    assert first.source == repair.workflow_id and first.plan_digest == status.plan_digest


async def test_a_callback_that_leads_nowhere_is_a_warning(
    client: Client, spec: WorkerSpec, store: OrderStore
) -> None:
    async with serving(client, spec):
        repair = await repaired(client, spec, callback=Callback(workflow_id="nobody-there"))
        assert (await repair.outcome()).state is State.COMPLETED
        status = await repair.status()
    assert len(status.warnings) == 1 and "nobody-there was not told" in status.warnings[0]


# --- bad days of the model ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        "seed=11, cut_json=1",
        "seed=12, unknown_tool=1",
        "seed=13, wrong_argument=1",
        "sequence=server_error*2, timeout, ok, cut_json, ok, unknown_tool, wrong_argument, ok",
        "seed=14, cut_json=0.3, unknown_tool=0.2, wrong_argument=0.2",
    ],
)
async def test_with_faults_it_ends_right_or_with_a_reason(
    client: Client,
    spec: WorkerSpec,
    store: OrderStore,
    settings_env: Callable[..., None],
    faults: str,
) -> None:
    settings_env(OFFLINE_FAULTS=faults)
    async with serving(client, spec):
        outcome: RepairOutcome = await (await repaired(client, spec)).outcome()
    if outcome.state is State.COMPLETED and not outcome.skipped and len(outcome.results) == 4:
        assert_repaired_once(store)
    else:
        assert outcome.reason and outcome.state in (State.FAILED, State.COMPLETED)
        done = [r for r in outcome.results if r.done]
        assert len(store.ledger()) == len(
            done
        )  # never half: what is in the ledger is in the outcome
    assert stock_of(store, "DRG-EGG-007") == 2


async def test_a_name_is_used_once_at_a_time(
    client: Client, spec: WorkerSpec, store: OrderStore
) -> None:
    name = a_name()
    async with serving(client, spec):
        first = await RepairClient.start(client, task_queue=spec.task_queue, workflow_id=name)
        with pytest.raises(WorkshopError, match="under way"):
            await RepairClient.start(client, task_queue=spec.task_queue, workflow_id=name)
        digest = (await reached(first, State.PENDING_APPROVAL)).plan_digest
        assert digest
        await first.reject(digest)
        await first.outcome()
        # The name may be used again; its plan is another one, even where it says the same.
        again = await RepairClient.start(client, task_queue=spec.task_queue, workflow_id=name)
        second = (await reached(again, State.PENDING_APPROVAL)).plan_digest
        assert second and second != digest
        await again.approve(second)
        await again.outcome()
    assert_repaired_once(store)


async def test_with_no_worker_the_client_says_so(
    client: Client, queue: str, store: OrderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair = await RepairClient.start(client, task_queue=queue)
    with monkeypatch.context() as patch:
        patch.setattr("workshop_lib.temporal.client_retries.ATTEMPTS", (timedelta(seconds=0.5),))
        patch.setattr("workshop_lib.repair.client.DECIDE_LIMIT", timedelta(seconds=0.5))
        for asking in (
            repair.status(),
            repair.approve("x"),
            repair.outcome(timedelta(seconds=0.5)),
        ):
            with pytest.raises(WorkshopError) as said:
                await asking
            assert "no worker" in str(said.value).lower() or "not that far" in str(said.value)
    deciding = asyncio.create_task(repair.approve("x"))
    await asyncio.sleep(0.5)
    deciding.cancel()  # which is no answer of anybody's
    with pytest.raises(asyncio.CancelledError):
        await deciding
    await repair.handle.terminate()


async def test_the_store_of_a_repair_may_be_another_database(
    client: Client,
    spec: WorkerSpec,
    settings_env: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Where it cannot be reached, the repair waits for it and goes on when it is there."""
    nowhere = f"sqlite:///{tmp_path / 'later' / 'orders.db'}"
    settings_env(WORKSHOP_STATE_DIR=tmp_path, ORDERS_DATABASE_URL=nowhere)
    async with serving(client, spec):
        repair = await repaired(client, spec)
        async with asyncio.timeout(LIMIT):
            while not await failed_attempts(repair):  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.05)
        (tmp_path / "later").mkdir()
        assert (await repair.outcome()).state is State.COMPLETED
    assert_repaired_once(open_store())


async def failed_attempts(repair: RepairClient) -> int:
    pending = (await repair.handle.describe()).raw_description.pending_activities
    return max((activity.attempt for activity in pending), default=1) - 1


async def test_the_worker_as_a_service(
    client: Client, temporal_server: str, store: OrderStore
) -> None:
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "workshop_lib.repair.worker",
        env={**os.environ, "TEMPORAL_ADDRESS": temporal_server},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert service.stderr
        async with asyncio.timeout(LIMIT):
            said = await service.stderr.readline()
            assert b"OrderRepair" in said and b"repair-task-queue" in said
            repair = await RepairClient.start(client, auto_approve=True)
            assert (await repair.outcome()).state is State.COMPLETED
    finally:
        service.kill()
        await service.communicate()
    assert_repaired_once(store)


def test_every_step_says_which_of_it_may_run_twice() -> None:
    spec = repair_spec()
    for step in [*spec.workflows, *spec.activities]:
        words = " ".join((inspect.getdoc(step) or "").split())
        assert "twice" in words, step
