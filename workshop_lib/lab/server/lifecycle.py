"""The Temporal server of the lab: found, adopted or started.

A server that the user names by environment is adopted, and must answer. Else each state folder has one
dev server of its own, noted in `server.json`, in a session of its own so that it survives the notebook's
Interrupt and Restart. A server of another state folder is never touched: this one then takes other ports.

Left out: namespaces and endpoints (`lab.server.namespaces`) and workers (`lab.workers.threads`).
"""

import asyncio
import contextlib
import subprocess
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import Client
from temporalio.service import RPCError

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server import dev_server
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.lab.server.namespaces import wanted_namespaces
from workshop_lib.machine import ports, processes, state_folder
from workshop_lib.machine.records import (
    SERVER,
    Record,
    live_record,
    read_record,
    remove_record,
    write_record,
)
from workshop_lib.settings import get_settings
from workshop_lib.temporal import connect

T = TypeVar("T")

START_TIMEOUT = 30.0  # seconds; a cold disk and a busy machine need several
STOP_TIMEOUT = 10.0

# Popen objects of servers this process started, kept so that Python does not warn when it drops them.
_children: list[subprocess.Popen[bytes]] = []
# Seconds until a living server counts as hanging: one on a busy machine only is slow.
PATIENCE = 15.0
STARTING = "server-starting.json"  # the record of a server that does not serve yet
LOCK_TIMEOUT = PATIENCE + START_TIMEOUT + STOP_TIMEOUT


class PortLost(WorkshopError):
    """The server found its port taken."""


def ensure_server(*, in_memory: bool = False, state_dir: Path | None = None) -> Server:
    """The server to work with: the user's, this state folder's, or one started now.

    Args:
        in_memory: a server started now forgets everything when it stops.
        state_dir: in place of the settings' state folder.

    Raises:
        WorkshopError: the user's server does not answer, a port the user set is taken, the CLI is
            missing, the state folder cannot be written, or the server leaves at once.
    """
    connect.quiet_runtime()
    folder = (state_dir or get_settings().state_dir).absolute()
    if connect.address_is_users():
        return _adopt_users(folder)
    with _locked(folder):
        if record := live_record(folder):
            if answers(record["address"], timeout=PATIENCE):
                return _own(record)
            end(record["pid"])  # it hangs, and would hold the database
        if left := live_record(folder, STARTING):
            end(left["pid"])  # who started it was killed meanwhile
        return _start(folder, in_memory=in_memory)


def status(state_dir: Path | None = None) -> Server | None:
    """The server that `ensure_server` would adopt, or None when it would have to start one."""
    connect.quiet_runtime()
    folder = (state_dir or get_settings().state_dir).absolute()
    if connect.address_is_users():
        try:
            return _adopt_users(folder, timeout=3)
        except WorkshopError:
            return None
    record = live_record(folder)
    return _own(record) if record and answers(record["address"], timeout=3) else None


def stop(state_dir: Path | None = None) -> bool:
    """Stop the dev server of a state folder, and no other process. True when one was running."""
    folder = (state_dir or get_settings().state_dir).absolute()
    if not any((folder / name).exists() for name in (SERVER, STARTING)):
        return False
    running = False
    with _locked(folder):
        for name in (SERVER, STARTING):
            if record := live_record(folder, name):
                running = True
                end(record["pid"])
            if read_record(folder / name):  # else it is only called like one of ours
                remove_record(folder / name)
    return running


def _adopt_users(folder: Path, timeout: float = 10) -> Server:
    """The server that the environment names; it may be the one of this state folder all the same."""
    address = connect.server_address()
    record = live_record(folder)
    run_sync(connect.connect(timeout=timeout))
    if record and record["address"] == address:
        return _own(record)
    return Server(address, connect.ui_url(), None, "user")


def _own(record: Record) -> Server:
    http_address = record.get("http_address")  # a server that runs since before an update has none
    return Server(record["address"], record["ui_url"], record["pid"], "own", http_address)


