"""How a lesson gets a process of its own, quickly.

Importing a model library takes several seconds, and a lesson that kills one process after another would do
little else. So on Linux a process that needs one is forked from another that has loaded it already: the
standard library's fork server, which loads `lab.workers.preload`. On macOS, whose own libraries do not bear a
fork, and where no such library is needed, it is started from nothing.

Left out: what such a process does (`lab.workers.child`, `lab.lessons.naked`).
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

from workshop_lib.machine.environment import put_in_order
from workshop_lib.settings import get_settings

_FORKS = sys.platform == "linux"
_ANEW = multiprocessing.get_context("spawn")
_starting = threading.Lock()


def get_ready() -> None:
    """Load, in the background, what processes with a model need. Harmless when called again."""
    if _FORKS:
        _forking().set_forkserver_preload(["workshop_lib.lab.workers.preload"])
        with _apart():
            forkserver.ensure_running()


class Child:
    """A process that runs a function, in a session of its own; it leaves when this process is gone.

    It has as much of `subprocess.Popen` as a lesson needs, and may be looked at from several threads.

    Args:
        work: a function of a module.
        arguments: what can be pickled, and pipes of `multiprocessing`.
        log: the file that its output is appended to.
        with_models: it needs the model library.
        env: set in its environment, in addition to this process's. It has read some variables by then: those
            that Python itself, and in a fork a library while it is imported, looks at.
    """

    def __init__(
        self,
        work: Callable[..., object],
        *arguments: object,
        log: Path,
        with_models: bool,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if with_models:
            get_ready()
        context: Any = _forking() if with_models and _FORKS else _ANEW
        state = {"WORKSHOP_STATE_DIR": str(get_settings().state_dir)}
        environment = {**os.environ, **state, **(env or {})}
        # A daemon: this process does not wait for it when it ends.
        options: dict[str, Any] = {
            "target": _begin,
            "args": (work, arguments, environment, log),
            "daemon": True,
        }
        self._process = context.Process(**options)
        self._else = _ANEW.Process(**options)
        self._lock = threading.Lock()
        self._signal: int | None = None  # sent before there was a process

    def start(self) -> None:
        """Make the process. Takes as long as the loading does."""
        with _apart():
            try:
                self._process.start()
            except (OSError, EOFError):  # there is nothing to fork from: it takes longer, and works
                self._process = self._else
                self._process.start()
        if self._signal:
            self._send(self._signal)

    @property
    def pid(self) -> int:
        """The id of the process; 0 until it is made."""
        return self._process.pid or 0

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs, or is not made yet."""
        with self._lock:
            status: int | None = self._process.exitcode
            return status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            if left == 0.0:
                raise subprocess.TimeoutExpired("a process", timeout or 0)
            if self.pid:
                connection.wait([self._process.sentinel], left)
            time.sleep(0.001)
        return status

    def terminate(self) -> None:
        """SIGTERM, where it still runs; one that is not made yet gets it as soon as it is."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, where it still runs; one that is not made yet gets it as soon as it is."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        self._signal = number
        if self.pid and self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def write_to(log: Path) -> None:
    """Have all that this process writes appended to a file."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)


def _begin(
    work: Callable[..., object], arguments: tuple[object, ...], env: dict[str, str], log: Path
) -> None:
    """Be the process that was asked for."""
    os.setsid()
    write_to(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(env)
    put_in_order()
    get_settings.cache_clear()
    parent = multiprocessing.parent_process()
    assert parent
    threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()
    work(*arguments)
    # Threads of the SDK may still hold on to the interpreter; all is done and flushed.
    sys.stdout.flush()
    os._exit(0)


def _leave_with(parent: int) -> None:
    """End this process once its parent is gone. A thread: the loop may be busy with code of a learner."""
    connection.wait([parent])
    os._exit(0)


def _forking() -> Any:
    return multiprocessing.get_context("forkserver")


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """While the block starts a Python by way of `multiprocessing`.

    It is not to run a script of ours again, as it would do for the functions that are defined there; and a
    file of the folder that we stand in is no module there.
    """
    main = sys.modules["__main__"]
    with _starting:
        spec, safe = getattr(main, "__spec__", None), os.environ.get("PYTHONSAFEPATH")
        main.__spec__ = ModuleSpec("__main__", None)
        os.environ["PYTHONSAFEPATH"] = "1"
        try:
            yield
        finally:
            main.__spec__ = spec
            if safe is None:
                del os.environ["PYTHONSAFEPATH"]
