"""A chat session on a real server: what it answers, what it refuses, how it ends, and what may go wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from agents.run import get_default_agent_runner
from lab_environment import fresh
from openai_server import KEY, calling, says, scripted_model
from sampled import sampled
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.openai_agents._openai_runner import TemporalOpenAIRunner

from workshop_lib.agents import model_call
from workshop_lib.agents.chat import (
    MAX_MESSAGE_CHARS,
    MAX_TOOL_ROUNDS,
    MODEL_DOWN,
    Reply,
)
from workshop_lib.agents.session_list import list_sessions
from workshop_lib.agents.sessions import ChatClient, MessageRefused
from workshop_lib.agents.turn import MAX_CORRECTIONS
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import history_of
from workshop_lib.llm.journal import read_journal
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
SettingsEnv = Callable[..., None]
SEATTLE = "Seattle: 14 °C, light rain, wind 15 km/h"


MODEL_CALLS = {"manual": "plan_next_action", "sdk": "invoke_model_activity"}
# What is the session's is the same in every loop, and tried in one.
manual_only = pytest.mark.parametrize("loop", ["manual"])


@pytest.fixture(params=list(MODEL_CALLS))
def loop(request: pytest.FixtureRequest) -> str:
    """Each loop in turn."""
    return str(request.param)


@pytest.fixture
def chat(client: Client, worker: WorkerSpec, loop: str) -> ChatClient:
    """A new session, with a worker that serves it."""
    return ChatClient(client, loop, task_queue=worker.task_queue)


@pytest_asyncio.fixture
async def unserved(client: Client, spec: WorkerSpec) -> AsyncIterator[ChatClient]:
    """A new session without a worker."""
    yield ChatClient(client, task_queue=spec.task_queue)


async def say(chat: ChatClient, message: str) -> Reply:
    return await chat.send(message, timeout=LIMIT)


async def events(chat: ChatClient) -> list[HistoryEvent]:
    return list((await chat.handle.fetch_history()).events)


async def texts_of_the_history(chat: ChatClient) -> str:
    return "".join(str(event) for event in await events(chat))


async def ended(chat: ChatClient) -> int:
    """What the session returns once it is over."""
    async with asyncio.timeout(30):
        return await chat.handle.result()


# --- answers -----------------------------------------------------------------------------------------


async def test_sample_questions(chat: ChatClient) -> None:
    for number, (question, answer, tools) in enumerate(
        [
            ("What is 25 + 17?", "25 + 17 = 42.", ["calculator"]),
            ("What is 100 / 5?", "100 / 5 = 20.", ["calculator"]),
            ("What is 125 * 8?", "125 * 8 = 1000.", ["calculator"]),
            ("What is the weather in Seattle?", f"The weather in {SEATTLE}.", ["weather"]),
            ("What is 1 / 0?", "division by zero", ["calculator"]),
            ("What is the weather in Atlantis?", "unknown city 'Atlantis'", ["weather"]),
            ("Who won the war of the roses?", "I cannot answer that", []),
        ],
        1,
    ):
        reply = await say(chat, question)
        assert answer in reply.text
        assert (reply.turn, reply.tool_calls) == (number, tools)
        assert reply.model_calls == len(tools) + 1


async def test_two_tools_in_one_message(chat: ChatClient) -> None:
    reply = await say(chat, "What is 1234 * 9973 and what is the weather in Tokyo?")
    assert "12306682" in reply.text and "28 °C" in reply.text
    assert sorted(reply.tool_calls) == ["calculator", "weather"]
    assert reply.model_calls == 2


async def test_a_turn_remembers_the_turns_before(chat: ChatClient) -> None:
    await say(chat, "My name is Ada.")
    assert SEATTLE in (await say(chat, "What is the weather in Seattle?")).text
    assert "Portland: 17 °C" in (await say(chat, "And in Portland?")).text
    assert "Ada" in (await say(chat, "What is my name?")).text
    assert "My name is Ada." in (await say(chat, "What did I ask first?")).text


async def test_the_first_message_is_remembered_when_it_has_left_the_window(
    chat: ChatClient,
) -> None:
    await say(chat, "What is the weather in Seattle?")
    for number in range(10):
        await say(chat, f"What is {number} * 7?")
    assert "weather in Seattle" in (await say(chat, "What did I ask first?")).text


async def test_sessions_know_nothing_of_each_other(client: Client, worker: WorkerSpec) -> None:
    ada, bob = (ChatClient(client, task_queue=worker.task_queue) for _ in range(2))
    await say(ada, "My name is Ada.")
    await say(bob, "Hello")
    assert "Ada" not in (await say(bob, "What is my name?")).text


@manual_only
async def test_characters_of_all_scripts_come_back_as_they_were(chat: ChatClient) -> None:
    message = "Wie wird das Wetter in Zürich? 🌧️ 你好 \u202eשלום \x00 \x1b[31m"
    reply = await say(chat, message)
    assert [line.text for line in await chat.transcript()] == [message, reply.text]


@manual_only
async def test_messages_sent_at_once_are_each_answered_in_the_order_of_acceptance(
    chat: ChatClient,
) -> None:
    await say(chat, "Hello")
    numbers = list(range(1001, 1021))
    replies = await asyncio.gather(*(say(chat, f"What is {n} * 9973?") for n in numbers))
    for number, reply in zip(numbers, replies, strict=True):
        assert reply.text == f"{number} * 9973 = {number * 9973}."
    assert sorted(reply.turn for reply in replies) == list(range(2, 22))
    # No turn begins before the one before it has ended.
    lines = (await chat.transcript())[2:]
    assert [line.speaker for line in lines] == ["user", "agent"] * 20
    assert [line.turn for line in lines] == [turn for turn in range(2, 22) for _ in range(2)]
    accepted = [
        event.workflow_execution_update_accepted_event_attributes.accepted_request.input.args
        for event in await events(chat)
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
    ]
    in_order = [json.loads(args.payloads[0].data) for args in accepted[1:]]
    assert in_order == [line.text for line in lines[::2]]


async def test_a_first_message_from_two_clients_at_once_starts_one_session(
    client: Client, worker: WorkerSpec
) -> None:
    name = fresh("two")
    two = [ChatClient(client, session=name, task_queue=worker.task_queue) for _ in range(2)]
    replies = await asyncio.gather(*(say(chat, "What is 15 * 23?") for chat in two))
    assert sorted(reply.turn for reply in replies) == [1, 2]
    assert all("345" in reply.text for reply in replies)


# --- refusals ----------------------------------------------------------------------------------------


@manual_only
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("x" * (MAX_MESSAGE_CHARS + 1), "20,001 characters"),
        ("x" * 100_000, "100,000 characters"),
        ("x" * 5_000_000, "5,000,000 characters"),
        ("\ud83d", "half"),
    ],
    ids=["empty", "blank", "a bit too long", "100 kB", "5 MB", "half a character"],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
async def test_a_refused_message_leaves_no_trace(
    chat: ChatClient, message: str, reason: str, first: bool
) -> None:
    if not first:
        await say(chat, "Hello")
    before = await chat.transcript()
    with pytest.raises(MessageRefused) as refused:
        await say(chat, message)
    assert reason in str(refused.value)
    assert await chat.transcript() == before
    reply = await say(chat, "What is 15 * 23?")
    assert reply.turn == (1 if first else 2) and "345" in reply.text
    assert "xxxxx" not in await texts_of_the_history(chat)


@manual_only
async def test_the_session_itself_refuses_what_a_client_lets_pass(chat: ChatClient) -> None:
    """Other clients than ours send updates too: the Web UI, the CLI, another program."""
    from temporalio.client import WorkflowUpdateFailedError
    from temporalio.exceptions import ApplicationError

    await say(chat, "Hello")
    accepted = len(await events(chat))
    for message, kind in (
        (" ", "EmptyMessage"),
        ("x" * (MAX_MESSAGE_CHARS + 1), "MessageTooLong"),
    ):
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await chat.handle.execute_update("send_message", message)
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == kind
    assert len(await events(chat)) == accepted


@manual_only
async def test_the_longest_message_is_answered(chat: ChatClient) -> None:
    message = "x" * MAX_MESSAGE_CHARS
    assert (await say(chat, message)).turn == 1
    assert (await chat.transcript())[0].text == message


@manual_only
async def test_a_message_to_an_ended_chat_is_refused(
    client: Client, chat: ChatClient, loop: str
) -> None:
    await say(chat, "Hello")
    await chat.end()
    assert await ended(chat) == 1
    rejoined = ChatClient(client, loop, session=chat.session, task_queue="unused")
    for one in (chat, rejoined):
        with pytest.raises(MessageRefused, match="ended"):
            await say(one, "Are you there?")
    await chat.end()  # once more is harmless
    assert (await rejoined.transcript())[0].text == "Hello"


async def test_ending_a_chat_that_never_began_is_harmless(unserved: ChatClient) -> None:
    await unserved.end()
    assert await unserved.transcript() == []


async def test_an_unknown_loop_is_refused(client: Client) -> None:
    with pytest.raises(WorkshopError, match="no loop 'automatic'"):
        ChatClient(client, "automatic")


# --- the end -----------------------------------------------------------------------------------------


@manual_only
async def test_messages_accepted_before_the_end_are_answered_and_later_ones_refused(
    chat: ChatClient, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_LATENCY_MS=400)
    await say(chat, "Hello")
    under_way = [
        asyncio.create_task(say(chat, question))
        for question in ("What is 15 * 23?", "What is 25 + 17?")
    ]
    await until_accepted(chat, 3)
    await chat.end()
    with pytest.raises(MessageRefused, match="ended"):
        await say(chat, "One more?")
    async with asyncio.timeout(30):
        replies = await asyncio.gather(*under_way)
    assert "345" in replies[0].text and "42" in replies[1].text
    assert await ended(chat) == 3


async def until_accepted(chat: ChatClient, count: int) -> None:
    async with asyncio.timeout(30):
        while True:
            kinds = [event.event_type for event in await events(chat)]
            if kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED) >= count:
                return
            await asyncio.sleep(0.02)


@manual_only
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06])
async def test_no_message_is_left_hanging_however_the_end_falls(
    chat: ChatClient, delay: float
) -> None:
    await say(chat, "Hello")

    async def end_soon() -> None:
        await asyncio.sleep(delay)
        await chat.end()

    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(
            *(say(chat, f"What is {n} * 9973?") for n in range(1001, 1013)),
            end_soon(),
            *(say(chat, f"What is {n} * 9973?") for n in range(1013, 1025)),
            return_exceptions=True,
        )
    answered = 0
    for number, outcome in zip(range(1001, 1025), outcomes[:12] + outcomes[13:], strict=True):
        if isinstance(outcome, Reply):
            answered += 1
            assert outcome.text == f"{number} * 9973 = {number * 9973}."
        else:
            assert isinstance(outcome, MessageRefused), repr(outcome)
    assert outcomes[12] is None
    assert await ended(chat) == answered + 1


# --- seen from outside -------------------------------------------------------------------------------


async def test_the_history_query_tells_the_conversation_after_a_new_worker_took_over(
    client: Client, spec: WorkerSpec
) -> None:
    chat = ChatClient(client, task_queue=spec.task_queue)
    async with spec.build(client):
        reply = await say(chat, "What is 15 * 23?")
    async with spec.build(client):
        lines = await chat.transcript()
    assert [(line.turn, line.speaker, line.text) for line in lines] == [
        (1, "user", "What is 15 * 23?"),
        (1, "agent", reply.text),
    ]


async def test_a_session_is_rejoined_by_name_and_listed(client: Client, worker: WorkerSpec) -> None:
    name = fresh("ada")
    first = ChatClient(client, session=name, task_queue=worker.task_queue)
    await say(first, "What is the weather in Seattle?")
    second = ChatClient(client, session=name, task_queue=worker.task_queue)
    reply = await say(second, "And in Portland?")
    assert reply.turn == 2 and "Portland: 17 °C" in reply.text

    other = ChatClient(client, task_queue=worker.task_queue)
    await say(other, "Hello")
    await other.end()
    await ended(other)
    statuses: dict[str, str] = {}
    async with asyncio.timeout(20):  # lists follow a moment later
        while statuses.get(other.session) != "completed" or name not in statuses:
            listed = [info async for info in list_sessions(client)]
            statuses = {info.session: info.status for info in listed}
    assert statuses[name] == "running"
    mine = next(info for info in listed if info.session == name)
    assert (mine.loop, mine.workflow_id) == ("manual", f"chat-manual-{name}")
    assert mine.started is not None


async def test_a_message_that_found_no_worker_is_answered_once_there_is_one(
    client: Client, spec: WorkerSpec, unserved: ChatClient
) -> None:
    with pytest.raises(WorkshopError, match="No reply within 1 s"):
        await unserved.send("What is 15 * 23?", timeout=timedelta(seconds=1))
    async with spec.build(client):
        async with asyncio.timeout(30):
            while len(await unserved.transcript()) < 2:  # noqa: ASYNC110 - an event of the server's
                await asyncio.sleep(0.05)
        lines = await unserved.transcript()
    assert [line.text for line in lines] == ["What is 15 * 23?", "15 * 23 = 345."]


async def test_a_message_whose_sender_is_cancelled_is_cancelled_and_not_given_up(
    unserved: ChatClient,
) -> None:
    await unserved.begin()
    for begun in (False, True):  # the first message of a session is sent in another way
        unserved._begun = begun
        sending = asyncio.create_task(unserved.send("Hello"))
        await asyncio.sleep(0.5)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    await unserved.handle.terminate()


async def test_a_later_message_that_finds_no_worker_is_given_up_in_time(
    client: Client, spec: WorkerSpec
) -> None:
    chat = ChatClient(client, task_queue=spec.task_queue)
    async with spec.build(client):
        await say(chat, "Hello")
    async with asyncio.timeout(20):
        with pytest.raises(WorkshopError, match="No reply within 1 s"):
            await chat.send("Are you there?", timeout=timedelta(seconds=1))


# --- a model that calls tools badly ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "handed_back"),
    [
        ("cut_json", "not a JSON object"),
        ("unknown_tool", "no tool 'look_it_up'"),
        ("wrong_argument", "missing arguments: expression"),
    ],
)
async def test_an_impossible_tool_call_is_handed_back_with_the_reason(
    chat: ChatClient, settings_env: SettingsEnv, fault: str, handed_back: str
) -> None:
    call = ("calculator", {"expression": "15 * 23"})
    wrong = {
        "cut_json": ("calculator", '{"expression": "15'),
        "unknown_tool": ("look_it_up", call[1]),
        "wrong_argument": ("calculator", {"unexpected": "15 * 23"}),
    }[fault]
    with scripted_model(settings_env, calling(wrong), calling(call), says("It is 345.")) as model:
        reply = await say(chat, "What is 15 * 23?")
        expected = Reply(text="It is 345.", turn=1, model_calls=3, tool_calls=["calculator"])
        assert reply == expected.model_copy(update={"tokens": reply.tokens}) and reply.tokens > 0
    # What the model was sent the second time ends with the reason.
    told = model.questions[1]["messages"][-1]
    assert told["role"] == "tool" and handed_back in told["content"]
    assert model.questions[2]["messages"][-1]["content"] == "345"


@pytest.mark.parametrize("fault", ["cut_json", "unknown_tool", "wrong_argument"])
async def test_impossible_tool_calls_end_in_words_after_a_bounded_number(
    chat: ChatClient, settings_env: SettingsEnv, fault: str
) -> None:
    settings_env(OFFLINE_FAULTS=f"sequence={fault}*100")
    reply = await say(chat, "What is 15 * 23?")
    assert reply.model_calls <= MAX_CORRECTIONS + 1
    assert reply.text and "345" not in reply.text
    assert reply.tool_calls == []  # not one of them was run
    settings_env(OFFLINE_FAULTS="")
    assert "42" in (await say(chat, "What is 25 + 17?")).text


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param('{"city": ', id="cut"),
        pytest.param("[]", id="a list"),
        pytest.param('{"city": "\\ud800"}', id="half a character"),
        pytest.param('"', id="a quote"),
    ],
)
async def test_a_model_that_repeats_a_bad_call_for_ever_is_answered_politely(
    chat: ChatClient,
    settings_env: SettingsEnv,
    arguments: str,
) -> None:
    bad = calling(("weather", arguments))
    with scripted_model(settings_env, bad) as model:
        reply = await say(chat, "What is the weather in Seattle?")
    assert "Please ask in other words" in reply.text
    assert reply.model_calls == len(model.questions) == MAX_CORRECTIONS + 1


@pytest.mark.parametrize("arguments", ['{"city": %s}' % ("9" * 5000), "[" * 20_000])
async def test_a_call_that_the_model_library_itself_cannot_read_ends_in_words(
    chat: ChatClient,
    settings_env: SettingsEnv,
    arguments: str,
) -> None:
    unreadable = calling(("weather", arguments))
    with scripted_model(settings_env, unreadable) as model:
        reply = await say(chat, "What is the weather in Seattle?")
    assert "Please ask in other words" in reply.text and reply.failed
    assert reply.model_calls == len(model.questions) == MAX_CORRECTIONS + 1  # each is paid once


async def test_a_model_that_calls_tools_for_ever_is_stopped(
    chat: ChatClient, settings_env: SettingsEnv
) -> None:
    others = [
        calling(("calculator", {"expression": f"{n} + 1"})) for n in range(2 * MAX_TOOL_ROUNDS)
    ]
    with scripted_model(settings_env, *others) as model:
        reply = await say(chat, "What is the weather in Seattle?")
    assert "again and again" in reply.text and reply.failed
    assert len(model.questions) == MAX_TOOL_ROUNDS
    assert len(reply.tool_calls) == MAX_TOOL_ROUNDS


@pytest.mark.parametrize("answer", [says(""), says(None)])
async def test_a_model_that_says_nothing_is_put_into_words(
    chat: ChatClient, settings_env: SettingsEnv, answer: dict[str, Any]
) -> None:
    with scripted_model(settings_env, answer):
        assert "nothing to say" in (await say(chat, "Hello")).text


async def test_a_result_of_a_tool_that_cannot_be_used_is_told_to_the_model(
    chat: ChatClient, settings_env: SettingsEnv
) -> None:
    wrong_type = calling(("weather", {"city": 5}))
    with scripted_model(settings_env, wrong_type, says("I give up.")) as model:
        assert (await say(chat, "What is the weather in Seattle?")).text == "I give up."
    assert "Error: wrong arguments: city" in model.questions[1]["messages"][-1]["content"]


# --- a model that is down ----------------------------------------------------------------------------


async def plan_attempts(chat: ChatClient) -> list[int]:
    kind = MODEL_CALLS[chat.workflow_id.split("-")[1]]
    return [run.attempts for run in (await history_of(chat.handle)).named(kind)]


@pytest.fixture
def short_of_patience(worker: WorkerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both loops give a model four seconds in all."""
    limit = timedelta(seconds=4)
    monkeypatch.setitem(model_call.PLAN_OPTIONS, "schedule_to_close_timeout", limit)
    runner = get_default_agent_runner()
    assert isinstance(runner, TemporalOpenAIRunner)
    monkeypatch.setattr(runner.model_params, "schedule_to_close_timeout", limit)


