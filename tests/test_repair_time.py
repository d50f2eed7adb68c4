"""Hours and days of the repair agents in seconds: a real dev server that skips time.

Each workflow has a clock of its own. It jumps where the workflow only waits for a timer, as far as the
test says, and the next event is awaited, never slept for.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from repair_ground import (
    LIMIT,
    TODAY,
    a_name,
    assert_repaired_once,
    badges,
    ledger_of,
    payment,
    planning,
    reached,
    with_activities,
)
from repair_listener import Listener
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.testing import TimeSkippingConfig, WorkflowEnvironment

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server import dev_server
from workshop_lib.repair.client import DecisionRefused, RepairClient
from workshop_lib.repair.proactive_client import ProactiveClient
from workshop_lib.repair.states import (
    APPROVAL_TIMEOUT,
    Callback,
    ProactiveOutcome,
    State,
)
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.worker import repair as repair_spec
from workshop_lib.temporal.failures import DATA_CONVERTER
from workshop_lib.temporal.worker import WorkerSpec

DAY = timedelta(days=1)


@pytest_asyncio.fixture
async def env() -> AsyncIterator[WorkflowEnvironment]:
    started = await WorkflowEnvironment.start_time_skipping_v2(
        ts_config=TimeSkippingConfig(enabled=False),  # else every wait is over at once
        data_converter=DATA_CONVERTER,
        dev_server_existing_path=dev_server.find_cli(),
        dev_server_extra_args=[
            *dev_server.flag_arguments(),
            "--dynamic-config-value",
            'history.timerProcessorMaxTimeShift="10ms"',
            "--dynamic-config-value",
            # A timer that time was skipped to may go unnoticed until the queue of timers is read again.
            'history.timerProcessorMaxPollInterval="5s"',
        ],
        dev_server_startup_timeout=timedelta(seconds=30),
    )
    yield started
    await started.shutdown()


@asynccontextmanager
async def serving(env: WorkflowEnvironment, spec: WorkerSpec) -> AsyncIterator[None]:
    async with asyncio.timeout(150), spec.build(env.client):
        yield


class Agent(ProactiveClient):
    """A proactive agent under test."""

    env: WorkflowEnvironment

    @classmethod
    async def begin(
        cls, env: WorkflowEnvironment, queue: str, callback: Callback | None = None
    ) -> "Agent":
        started = await cls.start_agent(
            env.client,
            today=TODAY,
            callback=callback,
            workflow_id=a_name("proactive"),
            task_queue=queue,
        )
        agent = cls(env.client, started.workflow_id)
        agent.env = env
        return agent

    async def in_cycle(self, number: int, *states: State) -> Any:
        return await reached(self, *states, when=lambda status: status.cycle == number)

    async def pass_time(self, duration: timedelta) -> None:
        async with asyncio.timeout(LIMIT):
            assert await self.env.fast_forward(self.handle, duration)

    async def left(self) -> ProactiveOutcome:
        async with asyncio.timeout(LIMIT):
            handle = self.env.client.get_workflow_handle(
                self.workflow_id, result_type=ProactiveOutcome
            )
            return await handle.result()


async def test_nobody_decides_for_twelve_hours(
    env: WorkflowEnvironment, queue: str, store: OrderStore
) -> None:
    async with serving(env, repair_spec().with_queue(queue)):
        repair = await RepairClient.start(env.client, task_queue=queue)
        status = await reached(repair, State.PENDING_APPROVAL)
        assert status.decide_until and status.plan_digest
        begun = status.states[-1].at
        assert status.decide_until - begun == APPROVAL_TIMEOUT == timedelta(hours=12)
        async with asyncio.timeout(LIMIT):
            await env.fast_forward(repair.handle, timedelta(hours=11, minutes=55))
        assert (await repair.status()).state is State.PENDING_APPROVAL
        async with asyncio.timeout(LIMIT):
            await env.fast_forward(repair.handle, timedelta(minutes=10))
        outcome = await repair.outcome()
        assert outcome.state is State.EXPIRED and "12 hours" in outcome.reason
        described = await repair.handle.describe()
        assert described.status is WorkflowExecutionStatus.COMPLETED
        with pytest.raises(DecisionRefused, match="EXPIRED"):
            await repair.approve(status.plan_digest)
        history = await repair.handle.fetch_history()
        summaries = [
            event.user_metadata.summary.data.decode()
            for event in history.events
            if event.HasField("timer_started_event_attributes")
        ]
        assert any("expires undecided" in summary for summary in summaries)
    assert store.ledger() == []


async def test_a_decision_in_the_last_minute_counts(
    env: WorkflowEnvironment, queue: str, store: OrderStore
) -> None:
    async with serving(env, repair_spec().with_queue(queue)):
        repair = await RepairClient.start(env.client, task_queue=queue)
        digest = (await reached(repair, State.PENDING_APPROVAL)).plan_digest
        assert digest
        async with asyncio.timeout(LIMIT):
            await env.fast_forward(repair.handle, timedelta(hours=11, minutes=59))
        recorded = await repair.approve(digest)
        assert (await repair.outcome()).state is State.COMPLETED
        assert recorded.decided_at - datetime.now(UTC) > timedelta(hours=11)
    assert_repaired_once(store)


# --- the proactive agent -----------------------------------------------------------------------------


async def test_above_the_line_it_acts_alone_and_says_so(
    env: WorkflowEnvironment, queue: str, store: OrderStore, tmp_path: Path
) -> None:
    async with serving(
        env,
        with_activities(repair_spec().with_queue(queue), planning(badges(0.96), payment(0.951))),
    ):
        agent = await Agent.begin(env, queue)
        status = await agent.in_cycle(1, State.WAITING)
        assert status.decision and status.decision.way == "automatic"
        assert status.decision.decided_by == "proactive agent"
        assert len(store.ledger()) == 2
        (mail,) = (tmp_path / "outbox").iterdir()
        assert "REPORT-COMPLETED" in mail.name and "2 repairs were made" in mail.read_text()
        await agent.request_exit()
        assert (await agent.left()).state is State.STOPPED


async def test_at_the_line_it_notifies_and_waits(
    env: WorkflowEnvironment, queue: str, store: OrderStore, tmp_path: Path
) -> None:
    spec = with_activities(repair_spec().with_queue(queue), planning(badges(0.99), payment(0.95)))
    spec = WorkerSpec(**{**vars(spec), "workflows": [*spec.workflows, Listener]})
    async with serving(env, spec):
        ear = await env.client.start_workflow(Listener.run, 2, id=a_name("ear"), task_queue=queue)
        agent = await Agent.begin(env, queue, Callback(workflow_id=ear.id))
        status = await agent.in_cycle(1, State.PENDING_APPROVAL)
        assert store.ledger() == []
        await agent.approve(status.plan_digest)
        await agent.in_cycle(1, State.WAITING)
        async with asyncio.timeout(LIMIT):
            first, last = await ear.result()
        assert (first.state, last.state) == (State.PENDING_APPROVAL, State.COMPLETED)
        assert "0.95" in first.summary and first.plan_digest == status.plan_digest
        mails = {path.name: path.read_text() for path in (tmp_path / "outbox").iterdir()}
        (asking,) = [text for name, text in mails.items() if "PENDING-APPROVAL" in name]
        assert status.plan_digest in asking and "ORD-002-HJG" in asking
        await agent.request_exit()
        await agent.left()
    assert len(store.ledger()) == 2


async def test_what_it_is_told_while_it_waits(
    env: WorkflowEnvironment, queue: str, store: OrderStore
) -> None:
    async with serving(env, repair_spec().with_queue(queue)):
        agent = await Agent.begin(env, queue)
        first = await agent.in_cycle(1, State.PENDING_APPROVAL)
        # Signals with a load that nobody asked for, and one that does not exist.
        await agent.handle.signal("stop_waiting", args=["please", 1])
        await agent.handle.signal("hurry", {"x": 1})
        status = await reached(
            agent, State.PENDING_APPROVAL, when=lambda status: bool(status.refused_signals)
        )
        assert "stop_waiting" in status.refused_signals[0].reason
        await agent.reject(first.plan_digest, comment="not today")
        # `stop_waiting` came before there was anything to wait for; the next cycle begins at once.
        second = await agent.in_cycle(2, State.PENDING_APPROVAL)
        assert second.plan_digest != first.plan_digest
        with pytest.raises(DecisionRefused, match="cycle 1, which ended as REJECTED"):
            await agent.approve(first.plan_digest)
        # Asked to leave, it does not wait for the decision.
        await agent.request_exit()
        left = await agent.left()
        for asking in (agent.stop_waiting(), agent.request_exit()):
            with pytest.raises(WorkshopError, match="under way"):
                await asking
    assert [record.state for record in left.cycles] == [State.REJECTED, State.EXPIRED]
    assert left.count == 2 and store.ledger() == []


async def test_a_failed_day_does_not_touch_the_next(
    env: WorkflowEnvironment, queue: str, store: OrderStore, settings_env: Callable[..., None]
) -> None:
    settings_env(OFFLINE_FAULTS="sequence=cut_json*4")
    async with serving(env, repair_spec().with_queue(queue)):
        agent = await Agent.begin(env, queue)
        await agent.in_cycle(1, State.WAITING)
        (record,) = await agent.cycles()
        assert record.state is State.FAILED and record.reason
        await agent.pass_time(DAY)
        status = await agent.in_cycle(2, State.PENDING_APPROVAL)
        await agent.approve(status.plan_digest)
        await agent.in_cycle(2, State.WAITING)
        await agent.request_exit()
        assert [r.state for r in (await agent.left()).cycles] == [State.FAILED, State.COMPLETED]


async def test_twenty_five_days(env: WorkflowEnvironment, queue: str, store: OrderStore) -> None:
    """Two continue-as-new, a rejection on day 3, a signal at the moment of continue-as-new."""
    async with serving(env, repair_spec().with_queue(queue)):
        agent = await Agent.begin(env, queue)
        digests: list[str] = []
        for day in (1, 2, 3):
            status = await agent.in_cycle(day, State.PENDING_APPROVAL)
            digests.append(status.plan_digest)
            if day == 3:
                await agent.reject(status.plan_digest, comment="not this one")
                await agent.in_cycle(3, State.WAITING)
            await agent.pass_time(DAY)
        assert len(set(digests)) == 3  # the same proposals, and another plan each day
        status = await agent.in_cycle(4, State.PENDING_APPROVAL)
        for old in digests:
            with pytest.raises(DecisionRefused) as refused:
                await agent.approve(old)
            assert refused.value.kind == "StalePlan"
        await agent.approve(status.plan_digest)
        await agent.in_cycle(4, State.WAITING)
        repaired = ledger_of(store)
        assert len(repaired) >= 4
        await agent.pass_time(21 * DAY)  # nothing to decide any more
        await agent.in_cycle(25, State.WAITING)
        records = await agent.cycles()
        assert [record.cycle for record in records] == list(range(1, 26))
        states = [record.state for record in records]
        assert states[:4] == [State.EXPIRED, State.EXPIRED, State.REJECTED, State.COMPLETED]
        assert states.count(State.NO_REPAIR_NEEDED) >= 15 and State.FAILED not in states
        # A day apart, whatever happened on each.
        gaps = [b.started - a.started for a, b in itertools.pairwise(records)]
        assert all(abs(gap - DAY) < timedelta(hours=1) for gap in gaps), gaps
        assert await runs_of(env, agent, 3) == 3
        await agent.request_exit()
        assert (await agent.left()).count == 25
    keys = [row.idempotency_key for row in store.ledger()]
    assert len(keys) == len(set(keys)) and set(repaired) <= set(ledger_of(store))


async def runs_of(env: WorkflowEnvironment, agent: Agent, expected: int) -> int:
    """How many runs the agent has had: one, and one more for each continue-as-new."""
    async with asyncio.timeout(LIMIT):
        while True:  # the list of runs follows the runs by some milliseconds
            found = [
                run
                async for run in env.client.list_workflows(f"WorkflowId = '{agent.workflow_id}'")
            ]
            going = sum(run.status is WorkflowExecutionStatus.RUNNING for run in found)
            if going == 1 and len(found) >= expected:
                return len(found)
            await asyncio.sleep(0.05)


class TestSignalsAtContinueAsNew:
    """Signals that come in the very workflow task that would continue as new."""

    @pytest.mark.parametrize("signal", ["stop_waiting", "request_exit"])
    async def test_none_is_lost(
        self, env: WorkflowEnvironment, queue: str, store: OrderStore, signal: str
    ) -> None:
        async with serving(env, repair_spec().with_queue(queue)):
            agent = await Agent.begin(env, queue)
            await self._ten_cycles_nearly(agent)
            first_run = (await agent.handle.describe()).run_id
            # The tenth cycle is decided, and signals keep coming until the next run is there.
            status = await agent.in_cycle(10, State.PENDING_APPROVAL)
            await agent.reject(status.plan_digest)
            assert await self._send_until_new(agent, signal, first_run) > 0
            if signal == "request_exit":
                assert (await agent.left()).state is State.STOPPED
            else:
                # The eleventh cycle begins without a day having passed.
                await agent.in_cycle(11, State.PENDING_APPROVAL)
                records = await agent.cycles()
                assert [record.cycle for record in records] == list(range(1, 11))
                await agent.request_exit()
                await agent.left()

    async def _ten_cycles_nearly(self, agent: Agent) -> None:
        for number in range(1, 10):
            status = await agent.in_cycle(number, State.PENDING_APPROVAL)
            await agent.stop_waiting()
            await agent.reject(status.plan_digest)

    async def _send_until_new(self, agent: Agent, signal: str, first_run: str) -> int:
        """Send a signal to the first run as long as it takes any; then it has continued as new."""
        handle = agent.env.client.get_workflow_handle(agent.workflow_id, run_id=first_run)
        sent = 0
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    await handle.signal(signal)
                except RPCError:
                    return sent
                sent += 1
