"""The process of a dev server: launched, waited for, asked whether it serves, ended.

Left out: which process that is, and the lock that keeps two callers apart (`server`).
"""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil
from temporalio.client import Client
from temporalio.service import RPCError

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server import dev_server
from workshop_lib.machine import ports
from workshop_lib.machine.records import End, remove_record, write_record

T = TypeVar("T")

START_TIMEOUT = 30.0  # seconds; a cold disk and a busy machine need several
STOP_TIMEOUT = 10.0

# Popen objects of servers this process started, kept so that Python does not warn when it drops them.
_children: list[subprocess.Popen[bytes]] = []


class PortLost(WorkshopError):
    """The server found its port taken."""


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
    ended = End(pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        if not ended.has_come(STOP_TIMEOUT):
            process.kill()
            ended.has_come(10)
    for child in _children.copy():
        if child.poll() is not None:
            _children.remove(child)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, also where the caller's thread already runs a loop (a notebook)."""
    thread = ThreadPoolExecutor(1)
    try:
        return thread.submit(asyncio.run, coroutine).result()
    finally:
        thread.shutdown(wait=False)  # who is interrupted does not wait for it
