"""Sessions that last: they go on in new runs, lose nothing and pay nothing twice, and are read to line 1.

The limits are those of the server, so most tests lower them; the real ones are met with `-m long`.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lab_environment import lab
from sampled import sampled
from temporalio.api.common.v1 import WorkflowExecution as Execution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import (
    Client,
    Interceptor,
    OutboundInterceptor,
    StartWorkflowUpdateInput,
    WorkflowExecution,
    WorkflowExecutionStatus,
)
from temporalio.service import RPCError, RPCStatusCode
from verbose_chat import VerboseChat

from workshop_lib.agents.chat import ChatStart, Reply, SessionLimits
from workshop_lib.agents.session_list import list_sessions
from workshop_lib.agents.sessions import ChatClient, MessageRefused
from workshop_lib.agents.streaming import stream_reply
from workshop_lib.agents.worker import orchestrator
from workshop_lib.lab.lessons.growth import measure_turns, runs_of_session
from workshop_lib.lab.server import dev_server
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.llm.journal import read_journal
from workshop_lib.settings import get_settings
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
WEATHER = "What is the weather in Seattle?"
# What is told at a turn, the first of it corrected later, and asked for at the end.
TOLD = {
    1: "My door code is 4711.",
    137: "My favourite city is Tokyo.",
    402: "My order is ORD-77.",
    750: "My door code is 5582.",
}
ASKED = {
    "What is my door code?": "5582",
    "What is my favourite city?": "Tokyo",
    "What was my order?": "ORD-77",
}
SettingsEnv = Callable[..., None]


def new_chat(
    client: Client, spec: WorkerSpec, loop: str = "manual", *, stream: bool = False, **limits: int
) -> ChatClient:
    start = ChatStart(stream=stream, limits=SessionLimits(**limits))
    return ChatClient(client, loop, task_queue=spec.task_queue, start=start)


async def kinds_of_events(chat: ChatClient) -> Counter[str]:
    history = await chat.handle.fetch_history()
    return Counter(str(event.WhichOneof("attributes")) for event in history.events)


def nothing_was_paid_twice(journal: Path) -> None:
    """No two requests to the model were the same."""
    requests = [entry.request for entry in read_journal(journal)]
    assert len(requests) == len({*requests})


@pytest.mark.parametrize("loop", sampled(["manual", "sdk"], 1))
async def test_forty_turns_over_many_runs(
    client: Client, spec: WorkerSpec, loop: str, settings_env: SettingsEnv, tmp_path: Path
) -> None:
    journal = tmp_path / "calls"
    settings_env(WORKSHOP_MODEL_JOURNAL=journal)
    async with spec.build(client):
        chat = new_chat(client, spec, loop, updates=10)
        for turn in range(1, 41):
            reply = await chat.send(f"What is {turn} * 9973?", timeout=LIMIT)
            assert reply.text == f"{turn} * 9973 = {turn * 9973}." and reply.turn == turn
            assert reply.model_calls == 2
    nothing_was_paid_twice(journal)
    # A worker that has never seen any of it, and a client neither.
    async with replace(spec, name="heir").build(client):
        again = ChatClient(client, loop, chat.session, task_queue=spec.task_queue)
        lines = await again.transcript()
        assert [line.turn for line in lines] == [turn for turn in range(1, 41) for _ in "ab"]
        assert lines[0].text == "What is 1 * 9973?" and lines[-1].text.endswith(f"{40 * 9973}.")
        runs = await runs_in_the_list(client, chat)
        assert len(runs) == 5
        mine = list_sessions(client, get_settings().user_name)
        [info] = [info async for info in mine if info.session == chat.session]
        assert info.status == "running" and info.started == min(run.start_time for run in runs)
        assert "What is 1 * 9973?" in (await again.send("What did I ask first?")).text
        await again.end()
        async with asyncio.timeout(30):
            assert await again.handle.result() == 41


async def runs_in_the_list(client: Client, chat: ChatClient) -> list[WorkflowExecution]:
    """The session's runs, once the list knows of the one that is open."""
    async with asyncio.timeout(30):
        while True:
            query = f"WorkflowId = '{chat.workflow_id}'"
            runs = [run async for run in client.list_workflows(query)]
            if any(run.status == WorkflowExecutionStatus.RUNNING for run in runs):
                return runs
            await asyncio.sleep(0.05)  # lists follow a moment later, without an event