async def test_three_failures_and_then_an_answer(
    chat: ChatClient, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_FAULTS="sequence=server_error*2, timeout")
    reply = await say(chat, "What is 15 * 23?")
    assert reply.text == "15 * 23 = 345."
    assert reply.model_calls == 2  # answers in the history; failures are attempts of the same call
    assert await plan_attempts(chat) == [4, 1]


async def test_a_model_that_stays_down_is_answered_politely_and_the_next_turn_works(
    chat: ChatClient, settings_env: SettingsEnv, short_of_patience: None, tmp_path: Path
) -> None:
    journal = tmp_path / "model_calls.jsonl"
    settings_env(OFFLINE_FAULTS="server_error=1", WORKSHOP_MODEL_JOURNAL=journal)
    reply = await say(chat, "What is 15 * 23?")
    assert reply.text.startswith(MODEL_DOWN) and "failed (500)" in reply.text
    assert reply.model_calls == 0
    # Not from the history: an activity that is given up between two attempts has none in it.
    assert len(read_journal(journal)) > 1
    settings_env(OFFLINE_FAULTS="")
    assert "345" in (await say(chat, "What is 15 * 23?")).text
    await chat.end()
    assert await ended(chat) == 2


async def test_the_pause_that_a_provider_asks_for_is_kept(
    chat: ChatClient, settings_env: SettingsEnv
) -> None:
    with scripted_model(settings_env, "rate_limit"):  # 429 with retry-after: 7
        sending = asyncio.create_task(say(chat, "Hello"))
        async with asyncio.timeout(30):
            pending: list[Any] = []
            while not pending or not pending[0].HasField("last_failure"):
                await asyncio.sleep(0.05)
                if not await begun(chat):
                    continue
                pending = list((await chat.handle.describe()).raw_description.pending_activities)
    assert pending[0].attempt == 2
    # To the second: the server adds the microseconds that its own work took.
    assert pending[0].current_retry_interval.seconds == 7
    await chat.handle.terminate()
    with pytest.raises(WorkshopError):
        await sending


