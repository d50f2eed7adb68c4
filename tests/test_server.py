"""The lab's server: found, adopted, started, mended and stopped, always a real one."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lab_environment import free_port, hold, lab, listening, set_env
from temporalio import workflow
from temporalio.api.operatorservice.v1 import UpdateNexusEndpointRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import WorkflowUpdateStage
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server import dev_server
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.lab.server.lifecycle import ensure_server, status, stop
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.machine.records import write_record
from workshop_lib.settings import get_settings
from workshop_lib.temporal import connect
from workshop_lib.temporal.lookup import find_endpoint


@pytest.fixture
def patch(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with lab(tmp_path / "state") as patch:
        yield patch


@pytest.fixture
def state(patch: pytest.MonkeyPatch) -> Path:
    return get_settings().state_dir


def database() -> Path:
    """The database of today's server."""
    version = dev_server.server_version(dev_server.find_cli())
    return get_settings().state_dir / f"temporal-{version}.db"


def port_of(found: Server) -> int:
    return int(found.address.rsplit(":", 1)[1])


def living(pid: int | None) -> bool:
    return pid is not None and psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"


def ended(pid: int | None) -> None:
    """Kill a process and wait until nobody takes it for a living one."""
    assert pid
    process = psutil.Process(pid)
    process.kill()
    process.wait()


# Start, adopt, stop


def test_started_once_and_adopted_after(state: Path) -> None:
    first = ensure_server()
    assert first.started and first.adopted is None and first.note is None
    assert port_of(first) == get_settings().temporal_port
    second, third = ensure_server(), ensure_server(in_memory=True)
    assert (
        second == third == Server(first.address, first.ui_url, first.pid, "own", first.http_address)
    )
    assert status() == second
    assert connect.server_address() == first.address
    assert connect.ui_url() == first.ui_url


def test_stop_ends_that_process_and_leaves_the_data(state: Path) -> None:
    pid = ensure_server().pid
    assert stop()
    assert not living(pid)
    assert not (state / "server.json").exists()
    assert database().exists()
    assert status() is None
    assert not stop()


def test_stop_spares_a_process_that_has_got_the_pid(state: Path) -> None:
    state.mkdir()
    other = subprocess.Popen(["sleep", "60"])
    record = {"pid": other.pid, "create_time": 1.0, "command": ["temporal"], "address": "x:1"}
    (state / "server.json").write_text(json.dumps(record))
    assert not stop()
    assert other.poll() is None
    other.kill()
    other.wait()


def test_in_memory_leaves_no_database(state: Path) -> None:
    ensure_server(in_memory=True)
    assert not database().exists()


def test_it_has_a_session_of_its_own(state: Path) -> None:
    pid = ensure_server().pid
    assert pid
    assert os.getsid(pid) != os.getsid(0)


async def test_it_can_be_started_from_a_notebook_cell(state: Path) -> None:
    assert ensure_server().started  # a loop is running here, as in a notebook


def test_it_writes_ahead(state: Path) -> None:
    ensure_server()
    assert database().with_name(f"{database().name}-wal").exists()


def test_another_state_folder_is_left_alone(tmp_path: Path, state: Path) -> None:
    mine = ensure_server()
    theirs = tmp_path / "theirs"
    with lab(theirs):
        other = ensure_server()
        assert other.started
        assert other.address != mine.address
        assert stop()
        assert living(mine.pid)
    assert ensure_server(state_dir=state).pid == mine.pid


