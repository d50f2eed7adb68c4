"""What outlives the command that started it: the workers and MCP servers of `workshop up`, `down`, `status`.

Each is started as a service would be (`python -m …`), in a session of its own, and recorded in the state
folder. Left out: the dev server (`server`), and workers of a notebook, which end with it (`workers`).
"""

import asyncio
import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from temporalio.client import Client

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import spawn
from workshop_lib.lab.services.mcp_servers import START_LIMIT, answers, start_service
from workshop_lib.lab.services.programs import MCP_SERVERS, WORKERS
from workshop_lib.lab.watching.queues import look_at
from workshop_lib.machine import processes, records, state_folder
from workshop_lib.machine.records import Record, record_service
from workshop_lib.mcp.addresses import MCP_PREFIX
from workshop_lib.settings import get_settings
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.service import version_of_services
from workshop_lib.temporal.versions import current, in_words, make_current

LOCK_TIMEOUT = 6 * START_LIMIT  # seconds; another `up` on a slow machine takes so long
POLL_LIMIT = 60.0  # seconds until a worker that was started polls


@dataclass(frozen=True)
class Service:
    """A process that was started as a service, and lives."""

    record: Record

    @property
    def name(self) -> str:
        """Its name in the records: "it", "mcp-it"."""
        return self.record["name"]

    @property
    def pid(self) -> int:
        """Its process."""
        return self.record["pid"]

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
    too_long = WorkshopError(
        f"Another `workshop up` or `down` has been at work for {LOCK_TIMEOUT:.0f} s.",
        fix="end it, and try again.",
    )

    def waits() -> None:
        say("Another `workshop up` or `down` is at work: waiting for it.")

    with state_folder.held(get_settings().state_dir, "services", LOCK_TIMEOUT, too_long, waits):
        yield


def start_services() -> list[Service]:
    """Start what does not run yet. Returns all of them, which need not work yet.

    Raises:
        WorkshopError: one of them left at once.
    """
    _forget_the_dead()
    running = {service.name for service in running_services()}
    # First what is waited for until it listens: beside four workers that load libraries it takes long.
    for server in MCP_SERVERS:
        if MCP_PREFIX + server not in running:
            start_service(server)
    for name in WORKERS:
        if name not in running:
            _start(name)
    return running_services()


def running_services() -> list[Service]:
    """The services that live, workers first."""
    found = [Service(record) for record in records.services(get_settings().state_dir, "service")]
    return sorted(found, key=lambda service: (service.mcp_server is not None, service.name))


def lost_services() -> list[str]:
    """What was started as a service, and has ended without having been stopped."""
    lost = records.of_the_dead(get_settings().state_dir).values()
    return sorted(_title(r.get("name", "")) for r in lost if r.get("kind") == "service")


async def at_work(client: Client | None, services: Sequence[Service]) -> list[bool]:
    """Of each service, whether it works: a worker polls on this server, an MCP server answers.

    Args:
        client: None where no server runs.
    """

    async def works(service: Service) -> bool:
        if service.mcp_server:
            return await asyncio.to_thread(answers, service.mcp_server, service.url)
        if client is None:
            return False
        record = service.record
        (queue,) = await look_at(client, (record.get("namespace", ""), record.get("queue", "")))
        return record.get("identity") in queue.living

    return await asyncio.gather(*map(works, services))


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


async def agreed_on_versions(client: Client) -> list[str]:
    """Make the workers' version current, where the environment names one. Returns what is to be said.

    Workers without a version get no runs from a queue on which one is current. That is told and not changed:
    on a server of others it may be meant.

    Raises:
        WorkshopError: the server did not send runs to the version in time.
    """
    version, said = version_of_services(), []
    for service in running_services():
        queue, namespace = service.record.get("queue", ""), service.record.get("namespace", "")
        if service.mcp_server or not queue:
            continue
        there = client if namespace == client.namespace else await connect(namespace)
        if version:
            await make_current(there, version, queue)
            said.append(f"{service}: {in_words(version)} is current, new runs go to it")
        elif other := await current(there, queue):
            said.append(
                f"{service} gets no new runs: {in_words(other)} is current on its queue (temporal worker"
                f" deployment set-current-version --namespace {namespace} --deployment-name"
                f" {other.deployment_name} --unversioned)"
            )
    return said


def stop_services() -> list[str]:
    """Stop the services, and a JupyterLab whose `workshop` was killed: politely, and a moment after a
    service's grace for good. Returns what they are."""
    services = running_services()
    stopped = [str(service) for service in services]
    pids = [service.pid for service in services]
    for jupyter in records.services(get_settings().state_dir, "jupyter"):
        if not processes.living(jupyter.get("owner")):
            stopped.append("JupyterLab")
            pids.append(jupyter["pid"])
    processes.end(pids, get_settings().grace + 2)
    _forget_the_dead()
    return stopped


def _start(name: str) -> None:
    state = get_settings().state_dir
    log = state_folder.made(state, "logs") / f"{name}.log"
    with log.open("ab") as output:
        process = spawn(
            WORKERS[name],
            stdin=subprocess.DEVNULL,
            stdout=output.fileno(),
            stderr=output.fileno(),
        )
    # At once: who started it may be killed before it says the same itself, and more.
    record_service(state, name, process.pid, kind="service")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
        raise WorkshopError(f"The worker {name} left at once.", fix=f"read {log}.")


def _forget_the_dead() -> None:
    """Remove records of processes that have ended."""
    for path in records.of_the_dead(get_settings().state_dir):
        records.remove_record(path)