def _start(folder: Path, *, in_memory: bool) -> Server:
    """Start a dev server on the database of this folder; the lock is held."""
    cli = dev_server.find_cli()
    path, begins_anew = None, ""
    if not in_memory:
        path, begins_anew = dev_server.database_of(folder, dev_server.server_version(cli))
    wal = path is not None and dev_server.supports_wal(folder)
    for attempt in range(5):
        (port, http_port, *ui_ports), taken = dev_server.choose_ports(folder)
        arguments = dev_server.command(
            cli,
            port=port,
            http_port=http_port,
            ui_port=ui_ports[0] if ui_ports else None,
            database=path,
            wal=wal,
            namespaces=wanted_namespaces(),
        )
        try:
            process = launch(arguments, folder, folder / STARTING)
            break
        except PortLost:  # between the look and the start another program took it
            if attempt == 4:
                raise
    server = Server(
        f"{ports.LOCALHOST}:{port}",
        f"http://localhost:{ui_ports[0]}" if ui_ports else None,
        process.pid,
        adopted=None,
        http_address=f"{ports.LOCALHOST}:{http_port}",
        note="; ".join(filter(None, [begins_anew, taken])) or None,
    )
    places = {name: getattr(server, name) for name in ("address", "http_address", "ui_url")}
    write_record(folder, SERVER, process.pid, **places)
    remove_record(folder / STARTING)
    return server


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the state folder: two notebooks that start the server at once start one."""
    too_long = WorkshopError(
        f"Another process has been starting the server of {folder} for too long.",
        fix="wait a moment and try again; `workshop status` shows what runs.",
    )
    with state_folder.held(folder, "server", LOCK_TIMEOUT, too_long), state_folder.writing(folder):
        yield


# --- the process ------------------------------------------------------------------------------------


def launch(
    arguments: list[str], folder: Path, record: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start the process and wait until it serves; leave nothing behind when it does not.

    Args:
        folder: where it works and writes its log.
        record: names the process from its beginning: who starts it may be killed before it serves.
    """
    log = folder / "logs" / "server.log"
    log.parent.mkdir(mode=0o700, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))  # the run before stays readable, and no file grows
    port = int(arguments[arguments.index("--port") + 1])
    with log.open("wb") as out:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dev_server.child_environment(),
            # Interrupt and Restart of a kernel signal its whole process group: this is another one.
            start_new_session=True,
        )
    _children.append(process)
    try:
        if record:
            write_record(record.parent, record.name, process.pid)
        _wait_until_serving(process, port, log)
    except BaseException:  # KeyboardInterrupt too: an unrecorded server would hold the database
        process.kill()
        process.wait()
        if record:
            remove_record(record)
        raise
    return process


def _wait_until_serving(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            reason = dev_server.why_it_ended(log.read_text(encoding="utf-8", errors="replace"))
            # Some of those that lose their port panic; that another answers there now tells them, too.
            lost = "address already in use" in reason or ports.is_listening(port)
            kind = PortLost if lost else WorkshopError
            anew = "`workshop clean` begins with an empty database; " * ("SQLite" in reason)
            raise kind(
                f"The Temporal server did not start: {reason}",
                fix=f"read {log}; {anew}`workshop doctor` looks for the usual causes.",
            )
        # Another server that came first answers there too, until ours finds that it has lost the port.
        if ports.is_held_by(process.pid, port) and answers(f"{ports.LOCALHOST}:{port}"):
            return
        time.sleep(0.03)
    raise WorkshopError(
        f"The Temporal server did not answer within {START_TIMEOUT:g} s.",
        fix=f"read {log}, then try again.",
    )


def answers(address: str, timeout: float = 5) -> bool:
    """True when a Temporal server serves at an address, within so many seconds."""
    limit = timedelta(seconds=timeout)

    async def ask() -> bool:
        async with asyncio.timeout(timeout):
            client = await Client.connect(address, connect_timeout=limit)
            return await client.service_client.check_health(timeout=limit)

    try:
        return run_sync(ask())
    except (TimeoutError, RuntimeError, RPCError):
        return False


def end(pid: int) -> None:
    """End one process: ask, wait, insist."""
    processes.end([pid], STOP_TIMEOUT)
    for child in _children.copy():
        if child.poll() is not None:
            _children.remove(child)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, also where the caller's thread already runs a loop (a notebook)."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(asyncio.run(coroutine))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # who is interrupted does not wait for it
    return outcome.result()