def test_two_processes_at_once_start_one(state: Path) -> None:
    code = (
        "from workshop_lib.lab.server.lifecycle import ensure_server; "
        "s = ensure_server(); print(s.pid, s.started)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=60)[0].split() for process in both)
    assert said[0][0] == said[1][0]
    assert sorted(started for _, started in said) == ["False", "True"]
    assert living(int(said[0][0]))  # it outlives both


async def test_killed_and_restarted_it_is_where_it_was_with_its_data(
    patch: pytest.MonkeyPatch, state: Path
) -> None:
    set_env(patch, WORKSHOP_TEMPORAL_PORT=None, WORKSHOP_UI_PORT=None)
    patch.setattr(dev_server, "DEFAULT_PORT", free_port())
    first = ensure_server()
    client = await connect.connect()
    await client.start_workflow("Waiting", id="kept", task_queue="nobody")
    ended(first.pid)
    assert status() is None
    patch.setattr(dev_server, "DEFAULT_PORT", free_port())  # the port it had is free and another
    again = ensure_server()
    assert again.started
    assert again.address == first.address
    client = await connect.connect()
    assert (await client.get_workflow_handle("kept").describe()).workflow_type == "Waiting"


# Servers of the user's


def test_the_users_server_is_adopted_and_never_stopped(tmp_path: Path, state: Path) -> None:
    mine = ensure_server()
    with lab(tmp_path / "other") as patch:
        set_env(patch, TEMPORAL_ADDRESS=mine.address)
        assert ensure_server() == Server(mine.address, None, None, "user")
        assert status() == ensure_server()
        assert not stop()
    assert living(mine.pid)


def test_the_users_server_must_answer(patch: pytest.MonkeyPatch, state: Path) -> None:
    set_env(patch, TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}")
    with pytest.raises(WorkshopError, match="No Temporal server at"):
        ensure_server()
    assert status() is None
    assert not (state / "server.json").exists()


# Ports


def test_a_port_the_user_set_that_is_taken_is_an_error_with_its_holder(
    patch: pytest.MonkeyPatch, state: Path
) -> None:
    for variable in ("WORKSHOP_TEMPORAL_PORT", "WORKSHOP_UI_PORT"):
        free = os.environ[variable]
        with listening() as port:
            set_env(patch, **{variable: port})
            with pytest.raises(WorkshopError) as caught:
                ensure_server()
        assert f"Port {port}, which {variable} sets" in caught.value.what
        assert f"(pid {os.getpid()})" in caught.value.what
        assert variable in str(caught.value.fix)
        set_env(patch, **{variable: free})


def test_a_default_port_that_is_taken_gives_another_and_says_so(
    patch: pytest.MonkeyPatch, state: Path
) -> None:
    set_env(patch, WORKSHOP_TEMPORAL_PORT=None, WORKSHOP_UI_PORT=None)
    with listening() as port, listening() as ui_port:
        patch.setattr(dev_server, "DEFAULT_PORT", port)
        patch.setattr(dev_server, "DEFAULT_UI_PORT", ui_port)
        found = ensure_server()
        assert found.started
        assert port_of(found) not in (port, ui_port)
        assert f"port {port} is held by" in str(found.note)
        assert f"Temporal is on {port_of(found)}" in str(found.note)
        assert f"port {ui_port} is held by" in str(found.note)


def listens_at(pid: int | None) -> set[int]:
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return {connection.laddr.port for connection in connections if connection.status == "LISTEN"}


def test_its_http_api_listens_where_it_is_said_to(patch: pytest.MonkeyPatch, state: Path) -> None:
    set_env(patch, WORKSHOP_HTTP_PORT=None)
    found = ensure_server(in_memory=True)
    http_port = int(str(found.http_address).rsplit(":", 1)[1])
    assert http_port in listens_at(found.pid)
    url = f"http://{found.http_address}/api/v1/namespaces/default"
    with urllib.request.urlopen(url, timeout=10) as reply:
        assert reply.status == 200
    stop()
    port = free_port()
    set_env(patch, WORKSHOP_HTTP_PORT=port)
    assert ensure_server(in_memory=True).http_address == f"127.0.0.1:{port}"


def test_without_the_web_ui(patch: pytest.MonkeyPatch, state: Path) -> None:
    ui_port = get_settings().ui_port
    set_env(patch, WORKSHOP_WEB_UI="false")
    found = ensure_server(in_memory=True)
    assert found.ui_url is None
    assert ui_port not in listens_at(found.pid)


def test_one_whose_starter_was_killed_before_it_served_is_ended(state: Path) -> None:
    left = subprocess.Popen(["sleep", "60"])
    write_record(state, server.STARTING, left.pid)
    assert ensure_server(in_memory=True).started
    assert not living(left.pid)
    assert not (state / server.STARTING).exists()
    left = subprocess.Popen(["sleep", "60"])
    write_record(state, server.STARTING, left.pid)
    assert stop()
    assert not living(left.pid)


# What keeps it from starting


def test_a_state_folder_that_cannot_be_written(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WorkshopError, match="cannot be written") as caught:
        ensure_server(state_dir=tmp_path / "file" / "state")
    assert "WORKSHOP_STATE_DIR" in str(caught.value.fix)


@pytest.mark.parametrize("version", ["999.0.1", "1.9.12", None])  # None: a CLI that does not say
async def test_another_version_begins_anew_and_the_old_database_stays(
    patch: pytest.MonkeyPatch, state: Path, version: str | None
) -> None:
    other = state / (f"temporal-{version}.db" if version else "temporal.db")

    async def knows(run: str) -> bool:
        client = await connect.connect()
        try:
            return (await client.get_workflow_handle(run).describe()).id == run
        except RPCError:
            return False

    with patch.context() as another:
        another.setattr(dev_server, "server_version", lambda cli: version)
        assert ensure_server().note is None
        client = await connect.connect()
        await client.start_workflow("Waiting", id="kept", task_queue="nobody")
        stop()
    assert other.exists() and not database().exists()
    note = ensure_server().note
    assert f"begins with an empty database; what was before stays in {other}" in str(note)
    assert not await knows("kept")
    stop()
    assert ensure_server().note is None  # said once
    stop()
    with patch.context() as another:  # as after an update that was taken back
        another.setattr(dev_server, "server_version", lambda cli: version)
        assert ensure_server().note is None
        assert await knows("kept")


@pytest.mark.parametrize("content", [b"never a database", b"SQLite format 3\0" + b"nothing" * 99])
def test_a_server_that_leaves_at_once_says_why(state: Path, content: bytes) -> None:
    state.mkdir()
    database().write_bytes(content)
    with pytest.raises(WorkshopError, match=r"did not start: .*is not a database") as caught:
        ensure_server()
    assert "server.log" in str(caught.value.fix) and "workshop clean" in str(caught.value.fix)
    assert not (state / "server.json").exists()


def test_no_cli(patch: pytest.MonkeyPatch, state: Path, tmp_path: Path) -> None:
    patch.setattr(sys, "executable", str(tmp_path / "python"))
    patch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkshopError, match="neither beside") as caught:
        ensure_server()
    assert "uv sync" in str(caught.value.fix)


