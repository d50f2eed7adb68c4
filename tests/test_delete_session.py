"""A session that is deleted: nothing of it is found any more, and what remains elsewhere is said."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from openai_server import calling, says, scripted_model
from temporalio.client import Client
from temporalio.service import RPCError

from workshop_lib.agents.chat import ChatStart, SessionLimits
from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.agents.session_list import list_sessions
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.errors import WorkshopError
from workshop_lib.settings import get_settings
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
SECRET = "The safe is behind the portrait."
SettingsEnv = Callable[..., None]


def new_chat(client: Client, worker: WorkerSpec, updates: int = 2) -> ChatClient:
    start = ChatStart(limits=SessionLimits(updates=updates))
    return ChatClient(client, task_queue=worker.task_queue, start=start)


async def test_every_run_is_gone_and_the_name_is_free(client: Client, worker: WorkerSpec) -> None:
    chat = new_chat(client, worker)
    for message in (SECRET, "Hello", "Hello", "Hello", "Hello"):
        await chat.send(message, timeout=LIMIT)
    runs = [run.run_id async for run in client.list_workflows(f"WorkflowId = '{chat.workflow_id}'")]
    deletion = await chat.delete()
    assert deletion.runs == 3 and deletion.results == 0
    told = " ".join(deletion.remains)
    for namespace in (get_settings().it_namespace, get_settings().finance_namespace):
        assert namespace in told and "days after" in told
    async with asyncio.timeout(30):
        for run in {*runs, None}:
            while True:
                try:
                    await client.get_workflow_handle(chat.workflow_id, run_id=run).fetch_history()
                except RPCError:
                    break
                await asyncio.sleep(0.1)  # the server does it in a moment, and tells nobody
        while chat.session in [info.session async for info in list_sessions(client)]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert await chat.transcript() == []
    with pytest.raises(WorkshopError, match="no session"):
        await chat.delete()
    reply = await chat.send("What did I ask first?", timeout=LIMIT)
    assert reply.turn == 1 and "safe" not in reply.text


async def test_in_the_middle_of_a_turn(
    client: Client, worker: WorkerSpec, settings_env: SettingsEnv
) -> None:
    settings_env(OFFLINE_LATENCY_MS=40_000)
    chat = new_chat(client, worker)
    sending = asyncio.create_task(chat.send(SECRET, timeout=LIMIT))
    async with asyncio.timeout(30):
        while True:
            try:
                await chat.handle.describe()
                break
            except RPCError:
                await asyncio.sleep(0.05)
    assert (await chat.delete()).runs == 1
    with pytest.raises((WorkshopError, RPCError)):
        async with asyncio.timeout(30):
            await sending
    async with asyncio.timeout(30):
        while await chat.transcript():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_large_results_go_with_it_and_along_with_a_fork(
    client: Client,
    worker: WorkerSpec,
    settings_env: SettingsEnv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    monkeypatch.setattr(LOCAL_TOOLS["weather"], "_function", lambda _: "rain " * 2_000)
    weather = calling(("weather", {"city": "Seattle"}))
    with scripted_model(settings_env, weather, says("Rain.")) as model:
        chat = new_chat(client, worker)
        await chat.send("What is the weather?", timeout=LIMIT)
        shown = model.questions[-1]["messages"][-1]["content"]
        reference = shown.split("result ")[1].split(",")[0]
        model.script = [calling(("read_result", {"ref": reference, "part": 2})), says("More rain.")]
        await chat.send("And then?", timeout=LIMIT)
        assert "Part 2" in model.questions[-1]["messages"][-1]["content"]
        model.script = [calling(("read_result", {"ref": reference, "part": 3})), says("More rain.")]
        fork, _ = await chat.fork(2, "And what else?", timeout=LIMIT)
        assert "Part 3" in model.questions[-1]["messages"][-1]["content"]
        assert (await chat.delete()).results == 1
        model.script = [calling(("read_result", {"ref": reference, "part": 4})), says("More rain.")]
        await fork.send("And what else?", timeout=LIMIT)
        assert "Part 4" in model.questions[-1]["messages"][-1]["content"]
        assert (await fork.delete()).results == 1
