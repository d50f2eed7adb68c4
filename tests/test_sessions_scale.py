"""Two hundred conversations at once: each gets its own answers, and all are done within two minutes."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from temporalio.client import Client

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.lab.worker_process import start_process
from workshop_lib.worker_spec import WorkerSpec

SESSIONS = 200
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


async def test_two_hundred_sessions_of_three_turns(client: Client, spec: WorkerSpec) -> None:
    worker = await start_process(replace(spec, name=f"scale-{spec.task_queue}"))
    chats = [ChatClient(client, task_queue=spec.task_queue) for _ in range(SESSIONS)]
    try:
        async with asyncio.timeout(SECONDS):
            replies = await asyncio.gather(
                *(converse(chat, number) for number, chat in enumerate(chats))
            )
    finally:
        worker.kill()
    for number, (product, memory, difference) in enumerate(replies):
        assert product == f"{1000 + number} * 9973 = {(1000 + number) * 9973}."
        assert memory.endswith(f"“What is {1000 + number} * 9973?”")
        assert difference == f"{5000 + number} - 777 = {5000 + number - 777}."