def test_a_server_that_hangs_is_replaced(patch: pytest.MonkeyPatch, state: Path) -> None:
    hanging = ensure_server()
    assert hanging.pid
    patch.setattr(server, "PATIENCE", 0.5)
    hold(hanging.pid)
    patch.setattr("workshop_lib.lab.server.lifecycle.STOP_TIMEOUT", 0.5)
    again = ensure_server()
    assert again.started
    assert again.pid != hanging.pid
    assert not living(hanging.pid)


# Namespaces and endpoints


async def test_namespaces_and_endpoints_are_made_once(state: Path) -> None:
    found = ensure_server()
    made = await ensure_namespaces(found)
    assert any("it-nexus-endpoint" in line for line in made)
    assert await ensure_namespaces(found) == []
    for name in ("default", "it-namespace", "finance-namespace"):
        client = await connect.connect(name)
        await client.start_workflow("Anything", id="usable", task_queue="nobody")
        described = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=name)
        )
        days = described.config.workflow_execution_retention_ttl.ToTimedelta().days
        assert 1 <= days <= 7


async def test_a_namespace_made_on_a_running_server_is_usable(
    patch: pytest.MonkeyPatch, state: Path
) -> None:
    found = ensure_server()
    set_env(patch, TEMPORAL_NAMESPACE="late")
    made = await ensure_namespaces(found)
    assert made[0] == "created namespace late"
    assert "created search attributes SessionOwner, RepairStatus in late" in made
    assert await ensure_namespaces(found) == []
    client = await connect.connect()
    await client.start_workflow("Anything", id="usable", task_queue="nobody")


async def bend(found: Server, name: str) -> None:
    """Point an endpoint at another queue."""
    client = await connect.connect()
    endpoint = await find_endpoint(client, name)
    assert endpoint
    endpoint.spec.target.worker.task_queue = "elsewhere"
    await client.operator_service.update_nexus_endpoint(
        UpdateNexusEndpointRequest(id=endpoint.id, version=endpoint.version, spec=endpoint.spec)
    )


