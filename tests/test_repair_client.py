"""Following a repair from outside: every state is seen, waits end, and nobody there is said."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from repair_ground import FULL_WAY, LIMIT, a_name
from temporalio.client import Client

from workshop_lib.errors import WorkshopError
from workshop_lib.repair import client as client_module
from workshop_lib.repair import proactive
from workshop_lib.repair.client import DecisionRefused, RepairClient
from workshop_lib.repair.proactive_client import ProactiveClient
from workshop_lib.repair.states import State
from workshop_lib.repair.worker import repair as repair_spec
from workshop_lib.temporal import client_retries


@pytest_asyncio.fixture
async def served(
    client: Client, queue: str, settings_env: Callable[..., None], tmp_path: Path
) -> AsyncIterator[str]:
    """The name of a queue that a repair worker polls."""
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    async with asyncio.timeout(150), repair_spec().with_queue(queue).build(client):
        yield queue


async def test_a_repair_is_followed_from_its_first_state_to_its_last(
    client: Client, served: str
) -> None:
    repair = await RepairClient.start(client, task_queue=served)
    pending = await repair.wait_for(State.PENDING_APPROVAL)
    assert pending.state is State.PENDING_APPROVAL and pending.plan_digest
    follower = asyncio.create_task(collect(repair))
    await repair.approve(pending.plan_digest)
    seen = await follower
    assert [change.state for change in seen[-1].states] == FULL_WAY
    assert len({status.model_dump_json() for status in seen}) == len(seen)  # only changes
    assert seen[-1].state is State.COMPLETED and seen[-1].done == 4
    # Of one that has ended there is one status.
    assert [status.state for status in await collect(repair)] == [State.COMPLETED]
    assert (await repair.wait_for(State.COMPLETED)).state is State.COMPLETED
    with pytest.raises(WorkshopError, match="ended as REPORT-COMPLETED"):
        await repair.wait_for(State.REJECTED)


async def collect(repair: RepairClient) -> list[client_module.RepairStatus]:
    return [status async for status in repair.follow(timedelta(seconds=LIMIT))]


async def test_a_wait_has_an_end_and_the_repair_goes_on(client: Client, served: str) -> None:
    repair = await RepairClient.start(client, task_queue=served)
    await repair.wait_for(State.PENDING_APPROVAL)
    with pytest.raises(WorkshopError, match="goes on"):
        await repair.wait_for(State.APPROVED, timeout=timedelta(seconds=0.3))
    status = await repair.status()
    assert status.state is State.PENDING_APPROVAL and status.plan_digest
    await repair.reject(status.plan_digest)
    assert (await repair.outcome()).state is State.REJECTED


async def test_a_decision_that_cannot_be_one_is_refused_before_it_is_sent(client: Client) -> None:
    repair = RepairClient(client, "repair-that-never-was")
    for sending in (
        repair.approve("x", proposals=["p 1"]),
        repair.approve("x", comment="y" * 2000),
        repair.reject("x", decided_by=" "),
        repair.reject(""),
    ):
        with pytest.raises(DecisionRefused) as problem:
            await sending
        assert problem.value.kind == "Unreadable" and len(problem.value.what) > 20


async def test_nobody_serves_it(
    client: Client, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair = await RepairClient.start(client, task_queue=queue)
    monkeypatch.setattr(client_retries, "ATTEMPTS", (timedelta(seconds=0.5),))
    for question in (
        repair.status(),
        repair.wait_for(State.PENDING_APPROVAL, timeout=timedelta(seconds=5)),
    ):
        with pytest.raises(WorkshopError, match="No worker") as problem:
            await question
        assert problem.value.fix and "workshop up" in problem.value.fix
    await repair.handle.terminate()


async def test_a_proactive_agent_is_followed_into_its_next_run(client: Client, served: str) -> None:
    agent = await ProactiveClient.start_agent(
        client, workflow_id=a_name("always"), task_queue=served
    )
    with pytest.raises(WorkshopError, match="is under way"):
        await ProactiveClient.start_agent(client, workflow_id=agent.workflow_id, task_queue=served)
    waiting = await agent.wait_for(State.PENDING_APPROVAL)
    assert waiting.plan_digest
    await agent.approve(waiting.plan_digest)
    first_run = (await agent.handle.describe()).run_id
    cycles: list[int] = []
    # One that follows all the way, over the border between two runs.
    async for status in agent.follow(timedelta(seconds=LIMIT)):
        if status.state is not State.WAITING or status.cycle in cycles:
            continue
        cycles.append(status.cycle)
        if status.cycle == proactive.CYCLES_A_RUN + 2:
            await agent.request_exit()
        else:
            await agent.stop_waiting()
    assert cycles == list(range(1, proactive.CYCLES_A_RUN + 3))
    assert (await agent.handle.describe()).run_id != first_run
    outcome = await agent.stopped()
    assert (outcome.state, outcome.count) == (State.STOPPED, proactive.CYCLES_A_RUN + 2)
    assert outcome.cycles == await agent.cycles()
    assert [record.state for record in outcome.cycles] == [
        State.COMPLETED,
        *[State.NO_REPAIR_NEEDED] * (proactive.CYCLES_A_RUN + 1),
    ]
    for signal in (agent.stop_waiting, agent.request_exit):
        with pytest.raises(WorkshopError, match="under way"):
            await signal()
