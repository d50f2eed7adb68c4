"""Versions of a worker's code: which one new runs get, which one a run stays with, how chats are upgraded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio
from chat_versions import SECOND_PROMPT, BrokenChat, SecondChat
from lab_environment import fresh
from repair_ground import TODAY, badges, planning, with_activities
from temporalio.client import Client

from workshop_lib.agents.chat import INSTRUCTIONS, ChatStart, SessionLimits
from workshop_lib.agents.loops.manual import ManualChat
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import decode
from workshop_lib.lab.lessons.versions import move_run, version_of
from workshop_lib.lab.registry import stop_all
from workshop_lib.lab.services.background import agreed_on_versions
from workshop_lib.lab.watching.pending import waits_for
from workshop_lib.lab.watching.waiting import NobodyPolls, StuckWorkflow, watch
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.llm.gateway import warm_up
from workshop_lib.machine.records import remove_record
from workshop_lib.repair.proactive_client import ProactiveClient
from workshop_lib.repair.states import RepairStatus, State
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.worker import repair
from workshop_lib.temporal.service import announce
from workshop_lib.temporal.worker import WorkerSpec

SUM, ANSWER = "What is 15 * 23?", "15 * 23 = 345."
SIGNED = " (version 2)"
PLAN = "plan_next_action"
LIMIT = 200


@pytest_asyncio.fixture
async def desk(queue: str) -> AsyncIterator[WorkerSpec]:
    """A worker of chats, of which there are versions."""
    await warm_up()  # else a worker's thread has to wait for the library
    yield replace(orchestrator(), name=fresh("desk"), task_queue=queue, workflows=[ManualChat])
    stop_all()


def chats(client: Client, desk: WorkerSpec, **limits: int) -> ChatClient:
    start = ChatStart(user="ada", limits=SessionLimits(**limits))
    return ChatClient(client, "manual", fresh("v"), task_queue=desk.task_queue, start=start)


async def prompts(chat: ChatClient) -> set[str]:
    """The system messages that models were sent in a session's latest run."""
    events = (await chat.handle.fetch_history()).events
    scheduled = [event.activity_task_scheduled_event_attributes for event in events]
    requests = [
        decode(one.input.payloads[0]) for one in scheduled if one.activity_type.name == PLAN
    ]
    return {request["messages"][0]["content"] for request in requests}


async def test_a_chat_is_upgraded_when_it_goes_on_and_a_pinned_one_is_not(
    client: Client, desk: WorkerSpec
) -> None:
    """Code and prompt together; and back again, the way of a deployment that was a mistake."""
    first, second = f"version 1 of {desk.name}", f"version 2 of {desk.name}"
    async with asyncio.timeout(LIMIT):
        await start_worker(desk.with_version("1"))
        chat, pinned = chats(client, desk), chats(client, desk, updates=1)
        for one in chat, pinned:
            assert (await one.send(SUM)).text == ANSWER and await version_of(one.handle) == first
        assert await move_run(pinned.handle, "1", stay=True) == first
        await start_worker(replace(desk, workflows=[SecondChat]).with_version("2"))
        begun = await run_of(chat)
        # The run stays with the first version. It notices the second at the end of a turn, and ends.
        while await run_of(chat) == begun:
            assert (await chat.send(SUM)).text == ANSWER
        assert (await chat.send(SUM)).text == ANSWER + SIGNED
        assert await version_of(chat.handle) == second and await prompts(chat) == {SECOND_PROMPT}
        for _ in range(2):
            begun = await run_of(pinned)
            assert (await pinned.send(SUM)).text == ANSWER
            assert await version_of(pinned.handle) == first
            assert await prompts(pinned) <= {INSTRUCTIONS}
            while await run_of(pinned) == begun:  # the next one is just being started
                pass
        assert (await chats(client, desk).send(SUM)).text == ANSWER + SIGNED
        lines = [line.text for line in await chat.transcript()]
        assert lines[1] == ANSWER and lines[-1] == ANSWER + SIGNED