@pytest.mark.parametrize(
    "limits", [{"events": 60}, {"history_bytes": 20_000}], ids=lambda limits: next(iter(limits))
)
async def test_a_history_that_is_long_or_large_is_left_too(
    client: Client, worker: WorkerSpec, limits: dict[str, int]
) -> None:
    chat = new_chat(client, worker, **limits)
    for turn in range(1, 13):
        assert (await chat.send("Hello", timeout=LIMIT)).turn == turn
    assert len(await chat.transcript()) == 24
    assert len(await runs_in_the_list(client, chat)) > 1


@pytest.mark.parametrize("loop", sampled(["sdk", "manual"], 1))
async def test_messages_at_once_are_each_answered_once_over_runs(
    client: Client, spec: WorkerSpec, loop: str, settings_env: SettingsEnv, tmp_path: Path
) -> None:
    """What a run has accepted, that run answers; the rest is sent again to the next."""
    journal = tmp_path / "calls"
    settings_env(WORKSHOP_MODEL_JOURNAL=journal)
    async with spec.build(client):
        chat = new_chat(client, spec, loop, updates=6)
        await chat.begin()
        numbers = range(1001, 1041)
        replies = await asyncio.gather(
            *(chat.send(f"What is {number} * 9973?", timeout=LIMIT) for number in numbers)
        )
    for number, reply in zip(numbers, replies, strict=True):
        assert reply.text == f"{number} * 9973 = {number * 9973}."
    assert sorted(reply.turn for reply in replies) == list(range(1, 41))
    nothing_was_paid_twice(journal)
    async with replace(spec, name="heir").build(client):
        lines = await chat.transcript()
        assert [line.turn for line in lines] == [turn for turn in range(1, 41) for _ in "ab"]


async def test_a_reply_that_was_lost_is_given_by_the_next_run(
    worker: WorkerSpec, client: Client, settings_env: SettingsEnv, tmp_path: Path
) -> None:
    journal = tmp_path / "calls"
    settings_env(WORKSHOP_MODEL_JOURNAL=journal)
    losing = Losing()
    chat = ChatClient(
        await connect(interceptors=[losing]),
        task_queue=worker.task_queue,
        start=ChatStart(limits=SessionLimits(updates=2)),
    )
    await chat.send("Hello", timeout=LIMIT)
    losing.lost, losing.wait_for = 1, await chat.handle.describe()
    reply = await chat.send("What is 15 * 23?", timeout=LIMIT)
    assert losing.lost == 0 and "345" in reply.text and reply.turn == 2
    assert len(read_journal(journal)) == 1 + 2
    assert len(await chat.transcript()) == 4
    assert (await chat.send("What is 15 * 23?", timeout=LIMIT)).turn == 3  # on purpose


class Losing(Interceptor):
    """The reply of an update is lost, and comes no more before the session goes on in a new run."""

    lost = 0
    wait_for: Any = None

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Losing(next, self)


class _Losing(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, losing: Losing) -> None:
        super().__init__(following)
        self._losing = losing

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> Any:  # noqa: A002
        answer = await super().start_workflow_update(input)
        if not self._losing.lost:
            return answer
        self._losing.lost -= 1
        run = self._losing.wait_for
        client = await connect()
        async with asyncio.timeout(30):
            while True:
                found = await client.get_workflow_handle(run.id).describe()
                if found.run_id != run.run_id:
                    break
                await asyncio.sleep(0.02)
        raise RPCError("lost on its way", RPCStatusCode.UNAVAILABLE, b"")


async def test_a_stream_goes_on_over_runs(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_LATENCY_MS=400)
    chat = new_chat(client, worker, "sdk", stream=True, updates=2)
    for turn in range(1, 5):
        pieces = [piece async for piece in stream_reply(client, chat, WEATHER, timeout=LIMIT)]
        *told, reply = pieces
        assert isinstance(reply, Reply) and reply.turn == turn and not reply.notice
        # On a busy machine all of it may come at once.
        assert told and "".join(map(str, told)) == reply.text
    assert len(await runs_in_the_list(client, chat)) == 3


