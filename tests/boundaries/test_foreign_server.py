"""Another lab's server comes to listen where a lab's own has died: nothing of one ever reaches the other."""

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from lab_environment import free_port, lab
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from workshop_command import Workshop

from workshop_lib.lab.doctor import examination
from workshop_lib.lab.registry import stop_all
from workshop_lib.lab.server import dev_server
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.server.lifecycle import end, launch
from workshop_lib.lab.server.namespaces import ensure_namespaces, wanted_namespaces
from workshop_lib.lab.services import background as services
from workshop_lib.lab.watching.queues import look_at, places
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.machine.records import live_record
from workshop_lib.settings import PROJECT_ROOT, get_settings
from workshop_lib.teams.it.worker import it
from workshop_lib.temporal import connect
from workshop_lib.temporal.own_server import NoServer
from workshop_lib.temporal.worker import WorkerSpec

TRUTH = 5.0  # seconds until status, doctor and up tell it
NOTHING_DONE = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
}


@pytest.fixture
def patch(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with lab(tmp_path / "ours") as patch:
        for name in ("FINANCE", "IT", "REPAIR"):
            patch.setenv(f"{name}_MCP_PORT", str(free_port()))
        try:
            yield patch
        finally:
            stop_all()
            services.stop_services()


def port_of(found: server.Server) -> int:
    return int(found.address.rsplit(":", 1)[1])


def kill(pid: int | None) -> None:
    assert pid
    process = psutil.Process(pid)
    process.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait(10)


@asynccontextmanager
async def their_server(folder: Path, port: int) -> AsyncIterator[Client]:
    """A server with the same namespaces, and work of theirs, at an address that was ours."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    arguments = dev_server.command(
        dev_server.find_cli(),
        port=port,
        http_port=free_port(),
        ui_port=None,
        database=None,
        namespaces=wanted_namespaces(),
    )
    process = await asyncio.to_thread(launch, arguments, folder)
    try:
        yield await Client.connect(f"127.0.0.1:{port}")
    finally:
        end(process.pid)


async def their_work(client: Client) -> list[WorkflowHandle[object, object]]:
    """A run for each of the workers that there are on either side."""
    kinds = {"orchestrator": "ManualChat", "it": "IpWorkflow", "repair": "OrderRepair"}
    return [
        await client.start_workflow(kind, id=f"theirs-{name}", task_queue=places()[name][1])
        for name, kind in kinds.items()
        if places()[name][0] == client.namespace
    ]


async def nothing_of_ours(client: Client, theirs: list[WorkflowHandle[object, object]]) -> None:
    """Nobody of ours has polled there, taken anything or started anything."""
    for queue in await look_at(client, *places().values()):
        assert queue.pollers == (), queue
    for handle in theirs:
        history = await handle.fetch_history()
        assert {event.event_type for event in history.events} <= NOTHING_DONE
    assert {run.id async for run in client.list_workflows()} <= {handle.id for handle in theirs}


async def our_calls_fail(client: Client) -> None:
    """What clients of ours ask for is refused here, by whatever way they ask."""
    with pytest.raises(NoServer):
        await connect.connect()
    with pytest.raises(RPCError) as caught:
        await client.start_workflow("ManualChat", id="ours", task_queue="orchestrator-task-queue")
    assert caught.value.status == RPCStatusCode.UNAVAILABLE


def told_within(seconds: float, *arguments: str) -> "subprocess.CompletedProcess[str]":
    begun = time.monotonic()
    done = Workshop(get_settings().state_dir)(*arguments)
    # Python's own start on a busy machine is not what is looked at.
    assert time.monotonic() - begun < 3 * seconds
    return done


def the_truth_is_told() -> None:
    """`status` and `doctor` say that the server is gone and who waits for it."""
    said = json.loads(told_within(TRUTH, "status", "--json").stdout)
    assert said["server"] is None
    assert len(said["workers"]) == 4 and not any(worker["polls"] for worker in said["workers"])
    assert len(said["mcp_servers"]) == 3
    assert not any(mcp_server["works"] for mcp_server in said["mcp_servers"])
    found = told_within(3 * TRUTH, "doctor", "--json")
    assert found.returncode == 1
    (workers,) = [line for line in json.loads(found.stdout) if line["name"] == "workers"]
    assert workers["status"] == "FAIL" and "the dev server is gone" in workers["text"]
    assert all(name in workers["text"] for name in ("orchestrator", "repair", "MCP server it"))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.long)])
async def test_nothing_of_one_lab_reaches_the_other(
    patch: pytest.MonkeyPatch, tmp_path: Path, rounds: int
) -> None:
    chance = random.Random(7)
    assert (up := told_within(60, "up")).returncode == 0, up.stderr
    client = await connect.connect()
    waiting = await client.start_workflow("Nobodys", id="waits", task_queue="nobody")
    result = asyncio.create_task(waiting.result())  # a call that is under way when the server dies
    for number in range(rounds):
        own = server.status()
        assert own
        kill(own.pid)
        await asyncio.sleep(chance.choice([0, 0.05, 0.5]))
        async with their_server(tmp_path / "theirs", port_of(own)) as foreign:
            theirs = await their_work(foreign)
            if number == 0:
                await asyncio.to_thread(the_truth_is_told)
            await our_calls_fail(client)
            await asyncio.sleep(chance.random())
            await nothing_of_ours(foreign, theirs)
        again = await asyncio.to_thread(server.ensure_server)
        assert again.started
        # A client that was made before goes on with the new one, workers and MCP servers too.
        at_work = await services.all_at_work(client)
        assert len(at_work) == 7 and all(works for _, works in at_work), at_work
        assert (await waiting.describe()).workflow_type == "Nobodys"
        assert not result.done()
    result.cancel()
    assert told_within(60, "down").returncode == 0
    assert services.running_services() == [] and server.status() is None


async def test_a_worker_of_a_notebook_waits_and_goes_on(
    patch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = server.ensure_server(in_memory=True)
    await ensure_namespaces(own)
    spec: WorkerSpec = it()
    worker = await start_worker(spec, announce=False)
    kill(own.pid)
    async with their_server(tmp_path / "theirs", port_of(own)) as foreign:
        await asyncio.sleep(1)
        (queue,) = await look_at(foreign, places()["it"])
        assert queue.pollers == ()
        assert worker.alive
        with pytest.raises(NoServer):
            await start_worker(spec.with_queue("other"), announce=False)
    await ensure_namespaces(server.ensure_server(in_memory=True))
    client = await connect.connect()
    async with asyncio.timeout(30):
        while True:  # the server tells nobody
            (queue,) = await look_at(client, places()["it"])
            if worker.identity in queue.living:
                break
            await asyncio.sleep(0.1)
    begun = time.monotonic()
    stop_all()
    assert not worker.alive and time.monotonic() - begun < 10


def test_a_copied_state_folder_names_no_server(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = get_settings().state_dir
    own = server.ensure_server(in_memory=True)
    shutil.copytree(ours, tmp_path / "copy")
    assert live_record(tmp_path / "copy") is None
    ours.rename(tmp_path / "moved")  # and one that was moved still does
    assert (live_record(tmp_path / "moved") or {})["pid"] == own.pid
    (tmp_path / "moved").rename(ours)


async def test_doctor_and_up_notice_a_worker_that_lives_and_does_not_poll(
    patch: pytest.MonkeyPatch,
) -> None:
    """A service's record and process alone are not believed."""
    own = server.ensure_server(in_memory=True)
    await ensure_namespaces(own)
    asleep = await asyncio.create_subprocess_exec("sleep", "60")
    services.record_service(get_settings().state_dir, "it", asleep.pid, kind="service")
    found = [line for line in await examination.examine() if line.name == "workers"]
    assert [line.status for line in found] == ["FAIL"]
    assert "worker it" in found[0].text and "does not poll" in found[0].text
    asleep.kill()
    await asleep.wait()
    (lost,) = [line for line in await examination.examine() if line.name == "workers"]
    assert lost.status == "WARN" and "worker it has ended by itself" in lost.text


def test_nothing_connects_without_asking_whose_server_it_is() -> None:
    """One place makes clients; the other asks a process that it has just started whether it serves."""

    def holding(text: str) -> list[str]:
        library = PROJECT_ROOT / "workshop_lib"
        files = [path for path in library.rglob("*.py") if text in path.read_text(encoding="utf-8")]
        return sorted(str(path.relative_to(library)) for path in files)

    assert holding("Client.connect(") == ["lab/server/lifecycle.py", "temporal/connect.py"]
    # Examples in advice, and where to begin.
    assert holding("7233") == ["lab/server/dev_server.py", "temporal/connect.py"]
