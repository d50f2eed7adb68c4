"""Summaries on a real server: what was told is known when it is long out of sight, whoever sums it up."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from openai_server import says, scripted_model
from temporalio.client import Client

from workshop_lib.agents.conversation.policy import SUMMARY_NOTE, ContextPolicy
from workshop_lib.agents.conversation.summary import Summary
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.lab.history import history_of
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
SettingsEnv = Callable[..., None]


@pytest.fixture(params=["manual", "sdk"])
def chat(request: pytest.FixtureRequest, client: Client, worker: WorkerSpec) -> ChatClient:
    """A new session of each loop, with a worker that serves it."""
    return ChatClient(client, request.param, task_queue=worker.task_queue)


async def say(chat: ChatClient, message: str) -> str:
    return (await chat.send(message, timeout=LIMIT)).text


async def summaries(chat: ChatClient) -> list[Any]:
    history = await history_of(chat.handle)
    return [one for one in history.named("summarise") if one.completed]


async def test_facts_told_long_ago_are_known_and_the_latest_counts(chat: ChatClient) -> None:
    told = {
        2: "My door code is 4471.",
        9: "My favourite city is Tokyo.",
        17: "My order is ORD-77.",
        21: "My door code is now 5582, not 4471.",
    }
    for turn in range(1, 36):
        await say(chat, told.get(turn, f"What is {turn} * 7?"))
    assert "5582" in await say(chat, "What is my door code?")
    assert "Tokyo" in await say(chat, "What is my favourite city?")
    assert "ORD-77" in await say(chat, "What was my order?")
    assert "28 °C" in await say(chat, "What is the weather in my favourite city?")
    most = ContextPolicy().max_summary_chars
    found = await summaries(chat)
    assert len(found) > 5
    for one in found:
        summary = Summary.model_validate(one.result)
        assert not summary.problem and 0 < len(summary.text) <= most
        assert summary.usage.completion_tokens > 0


async def until_summed_up(chat: ChatClient, first: str = "My door code is 4471.") -> None:
    """As many turns of two messages as fit into the window, so that the next one makes a summary."""
    await say(chat, first)
    for _ in range(ContextPolicy().max_parts // 2 - 1):
        await say(chat, "Hello there")


LACKING = "User: told me some code."


@pytest.mark.parametrize(
    ("answers", "asked", "problem"),
    [
        (["User: code 4471."], 1, ""),
        ([LACKING, "User: code 4471."], 2, ""),
        ([LACKING, LACKING], 2, "it lacks 4471"),
        (["User: 4471. " + "x" * 3_000] * 2, 2, "2,400 is the most"),
        ([None, None], 2, "it is empty"),
        (["server_error", "User: code 4471."], 1, ""),
        (["server_error", "server_error"], 1, "openai/scripted"),
        (["too_long"], 1, "openai/scripted"),
    ],
    ids=str,
)
async def test_a_summary_that_does_not_do_is_written_again_and_then_by_rules(
    client: Client,
    worker: WorkerSpec,
    settings_env: SettingsEnv,
    answers: list[Any],
    asked: int,  # different questions: one that is asked again is the same
    problem: str,
) -> None:
    chat = ChatClient(client, task_queue=worker.task_queue)
    with scripted_model(settings_env, says("ok")) as model:
        await until_summed_up(chat)
        known = ("server_error", "too_long")
        model.summaries = [one if one in known else says(one) for one in answers]
        model.script = [says("done")]
        reply = await chat.send("What is my door code?", timeout=LIMIT)
        assert (reply.text, reply.failed) == ("done", False)
        questions = {json.dumps(body) for body in model.summary_requests}
        assert len(questions) == asked
        [found] = await summaries(chat)
        summary = Summary.model_validate(found.result)
        assert problem in summary.problem and bool(problem) == bool(summary.problem)
        assert "4471" in summary.text
        assert ("could not write" in reply.notice) == bool(problem)
        system = model.questions[-1]["messages"][0]["content"]
        assert system.endswith(f"{SUMMARY_NOTE}{summary.text}")


async def test_a_summary_is_the_same_after_its_worker_was_killed_and_is_made_once_a_turn(
    client: Client, spec: WorkerSpec
) -> None:
    """Its id is of the turn, and what is recorded is never made again: another worker goes on with it."""
    chat = ChatClient(client, task_queue=spec.task_queue)
    async with spec.build(client):
        await until_summed_up(chat)
        await say(chat, "Hello again")
    events = (await chat.handle.fetch_history()).events
    scheduled = [event.activity_task_scheduled_event_attributes for event in events]
    ids = [one.activity_id for one in scheduled if one.activity_type.name == "summarise"]
    assert ids == [f"summary-in-turn-{ContextPolicy().max_parts // 2 + 1}"]
    async with spec.build(client):  # it knows the session from its history alone
        assert "4471" in await say(chat, "What is my door code?")
    assert len(await summaries(chat)) == 1
