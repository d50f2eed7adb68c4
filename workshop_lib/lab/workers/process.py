"""A worker as a process of its own: one that a lesson can kill.

The child (`lab.workers.child`) is told through its standard input what to serve, says on a pipe that it
polls, and leaves when its parent is gone. What it prints and logs goes to
`<state_dir>/logs/worker-<name>-<pid>.log`.

Left out: how a process is made (`lab.workers.forking`), the places where it can be told to die
(`lab.workers.kill_points`), and the registry (`lab.registry`).
"""

import asyncio
import contextlib
import json
import os
import pickle
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from temporalio.client import WorkflowHandle

from workshop_lib.errors import WorkshopError
from workshop_lib.lab import registry
from workshop_lib.lab.watching.cell_files import cells_dir
from workshop_lib.lab.watching.waiting import TICK
from workshop_lib.lab.workers import forking as processes
from workshop_lib.lab.workers.forking import Process
from workshop_lib.lab.workers.kill_points import KillPoint
from workshop_lib.lab.workers.threads import STOP_LIMIT, check_spec
from workshop_lib.machine import state_folder
from workshop_lib.settings import get_settings
from workshop_lib.temporal.worker import WorkerSpec


class WorkerProcess:
    """A worker in a process of its own.

    Attributes:
        spec: what it serves.
        log: the file that its output goes to.
        kill_at: where it kills itself, if anywhere.
        started_at: Unix seconds when it was started.
    """

    def __init__(self, spec: WorkerSpec, process: Process, alive: BinaryIO, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.kill_at: KillPoint | None = None
        self.started_at = time.time()
        self._process = process
        self._alive = alive  # its standard input: the end tells it that this process is gone

    def __repr__(self) -> str:
        state = "runs" if self.alive else f"ended with {self._process.returncode}"
        return f"<worker {self.name}, process {self.pid}, {state}>"

    def tell(self, order: bytes) -> None:
        """Send the child what it is to serve."""
        with contextlib.suppress(BrokenPipeError):  # it ended at once, and its log says why
            self._alive.write(order)
            self._alive.flush()  # and it stays open

    @property
    def name(self) -> str:
        """The name it goes by in the registry."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and task queue."""
        return self.spec.namespace, self.spec.task_queue

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
            self._process.wait(STOP_LIMIT + 3)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._gone()

    async def exited(
        self, timeout: float = 30, *, unless: WorkflowHandle[Any, Any] | None = None
    ) -> int | None:
        """Wait for the process to end by itself, at a kill point say.

        Args:
            unless: a run whose work passes there; where it has ended without, that is said.

        Returns:
            Its exit status: 0 after `stop()`, -9 after a kill. None where it lives and `unless` is over.

        Raises:
            WorkshopError: it still runs after `timeout` seconds.
        """
        over = asyncio.ensure_future(unless.result()) if unless else None
        try:
            async with asyncio.timeout(timeout):
                # There is an event for this on some systems only, and a loop that wakes often is what
                # lets the Interrupt button through.
                while self.alive and not (over and over.done()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise WorkshopError(
                f"Worker process {self.name} still runs after {timeout:g} s.",
                expected=f"it ends by itself, where the work passes {self.kill_at}."
                if self.kill_at
                else "it ends by itself.",
                fix="is there any work for it, and does it pass there? Look into"
                f" {self.log}, or end it with `.kill()`.",
            ) from None
        finally:
            if over:
                over.cancel()
                await asyncio.gather(over, return_exceptions=True)
        if unless and self.alive:
            print(f"{unless.id} is over, and its work has not passed {self.kill_at}: nobody died.")
            return None
        status = self._process.wait()
        self._gone()
        return status

    def _gone(self) -> None:
        with contextlib.suppress(OSError):
            self._alive.close()
        # A fork that was not made yet will find its input at an end, and leave.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT)
        registry.unregister(self.name, self)


async def start_process(
    spec: WorkerSpec,
    *,
    kill_at: KillPoint | str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 90,
) -> WorkerProcess:
    """Start a worker in a process of its own, in place of the one that has its name.

    Args:
        spec: what it serves; its classes and functions must be importable.
        kill_at: where the process kills itself, as in "activity-inside@plan_next_action#1".
        env: set in its environment, in addition to this process's.
        timeout: seconds until it must poll. Loading a model's library is among them, which takes 5 on
            a quiet laptop and many times that on a busy one. One that fails is noticed at once.

    Returns:
        The process, polling.

    Raises:
        WorkshopError: something of the spec cannot be imported by another process, the kill point does
            not exist or is in nothing that the worker serves, or the worker did not start.
    """
    check_spec(spec)
    point = KillPoint.parse(kill_at) if isinstance(kill_at, str) else kill_at
    if point and point.name != "*":
        _refuse_unknown(point, spec)
    order = pickle.dumps(
        {
            "name": spec.name,
            "spec": _pickled(spec),
            "kill_at": str(point) if point else None,
            "path": [*sys.path, str(cells_dir())],
        }
    )
    await asyncio.to_thread(registry.stop_worker, spec.name)
    ready, child_end = os.pipe()
    try:
        worker = _spawn(spec, order, child_end, env or {})
        worker.kill_at = point
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(child_end)
    registry.register(spec.name, worker)
    try:
        reading = asyncio.ensure_future(asyncio.to_thread(_read_line, ready, timeout))
        # A loop that wakes often is what lets the Interrupt button through.
        while not reading.done():
            await asyncio.wait({reading}, timeout=TICK)
        said = reading.result()
    except BaseException:  # an Interrupt too: nothing half started stays behind
        worker.kill()
        raise
    finally:
        os.close(ready)
    if said.get("ready"):
        # The file is open in the child; only its name waited for the process id.
        worker.log = worker.log.rename(worker.log.with_name(f"worker-{spec.name}-{worker.pid}.log"))
        return worker
    worker.kill()
    raise WorkshopError(
        said.get("what") or f"Worker process {spec.name} did not start within {timeout:g} s.",
        expected=said.get("expected"),
        fix=said.get("fix") or f"look into {worker.log}.",
    )


def _pickled(spec: WorkerSpec) -> bytes:
    """The spec with its code by name, as another process can import it."""
    served: list[Any] = [*spec.workflows, *spec.activities, *spec.nexus_handlers]
    unreachable = [item.__qualname__ for item in served if item.__module__ == "__main__"]
    try:
        pickled = pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        unreachable, pickled = unreachable or [str(error)], b""
    if unreachable or b"__main__" in pickled:
        raise WorkshopError(
            f"Another process cannot import {', '.join(unreachable) or 'what this worker is given'}.",
            expected="classes and functions of a module, not of a plain notebook cell.",
            fix="begin the cell that defines them with `%%workflow NAME`, run it, and start again.",
        )
    return pickled


def _spawn(spec: WorkerSpec, order: bytes, child_end: int, env: Mapping[str, str]) -> WorkerProcess:
    state = get_settings().state_dir
    logs = state_folder.made(state, "logs")
    handle, name = tempfile.mkstemp(prefix=f"worker-{spec.name}-", suffix=".log", dir=logs)
    stdin, ours = os.pipe()
    try:
        process = processes.start(
            "workshop_lib.lab.workers.child",
            str(child_end),
            stdin=stdin,
            stdout=handle,
            stderr=handle,
            pass_fds=[child_end],
            env={**os.environ, "WORKSHOP_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1", **env},
            with_models=bool(spec.warm_ups),
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(handle)
        os.close(stdin)
    worker = WorkerProcess(spec, process, os.fdopen(ours, "wb"), Path(name))
    worker.tell(order)
    return worker


def _refuse_unknown(point: KillPoint, spec: WorkerSpec) -> None:
    """Refuse a kill point in something that the worker does not serve: it would kill nobody."""
    kind = point.where.partition("-")[0]  # "activity-inside" is a place in an activity
    known = {
        "workflow": spec.workflow_names,
        "activity": [*spec.activity_names, *spec.plugin_activity_names],
        "operation": spec.operation_names,
    }[kind]
    if point.name not in known:
        raise WorkshopError(
            f"{point} would kill nobody: worker {spec.name} has no {kind} {point.name!r}.",
            expected=f"one of {', '.join(known)}." if known else f"a worker that serves a {kind}.",
        )


def _read_line(pipe: int, timeout: float) -> dict[str, Any]:
    """What the child says on its pipe; {} when it says nothing in time, or ends."""
    said = b""
    while not said.endswith(b"\n") and select.select([pipe], [], [], timeout)[0]:
        chunk = os.read(pipe, 65536)
        if not chunk:
            return {"what": "The worker process ended before it could poll."}
        said += chunk
    return dict(json.loads(said)) if said.endswith(b"\n") else {}
