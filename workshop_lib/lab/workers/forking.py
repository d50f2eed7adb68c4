"""How a lesson gets a process of its own, quickly.

Importing a model library takes several seconds, and a lesson that kills one process after another would do
little else. So on Linux a process that needs one is forked from another that has loaded it already
(`lab.workers.fork_server`). On macOS, whose own libraries do not bear a fork, and where no such library is
needed, it is started from nothing.

Left out: what such a process does (`lab.workers.child`, `lab.lessons.naked`).
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from workshop_lib.machine import state_folder
from workshop_lib.settings import get_settings

LARGEST_ORDER = 1 << 20  # bytes
NUMBER = struct.Struct("!i")  # what is told of a process: its id, then its exit status
_FORKS = sys.platform == "linux"


class Fork:
    """A forked process, with as much of `subprocess.Popen` as a lesson needs.

    Args:
        told: a pipe from which its id and then its exit status can be read.
    """

    def __init__(self, told: int) -> None:
        os.set_blocking(told, False)
        self._told = told
        self._numbers: list[int] = []
        self._signals: list[int] = []  # sent before there was a process
        self._lock = threading.Lock()  # it is looked at from several threads

    @property
    def pid(self) -> int:
        """The id of the process; 0 until it is made, which may take as long as the loading does."""
        self._look()
        return self._numbers[0] if self._numbers else 0

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._numbers[1] if len(self._numbers) > 1 else None

    def poll(self) -> int | None:
        """Look whether it has ended; as `returncode`."""
        self._look()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        news = select.poll()
        news.register(self._told, select.POLLIN)
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not news.poll(left and left * 1000):
                raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return status

    def terminate(self) -> None:
        """SIGTERM, where it still runs; one that is not made yet gets it at once."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, where it still runs; one that is not made yet gets it at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        self._signals.append(number)
        self._look()

    def _look(self) -> None:
        """Read what was told since the last look, and pass on what is to be sent."""
        with self._lock:
            while len(self._numbers) < 2:
                try:
                    said = os.read(self._told, NUMBER.size)
                except BlockingIOError:
                    break
                if said:
                    self._numbers.append(NUMBER.unpack(said)[0])
                else:  # the one that would tell was killed itself
                    self._numbers += [0, -signal.SIGKILL][len(self._numbers) :]
            while self._signals and self._numbers:
                number = self._signals.pop(0)
                if len(self._numbers) == 1:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self._numbers[0], number)

    def __del__(self) -> None:
        os.close(self._told)


Process: TypeAlias = "subprocess.Popen[bytes] | Fork"


class _Server:
    """The process to fork from, and the way to ask it."""

    def __init__(self) -> None:
        logs = state_folder.made(get_settings().state_dir, "logs")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, (logs / "fork-server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "workshop_lib.lab.workers.fork_server",
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # the Interrupt button reaches the kernel's whole group
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, order: bytes, files: Sequence[int]) -> Fork:
        """Ask for a process.

        Raises:
            OSError: the server is gone.
        """
        told, theirs = os.pipe()
        try:
            socket.send_fds(self._control, [order], [theirs, *files])
        except OSError:
            os.close(told)
            raise
        finally:
            os.close(theirs)
        return Fork(told)


_server: _Server | None = None
_lock = threading.Lock()


def get_ready() -> None:
    """Load, in the background, what processes with a model need. Harmless when called again."""
    if _FORKS:
        _get_server()


def _get_server() -> _Server:
    global _server
    with _lock:
        if _server is None or not _server.alive:
            _server = _Server()
        return _server


def start(
    module: str,
    *arguments: str,
    stdin: int,
    stdout: int,
    stderr: int,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    with_models: bool,
) -> Process:
    """Run a module's `main` in a process, and a session, of its own. Does not wait for it.

    Args:
        arguments: its `sys.argv[1:]`.
        stdin, stdout, stderr: open files, by number.
        env: its whole environment. A fork has read some variables before it gets these: those that Python
            itself, or a library while it is imported, looks at.
        pass_fds: further open files, which have the same numbers there.
        with_models: it needs the model library.
    """
    if _FORKS and with_models:
        files = [0, 1, 2, *pass_fds]
        order = json.dumps(
            {"module": module, "arguments": arguments, "env": dict(env), "files": files}
        ).encode()
        if len(order) < LARGEST_ORDER:
            with contextlib.suppress(OSError):  # it takes longer, and works all the same
                return _get_server().fork(order, [stdin, stdout, stderr, *pass_fds])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        pass_fds=pass_fds,
        start_new_session=True,
    )
