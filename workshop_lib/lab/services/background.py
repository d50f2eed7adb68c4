"""What outlives the command that started it: the workers and MCP servers of `workshop up`, `down`, `status`.

Each is started as a service would be (`python -m …`), in a session of its own, and recorded in the state
folder. Left out: the dev server (`server`), and workers of a notebook, which end with it (`workers`).
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from filelock import FileLock, Timeout
from temporalio.client import Client

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.services.mcp_servers import START_LIMIT, answers, spawn
from workshop_lib.lab.watching.queues import look_at
from workshop_lib.machine import records, state_folder
from workshop_lib.machine.records import Record, record_service
from workshop_lib.mcp.wire import MCP_PREFIX, SERVERS
from workshop_lib.settings import get_settings

# The workers that `workshop up` runs besides the dev server and the MCP servers: name and module.
SERVICES = {
    "orchestrator": "workshop_lib.agents.worker",
    "it": "workshop_lib.teams.it.worker",
    "finance": "workshop_lib.teams.finance.worker",
    "repair": "workshop_lib.repair.worker",
}
LOCK_TIMEOUT = 6 * START_LIMIT  # seconds; another `up` on a slow machine takes so long
POLL_LIMIT = 60.0  # seconds until a worker that was started polls


@dataclass(frozen=True)
class Service:
    """A process that was started as a service, and lives."""

    record: Record

    @property
    def name(self) -> str:
        """Its name in the records: "it", "mcp-it"."""
        return str(self.record["name"])

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self.record["pid"])

    @property
    def url(self) -> str | None:
        """Where it listens, if it is an MCP server and does."""
        return self.record.get("url")

    @property
    def mcp_server(self) -> str | None:
        """The MCP server's name, or None for a worker."""
        name = self.name.removeprefix(MCP_PREFIX)
        return name if name != self.name else None

    def __str__(self) -> str:
        return _title(self.name)


def _title(name: str) -> str:
    server = name.removeprefix(MCP_PREFIX)
    return f"MCP server {server}" if server != name else f"worker {name}"


@contextmanager
def one_at_a_time(say: Callable[[str], object]) -> Iterator[None]:
    """Hold the lab's processes: of two commands that start or stop them, the second waits.

    Raises:
        WorkshopError: it has waited for very long, or the state folder cannot be written.
    """
    folder = get_settings().state_dir
    try:
        state_folder.made(folder)
        lock = FileLock(folder / "services.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("Another `workshop up` or `down` is at work: waiting for it.")
            lock.acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        raise WorkshopError(
            f"Another `workshop up` or `down` has been at work for {LOCK_TIMEOUT:.0f} s.",
            fix="end it, and try again.",
        ) from None
    except OSError as error:
        raise WorkshopError(
            f"The state folder {folder} cannot be written: {error.strerror}.",
            fix="set WORKSHOP_STATE_DIR to another folder, or repair the permissions of this one.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def start_services() -> list[Service]:
    """Start what does not run yet. Returns all of them, which need not work yet.

    Raises:
        WorkshopError: one of them left at once.
    """
    _forget_the_dead()
    running = {service.name for service in running_services()}
    # First what is waited for until it listens: beside four workers that load libraries it takes long.
    for server in SERVERS:
        if MCP_PREFIX + server not in running:
            spawn(server)
    for name, module in SERVICES.items():
        if name not in running:
            _start(name, module)
    return running_services()


def running_services() -> list[Service]:
    """The services that live, workers first."""
    found = [Service(record) for record in records.services(get_settings().state_dir, "service")]
    return sorted(found, key=lambda service: (service.mcp_server is not None, service.name))


def lost_services() -> list[str]:
    """What was started as a service, and has ended without having been stopped."""
    found = []
    for path in (get_settings().state_dir / records.SERVICES).glob("*.json"):
        record = records.read_record(path) or {}
        living = records.live_record(path.parent.parent, f"{records.SERVICES}/{path.name}")
        if record.get("kind") == "service" and not living:
            found.append(_title(str(record.get("name"))))
    return sorted(found)


async def at_work(client: Client | None, services: Sequence[Service]) -> list[bool]:
    """Of each service, whether it works: a worker polls on this server, an MCP server answers.

    Args:
        client: None where no server runs.
    """
    names = [service for service in services if not service.mcp_server]
    queues = [(s.record.get("namespace", ""), s.record.get("queue", "")) for s in names]
    looked = await look_at(client, *queues) if client else []
    polling = {
        service.pid
        for service, queue in zip(names, looked, strict=False)
        if service.record.get("identity") in queue.living
    }
    healthy = await asyncio.gather(
        *(asyncio.to_thread(answers, s.mcp_server, s.url) for s in services if s.mcp_server)
    )
    answering = iter(healthy)
    return [next(answering) if s.mcp_server else s.pid in polling for s in services]


async def all_at_work(client: Client, limit: float = POLL_LIMIT) -> list[tuple[Service, bool]]:
    """The services, and whether each works; waits until all do, or `limit` seconds are over."""
    now = asyncio.get_running_loop().time
    end = now() + limit
    while True:  # the server has no event for a worker that begins to poll
        services = running_services()
        works = await at_work(client, services)
        if all(works) or now() > end:
            return list(zip(services, works, strict=True))
        await asyncio.sleep(0.2)


def stop_services(timeout: float = 10) -> list[str]:
    """Stop the services, and a JupyterLab whose `workshop` was killed: first politely, after `timeout`
    seconds for good. Returns what they are."""
    services = running_services()
    stopped = [str(service) for service in services]
    pids = [service.pid for service in services]
    for jupyter in records.services(get_settings().state_dir, "jupyter"):
        if records.End(jupyter["owner"]).has_come():
            stopped.append("JupyterLab")
            pids.append(jupyter["pid"])
    processes: dict[psutil.Process, records.End] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # it left by itself in the meantime
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                processes[one] = records.End(one.pid)
            process.terminate()
    last = time.monotonic() + timeout
    for process, ended in processes.items():
        if ended.has_come(max(0.0, last - time.monotonic())):
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            ended.has_come(timeout)
    _forget_the_dead()
    return stopped


def _start(name: str, module: str) -> None:
    state = get_settings().state_dir
    log = state_folder.made(state, "logs") / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | {"WORKSHOP_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"},
        )
    # At once: who started it may be killed before it says the same itself, and more.
    record_service(state, name, process.pid, kind="service")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
        raise WorkshopError(f"The worker {name} left at once.", fix=f"read {log}.")


def _forget_the_dead() -> None:
    """Remove records of processes that have ended."""
    state = get_settings().state_dir
    for path in (state / records.SERVICES).glob("*.json"):
        ours = "create_time" in (records.read_record(path) or {})
        if ours and not records.live_record(state, f"{records.SERVICES}/{path.name}"):
            records.remove_record(path)
