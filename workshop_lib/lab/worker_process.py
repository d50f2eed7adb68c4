"""A worker as a process of its own: one that a lesson can kill.

The child (`lab.worker_child`) is told through its standard input what to serve, says on a pipe that it
polls, and leaves when its parent is gone. What it prints and logs goes to
`<state_dir>/logs/worker-<name>-<pid>.log`.

Left out: the places where it can be told to die (`lab.chaos`), and the registry (`lab.workers`).
"""

import asyncio
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
from typing import Any

from workshop_lib.errors import WorkshopError
from workshop_lib.lab import registry
from workshop_lib.lab.cell_files import cells_dir
from workshop_lib.lab.chaos import KillPoint
from workshop_lib.lab.workers import STOP_LIMIT
from workshop_lib.settings import get_settings
from workshop_lib.worker_spec import WorkerSpec


class WorkerProcess:
    """A worker in a process of its own.

    Attributes:
        spec: what it serves.
        log: the file that its output goes to.
        started_at: Unix seconds when it was started.
    """

    def __init__(self, spec: WorkerSpec, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.spec = spec
        self.log = log
        self.started_at = time.time()
        self._process = process

    def __repr__(self) -> str:
        state = "runs" if self.alive else f"ended with {self._process.returncode}"
        return f"<worker {self.name}, process {self.pid}, {state}>"

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

    async def exited(self, timeout: float = 30) -> int:
        """Wait for the process to end by itself, at a kill point say.

        Returns:
            Its exit status: 0 after `stop()`, -9 after a kill.

        Raises:
            WorkshopError: it still runs after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                # There is an event for this on some systems only, and a loop that wakes often is what
                # lets the Interrupt button through.
                while self.alive:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise WorkshopError(
                f"Worker process {self.name} still runs after {timeout:g} s.",
                expected="it ends by itself: the work passes its kill point.",
                fix=f"look into {self.log}, or end it with `.kill()`.",
            ) from None
        self._gone()
        return self._process.returncode

    def _gone(self) -> None:
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        registry.unregister(self.name, self)


async def start_process(
    spec: WorkerSpec,
    *,
    kill_at: KillPoint | str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 30,
    outlive: bool = False,
) -> WorkerProcess:
    """Start a worker in a process of its own, in place of the one that has its name.

    Args:
        spec: what it serves; its classes and functions must be importable.
        kill_at: where the process kills itself, as in "activity-inside@plan_next_action#1".
        env: set in its environment, in addition to this process's.
        timeout: seconds until it must poll.
        outlive: it stays when this process ends, and `stop_all()` leaves it alone.

    Returns:
        The process, polling.

    Raises:
        WorkshopError: something of the spec cannot be imported by another process, the kill point does
            not exist or is in nothing that the worker serves, or the worker did not start.
    """
    point = KillPoint.parse(kill_at) if isinstance(kill_at, str) else kill_at
    if point and point.name != "*":
        _refuse_unknown(point, spec)
    order = pickle.dumps(
        {
            "name": spec.name,
            "spec": _pickled(spec),
            "kill_at": str(point) if point else None,
            "path": [*sys.path, str(cells_dir())],
            "outlive": outlive,
        }
    )
    await asyncio.to_thread(registry.stop_worker, spec.name)
    ready, child_end = os.pipe()
    try:
        worker = _spawn(spec, order, child_end, env or {})
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(child_end)
    if not outlive:
        registry.register(spec.name, worker)
    try:
        said = await asyncio.wait_for(asyncio.to_thread(_read_line, ready, timeout), timeout + 1)
    except BaseException:  # an Interrupt too: nothing half started stays behind
        worker.kill()
        raise
    finally:
        os.close(ready)
    if said.get("ready"):
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
    logs = state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"worker-{spec.name}-", suffix=".log", dir=logs)
    with os.fdopen(handle, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workshop_lib.lab.worker_child", str(child_end)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[child_end],
            env={**os.environ, "WORKSHOP_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1", **env},
            start_new_session=True,  # the Interrupt button reaches the kernel's whole group
        )
    # The file is open in the child; only its name waited for the process id.
    log = Path(name).rename(logs / f"worker-{spec.name}-{process.pid}.log")
    worker = WorkerProcess(spec, process, log)
    assert process.stdin
    try:
        process.stdin.write(order)
        process.stdin.flush()  # and it stays open: its end tells the child that we are gone
    except BrokenPipeError:
        pass  # it ended at once; the ready pipe says so, and its log why
    return worker


def _refuse_unknown(point: KillPoint, spec: WorkerSpec) -> None:
    """Refuse a kill point in something that the worker does not serve: it would kill nobody."""
    known = [
        *spec.workflow_names,
        *spec.activity_names,
        *spec.plugin_activity_names,
        *spec.operation_names,
    ]
    if point.name not in known:
        raise WorkshopError(
            f"{point} would kill nobody: worker {spec.name} has no {point.name!r}.",
            expected=f"one of {', '.join(known)}.",
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