async def queue_of(found: Server, name: str) -> str:
    endpoint = await find_endpoint(await connect.connect(), name)
    assert endpoint
    return endpoint.spec.target.worker.task_queue


async def test_a_wrong_endpoint_is_mended_on_our_own_server(state: Path) -> None:
    found = ensure_server()
    await ensure_namespaces(found)
    await bend(found, "it-nexus-endpoint")
    (line,) = await ensure_namespaces(found)
    assert line.startswith("mended endpoint it-nexus-endpoint")
    assert await queue_of(found, "it-nexus-endpoint") == "it-task-queue"


async def test_on_a_users_server_only_on_request(
    patch: pytest.MonkeyPatch, tmp_path: Path, state: Path
) -> None:
    mine = ensure_server()
    await ensure_namespaces(mine)
    with lab(tmp_path / "other") as patch:
        set_env(patch, TEMPORAL_ADDRESS=mine.address)
        theirs = ensure_server()
        await bend(theirs, "finance-nexus-endpoint")
        (line,) = await ensure_namespaces(theirs)
        assert "points to finance-namespace/elsewhere" in line
        assert await queue_of(theirs, "finance-nexus-endpoint") == "elsewhere"
        (line,) = await ensure_namespaces(theirs, repair=True)
        assert await queue_of(theirs, "finance-nexus-endpoint") == "finance-task-queue"


async def test_a_server_that_is_gone(state: Path) -> None:
    found = ensure_server()
    stop()
    with pytest.raises(WorkshopError, match="dev server does not run"):
        await ensure_namespaces(found)


# The flags


@workflow.defn
class Busy:
    """Holds every update until it is told to end."""

    def __init__(self) -> None:
        self.released = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.released and workflow.all_handlers_finished())

    @workflow.update
    async def wait(self, number: int) -> int:
        await workflow.wait_condition(lambda: self.released)
        return number

    @workflow.signal
    def release(self) -> None:
        self.released = True


async def test_more_than_ten_updates_may_wait_in_one_workflow(state: Path) -> None:
    ensure_server(in_memory=True)
    client = await connect.connect()
    async with Worker(
        client, task_queue="busy", workflows=[Busy], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        handle = await client.start_workflow(Busy.run, id="busy", task_queue="busy")
        accepted = WorkflowUpdateStage.ACCEPTED
        starts = [
            handle.start_update(Busy.wait, number, wait_for_stage=accepted) for number in range(25)
        ]
        async with asyncio.timeout(30):
            updates = await asyncio.gather(*starts)
            await handle.signal(Busy.release)
            assert [await update.result() for update in updates] == list(range(25))


# Small things


def test_the_server_knows_every_flag() -> None:
    program = Path(dev_server.find_cli()).read_bytes().lower()
    for key, value in dev_server.FLAGS.items():
        json.loads(value)
        # An unknown key is silently ignored, so a misspelt one would go unnoticed.
        assert key.lower().encode() in program, key


def test_a_folder_without_write_ahead_logging(tmp_path: Path) -> None:
    assert dev_server.supports_wal(tmp_path)
    assert not dev_server.supports_wal(tmp_path / "missing")
    here = dev_server.command(
        "temporal", port=1, http_port=2, ui_port=3, database=tmp_path / "t.db", wal=False
    )
    assert not any("WAL" in argument for argument in here)


def test_a_holder_is_named() -> None:
    with listening() as port:
        assert f"pid {os.getpid()}" in dev_server.ports.holder(port)
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can have it all the same
        assert not dev_server.ports.is_free(unbound.getsockname()[1])


def test_a_server_that_loses_its_port_is_not_mistaken_for_the_one_that_holds_it(
    temporal_server: str, tmp_path: Path
) -> None:
    port = int(temporal_server.rsplit(":", 1)[1])
    arguments = dev_server.command(
        dev_server.find_cli(), port=port, http_port=free_port(), ui_port=None, database=None
    )
    with pytest.raises(server.PortLost):
        server.launch(arguments, tmp_path)
