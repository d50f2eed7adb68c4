"""What this process has started: workers in threads and in processes, MCP servers. One of a name.

Whoever takes a name stops what had it, so that old and new code never both poll; and all of it ends with this
process. Left out: how a worker is started (`lab.workers`) and an MCP server (`lab.services`).
"""

import abc
import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Protocol

from workshop_lib.machine import records
from workshop_lib.machine.processes import living
from workshop_lib.settings import get_settings
from workshop_lib.temporal.worker import WorkerSpec
from workshop_lib.temporal.worker import identity as identity

THREAD_PREFIX = "worker "  # what the names of worker threads begin with
STOP_LIMIT = 5.0  # seconds that a process gets to finish


class Started(abc.ABC):
    """Something that this process has started and that ends with it."""

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """What it goes by here."""

    @property
    @abc.abstractmethod
    def alive(self) -> bool:
        """True until it has ended."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Let it finish what it has and wait until it is gone. Harmless when it is gone already."""


class StartedWorker(Started):
    """A worker in a thread or in a process.

    Attributes:
        spec: what it serves.
        started_at: Unix seconds when it began to poll, or its process to run.
    """

    spec: WorkerSpec
    started_at: float

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """The process that it runs in."""

    @property
    def key(self) -> str:
        """What it goes by here: the worker's name."""
        return self.name

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.spec.name

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and task queue."""
        return self.spec.namespace, self.spec.task_queue


class Process(Protocol):
    """A process as its parent knows it: a `subprocess.Popen`, or what is forked from another process."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class StartedProcess(Started):
    """A process that this one has started and that leaves when this one is gone.

    Attributes:
        log: the file that its output goes to.
    """

    def __init__(self, process: Process, log: Path) -> None:
        self.log = log
        self._process = process

    def __repr__(self) -> str:
        state = "runs" if self.alive else f"ended with {self._process.poll()}"
        return f"<{self.title}, process {self.pid}, {state}>"

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What it is, in words."""

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: no clean-up, no goodbye. Returns when the process is gone."""
        self._process.kill()
        self._gone()

    def stop(self) -> None:
        """SIGTERM: it finishes what it has. Killed if that takes too long. Returns when it is gone."""
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._gone()

    def _gone(self) -> None:
        # One that is not even made yet leaves as soon as it is.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT)
        give_back(self)


_started: dict[str, Started] = {}
_lock = threading.Lock()


def take_over(started: Started) -> None:
    """Take a name, and stop what had it."""
    with _lock:
        before = _started.get(started.key)
        _started[started.key] = started
    if before and before is not started:
        before.stop()


def give_back(started: Started) -> None:
    """Give a name back, if this one still has it."""
    with _lock:
        if _started.get(started.key) is started:
            del _started[started.key]


def stop_worker(name: str) -> None:
    """Stop the worker of this name, thread or process. No error if there is none."""
    stop(name)


def stop(key: str) -> None:
    """Stop what goes by this name. No error if nothing does."""
    with _lock:
        started = _started.pop(key, None)
    if started:
        started.stop()


def stop_all() -> None:
    """Stop everything that this process has started: workers in threads and in processes, servers."""
    with _lock:
        everything = list(_started.values())
        _started.clear()
    for started in everything:
        started.stop()


def registered() -> dict[str, StartedWorker]:
    """All living workers that this process has started, by name: threads and processes."""
    with _lock:
        workers = [one for one in _started.values() if isinstance(one, StartedWorker)]
        return {worker.name: worker for worker in workers if worker.alive}


def spawn(
    module: str,
    *arguments: str,
    stdin: int,
    stdout: int,
    stderr: int,
) -> "subprocess.Popen[bytes]":
    """Run `python -m module` in a process and a session of its own."""
    ours = {"WORKSHOP_STATE_DIR": str(get_settings().state_dir), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=os.environ | ours,
        start_new_session=True,  # the Interrupt button reaches the kernel's whole group
    )


def first_line(pipe: int, limit: float) -> str | None:
    """The line that a process says on a pipe once it is ready; "" where it ends without.

    Returns:
        None where it says nothing within so many seconds.
    """
    line, end = b"", time.monotonic() + limit
    while not line.endswith(b"\n"):
        if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        chunk = os.read(pipe, 65536)
        if not chunk:
            return ""
        line += chunk
    return line.decode().strip()


def local_process(worker_identity: str) -> tuple[str, int] | None:
    """Name and process id of a worker of this machine; None of others, and where it does not say.

    Ours are called "name@pid@host"; the SDK calls a client that has no name of its own "pid@host".
    """
    name, pid, host = ["", "", *worker_identity.rsplit("@", 2)][-3:]
    return (name, int(pid)) if host == socket.gethostname() and pid.isdigit() else None


def identity_alive(
    worker_identity: str, *, since: float | None = None, place: tuple[str, str] | None = None
) -> bool:
    """Whether a worker may still be at work: one that is held (stopped) is not.

    Args:
        since: Unix seconds; a worker of this process that was started later counts as another one.
        place: namespace and queue; a worker that this process has started elsewhere does not count.

    Those of other machines, and those that do not say where they are, may.
    """
    if (local := local_process(worker_identity)) is None:
        return True
    name, pid = local
    worker = registered().get(name)
    if worker and worker.pid == pid:
        elsewhere = place is not None and worker.place != place
        return not elsewhere and (since is None or worker.started_at <= since)
    if pid == os.getpid():  # a command's own; one that was stopped has no record any more
        recorded = records.services(get_settings().state_dir)
        return not name or worker_identity in [record.get("identity") for record in recorded]
    return living(pid, held=False) is not None
