"""What a session costs, and a budget that is kept: warned of, waited for, raised, and never overdrawn."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from openai_server import Raw, says, scripted_model
from pydantic import ValidationError
from temporalio.client import Client

from workshop_lib.agents.chat import ChatStart, Reply, SessionLimits
from workshop_lib.agents.conversation.spending import MAX_OUTPUT, Budget, Spending
from workshop_lib.agents.sessions import ChatClient, MessageRefused
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.pending import look
from workshop_lib.llm.messages import Usage
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
SettingsEnv = Callable[..., None]
loops = pytest.mark.parametrize("loop", ["manual", "sdk"])


def a_chat(client: Client, spec: WorkerSpec, loop: str = "manual", **start: Any) -> ChatClient:
    return ChatClient(client, loop, task_queue=spec.task_queue, start=ChatStart(**start))


async def say(chat: ChatClient, message: str = "What is 15 * 23?") -> Reply:
    return await chat.send(message, timeout=LIMIT)


async def waiting(chat: ChatClient) -> Spending:
    """Until the session says that it waits."""
    async with asyncio.timeout(30):
        while not (spending := await chat.spending()).waits:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return spending


@loops
async def test_tokens_are_added_up_turn_by_turn_and_over_runs(
    client: Client, worker: WorkerSpec, loop: str
) -> None:
    chat = a_chat(client, worker, loop, limits=SessionLimits(updates=3))
    costs = [(await say(chat)).tokens for _ in range(5)]
    assert all(cost > 100 for cost in costs)
    spending = await chat.spending()
    assert spending.used.tokens == sum(costs) and spending.budget is None
    assert list(spending.turns.values()) == costs[-len(spending.turns) :]


@loops
async def test_a_budget_is_warned_of_waited_for_and_raised(
    client: Client, worker: WorkerSpec, loop: str
) -> None:
    first = (await say(a_chat(client, worker, loop))).tokens
    budget = Budget(tokens=first + MAX_OUTPUT)
    chat = a_chat(client, worker, loop, budget=budget)
    await chat.set_budget(Budget(tokens=first * 20 + MAX_OUTPUT))
    assert (await say(chat)).notice == ""
    await chat.set_budget(budget)
    sending = asyncio.ensure_future(say(chat))
    begun = time.monotonic()
    held = await waiting(chat)
    assert f"{budget.tokens:,} tokens" in held.waits and "raised" in held.waits
    assert held.used.tokens <= (budget.tokens or 0)
    # Whoever looks at the run is told, as of a model that is down.
    seen = await look(client, chat.workflow_id)
    assert any("budget of" in line for line in seen.troubles.values())
    assert len([line for line in seen.lines if "budget of" in line]) == 1
    assert time.monotonic() - begun < 30 and not sending.done()
    more = Budget(tokens=held.used.tokens + first + 2 * MAX_OUTPUT + 4_000)
    assert (await chat.set_budget(more)).waits == ""
    reply = await sending
    assert "345" in reply.text and not reply.failed
    assert (await chat.spending()).waits == ""
    assert not (await look(client, chat.workflow_id)).troubles
    used = (await chat.spending()).used.tokens
    await chat.set_budget(Budget(tokens=round(used / 0.85) + 1))
    waits = asyncio.ensure_future(say(chat, "Hello"))
    await waiting(chat)
    assert (await chat.stop()).stopped
    assert "has used 8" in (await waits).notice


async def test_a_budget_outlives_its_worker_and_is_kept_in_the_next_run(
    client: Client, spec: WorkerSpec
) -> None:
    chat = a_chat(client, spec, limits=SessionLimits(updates=2), budget=Budget(tokens=100_000))
    async with spec.build(client):
        used = sum([(await say(chat)).tokens for _ in range(3)])
        await chat.set_budget(Budget(tokens=used + 10))
        sending = asyncio.ensure_future(say(chat))
        await waiting(chat)
    async with spec.build(client):
        held = await waiting(chat)
        assert held.used.tokens == used and held.budget == Budget(tokens=used + 10)
        await chat.set_budget(Budget(tokens=100_000))
        assert "345" in (await sending).text


async def test_an_ended_session_answers_what_waits_once_it_may(
    client: Client, worker: WorkerSpec
) -> None:
    chat = a_chat(client, worker, budget=Budget(tokens=10))
    await chat.begin()
    sending = asyncio.ensure_future(say(chat))
    await waiting(chat)
    await chat.end()
    with pytest.raises(MessageRefused, match="ended"):
        await say(chat)
    await chat.set_budget(Budget(tokens=1_000_000))
    assert "345" in (await sending).text
    async with asyncio.timeout(30):
        assert await chat.handle.result() == 1


async def test_a_budget_of_money_counts_at_its_prices(client: Client, worker: WorkerSpec) -> None:
    prices = (1_000.0, 2_000.0)
    chat = a_chat(client, worker, budget=Budget(dollars=90, dollars_per_million=prices))
    await say(chat)
    spending = await chat.spending()
    assert spending.budget
    used = spending.used
    cost = used.prompt_tokens / 1_000 + used.completion_tokens / 500
    assert spending.budget.share(used) == pytest.approx(cost / 90)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(tokens=-1), "more than 0, and -1 is not"),
        (Budget(tokens=0), "more than 0"),
        (Budget(dollars=-0.5, dollars_per_million=(1, 1)), "-0.5 is not"),
        (Budget(dollars=float("nan"), dollars_per_million=(1, 1)), "more than 0"),
        (Budget(dollars=1), "needs the price"),
        (Budget(dollars=1, dollars_per_million=(-1, 1)), "needs the price"),
        (Budget(), "one of the two"),
        (Budget(tokens=1, dollars=1), "one of the two"),
    ],
    ids=repr,
)
async def test_what_is_no_budget_gets_a_sentence(
    client: Client, worker: WorkerSpec, budget: Budget, words: str
) -> None:
    chat = a_chat(client, worker)
    with pytest.raises(MessageRefused, match=words):
        await chat.set_budget(budget)
    with pytest.raises(WorkshopError, match=words):
        a_chat(client, worker, budget=budget)
    assert budget.problem()


async def test_the_session_itself_refuses_what_is_no_budget(
    client: Client, worker: WorkerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = a_chat(client, worker)
    await say(chat, "Hello")
    monkeypatch.setattr("workshop_lib.agents.sessions.check_budget", lambda _: None)
    with pytest.raises(MessageRefused, match="-5 is not"):
        await chat.set_budget(Budget(tokens=-5))
    assert (await chat.spending()).budget is None
    with pytest.raises(ValidationError):
        Budget(tokens="many")  # type: ignore[arg-type]


@loops
async def test_with_a_budget_an_answer_is_asked_for_at_a_length(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv, loop: str
) -> None:
    with scripted_model(settings_env, says("ok")) as model:
        await say(a_chat(client, worker, loop))
        await say(a_chat(client, worker, loop, budget=Budget(tokens=90_000)), "And now?")
        lengths = [
            body.get("max_tokens") or body.get("max_completion_tokens") for body in model.requests
        ]
    assert lengths == [None, MAX_OUTPUT]


@loops
async def test_what_a_provider_does_not_say_is_counted_and_what_was_tried_too(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv, loop: str
) -> None:
    silent = Raw({"choices": [{"index": 0, "message": says("ok"), "finish_reason": "stop"}]})
    with scripted_model(settings_env, silent) as model:
        reply = await say(a_chat(client, worker, loop), "Count this, please.")
        sent = len(str(model.requests[-1]["messages"]))
        assert sent / 10 < reply.tokens < 10 * sent
        once = (await say(a_chat(client, worker, loop), "Count this, please.")).tokens
        assert once == reply.tokens
        if loop == "manual":
            model.script = ["server_error", silent]
            twice = (await say(a_chat(client, worker, loop), "Count this, please.")).tokens
            assert twice == 2 * once


def test_usage_adds_up_and_says_where_it_is_an_estimate() -> None:
    told, guessed = Usage(prompt_tokens=3, completion_tokens=4), Usage(estimated=True)
    assert (told + told).tokens == 14 and not (told + told).estimated
    assert (told + guessed).estimated and told.times(3).tokens == 21
    assert told.times(1) == told and told.times(2).estimated