async def begun(chat: ChatClient) -> bool:
    try:
        return (await chat.handle.describe()).status == WorkflowExecutionStatus.RUNNING
    except Exception:
        return False


async def test_after_a_rate_limit_the_call_is_tried_again(
    chat: ChatClient, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_FAULTS="sequence=rate_limit")  # retry-after: 1
    assert "345" in (await say(chat, "What is 15 * 23?")).text
    assert await plan_attempts(chat) == [2, 1]


async def test_a_refused_key_is_tried_once_and_written_nowhere(
    chat: ChatClient, settings_env: SettingsEnv
) -> None:
    with scripted_model(settings_env, "bad_key") as model:
        reply = await say(chat, "Hello")
        assert len(model.requests) == 1
        assert await plan_attempts(chat) == [1]
        assert reply.text.startswith(MODEL_DOWN) and "key" in reply.text
        assert KEY not in reply.text + await texts_of_the_history(chat)
        model.script = [says("Hello to you.")]
        assert (await say(chat, "Hello")).text == "Hello to you."


# --- the cost of a long conversation -----------------------------------------------------------------


@pytest.mark.parametrize("loop", sampled(["sdk", "manual"], 1))
async def test_the_hundredth_turn_costs_no_more_history_than_the_tenth(chat: ChatClient) -> None:
    for number in range(101):
        assert (await say(chat, f"What is {1000 + number} * 9973?")).tool_calls == ["calculator"]
    bytes_of: list[int] = []
    for event in await events(chat):
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
            bytes_of.append(0)
        if bytes_of:
            bytes_of[-1] += event.ByteSize()
    assert len(bytes_of) == 101
    assert bytes_of[1] < bytes_of[9]  # the measure does see a window that fills
    # Twelve turns: some of them pay for a summary.
    assert sum(bytes_of[88:100]) <= 1.1 * sum(bytes_of[9:21])
