"""Sessions that fill up: said before, said at once, said truly, and readable to the last line.

The limits are those of the server, so most tests lower them; the real ones are met with `-m long`.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from full_chat import VerboseChat
from lab_environment import lab
from temporalio.client import Client, WorkflowExecutionStatus
from workshop_command import Workshop

from workshop_lib.agents.chat import CHAT_FULL, NOTICE_AT, ChatStart, Reply, SessionLimits
from workshop_lib.agents.sessions import ChatClient, MessageRefused
from workshop_lib.agents.streaming import stream_reply
from workshop_lib.agents.worker import orchestrator
from workshop_lib.lab.server import dev_server
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.server.lifecycle import run_sync
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
MOST = 40  # messages until a lowered limit must have been met
WEATHER = "What is the weather in Seattle?"


def new_chat(
    client: Client, spec: WorkerSpec, loop: str = "manual", *, stream: bool = False, **limits: int
) -> ChatClient:
    start = ChatStart(stream=stream, limits=SessionLimits(**limits))
    return ChatClient(client, loop, task_queue=spec.task_queue, start=start)


async def fill(chat: ChatClient, message: str = "Hello", most: int = MOST) -> list[Reply]:
    """Send until the session refuses. Returns the replies."""
    replies: list[Reply] = []
    with pytest.raises(MessageRefused) as refusal:
        while len(replies) < most:
            replies += [await chat.send(message, timeout=LIMIT)]
    assert refusal.value.what == CHAT_FULL
    return replies


async def kinds_of_events(chat: ChatClient) -> Counter[str]:
    history = await chat.handle.fetch_history()
    return Counter(str(event.WhichOneof("attributes")) for event in history.events)


@pytest.mark.parametrize("loop", ["manual", "sdk", "mcp"])
async def test_a_full_session_has_said_so_and_can_be_read(
    client: Client, worker: WorkerSpec, loop: str
) -> None:
    chat = new_chat(client, worker, loop, updates=3)
    replies = await fill(chat)
    assert [reply.turn for reply in replies] == [1, 2, 3]
    assert "about 2 more" in replies[0].notice and "about 1 more" in replies[1].notice
    assert replies[2].notice == CHAT_FULL
    before = await kinds_of_events(chat)
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(MessageRefused, match="full"):
            await chat.send("One more", timeout=LIMIT)
    assert time.monotonic() - begun < 10  # not after the whole time limit
    assert await kinds_of_events(chat) == before
    # Who comes back to it is told the same, and reads all of it.
    again = ChatClient(client, loop, chat.session, task_queue=worker.task_queue)
    with pytest.raises(MessageRefused, match="full"):
        await again.send("Hello again", timeout=LIMIT)
    lines = await again.transcript()
    assert [line.turn for line in lines] == [1, 1, 2, 2, 3, 3]
    assert lines[-1].text == replies[-1].text
    await again.end()
    async with asyncio.timeout(30):
        assert await again.handle.result() == 3
    assert await again.transcript() == lines


@pytest.mark.parametrize(
    "limits", [{"events": 60}, {"history_bytes": 20_000}], ids=lambda limits: next(iter(limits))
)
async def test_a_history_that_is_long_or_large_ends_a_session_too(
    client: Client, worker: WorkerSpec, limits: dict[str, int]
) -> None:
    replies = await fill(new_chat(client, worker, **limits))
    assert len(replies) > 1 and all(reply.notice for reply in replies)


async def test_signals_of_a_stream_end_a_session_too(client: Client, worker: WorkerSpec) -> None:
    chat = new_chat(client, worker, "sdk", stream=True, signals=4)
    replies: list[Any] = []
    with pytest.raises(MessageRefused, match="full"):
        for _ in range(MOST):
            *_, reply = [x async for x in stream_reply(client, chat, WEATHER, timeout=LIMIT)]
            replies.append(reply)
    assert replies[-1].notice == CHAT_FULL
    assert (await kinds_of_events(chat))["workflow_execution_signaled_event_attributes"] >= 4


async def test_a_session_far_from_its_limits_says_nothing(
    client: Client, worker: WorkerSpec
) -> None:
    reply = await new_chat(client, worker).send(WEATHER, timeout=LIMIT)
    assert reply.notice == "" and "notice" not in repr(reply)


async def test_messages_that_wait_while_it_fills_up_are_refused(
    client: Client, spec: WorkerSpec
) -> None:
    chat = new_chat(client, spec, events=40)
    await chat.begin()
    sending = [asyncio.ensure_future(chat.send("Hello", timeout=LIMIT)) for _ in range(12)]
    await asyncio.sleep(0)
    async with spec.build(client):
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, MessageRefused)]
        assert len(replies) + len(refused) == 12 and refused
        assert len(await chat.transcript()) == 2 * len(replies)  # of the refused nothing is left
    # Another worker comes to the same.
    async with replace(spec, name="heir").build(client):
        assert len(await chat.transcript()) == 2 * len(replies)


@pytest.mark.parametrize(("messages", "letters"), [(5, 700_000), (300, 15_000)])
async def test_a_transcript_of_more_than_an_answer_may_hold_is_read_to_the_last_line(
    client: Client, spec: WorkerSpec, messages: int, letters: int
) -> None:
    spec = replace(spec, workflows=[VerboseChat])
    async with asyncio.timeout(150), spec.build(client):
        chat = new_chat(client, spec)
        for _ in range(messages):
            await chat.send(str(letters), timeout=LIMIT)
        lines = await chat.transcript()
    assert [line.turn for line in lines] == [1 + line // 2 for line in range(2 * messages)]
    assert sum(len(line.text.encode()) for line in lines) > 5_000_000
    assert {line.text for line in lines} == {str(letters), "ä" * letters}


async def test_a_streamed_reply_is_one_update(
    client: Client, worker: WorkerSpec, settings_env: Callable[..., None]
) -> None:
    settings_env(OFFLINE_LATENCY_MS=3000)
    chat = new_chat(client, worker, "sdk", stream=True)
    begun = time.monotonic()
    async with asyncio.timeout(60):
        pieces = [piece async for piece in stream_reply(client, chat, "Hello")]
    seconds = time.monotonic() - begun
    assert len(pieces) > 3
    found = await kinds_of_events(chat)
    assert found["workflow_execution_update_accepted_event_attributes"] == 1
    assert found["workflow_execution_signaled_event_attributes"] <= 6 * seconds


def test_the_terminal_says_it(tmp_path: Path) -> None:
    with lab(tmp_path):
        workshop = Workshop(tmp_path)
        found = server.ensure_server(in_memory=True)
        run_sync(ensure_namespaces(found))

        async def begin(name: str) -> None:
            limits = SessionLimits(updates=2)
            await ChatClient(await connect(), session=name, start=ChatStart(limits=limits)).begin()

        for name in ("talk", "questions"):
            asyncio.run(begin(name))
        said = workshop("chat", "--session", "talk", typed="Hello\nHello\nHello\nbye\n")
        assert said.returncode == 0, said.stderr
        assert said.stdout.count("about 1 more") == 1
        assert said.stdout.count(CHAT_FULL) == 2  # with the last reply, and in place of one
        asked = [workshop("ask", "--session", "questions", "--json", "Hello") for _ in range(3)]
        assert [done.returncode for done in asked] == [0, 0, 1]
        assert "about 1 more" in asked[0].stderr and CHAT_FULL in asked[1].stderr
        assert json.loads(asked[1].stdout)["reply"]
        assert CHAT_FULL in asked[2].stderr and not asked[2].stdout
        again = workshop("chat", "--session", "questions", typed="bye\n")
        assert again.stdout.count("You: Hello") == 2


async def test_a_server_that_takes_less_is_understood_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dev_server.FLAGS, "history.maxTotalUpdates", "3")
    with lab(tmp_path):
        await asyncio.to_thread(server.ensure_server, in_memory=True)
        own = await connect()
        spec = replace(orchestrator(), workflows=[VerboseChat])
        async with asyncio.timeout(100), spec.build(own):
            chat = new_chat(own, spec)
            begun = time.monotonic()
            assert len(await fill(chat, "1")) == 3
            assert time.monotonic() - begun < 20
            assert len(await chat.transcript()) == 6


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_thousand_messages(client: Client, spec: WorkerSpec) -> None:
    spec = replace(spec, workflows=[VerboseChat])
    async with spec.build(client):
        chat = new_chat(client, spec)
        replies = await fill(chat, "1", 2_100)
    assert len(replies) == SessionLimits().updates
    assert next(reply.turn for reply in replies if reply.notice) == len(replies) - NOTICE_AT
    assert replies[-1].notice == CHAT_FULL
    assert (await chat.handle.describe()).status == WorkflowExecutionStatus.RUNNING
    # A worker that has never seen it reads it all.
    async with replace(spec, name="heir").build(client):
        assert len(await chat.transcript()) == 2 * len(replies)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("loop", ["manual", "sdk"])
async def test_a_day_of_real_messages(client: Client, spec: WorkerSpec, loop: str) -> None:
    """With tools and a model: another of the limits may be met first."""
    async with spec.build(client):
        chat = new_chat(client, spec, loop)
        replies = await fill(chat, WEATHER, 2_100)
    assert all(reply.tool_calls == ["weather"] for reply in replies)
    assert len([reply for reply in replies if reply.notice]) >= NOTICE_AT * 0.9
    async with replace(spec, name="heir").build(client):
        assert len(await chat.transcript()) == 2 * len(replies)
