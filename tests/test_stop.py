"""A turn that is stopped: at each place, it ends at once, keeps what it has, and the next one knows.

Left out: the stop of a call to an MCP server (`test_mcp_loop`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from lab_environment import LIMIT, fresh
from openai_server import calling, says, scripted_model
from sampled import sampled
from teams_environment import Teams
from temporalio import activity
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from workshop_lib.agents.chat import MODEL_DOWN, ChatStart, Reply
from workshop_lib.agents.conversation.summary import Summary, SummaryRequest, summarise
from workshop_lib.agents.local_tools import ToolRequest, execute_tool
from workshop_lib.agents.sessions import ChatClient, NothingToStop
from workshop_lib.agents.streaming import stream_reply
from workshop_lib.agents.turn import STOPPED
from workshop_lib.lab.workers.process import start_process
from workshop_lib.llm.gateway import load
from workshop_lib.temporal.worker import WorkerSpec

# What would have to be waited for if a stop waited; and how soon it has to be over on a busy machine.
LONG, SOON = 40.0, 15.0
SEATTLE = "What is the weather in Seattle?"
SettingsEnv = Callable[..., None]
loops = pytest.mark.parametrize("loop", ["manual", "sdk"])


@activity.defn(name="execute_tool")
async def endless_weather(request: ToolRequest) -> str:
    """The tools, but the weather takes long."""
    if request.name == "weather":
        for _ in range(round(LONG * 5)):
            activity.heartbeat()
            await asyncio.sleep(0.2)
    return await execute_tool(request)


@pytest.fixture
def patient(spec: WorkerSpec) -> WorkerSpec:
    """A worker whose weather takes long."""
    others = [each for each in spec.activities if each is not execute_tool]
    return replace(spec, activities=[*others, endless_weather])


def new_chat(client: Client, spec: WorkerSpec, loop: str, **start: object) -> ChatClient:
    begin = ChatStart.model_validate(start)
    return ChatClient(client, loop, task_queue=spec.task_queue, start=begin)


@asynccontextmanager
async def asked(chat: ChatClient, message: str) -> AsyncIterator["asyncio.Task[Reply]"]:
    """A message that is being answered while the block runs."""
    sending = asyncio.create_task(chat.send(message))
    try:
        async with asyncio.timeout(LIMIT):
            yield sending
    finally:
        sending.cancel()


async def until_pending(chat: ChatClient, *names: str) -> None:
    """Wait until exactly these are under way: activities that have begun, or operations."""
    while True:
        try:
            found = (await chat.handle.describe()).raw_description
        except Exception:
            await asyncio.sleep(0.05)
            continue
        begun = [each.activity_type.name for each in found.pending_activities if each.attempt]
        begun += [each.operation for each in found.pending_nexus_operations]
        if sorted(begun) == sorted(names):
            return
        await asyncio.sleep(0.05)


async def stopped(chat: ChatClient, sending: "asyncio.Task[Reply]") -> Reply:
    """Stop, soon and never told as a model that is down. Returns the reply."""
    begun = time.monotonic()
    reply = await chat.stop()
    assert await sending == reply
    assert time.monotonic() - begun < SOON
    assert reply.stopped and reply.failed and reply.text.startswith(STOPPED)
    assert MODEL_DOWN not in reply.text
    line = next(line for line in (await chat.transcript())[::-1] if line.turn == reply.turn)
    assert line.text == reply.text and line.speaker == "agent"
    return reply


async def the_next_turn_is_right(chat: ChatClient, turn: int = 2) -> None:
    reply = await chat.send("What is 15 * 23?", timeout=timedelta(seconds=LIMIT))
    assert "345" in reply.text and reply.turn == turn and not reply.stopped


@pytest.mark.parametrize("loop", sampled(["manual", "sdk"], 1))
async def test_before_anything_has_begun(client: Client, spec: WorkerSpec, loop: str) -> None:
    chat = new_chat(client, spec, loop)
    await chat.begin()
    async with asked(chat, SEATTLE) as sending:
        await asyncio.sleep(0.3)  # the server takes them in this order, and there is no worker yet
        stopping = asyncio.create_task(chat.stop(timeout=timedelta(seconds=LIMIT)))
        await asyncio.sleep(0.3)
        async with spec.build(client):
            reply = await sending
            assert await stopping == reply and reply.stopped
            assert (reply.model_calls, reply.tool_calls) == (0, [])
            await the_next_turn_is_right(chat)


@pytest.mark.parametrize("loop", ["manual", "sdk", pytest.param("mcp", marks=pytest.mark.long)])
async def test_in_the_model(
    client: Client, worker: WorkerSpec, loop: str, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_LATENCY_MS=LONG * 1000)
    chat = new_chat(client, worker, loop)
    names = {"manual": "plan_next_action", "sdk": "invoke_model_activity"}
    async with asked(chat, SEATTLE) as sending:
        await until_pending(chat, names.get(loop, names["sdk"]))
        reply = await stopped(chat, sending)
        assert (reply.model_calls, reply.tool_calls) == (0, [])
        await until_pending(chat)  # its heartbeat has told it
    settings_env(OFFLINE_LATENCY_MS=0)
    await the_next_turn_is_right(chat)
    # What was asked is known, and that it was stopped.
    assert SEATTLE in (await chat.send("What did I ask first?")).text


async def test_while_it_streams(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_LATENCY_MS=LONG * 100)
    chat = new_chat(client, worker, "sdk", stream=True)
    items: list[str | Reply] = []
    async with asyncio.timeout(LIMIT):
        async for item in stream_reply(client, chat, "Hello"):
            if not items:
                await chat.stop()
            items.append(item)
    *_, last, reply = items
    assert isinstance(reply, Reply) and reply.stopped
    assert str(last).endswith(reply.text)
    settings_env(OFFLINE_LATENCY_MS=0)
    await the_next_turn_is_right(chat)


@pytest.mark.parametrize("loop", sampled(["sdk", "manual"], 1))
async def test_in_the_summary(client: Client, spec: WorkerSpec, loop: str) -> None:
    """It is made by the next turn then."""
    slow = asyncio.Event()

    @activity.defn(name="summarise")
    async def endless_summary(request: SummaryRequest) -> Summary:
        while slow.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.2)
        return await summarise(request)

    others = [each for each in spec.activities if each is not summarise]
    spec = replace(spec, activities=[*others, endless_summary])
    async with asyncio.timeout(LIMIT), spec.build(client):
        chat = new_chat(client, spec, loop)
        await chat.send("My name is Ada.")
        slow.set()
        for turn in range(2, 20):
            async with asked(chat, f"What is {turn} * 9973?") as sending:
                waiting = asyncio.create_task(until_pending(chat, "summarise"))
                await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if sending.done():
                    continue
                reply = await stopped(chat, sending)
                assert (reply.model_calls, reply.tool_calls) == (0, [])
                break
        else:
            pytest.fail("there was no summary to stop")
        slow.clear()
        await the_next_turn_is_right(chat, turn + 1)
        assert "Ada" in (await chat.send("What is my name?")).text


@loops
async def test_in_one_of_two_tools(
    client: Client, patient: WorkerSpec, loop: str, settings_env: SettingsEnv
) -> None:
    """What the other one has found is in the next request, beside what was stopped."""
    both = calling(("calculator", {"expression": "15 * 23"}), ("weather", {"city": "Seattle"}))
    with scripted_model(settings_env, both, says("It was 345.")) as model:
        async with patient.build(client):
            chat = new_chat(client, patient, loop)
            async with asked(chat, "Both, please.") as sending:
                await until_pending(chat, "execute_tool")  # the calculator is done
                reply = await stopped(chat, sending)
            assert reply.tool_calls == ["calculator", "weather"] and reply.model_calls == 1
            assert "weather was under way" in reply.text and "only looks" in reply.text
            assert (await chat.send("And?")).text == "It was 345."
        assert len(model.questions) == 2  # nobody was asked in between
        told = {
            m["tool_call_id"]: m["content"]
            for m in model.questions[1]["messages"]
            if m["role"] == "tool"
        }
        assert told["call_0"] == "345" and "Stopped by the user: weather" in told["call_1"]
        assert model.questions[1]["messages"][-2]["content"] == reply.text


@loops
async def test_two_tools_are_stopped_in_an_order_that_a_replay_keeps(
    client: Client, patient: WorkerSpec, loop: str, settings_env: SettingsEnv
) -> None:
    cities = [("weather", {"city": city}) for city in ("Seattle", "Portland", "Tokyo", "Paris")]
    with scripted_model(settings_env, calling(*cities), says("Hello.")):
        async with patient.build(client):
            chat = new_chat(client, patient, loop)
            async with asked(chat, "All of them.") as sending:
                await until_pending(chat, *["execute_tool"] * 4)
                await stopped(chat, sending)
        for turn in (2, 3):  # each worker replays it
            async with patient.build(client):
                assert len(await chat.transcript()) == 2 * turn - 2
                assert (await chat.send("Hello")).text == "Hello."


@pytest.mark.parametrize("loop", sampled(["manual", "sdk"], 1))
async def test_a_call_to_another_team_is_not_waited_for(
    client: Client, spec: WorkerSpec, unserved_teams: Teams, loop: str
) -> None:
    async with spec.build(client):
        chat = new_chat(client, spec, loop, team_timeout=LONG)
        async with asked(chat, "What's the stock price of AAPL?") as sending:
            await until_pending(chat, "stock_price")
            reply = await stopped(chat, sending)
        assert reply.tool_calls == ["stock_price"] and "stock_price was under way" in reply.text
        await the_next_turn_is_right(chat)


@pytest.mark.parametrize("loop", sampled(["sdk", "manual"], 1))
async def test_where_the_worker_dies_as_well(client: Client, spec: WorkerSpec, loop: str) -> None:
    spec = replace(spec, name=fresh("stop"), warm_ups=[load])
    slow = {"OFFLINE_LATENCY_MS": str(LONG * 1000)}
    doomed = await start_process(spec, env=slow)
    heir = None
    try:
        chat = new_chat(client, spec, loop)
        async with asked(chat, SEATTLE) as sending:
            await until_pending(
                chat, {"manual": "plan_next_action"}.get(loop, "invoke_model_activity")
            )
            heir = await start_process(replace(spec, name=f"{spec.name}-heir"))
            doomed.kill()
            await stopped(chat, sending)
        await the_next_turn_is_right(chat)
    finally:
        for worker in (doomed, heir):
            if worker and worker.alive:
                worker.kill()


async def test_messages_that_wait_behind_are_answered(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_LATENCY_MS=LONG * 1000)
    chat = new_chat(client, worker, "manual")
    async with asked(chat, SEATTLE) as sending:
        await until_pending(chat, "plan_next_action")
        async with asked(chat, "What is 15 * 23?") as waiting:
            await asyncio.sleep(0.3)
            settings_env(OFFLINE_LATENCY_MS=0)
            await stopped(chat, sending)
            assert "345" in (await waiting).text


async def test_a_stop_that_comes_late_stops_no_other_message(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv
) -> None:
    """It names the message that it is for; one that waits is stopped when its turn comes."""
    chat = new_chat(client, worker, "manual")
    await chat.send("Hello")

    def send(name: str) -> "asyncio.Task[Reply]":
        return asyncio.create_task(
            chat.handle.execute_update("send_message", SEATTLE, id=name, result_type=Reply)
        )

    async def stop(name: str) -> Reply:
        reply: Reply = await chat.handle.execute_update(
            "cancel_turn", name, result_type=Reply, rpc_timeout=timedelta(seconds=LIMIT)
        )
        return reply

    assert (await send("first")).tool_calls == ["weather"]
    settings_env(OFFLINE_LATENCY_MS=LONG * 1000)
    second = send("second")
    await until_pending(chat, "plan_next_action")
    for name, why in (("first", "answered already"), ("fifth", "No such message")):
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await stop(name)
        assert why in str(refused.value.cause) and "nothing to stop" in str(refused.value.cause)
    third = send("third")
    await asyncio.sleep(0.3)
    early = asyncio.create_task(stop("third"))
    await asyncio.sleep(0.3)
    assert not second.done() and not early.done()
    assert await stop("second") == await second and second.result().turn == 3
    assert await early == await third and third.result().turn == 4
    assert second.result().stopped and third.result().stopped
    history = await chat.handle.fetch_history()
    asked = [e.activity_task_scheduled_event_attributes.activity_type.name for e in history.events]
    assert asked.count("plan_next_action") == 4  # one, two, one, none
    settings_env(OFFLINE_LATENCY_MS=0)
    await the_next_turn_is_right(chat, 5)


async def test_a_message_that_was_given_up_is_the_one_that_is_stopped(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv
) -> None:
    """And once it is answered, another client's is not stopped in its place."""
    chat = new_chat(client, worker, "manual")
    await chat.begin()
    other = ChatClient(client, session=chat.session, task_queue=worker.task_queue)
    for given_up in (True, False):
        settings_env(OFFLINE_LATENCY_MS=LONG * 1000)
        await until_pending(chat)
        sending = asyncio.create_task(chat.send(SEATTLE))
        await until_pending(chat, "plan_next_action")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        if given_up:
            assert (await chat.stop()).stopped
            continue
        assert (await other.stop()).stopped  # whichever it is
        await until_pending(chat)
        async with asked(other, SEATTLE) as waiting:
            await until_pending(chat, "plan_next_action")
            with pytest.raises(NothingToStop, match="answered already"):
                await chat.stop()
            await stopped(other, waiting)


async def test_without_a_turn_it_is_refused_in_words(client: Client, worker: WorkerSpec) -> None:
    chat = new_chat(client, worker, "manual")
    with pytest.raises(NothingToStop, match="nothing to stop"):
        await chat.stop()  # it has not begun
    await chat.send("Hello")
    before = len((await chat.handle.fetch_history()).events)
    with pytest.raises(NothingToStop, match="nothing to stop"):
        await chat.stop()
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await chat.handle.execute_update("cancel_turn")
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "NothingToStop"
    assert len((await chat.handle.fetch_history()).events) == before
    await the_next_turn_is_right(chat)
