"""Whatever a lesson or a command awaits says within seconds what is missing, and then goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from lab_cells import GREETING, Notebook, notebook, spec_of
from lab_environment import fresh
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from sampled import sampled
from temporalio.client import Client

from workshop_lib.agents.chat import ChatStart
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.streaming import stream_reply
from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.lessons.approving import repair_reaches
from workshop_lib.lab.registry import stop_all, stop_worker
from workshop_lib.lab.server.lifecycle import ensure_server
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.watching.waiting import NobodyPolls, Notices, watch
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.worker import repair
from workshop_lib.temporal.connect import connect

pytestmark = pytest.mark.usefixtures("lab_server")

SOON = 20.0  # seconds; about three where nothing else runs


@dataclass
class Told:
    """What a person was told, and when."""

    texts: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, text: str) -> None:
        self.texts.append(text)
        self.news.set()


@pytest_asyncio.fixture
async def told() -> Told:
    return Told()


@pytest_asyncio.fixture
async def client(told: Told) -> AsyncIterator[Client]:
    yield await connect(interceptors=[Notices(told)])
    stop_all()


async def a_turn(chat: ChatClient) -> None:
    """A first message, with a worker that then goes."""
    await start_worker(orchestrator(), announce=False)
    await chat.send("What is 25 + 17?")
    stop_worker("orchestrator")


def streamed(client: Client, chat: ChatClient) -> Coroutine[Any, Any, list[Any]]:
    async def collect() -> list[Any]:
        return [piece async for piece in stream_reply(client, chat, "What is 1 + 1?")]

    return collect()


AWAITS: dict[str, Callable[[Client, ChatClient], Coroutine[Any, Any, Any]]] = {
    "first message": lambda client, chat: chat.send("hello"),
    "another message": lambda client, chat: chat.send("hello"),
    "streamed": streamed,
    "update": lambda client, chat: chat.handle.execute_update("send_message", "hello"),
    "query": lambda client, chat: chat.handle.query("history", rpc_timeout=timedelta(seconds=30)),
    "transcript": lambda client, chat: chat.transcript(),
    "result": lambda client, chat: chat.handle.result(),
}


@pytest.mark.parametrize("name", sampled(AWAITS, 3))
async def test_a_chat_without_a_worker(name: str, client: Client, told: Told) -> None:
    chat = ChatClient(client, "sdk", start=ChatStart(stream=True))
    if name in ("another message", "update", "query", "transcript"):
        await a_turn(chat)
    else:
        await chat.begin() if name != "first message" else None
    assert not told.texts
    waiting = asyncio.ensure_future(AWAITS[name](client, chat))
    try:
        async with asyncio.timeout(SOON):
            await told.news.wait()
        assert len(told.texts) == 1
        assert (
            "Nobody polls task queue orchestrator-task-queue in namespace default" in told.texts[0]
        )
        assert "`workshop up`" in told.texts[0]
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_it_is_said_once_and_the_call_goes_on(client: Client, told: Told) -> None:
    chat = ChatClient(client)
    waiting = asyncio.ensure_future(chat.send("What is 25 + 17?"))
    async with asyncio.timeout(SOON):
        await told.news.wait()
    await asyncio.sleep(5)  # two more looks
    await start_worker(orchestrator(), announce=False)
    assert "42" in (await waiting).text
    assert len(told.texts) == 1


async def test_what_asks_again_says_it_once_and_the_next_time_anew(
    client: Client, told: Told
) -> None:
    chat = ChatClient(client)
    await a_turn(chat)
    with pytest.raises(WorkshopError, match="did not answer"):
        await chat.transcript()  # three queries, ten seconds
    assert len(told.texts) == 1
    told.news.clear()
    await start_worker(orchestrator(), announce=False)
    assert await chat.transcript()
    stop_worker("orchestrator")
    with pytest.raises(WorkshopError, match="No reply"):
        await chat.send("hello", timeout=timedelta(seconds=8))
    assert len(told.texts) == 2


async def test_who_watches_is_not_told_twice(client: Client, told: Told) -> None:
    chat = ChatClient(client)
    with pytest.raises(NobodyPolls):
        await watch(chat.send("hello"), chat.handle, timeout=SOON)
    await asyncio.sleep(3)
    assert told.texts == []


async def test_a_team_that_nobody_serves(client: Client, told: Told) -> None:
    await ensure_namespaces(ensure_server())
    await start_worker(orchestrator(), announce=False)
    waiting = asyncio.ensure_future(ChatClient(client).send("What's the stock price of TSLA?"))
    async with asyncio.timeout(SOON):
        await told.news.wait()
    assert "finance-task-queue in namespace finance-namespace" in told.texts[0]
    waiting.cancel()


async def test_of_what_goes_on_beside_a_cell_only_its_own_worker_is_said(told: Told) -> None:
    """A case for a detective stays one: a question in the background does not give it away."""
    await ensure_namespaces(ensure_server())
    client = await connect(interceptors=[Notices(told, in_front=lambda: False)])
    await start_worker(orchestrator(), announce=False)
    waiting = asyncio.ensure_future(ChatClient(client).send("What's the stock price of TSLA?"))
    await asyncio.sleep(6)
    assert told.texts == []
    stop_worker("orchestrator")
    waiting.cancel()
    waiting = asyncio.ensure_future(ChatClient(client).send("hello"))
    async with asyncio.timeout(SOON):
        await told.news.wait()
    assert "orchestrator-task-queue" in told.texts[0]
    waiting.cancel()


async def test_a_repair(client: Client, told: Told) -> None:
    run = await RepairClient.start(client)
    waiting = asyncio.ensure_future(repair_reaches(run, "PENDING-APPROVAL"))
    async with asyncio.timeout(SOON):
        await told.news.wait()
    assert "repair-task-queue" in told.texts[0]
    await start_worker(repair(), announce=False)
    plan = await waiting and await run.plan()
    assert plan
    stop_worker("repair")
    told.texts.clear()
    told.news.clear()
    waiting = asyncio.ensure_future(run.approve(plan.digest))
    async with asyncio.timeout(SOON):
        await told.news.wait()
    assert "Nobody polls task queue repair-task-queue" in told.texts[0]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_code_with_a_bug(client: Client, told: Told) -> None:
    nb: Notebook = notebook()
    nb.workflow("buggy", GREETING.replace("return await", "return 1 / 0 and await"))
    spec = spec_of(nb["Greeting"], nb["say_hello"])
    await start_worker(spec, announce=False)
    handle = await client.start_workflow(
        "Greeting", "Ada", id=fresh("run"), task_queue=spec.task_queue
    )
    waiting = asyncio.ensure_future(handle.result())
    async with asyncio.timeout(SOON):
        await told.news.wait()
    assert "is stuck, not failed: ZeroDivisionError" in told.texts[0]
    assert "In cell `buggy`, line 13" in told.texts[0]
    waiting.cancel()


async def test_what_is_served_is_not_looked_at(client: Client, told: Told) -> None:
    await start_worker(orchestrator(), announce=False)
    chat = ChatClient(client)
    for question in ("What is 25 + 17?", "What is 2 * 3?"):
        await chat.send(question)
    ending = asyncio.ensure_future(chat.handle.result())
    begun = time.monotonic()
    await asyncio.sleep(4)
    await chat.end()
    assert await ending == 2 and time.monotonic() - begun < SOON
    assert told.texts == []


def test_the_task_of_the_cell_is_in_front() -> None:
    cells = [
        "import asyncio; from workshop_lib.lab.workers import cells; cells.register(get_ipython())",
        "async def ask(): return cells.in_front()",
        "await ask(), await asyncio.create_task(ask()), await ask()",
    ]
    made = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    NotebookClient(made, kernel_name="python3", timeout=60).execute()
    assert made.cells[-1].outputs[0].data["text/plain"] == "(True, False, True)"
