"""Worker processes by the dozen: real ones, forked from a process that has imported everything already.

Importing takes a worker several seconds, and a test that kills dozens would do little else. Otherwise the
process is the one of `lab.worker_process`: the same code serves, and the same SIGKILL ends it.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.chaos import KillPoint
from workshop_lib.worker_spec import WorkerSpec

START_LIMIT = 60  # seconds; the first one waits for the imports
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["warm_imports"])


class ForkedWorker:
    """A worker in a process of its own."""

    def __init__(self, name: str, process: multiprocessing.process.BaseProcess) -> None:
        self.name = name
        self._process = process

    @property
    def alive(self) -> bool:
        """True until the process has ended."""
        return self._process.is_alive()

    def kill(self) -> None:
        """SIGKILL. Returns when the process is gone."""
        self._process.kill()
        self._process.join()

    async def exited(self, timeout: float) -> int | None:
        """Wait for the process to end by itself; returns its status, or None if it still runs."""
        await asyncio.to_thread(self._process.join, timeout)
        return self._process.exitcode


async def start_forked(
    spec: WorkerSpec, *, kill_at: KillPoint | None, env: Mapping[str, str]
) -> ForkedWorker:
    """As `start_process`: returns when the worker polls.

    Raises:
        WorkshopError: it did not start.
    """
    return await asyncio.to_thread(_start, spec, kill_at, dict(env))


def _start(spec: WorkerSpec, kill_at: KillPoint | None, env: dict[str, str]) -> ForkedWorker:
    if not hasattr(main := sys.modules["__main__"], "__spec__"):
        main.__spec__ = None  # an IPython shell that a test has run leaves its own module there
    with pytest.MonkeyPatch.context() as patch:
        # Where the first process looks for what it is to import.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(
        target=_serve,
        args=(spec, str(kill_at) if kill_at else None, dict(os.environ) | env, theirs),
        daemon=True,
    )
    process.start()
    theirs.close()
    ready = wait([ours, process.sentinel], START_LIMIT)
    said = os.read(ours.fileno(), 65536) if ours in ready else b""
    ours.close()
    if not said or not json.loads(said).get("ready"):
        process.kill()
        raise WorkshopError(f"Worker {spec.name} did not start: {said.decode()}")
    return ForkedWorker(spec.name, process)


def _serve(spec: WorkerSpec, kill_at: str | None, env: dict[str, str], pipe: Connection) -> None:
    """The process: the environment of its test, and then what any worker process does."""
    from workshop_lib.lab.worker_child import serve
    from workshop_lib.settings import reload_settings

    os.environ.clear()
    os.environ.update(env)
    reload_settings()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve(spec, kill_at, os.dup(pipe.fileno())))
