"""One dev server for all tests of a run, and clients, queues and workers on it.

The server starts when the first test asks for it, whichever test worker that is, and the controller stops
it at the end. Its address is in `TEMPORAL_ADDRESS` only while a test that uses it runs: notebooks and the
tests of the lab's own server start theirs. Left out: a lab of its own for a test (`lab_environment`).

What a fixture alone needs, and takes seconds to load, it imports itself: the controller, which waits for this
file before it starts a test worker, runs no fixture.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from lab_cells import Notebook, dev_server, notebook
from lab_environment import free_port, fresh, set_env
from lattice_points import POINTS_HIT
from notebook_runner import clear, state_folder
from teams_environment import Teams, new_names
from temporalio.client import Client

from workshop_lib.lab.registry import stop_all
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.server.lifecycle import run_sync
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.llm.offline import faults
from workshop_lib.settings import reload_settings
from workshop_lib.temporal import breaker
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.worker import WorkerSpec

if TYPE_CHECKING:
    from workshop_lib.repair.store import OrderStore

pytest.register_assert_rewrite("crash_stories", "crash_accounts")

# Files that take longest begin first: at the end no process waits long for another.
LONGEST = (
    *("test_notebooks", "test_up_and_down", "test_mcp_loop", "test_crash_lattice"),
    *("test_command_edges", "test_machine", "test_services", "test_quality", "test_mcp_servers"),
    *("test_server", "test_waiting", "test_chat", "test_repair_cli"),
    *("test_failures", "test_attempts_05", "test_attempts_06", "test_teams", "test_tracing"),
    *("test_jupyterlab", "test_notices"),
)
SERVER_FOLDER = "WORKSHOP_TEST_SERVER"  # names the folder; test workers inherit it


def pytest_configure(config: pytest.Config) -> None:
    """Choose the folder of the server, which test workers then share."""
    if not hasattr(config, "workerinput"):
        os.environ[SERVER_FOLDER] = str(state_folder())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files begin."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, if a test has started it."""
    if not hasattr(config, "workerinput"):
        clear(Path(os.environ.pop(SERVER_FOLDER)))


@pytest.fixture(scope="session")
def temporal_server() -> str:
    """The address of the server, with the workshop's namespaces and endpoints."""
    folder = Path(os.environ[SERVER_FOLDER])
    with pytest.MonkeyPatch.context() as patch:
        set_env(
            patch,
            # Else it would count as a leftover of the test worker that happened to start it.
            WORKSHOP_STATE_DIR=folder,
            WORKSHOP_TEMPORAL_PORT=free_port(),
            WORKSHOP_UI_PORT=free_port(),
        )
        found = server.ensure_server(in_memory=True, state_dir=folder)
        run_sync(ensure_namespaces(found))
    reload_settings()
    return found.address


@pytest_asyncio.fixture
async def client(temporal_server: str, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of the orchestrator's namespace; code that connects by itself finds the same server."""
    from workshop_lib.agents.loops.mcp_clients import mcp_plugin
    from workshop_lib.agents.loops.sdk_model import agents_plugin

    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server)
    # Workers made with it serve the loops of the Agents SDK too.
    return await connect(plugins=[agents_plugin(), mcp_plugin()])


@pytest.fixture
def queue() -> str:
    """The name of a task queue that no other test uses."""
    return fresh("test")


@pytest.fixture
def spec(queue: str) -> WorkerSpec:
    """The orchestrator's worker on a queue of its own."""
    from workshop_lib.agents.worker import orchestrator

    return orchestrator().with_queue(queue)


@pytest_asyncio.fixture
async def worker(client: Client, spec: WorkerSpec) -> AsyncIterator[WorkerSpec]:
    """A running worker of `spec`, in this process."""
    async with asyncio.timeout(170), spec.build(client):
        yield spec


@pytest.fixture(autouse=True)
def breakers_closed() -> None:
    """What was down in the test before says nothing of this one."""
    breaker.forget()


@pytest.fixture
def settings_env(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set environment variables for this test, as in `settings_env(OFFLINE_FAULTS="…")`."""

    def change(**values: object) -> None:
        set_env(monkeypatch, **values)
        faults.restart()

    yield change
    monkeypatch.undo()
    reload_settings()
    faults.restart()


@pytest.fixture
def store(settings_env: Callable[..., None], tmp_path: Path) -> "OrderStore":
    """An order store that no other test uses."""
    from workshop_lib.repair.store import open_store

    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    return open_store()


@pytest.fixture(scope="module")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server in memory that the file's tests have to themselves."""
    with dev_server(tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.fixture
def nb(lab_server: str) -> Iterator[Notebook]:
    """A notebook in which nothing has been run yet; what it starts is stopped."""
    yield notebook()
    stop_all()


@pytest_asyncio.fixture
async def new_teams(
    client: Client, settings_env: Callable[..., None]
) -> AsyncIterator[Callable[[], Awaitable[Teams]]]:
    """Makes teams with endpoints and queues of their own, which the settings name from then on.

    A session asks once where its teams are, so a test may have several teams, each with its sessions.
    """
    made: list[Teams] = []

    async def make() -> Teams:
        settings_env(**new_names())
        made.append(Teams(client))
        await made[-1].open()
        return made[-1]

    yield make
    for teams in made:
        await teams.close()


@pytest_asyncio.fixture
async def unserved_teams(new_teams: Callable[[], Awaitable[Teams]]) -> Teams:
    """The teams without workers."""
    return await new_teams()


@pytest_asyncio.fixture
async def teams(unserved_teams: Teams) -> AsyncIterator[Teams]:
    """The teams, with a worker of each in this process."""
    async with unserved_teams.serving(unserved_teams.it, unserved_teams.finance):
        yield unserved_teams


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at how many places of recorded runs something was killed (`test_crash_lattice`)."""
    hit = [
        (report.nodeid.partition("::")[2], count)
        for report in terminalreporter.getreports("passed")
        for name, count in report.user_properties
        if name == POINTS_HIT
    ]
    for test, count in hit:
        terminalreporter.write_line(f"{count:>4} points hit by {test}")
    if hit:
        terminalreporter.write_line(f"{sum(count for _, count in hit):>4} points hit in all")