async def test_the_end_and_a_new_run_at_once(client: Client, worker: WorkerSpec) -> None:
    """Whichever comes first, all that was accepted is answered, and then the session has ended."""
    chat = new_chat(client, worker, updates=2)
    sending = [asyncio.ensure_future(chat.send("Hello", timeout=LIMIT)) for _ in range(8)]
    while not any(task.done() for task in sending):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await chat.end()
    outcomes = await asyncio.gather(*sending, return_exceptions=True)
    replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
    assert all(isinstance(outcome, Reply | MessageRefused) for outcome in outcomes)
    async with asyncio.timeout(30):
        assert await chat.handle.result() == len(replies)
    assert len(await chat.transcript()) == 2 * len(replies)


async def test_what_the_server_has_removed_is_said_in_a_line(
    client: Client, worker: WorkerSpec
) -> None:
    chat = new_chat(client, worker, updates=2)
    await chat.send("Hello", timeout=LIMIT)
    first = (await chat.handle.describe()).run_id
    for _ in range(3):
        await chat.send("Hello", timeout=LIMIT)
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=Execution(workflow_id=chat.workflow_id, run_id=first),
        )
    )
    async with asyncio.timeout(30):
        while (lines := await chat.transcript())[0].turn:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert [line.turn for line in lines] == [0, 3, 3, 4, 4]
    assert lines[0].speaker == "note" and "does not keep" in lines[0].text


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


async def test_a_server_that_takes_less_is_left_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dev_server.FLAGS, "history.maxTotalUpdates", "10")
    with lab(tmp_path):
        await asyncio.to_thread(server.ensure_server, in_memory=True)
        own = await connect()
        spec = replace(orchestrator(), workflows=[VerboseChat])
        async with asyncio.timeout(100), spec.build(own):
            chat = new_chat(own, spec)
            for turn in range(1, 31):
                assert (await chat.send("1", timeout=LIMIT)).turn == turn
            assert len(await chat.transcript()) == 60


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("loop", ["manual", "sdk"])
async def test_a_thousand_turns(
    client: Client, spec: WorkerSpec, loop: str, settings_env: SettingsEnv, tmp_path: Path
) -> None:
    """With tools and a model, and the server's own word on when a run has enough."""
    journal = tmp_path / "calls"
    settings_env(WORKSHOP_MODEL_JOURNAL=journal)
    seconds: list[float] = []
    async with spec.build(client):
        chat = new_chat(client, spec, loop)
        for turn in range(1, 1001):
            begun = time.perf_counter()
            reply = await chat.send(TOLD.get(turn, f"What is {turn} * 9973?"), timeout=LIMIT)
            seconds.append(time.perf_counter() - begun)
            assert reply.turn == turn
            assert turn in TOLD or reply.text == f"{turn} * 9973 = {turn * 9973}."
        nothing_was_paid_twice(journal)
        for question, fact in ASKED.items():
            assert fact in (await chat.send(question, timeout=LIMIT)).text
        runs = await runs_of_session(chat.handle)
    assert len(runs) >= 4
    assert all(run.events < 10_000 for run in runs)  # from 10,240 on the server warns
    costs = (await measure_turns(chat.handle))[:1000]
    for of in (lambda cost: cost.bytes, lambda cost: cost.tokens):
        early, late = (sum(map(of, part)) / 100 for part in (costs[10:110], costs[-100:]))
        print(f"{loop}: {early:.0f} a turn early, {late:.0f} late")
        assert late <= 1.1 * early
    first, last = (statistics.median(part) for part in (seconds[:100], seconds[-100:]))
    print(f"{loop}: median of a turn {1000 * first:.1f} ms at first, {1000 * last:.1f} ms at last")
    async with replace(spec, name="heir").build(client):
        lines = await chat.transcript()
        turns = range(1, 1001 + len(ASKED))
        assert [line.turn for line in lines] == [turn for turn in turns for _ in "ab"]
