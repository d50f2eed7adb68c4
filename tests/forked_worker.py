"""Worker processes that start in a moment, so that a repair can be killed at every place it has.

They are forked from a process that has imported everything and has no connection (`forkserver`). They die
for real: SIGKILL, at a kill point. The workers of a lesson start anew instead (`lab.worker_process`), which
costs seconds each.
"""

import asyncio
import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from workshop_lib.connect import connect
from workshop_lib.lab.chaos import Executioner, KillPoint, interceptors_for, runner_for
from workshop_lib.lab.workers import STOP_GENTLY, run_until
from workshop_lib.settings import reload_settings
from workshop_lib.worker_spec import WorkerSpec

LIMIT = 60  # seconds

_context = multiprocessing.get_context("forkserver")


class ForkedWorker:
    """A worker in a process of its own; `start` it, and `clear` it in any case.

    Args:
        kill_at: where it kills itself.
        env: set in its environment.
    """

    def __init__(self, spec: WorkerSpec, env: Mapping[str, str], kill_at: KillPoint | None) -> None:
        _start_server()
        self._ready, child_end = _context.Pipe(duplex=False)
        every = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        self._process = _context.Process(
            target=_serve,
            args=(replace(spec, warm_ups=()), {**every, **env}, kill_at, child_end),
            daemon=True,
        )

    async def start(self) -> None:
        """Start it and wait until it polls."""
        await asyncio.to_thread(self._process.start)
        assert await asyncio.to_thread(self._ready.poll, LIMIT), "the worker did not start"
        assert self._ready.recv() == "polls"

    async def exited(self) -> int | None:
        """Wait until it has ended by itself; its exit status, negative for a signal."""
        await asyncio.to_thread(self._process.join, LIMIT)
        return self._process.exitcode

    def clear(self) -> None:
        """End it, if it lives."""
        if self._process.is_alive():
            self._process.kill()
        if self._process.pid:
            self._process.join()


@lru_cache(maxsize=1)
def _start_server() -> None:
    """Start the process that workers are forked from; it must find the tests' own modules."""
    _context.set_forkserver_preload(["forked_preload", "forked_worker"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _serve(
    spec: WorkerSpec, env: dict[str, str], kill_at: KillPoint | None, ready: Connection
) -> None:
    os.environ.clear()
    os.environ.update(env)
    reload_settings()
    asyncio.run(_run(spec, kill_at, ready))


async def _run(spec: WorkerSpec, kill_at: KillPoint | None, ready: Connection) -> None:
    options: dict[str, Any] = dict(STOP_GENTLY)
    if kill_at:
        executioner = Executioner(kill_at)
        options["interceptors"] = interceptors_for(kill_at, executioner)
        options["workflow_runner"] = runner_for(kill_at, executioner)
    worker = spec.build(await connect(spec.namespace), **options)
    await run_until(worker, asyncio.Event(), lambda: ready.send("polls"))
