"""A worker as a process of its own: one that a lesson can kill.

The child (`lab.workers.child`) says on a pipe that it polls, and leaves when its parent is gone. What it
prints and logs goes to
`<state_dir>/logs/worker-<name>-<pid>.log`.

Left out: how a process is made (`lab.workers.forking`), the places where it can be told to die
(`lab.workers.kill_points`), and the registry (`lab.registry`).
"""

import asyncio
import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import (
    StartedProcess,
    StartedWorker,
    stop_worker,
    take_over,
)
from workshop_lib.lab.watching.waiting import within
from workshop_lib.lab.workers import child
from workshop_lib.lab.workers.forking import Child
from workshop_lib.lab.workers.kill_points import KillPoint
from workshop_lib.lab.workers.threads import becomes_current, check_spec, with_chaos
from workshop_lib.machine import state_folder
from workshop_lib.settings import get_settings
from workshop_lib.temporal.chaos.experiment import Experiment
from workshop_lib.temporal.chaos.plan import ChaosPlan
from workshop_lib.temporal.worker import WorkerSpec


class WorkerProcess(StartedProcess, StartedWorker):
    """A worker in a process of its own.

    Attributes:
        spec: what it serves.
        log: the file that its output goes to.
        kill_at: where it kills itself, if anywhere.
        started_at: Unix seconds when it was started.
    """

    def __init__(self, spec: WorkerSpec, process: Child, log: Path, at: KillPoint | None) -> None:
        super().__init__(process, log)
        self.spec = spec
        self.kill_at = at
        self.started_at = time.time()

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"worker {self.name}"

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


async def start_process(
    spec: WorkerSpec,
    *,
    kill_at: KillPoint | str | None = None,
    chaos: ChaosPlan | Experiment | None = None,
    env: Mapping[str, str] | None = None,
    as_service: bool = False,
    timeout: float = 90,
    current: bool = True,
) -> WorkerProcess:
    """Start a worker in a process of its own, in place of the one that has its name.

    Args:
        spec: what it serves; its classes and functions must be importable.
        kill_at: where the process kills itself, as in "activity-inside@plan_next_action#1".
        chaos: in place of it: faults that happen in its work, kills among them. Of a plan a new experiment
            begins, `worker.spec.chaos`. Who is killed stays dead; `lab.chaos` starts it again.
        env: set in its environment, in addition to this process's.
        as_service: run what `python -m` of a worker runs, with its logs, metrics and grace.
        timeout: seconds until it must poll. Loading a model's library is among them, which takes 5 on
            a quiet laptop and many times that on a busy one. One that fails is noticed at once.
        current: False for a version that gets no new runs, as in `start_worker`.

    Returns:
        The process, polling.

    Raises:
        WorkshopError: something of the spec cannot be imported by another process, the kill point does
            not exist or is in nothing that the worker serves, or the worker did not start.
    """
    spec = with_chaos(check_spec(spec), chaos)
    if spec.chaos:
        if kill_at:
            raise WorkshopError(
                "A worker has a kill point or a chaos plan, not both.",
                fix="write the kill into the plan: {place: worker, at: …, when: …}.",
            )
        spec = replace(spec, chaos=replace(spec.chaos, may_kill=True))
    point = KillPoint.parse(kill_at) if isinstance(kill_at, str) else kill_at
    if point and as_service:
        raise WorkshopError(
            "A process that runs as a service has no kill points.",
            fix="start it without `as_service`, or end it with `.kill()`.",
        )
    if point and point.name != "*":
        _refuse_unknown(point, spec)
    pickled = _pickled(spec)
    await asyncio.to_thread(stop_worker, spec.name)  # before: old and new code never both poll
    logs = state_folder.made(get_settings().state_dir, "logs")
    handle, log = tempfile.mkstemp(prefix=f"worker-{spec.name}-", suffix=".log", dir=logs)
    os.close(handle)
    news, theirs = multiprocessing.Pipe(duplex=False)
    process = Child(
        child.work,
        *(spec.name, pickled, point, theirs, as_service),
        log=Path(log),
        with_models=bool(spec.warm_ups),
        env=env,
    )
    worker = WorkerProcess(spec, process, Path(log), point)

    def first_news() -> dict[str, Any] | None:
        process.start()
        theirs.close()
        return news.recv() if news.poll(timeout) else None

    try:
        await asyncio.to_thread(take_over, worker)
        # The thread has a limit of its own; this lets the Interrupt button through.
        reading = asyncio.to_thread(first_news)
        failure = await within(reading, 2 * timeout, "The worker's first word")
    except EOFError:
        failure = {"what": "The worker process ended before it could poll."}
    except BaseException:  # an Interrupt too: nothing half started stays behind
        worker.kill()
        raise
    if failure == {}:
        # The file is open in the child; only its name waited for the process id.
        worker.log = worker.log.rename(worker.log.with_name(f"worker-{spec.name}-{worker.pid}.log"))
        if current:
            await becomes_current(spec, say=None)
        return worker
    worker.kill()
    failure = failure or {"what": f"Worker process {spec.name} did not start within {timeout:g} s."}
    raise WorkshopError(
        failure["what"],
        expected=failure.get("expected"),
        fix=failure.get("fix") or f"look into {worker.log}.",
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
