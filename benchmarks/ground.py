"""Servers and workers for a benchmark: on free ports, with a state folder that goes with them."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bench import Bench
from floor import EmptyHandler, EmptyRun, EverythingChat, Floor, nothing

from workshop_lib.agents.worker import orchestrator
from workshop_lib.auth.issuer import sign_in
from workshop_lib.auth.outbound import Person
from workshop_lib.lab.server import dev_server
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.lab.server.lifecycle import PortLost, end, ensure_server, launch
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.workers.process import WorkerProcess, start_process
from workshop_lib.machine.ports import LOCALHOST
from workshop_lib.settings import OFFLINE_MODEL, reload_settings
from workshop_lib.teams.finance.dispatcher import finance_the_simple_way
from workshop_lib.temporal.connect import connect

ServerKind = Literal["stock", "tuned"]
Storage = Literal["memory", "file"]


# Where workers poll that check who is asking.
CHECKED = {
    "WORKSHOP_IDENTITY": "on",
    "ORCHESTRATOR_QUEUE": "checked-chat",
    "FINANCE_QUEUE": "checked-finance",
    "FINANCE_ENDPOINT": "checked-finance-endpoint",
}


@contextmanager
def identity_on() -> Iterator[None]:
    """What is made within checks who is asking, and polls elsewhere."""
    os.environ |= CHECKED
    reload_settings()
    try:
        yield
    finally:
        for name in CHECKED:
            del os.environ[name]
        reload_settings()


@contextmanager
def own_environment(folder: Path) -> Iterator[None]:
    """Measure the same whatever this user has set: no `.env`, no key, no faults, no server of theirs."""
    before = dict(os.environ)
    prefixes = ("TEMPORAL_", "LLM_", "OFFLINE_", "WORKSHOP_")
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        del os.environ[name]
    os.environ |= {
        "LLM_MODEL": OFFLINE_MODEL,
        "WORKSHOP_ENV_FILE": str(folder / "none.env"),
        "WORKSHOP_STATE_DIR": str(folder),
    }
    reload_settings()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
        reload_settings()


@asynccontextmanager
async def running(server: ServerKind, storage: Storage) -> AsyncIterator[Bench]:
    """A server on free ports and a worker process, with a state folder that goes with them.

    The stock server is the command as its documentation gives it; the tuned one is the workshop's own.
    """
    folder = Path(tempfile.mkdtemp(prefix="benchmark-turn-"))
    start = _start_stock if server == "stock" else _start_tuned
    pid = None
    try:
        with own_environment(folder):
            pid, address = await asyncio.to_thread(_on_free_ports, start, storage, folder)
            os.environ["TEMPORAL_ADDRESS"] = address
            served = orchestrator()
            spec = replace(
                served,
                workflows=[*served.workflows, Floor],
                activities=[*served.activities, nothing],
            )
            workers = [await start_process(spec, timeout=60)]
            checked = None
            plain = replace(served, name="plain", workflows=[EverythingChat]).with_queue(
                "plain-chat"
            )
            if (
                server == "tuned"
            ):  # the stock one has no namespaces, and only its round trip is measured
                found = await asyncio.to_thread(ensure_server, state_dir=folder)
                workers.append(await start_process(plain, timeout=60))
                workers.append(await _start_team(found))
                with identity_on():
                    checked = orchestrator()
                    workers.append(
                        await start_process(replace(checked, name="checked"), timeout=60)
                    )
                    workers.append(await _start_team(found))
            try:
                yield Bench(
                    await connect(spec.namespace),
                    spec.task_queue,
                    await connect(spec.namespace, interceptors=[Person(sign_in("learner"))]),
                    checked.task_queue if checked else "",
                    plain.task_queue,
                )
            finally:
                await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers))
    finally:
        if pid is not None:
            await asyncio.to_thread(end, pid)
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def tuned_server(storage: Storage, folder: Path) -> AsyncIterator[None]:
    """The workshop's server on free ports, and nothing else; in `own_environment`."""
    pid, os.environ["TEMPORAL_ADDRESS"] = await asyncio.to_thread(
        _on_free_ports, _start_tuned, storage, folder
    )
    try:
        yield
    finally:
        await asyncio.to_thread(end, pid)
        shutil.rmtree(folder, ignore_errors=True)


async def _start_team(server: Server) -> WorkerProcess:
    """The finance team's worker, which also serves the empty operations."""
    await ensure_namespaces(server)
    team = finance_the_simple_way()
    spec = replace(
        team,
        name=team.task_queue,
        workflows=[*team.workflows, EmptyRun],
        activities=[*team.activities, nothing],
        nexus_handlers=[*team.nexus_handlers, EmptyHandler],
    )
    return await start_process(spec, timeout=60)


Start = Callable[[Storage, Path, int, int], tuple[int, str]]


def _on_free_ports(start: Start, storage: Storage, folder: Path) -> tuple[int, str]:
    """Start a server and wait until it serves. Returns its process id and its address."""
    for _ in range(4):
        try:
            return start(storage, folder, *_free_ports())
        except PortLost:  # between the look and the start another program took it
            continue
    return start(storage, folder, *_free_ports())


def _start_stock(storage: Storage, folder: Path, port: int, ui_port: int) -> tuple[int, str]:
    command = [dev_server.find_cli(), "server", "start-dev", "--ip", LOCALHOST]
    command += ["--port", str(port), "--ui-port", str(ui_port)]
    command += ["--db-filename", str(folder / "stock.db")] if storage == "file" else []
    return launch(command, folder).pid, f"{LOCALHOST}:{port}"


def _start_tuned(storage: Storage, folder: Path, port: int, ui_port: int) -> tuple[int, str]:
    os.environ |= {"WORKSHOP_TEMPORAL_PORT": str(port), "WORKSHOP_UI_PORT": str(ui_port)}
    reload_settings()
    server = ensure_server(in_memory=storage == "memory", state_dir=folder)
    assert server.pid
    return server.pid, server.address


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((LOCALHOST, 0))
        other.bind((LOCALHOST, 0))
        return one.getsockname()[1], other.getsockname()[1]
