"""The `workshop` command as a process that finds loaded what takes a second and more to load.

Run as a program, this file loads all that the command can need, and forks for each order. A forked command
has streams, arguments, an environment and an end of its own; what Python does before our first line it lacks.
So whoever tests just that, starts a Python (`Workshop.command`). Left out: terminals, and signals.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

_FILES = 5  # the order, where its end is told, and the three streams
_loaded: "tuple[subprocess.Popen[bytes], socket.socket] | None" = None


def run_warm(
    arguments: Sequence[str | bytes],
    env: dict[str, str],
    *,
    typed: str = "",
    code: str = "",
    limit: float = 90,
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, as `subprocess.run` would.

    Args:
        code: Python to run in place of the command.

    Raises:
        subprocess.TimeoutExpired: it has not ended in so many seconds, and was killed.
    """
    told, tell = os.pipe()
    order = {"arguments": [os.fsdecode(word) for word in arguments], "env": env, "code": code}
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, told)
        streams = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(4)]
        for stream, text in zip(streams, (json.dumps(order), typed), strict=False):
            stream.write(text.encode(errors="surrogateescape"))
            stream.seek(0)
        numbers = [streams[0].fileno(), tell, *(stream.fileno() for stream in streams[1:])]
        socket.send_fds(_server(), [b"!"], numbers)
        os.close(tell)
        said, deadline = "", time.monotonic() + limit
        while said.count("\n") < 2:  # its process id and its status
            ready, _, _ = select.select([told], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                os.kill(int(said), signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), limit)
            said += os.read(told, 100).decode() or pytest.fail("the loaded process has died")
        for stream in streams[2:]:
            stream.seek(0)
        out, errors = (stream.read().decode(errors="replace") for stream in streams[2:])
    return subprocess.CompletedProcess(list(arguments), int(said.split()[1]), out, errors)


def _server() -> socket.socket:
    """The end of a socket on which the loaded process takes orders; it leaves when this end is closed."""
    global _loaded
    if _loaded is None or _loaded[0].poll() is not None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Else it would count as a leftover of the test that happened to start it.
        env = {name: value for name, value in os.environ.items() if name != "WORKSHOP_STATE_DIR"}
        process = subprocess.Popen(
            [sys.executable, Path(__file__), str(there.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[there.fileno()],
            start_new_session=True,
            env=env,
        )
        there.close()
        _loaded = process, here
    return _loaded[1]


def _load() -> None:
    from workshop_lib.llm.gateway import load_now
    from workshop_lib.llm.large_imports import large_import

    with large_import():
        import fastmcp  # noqa: F401

        import workshop_lib.agents.worker
        import workshop_lib.cli.chat
        import workshop_lib.cli.lab
        import workshop_lib.cli.main
        import workshop_lib.cli.mcp
        import workshop_lib.cli.repair
        import workshop_lib.cli.services
        import workshop_lib.lab.checks
        import workshop_lib.lab.doctor.examination
        import workshop_lib.repair.worker
        import workshop_lib.teams.finance.worker
        import workshop_lib.teams.it.worker  # noqa: F401

        load_now()  # LiteLLM


def _serve(control: socket.socket) -> None:
    """Fork for each order; the first child stays behind and tells how the second, the command, has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, files, _, _ = socket.recv_fds(control, 1, _FILES)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            order, tell, *streams = files
            command = os.fork()
            if command == 0:
                os.close(tell)
                _be_the_command(order, streams)
            os.write(tell, f"{command}\n".encode())
            _, status = os.waitpid(command, 0)
            os.write(tell, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
        for number in files:
            os.close(number)


def _be_the_command(order: int, streams: Sequence[int]) -> None:
    from workshop_lib import __main__, edge
    from workshop_lib.machine.environment import put_in_order
    from workshop_lib.settings import get_settings

    with os.fdopen(order) as written:
        given = json.load(written)
    for number, wanted in zip(streams, range(3), strict=True):
        os.dup2(number, wanted)
        os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = os.fdopen(number, "w" if number else "r", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)  # as Python keeps it: its end would close what is below
    os.environ.clear()
    os.environ.update(given["env"])
    put_in_order()
    get_settings.cache_clear()
    sys.argv = ["workshop", *given["arguments"]]
    try:
        if given["code"]:
            exec(given["code"], {"__name__": "__main__"})
        else:
            __main__.main()
        edge.end(0)
    except SystemExit as ended:
        edge.end(ended.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


if __name__ == "__main__":
    here = str(Path(__file__).parent)
    sys.path[:] = [folder for folder in sys.path if folder != here]  # as for the command
    _load()
    _serve(socket.socket(fileno=int(sys.argv[1])))
