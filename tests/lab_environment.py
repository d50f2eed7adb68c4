"""A lab of its own for a test: a state folder, free ports, and nothing of a user's server."""

import os
import random
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from workshop_lib.lab.server import lifecycle as server
from workshop_lib.machine.ports import is_free
from workshop_lib.settings import reload_settings

LIMIT = 60  # seconds for each thing that is waited for


def fresh(name: str) -> str:
    """A name that no other test uses, for a queue, a worker, a session or a workflow id."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def free_port() -> int:
    """A port that nobody holds at the moment, and that the system gives to nobody who asks for any."""
    # Below the ports that it hands out to connections and kernels: one that a test has yet to use stays
    # free meanwhile.
    return next(port for port in iter(lambda: random.randrange(15_000, 32_000), 0) if is_free(port))


def hold(pid: int) -> None:
    """Let a child process hang. Returns when it does: a signal takes its time to reach every thread."""
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)


@contextmanager
def listening(port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    """This process listens on a port and never answers."""
    with socket.socket() as held:
        # Connections that ended a moment ago are no hindrance.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        held.listen()
        yield int(held.getsockname()[1])


def set_env(patch: pytest.MonkeyPatch, **values: object) -> None:
    """Set environment variables (None removes one) and read the settings again."""
    for name, value in values.items():
        if value is None:
            patch.delenv(name, raising=False)
        else:
            patch.setenv(name, str(value))
    reload_settings()


@contextmanager
def lab(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """The environment of a lab whose state is in `folder`; its server is stopped at the end."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TEMPORAL_")]:
            patch.delenv(name)
        set_env(
            patch,
            WORKSHOP_STATE_DIR=folder,
            WORKSHOP_TEMPORAL_PORT=free_port(),
            WORKSHOP_UI_PORT=free_port(),
            WORKSHOP_HTTP_PORT=free_port(),
            TEMPORAL_CONFIG_FILE=folder / "no-profile.toml",
            # What a test sets and is left out would be remembered, and children would inherit it.
            WORKSHOP_LEFT_OUT="{}",
        )
        try:
            yield patch
        finally:
            server.stop(folder)
    reload_settings()
