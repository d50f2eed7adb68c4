"""Whose a session is and what a repair waits for: asked of the server, and answered without a worker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from lab_environment import fresh
from repair_ground import LIMIT, reached
from temporalio.client import Client

from workshop_lib.agents.chat import ChatStart
from workshop_lib.agents.session_list import list_sessions
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.errors import WorkshopError
from workshop_lib.repair.approval import waiting_for
from workshop_lib.repair.client import RepairClient, list_repairs
from workshop_lib.repair.proactive_client import ProactiveClient
from workshop_lib.repair.states import State
from workshop_lib.repair.worker import repair
from workshop_lib.settings import get_settings
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.search_attributes import REPAIR_STATUS, SESSION_OWNER, equals, found_by
from workshop_lib.temporal.worker import WorkerSpec


@pytest.fixture
def repair_here(settings_env: Callable[..., None], tmp_path: Path, queue: str) -> WorkerSpec:
    settings_env(WORKSHOP_STATE_DIR=tmp_path, REPAIR_QUEUE=queue)
    return repair()


async def names(listed: AsyncIterator[object]) -> set[str]:
    return {info.workflow_id async for info in listed}  # type: ignore[attr-defined]


async def becomes(wanted: set[str], look: Callable[[], AsyncIterator[object]]) -> None:
    """Lists follow a moment later."""
    async with asyncio.timeout(LIMIT):
        while await names(look()) != wanted:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "name",
    ["ada", "O'Brien", 'say "hi"', "back\\", "x' OR WorkflowId != '", "Ünï % 語", "two\nlines"],
)
async def test_a_name_finds_its_own_sessions(client: Client, queue: str, name: str) -> None:
    mine = fresh(name)
    chats = [
        ChatClient(client, task_queue=queue, start=ChatStart(user=user))
        for user in (mine, mine, fresh(name))
    ]
    for chat in chats:
        await chat.begin()  # no worker has to run
    await becomes({chat.workflow_id for chat in chats[:2]}, lambda: list_sessions(client, mine))


async def test_a_very_long_name_is_found_too(client: Client, queue: str) -> None:
    mine = fresh("ada") + "x" * 3000
    chat = ChatClient(client, task_queue=queue, start=ChatStart(user=mine))
    await chat.begin()
    await becomes({chat.workflow_id}, lambda: list_sessions(client, mine))


async def test_a_repair_is_found_while_it_waits(
    client: Client, repair_here: WorkerSpec, settings_env: Callable[..., None]
) -> None:
    settings_env(USER_NAME=(me := fresh("me")))
    mine = equals(SESSION_OWNER, me)

    def waiting() -> AsyncIterator[object]:
        return list_repairs(client, f"{waiting_for(None)} AND {mine}")

    async with repair_here.build(client):
        started = [await RepairClient.start(client) for _ in range(2)]
        for run in started:
            await reached(run, State.PENDING_APPROVAL)
    # Nobody has to be there to answer.
    await becomes({run.workflow_id for run in started}, waiting)
    async with repair_here.build(client):
        plan = await started[0].plan()
        assert plan is not None
        await started[0].reject(plan.digest)
        await started[0].outcome()
        await becomes({started[1].workflow_id}, waiting)
        await started[1].handle.terminate()
        await becomes(set(), waiting)
    rejected = equals(REPAIR_STATUS, State.REJECTED)
    await becomes({started[0].workflow_id}, lambda: list_repairs(client, f"{rejected} AND {mine}"))


async def test_an_agent_is_found_by_its_cycles_state(
    client: Client, repair_here: WorkerSpec, settings_env: Callable[..., None]
) -> None:
    settings_env(USER_NAME=(me := fresh("me")))
    mine = equals(SESSION_OWNER, me)
    async with repair_here.build(client), asyncio.timeout(LIMIT):
        agent = await ProactiveClient.start_agent(client, workflow_id=fresh("agent"))
        for state in (State.PENDING_APPROVAL, State.WAITING, State.STOPPED):
            where = f"{mine} AND {equals(REPAIR_STATUS, state)}"
            await becomes({agent.workflow_id}, lambda where=where: list_repairs(client, where))
            if state is State.PENDING_APPROVAL:
                plan = await agent.plan()
                assert plan is not None
                await agent.reject(plan.digest)
            elif state is State.WAITING:
                await agent.request_exit()


async def test_a_server_without_them_runs_everything_and_says_so(
    client: Client, repair_here: WorkerSpec
) -> None:
    """Another namespace has none of them, as a cluster that nobody has prepared."""
    there = await connect(get_settings().it_namespace)
    assert not await found_by(there, {SESSION_OWNER: "ada"})
    chat = ChatClient(there, task_queue=repair_here.task_queue)
    await chat.begin()
    async with repair_here.build(there):
        run = await RepairClient.start(there, auto_approve=True)
        assert (await run.outcome()).state is State.COMPLETED
    assert run.workflow_id in await names(list_repairs(there))
    for listing in (list_sessions(there, "ada"), list_repairs(there, waiting_for(None))):
        with pytest.raises(WorkshopError) as refused:
            await names(listing)
        assert "SessionOwner" in str(refused.value) and "workshop doctor --fix" in str(
            refused.value
        )
    await chat.handle.terminate()