@pytest.mark.long
async def test_a_proactive_agent_takes_a_new_version_between_two_cycles(
    client: Client, queue: str, store: OrderStore
) -> None:
    desk = replace(repair(), name=fresh("repair"), task_queue=queue)
    desk = with_activities(desk, planning(badges(0.96)))  # for which it needs nobody
    try:
        async with asyncio.timeout(LIMIT):
            await start_worker(desk.with_version("1"))
            started = await ProactiveClient.start_agent(
                client, today=TODAY, workflow_id=fresh("agent"), task_queue=queue
            )
            agent = ProactiveClient(client, started.workflow_id)
            await agent.wait_until(lambda status: status.state is State.WAITING)
            assert await version_of(agent.handle) == f"version 1 of {desk.name}"
            await start_worker(desk.with_version("2"))
            cycle = 1
            while await version_of(agent.handle) != f"version 2 of {desk.name}":
                cycle = max(cycle, (await agent.status()).cycle) + 1
                await agent.stop_waiting()
                await agent.wait_until(over(cycle))
            assert cycle <= 4 and (await agent.cycles())[0].cycle == 1
            await agent.request_exit()
            assert (await agent.stopped()).state is State.STOPPED
    finally:
        stop_all()


def over(cycle: int) -> Callable[[RepairStatus], bool]:
    """Whether a cycle is over."""
    return lambda status: status.cycle >= cycle and status.state is State.WAITING


async def test_a_pinned_run_whose_code_is_broken_is_stuck_until_it_is_moved(
    client: Client, desk: WorkerSpec
) -> None:
    broken = replace(desk, workflows=[BrokenChat]).with_version("1")
    async with asyncio.timeout(LIMIT):
        await start_worker(broken)
        chat = chats(client, desk)
        sending = asyncio.create_task(chat.send(SUM))
        assert (await waits_for(chat.handle, until="it is pinned"))[-2:] == [
            "its workflow task fails: 'answer'",
            f"it is pinned to version 1 of {desk.name}: no other version gets its task",
        ]
        await start_worker(desk.with_version("2"))  # mended, and that is not enough
        with pytest.raises(StuckWorkflow) as raised:
            await watch(asyncio.shield(sending), chat.handle)
        assert "KeyError" in raised.value.what and "lab.move_run" in str(raised.value.fix)
        assert await version_of(chat.handle) == f"version 1 of {desk.name}"
        assert await move_run(chat.handle, "2") == f"version 2 of {desk.name}"
        assert (await sending).text == ANSWER
        assert await version_of(chat.handle) == f"version 2 of {desk.name}"


async def test_nobody_polls_for_a_version(client: Client, desk: WorkerSpec) -> None:
    """That another version does helps no run that is pinned."""
    async with asyncio.timeout(LIMIT):
        worker = await start_worker(desk.with_version("1"))
        chat = chats(client, desk)
        await chat.send(SUM)
        await start_worker(desk.with_version("2"))
        worker.stop()
        sending = asyncio.create_task(chat.send(SUM))
        with pytest.raises(NobodyPolls) as raised:
            await watch(asyncio.shield(sending), chat.handle)
        gone = f"version 1 of {desk.name}"
        assert f"{desk.task_queue} for {gone}" in raised.value.what
        await start_worker(desk.with_version("1"), current=False)
        assert (await sending).text == ANSWER and await version_of(chat.handle) == gone
        new = chats(client, desk)
        await new.send(SUM)
        assert await version_of(new.handle) == f"version 2 of {desk.name}"


async def test_workers_without_a_version_are_told_that_one_is_current(
    client: Client, desk: WorkerSpec, settings_env: Callable[..., None]
) -> None:
    """As `workshop up` does, which makes a version of the environment current instead."""
    async with asyncio.timeout(LIMIT):
        await start_worker(desk.with_version("1"))
        record = announce(desk, "service")
        try:
            [told] = [line for line in await agreed_on_versions(client) if desk.name in line]
            assert f"version 1 of {desk.name} is current on its queue" in told
            settings_env(TEMPORAL_DEPLOYMENT_NAME=desk.name, TEMPORAL_WORKER_BUILD_ID="2")
            await start_worker(desk.with_version("2"), current=False)
            [told] = [line for line in await agreed_on_versions(client) if desk.name in line]
            assert f"version 2 of {desk.name} is current" in told
        finally:
            remove_record(record)


async def test_a_run_without_versions_is_not_moved(client: Client, desk: WorkerSpec) -> None:
    async with asyncio.timeout(LIMIT):
        await start_worker(desk)
        chat = chats(client, desk)
        await chat.send(SUM)
        assert await version_of(chat.handle) == "no version"
        with pytest.raises(WorkshopError, match="is on no version"):
            await move_run(chat.handle, "2")


@pytest.mark.parametrize(("name", "build_id"), [("desk", ""), ("my.desk", "1"), ("a:b", "1")])
def test_versions_that_cannot_be(desk: WorkerSpec, name: str, build_id: str) -> None:
    with pytest.raises(WorkshopError, match="There can be no version"):
        replace(desk, name=name).with_version(build_id)


async def run_of(chat: ChatClient) -> str:
    return (await chat.handle.describe()).run_id
