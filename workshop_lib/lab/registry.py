"""Which workers this process has started, by name, and whether a worker seen on the server still lives.

One worker a name: whoever takes a name stops the one that had it, so old and new code never both poll.
Left out: how a worker is started (`lab.workers.threads` for threads, `lab.workers.process` for processes).
"""

import os
import socket
import threading
from typing import Protocol

import psutil

from workshop_lib.machine import records
from workshop_lib.settings import get_settings
from workshop_lib.temporal.worker import WorkerSpec
from workshop_lib.temporal.worker import identity as identity

THREAD_PREFIX = "worker "  # what the names of worker threads begin with


class StartedWorker(Protocol):
    """What the registry keeps: a worker in a thread or in a process."""

    @property
    def alive(self) -> bool:
        """True while it can poll."""

    @property
    def name(self) -> str:
        """The name it goes by."""

    @property
    def spec(self) -> WorkerSpec:
        """What it serves."""

    @property
    def started_at(self) -> float:
        """Unix seconds when it began to poll."""

    @property
    def pid(self) -> int:
        """The process that it runs in."""

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and task queue."""

    def stop(self) -> None:
        """Let it finish what it has and wait until it is gone. Harmless when it is gone already."""


class Stoppable(Protocol):
    """Something else that this process has started and that should end with its workers."""

    def stop(self) -> None:
        """End it and wait until it is gone. Harmless when it is gone already."""


_registry: dict[str, StartedWorker] = {}
_others: dict[str, Stoppable] = {}
_lock = threading.Lock()


def stop_worker(name: str) -> None:
    """Stop the worker of this name, thread or process. No error if there is none."""
    with _lock:
        worker = _registry.pop(name, None)
    if worker:
        worker.stop()


def stop_all() -> None:
    """Stop everything that this process has started: workers in threads and in processes, servers."""
    with _lock:
        started: list[Stoppable] = [*_others.values(), *_registry.values()]
        _registry.clear()
        _others.clear()
    for one in started:
        one.stop()


def also_stop(name: str, other: Stoppable) -> None:
    """Have `stop_all` end something that is no worker. Who had the name until now is stopped."""
    with _lock:
        before = _others.get(name)
        _others[name] = other
    if before and before is not other:
        before.stop()


def stop_other(name: str) -> None:
    """Stop what `also_stop` was told of under this name. No error if there is none."""
    with _lock:
        other = _others.pop(name, None)
    if other:
        other.stop()


def no_longer(name: str, other: Stoppable) -> None:
    """Take back `also_stop`, if the name is still this one's."""
    with _lock:
        if _others.get(name) is other:
            del _others[name]


def registered() -> dict[str, StartedWorker]:
    """All living workers that this process has started, by name: threads and processes."""
    with _lock:
        return {name: worker for name, worker in _registry.items() if worker.alive}


def register(name: str, worker: StartedWorker) -> StartedWorker | None:
    """Take a name in the registry. Returns who had it, for the caller to stop before it polls."""
    with _lock:
        old = _registry.get(name)
        _registry[name] = worker
    return old


def unregister(name: str, worker: StartedWorker) -> None:
    """Give a name back, if this worker still has it."""
    with _lock:
        if _registry.get(name) is worker:
            del _registry[name]


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
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return False
    return status not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
