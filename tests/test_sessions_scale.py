"""Two hundred conversations at once: each gets its own answers, and all are done within two minutes.

And three hundred that call tools at the same moment: a worker that is busy loses none of them. By default a
part of both asks; all do with `-m long`.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import Client

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.lab.workers.process import start_process
from workshop_lib.temporal.worker import WorkerSpec

SECONDS = 120  # a requirement: a class talks at once, on the laptop of its teacher


async def converse(chat: ChatClient, number: int) -> list[str]:
    """Three turns: a tool, the memory of this session, and a tool with other words."""
    asked = [
        f"What is {1000 + number} * 9973?",
        "What did I ask first?",
        f"What is {5000 + number} - 777?",
    ]
    return [
        (await chat.send(message, timeout=timedelta(seconds=SECONDS))).text for message in asked
    ]


@pytest.mark.parametrize("number", [50, pytest.param(200, marks=pytest.mark.long)])
async def test_sessions_of_three_turns(client: Client, spec: WorkerSpec, number: int) -> None:
    worker = await start_process(replace(spec, name=f"scale-{spec.task_queue}"))
    chats = [ChatClient(client, task_queue=spec.task_queue) for _ in range(number)]
    try:
        async with asyncio.timeout(SECONDS):
            replies = await asyncio.gather(*(converse(chat, n) for n, chat in enumerate(chats)))
    finally:
        worker.kill()
    for n, (product, memory, difference) in enumerate(replies, 1000):
        assert product == f"{n} * 9973 = {n * 9973}."
        assert memory.endswith(f"“What is {n} * 9973?”")
        assert difference == f"{4000 + n} - 777 = {4000 + n - 777}."


TOOLS = ("What is {0} * 9973?", "What is {0} - 777?", "What's the weather in Seattle?")


async def ask_for_tools(chat: ChatClient, number: int) -> list[str]:
    """Three questions at once, each for a tool. Returns what went wrong."""
    questions = [question.format(1000 + number) for question in TOOLS]
    asked = (chat.send(question, timeout=timedelta(minutes=10)) for question in questions)
    replies = await asyncio.gather(*asked, return_exceptions=True)
    wanted = (str((1000 + number) * 9973), str(1000 + number - 777), "Seattle: 14 °C")
    return [
        f"{reply!r} lacks {text}"
        for reply, text in zip(replies, wanted, strict=True)
        if text not in str(getattr(reply, "text", reply))
    ]


@pytest.mark.parametrize("number", [40, pytest.param(300, marks=pytest.mark.long)])
async def test_tools_at_once(client: Client, spec: WorkerSpec, number: int) -> None:
    worker = await start_process(replace(spec, name=f"tools-{spec.task_queue}"))
    chats = [ChatClient(client, task_queue=spec.task_queue) for _ in range(number)]
    try:
        wrong = await asyncio.gather(*(ask_for_tools(chat, n) for n, chat in enumerate(chats)))
    finally:
        worker.kill()
    assert [line for lines in wrong for line in lines] == []
