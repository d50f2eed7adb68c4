"""Kill points: named places in a worker's work where its process can be killed with SIGKILL.

The history alone cannot be watched for these places, since events are written in batches: by the time an
event is visible, the worker has moved on. So the hooks are in the worker itself: around each workflow task
(a wrapper of the workflow runner), around each activity and around each start of a Nexus operation (an
interceptor). Left out: starting the process that dies (`process`), and an operation's cancellation.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nexusrpc.handler import StartOperationResultAsync, StartOperationResultSync
from temporalio import activity
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteNexusOperationStartInput,
    Interceptor,
    NexusOperationInboundInterceptor,
    WorkflowInstance,
    WorkflowInstanceDetails,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from workshop_lib.errors import WorkshopError
from workshop_lib.temporal.worker import RESTRICTIONS

INSIDE_AFTER = 0.05  # seconds of work after which an activity counts as being in the midst of it


class Where(StrEnum):
    """The places, in the order in which a step passes them."""

    TASK_BEFORE = "workflow-task-before"  # the task has arrived, workflow code has not run
    TASK_AFTER = "workflow-task-after"  # workflow code has decided, the server has not heard
    ACTIVITY_BEFORE = "activity-before"  # the activity has arrived, its function has not begun
    # Its function has been at work for `INSIDE_AFTER`, or has just finished:
    ACTIVITY_INSIDE = "activity-inside"
    ACTIVITY_RESULT = "activity-result"  # its function has returned to the innermost interceptor
    ACTIVITY_REPORT = "activity-report"  # only the report to the server is missing
    OPERATION_BEFORE = "operation-before"  # a Nexus start has arrived, its handler has not begun
    OPERATION_AFTER = "operation-after"  # the handler has started its workflow, nobody has heard


@dataclass(frozen=True)
class KillPoint:
    """Where a worker process dies.

    Attributes:
        where: the place.
        name: type of the workflow or activity, or the operation; "*" for any.
        occurrence: 1 for the first time that this process passes the place.

    Written as `activity-inside@plan_next_action#2`.
    """

    where: Where
    name: str = "*"
    occurrence: int = 1

    def __str__(self) -> str:
        return f"{self.where}@{self.name}#{self.occurrence}"

    @classmethod
    def parse(cls, text: str) -> "KillPoint":
        """Read the written form; name and occurrence may be left out.

        Raises:
            WorkshopError: there is no such place, or the occurrence is not a number from 1.
        """
        place, _, number = text.strip().partition("#")
        where, _, name = place.partition("@")
        try:
            occurrence = int(number or "1")
            if occurrence < 1:
                raise ValueError
            return cls(Where(where), name or "*", occurrence)
        except ValueError:
            raise WorkshopError(
                f"{text!r} is not a kill point.",
                expected=f"one of {', '.join(Where)}, as in {Where.ACTIVITY_INSIDE}@plan_next_action#1.",
            ) from None


class Executioner:
    """Counts how often the place is passed and kills the process when it is time.

    Args:
        kill: what happens then; by default SIGKILL to this very process.
    """

    def __init__(self, point: KillPoint, kill: Callable[[], None] | None = None) -> None:
        self._point = point
        self._kill = kill or (lambda: os.kill(os.getpid(), signal.SIGKILL))
        self._passed = 0
        self._lock = threading.Lock()  # workflow tasks run in threads

    def awaits(self, where: Where, name: str) -> bool:
        """True where this place matters at all."""
        return where is self._point.where and self._point.name in ("*", name)

    def pass_by(self, where: Where, name: str) -> None:
        """Say that a place is passed. Does not return if this was the one."""
        if not self.awaits(where, name):
            return
        with self._lock:
            self._passed += 1
            now = self._passed == self._point.occurrence
        if now:
            self._kill()


def worker_options(point: KillPoint) -> dict[str, Any]:
    """The options of a worker that has these places: its interceptors and its sandboxed runner."""
    executioner = Executioner(point)
    # The first belongs outside all other interceptors of the worker, the second inside all of them.
    outside = _OuterPlaces(executioner, Where.ACTIVITY_BEFORE, Where.ACTIVITY_REPORT)
    inside = _Places(executioner, Where.ACTIVITY_INSIDE, Where.ACTIVITY_RESULT)
    runner = _Runner(executioner=executioner, restrictions=RESTRICTIONS)
    return {"interceptors": (outside, inside), "workflow_runner": runner}


def kill_points(
    workflows: Sequence[str], activities: Sequence[str], operations: Sequence[str] = ()
) -> list[KillPoint]:
    """Every place that these workflows, activities and operations pass, at its first occurrence."""
    tasks = (Where.TASK_BEFORE, Where.TASK_AFTER)
    starts = (Where.OPERATION_BEFORE, Where.OPERATION_AFTER)
    steps = tuple(where for where in Where if where not in (*tasks, *starts))
    passed = ((workflows, tasks), (activities, steps), (operations, starts))
    return [
        KillPoint(where, name) for names, places in passed for name in names for where in places
    ]


@dataclass(frozen=True)
class _Places(Interceptor):
    """Two places of activities: before and after what stands further inside."""

    executioner: Executioner
    first: Where
    last: Where

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _AroundActivity(next, self)


class _OuterPlaces(_Places):
    """The outermost interceptor has the places of operations too: these need no second one."""

    def intercept_nexus_operation(
        self,
        next: NexusOperationInboundInterceptor,  # noqa: A002
    ) -> NexusOperationInboundInterceptor:
        around = _AroundOperation(next)
        around.pass_by = self.executioner.pass_by
        return around


class _AroundActivity(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, places: _Places) -> None:
        super().__init__(following)
        self._places = places

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        name = activity.info().activity_type
        executioner, first = self._places.executioner, self._places.first
        work: Awaitable[Any] = self.next.execute_activity(input)
        if first is Where.ACTIVITY_INSIDE and executioner.awaits(first, name):
            running = work = asyncio.ensure_future(work)
            try:
                await asyncio.wait([running], timeout=INSIDE_AFTER)
            except asyncio.CancelledError:
                running.cancel()
                raise
        executioner.pass_by(first, name)
        result = await work
        executioner.pass_by(self._places.last, name)
        return result


class _AroundOperation(NexusOperationInboundInterceptor):
    pass_by: Callable[[Where, str], None]

    async def execute_nexus_operation_start(
        self,
        input: ExecuteNexusOperationStartInput,  # noqa: A002
    ) -> StartOperationResultSync[Any] | StartOperationResultAsync:
        self.pass_by(Where.OPERATION_BEFORE, input.ctx.operation)
        result = await self.next.execute_nexus_operation_start(input)
        self.pass_by(Where.OPERATION_AFTER, input.ctx.operation)
        return result


@dataclass(frozen=True, kw_only=True)
class _Runner(SandboxedWorkflowRunner):
    """A sandboxed runner like any other, so that plugins can add their modules to what it lets through."""

    executioner: Executioner

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = super().create_instance(det)
        name, activate = det.info.workflow_type, instance.activate

        def activate_at_places(act: WorkflowActivation) -> WorkflowActivationCompletion:
            if not _is_progress(act):
                return activate(act)
            self.executioner.pass_by(Where.TASK_BEFORE, name)
            completion = activate(act)
            self.executioner.pass_by(Where.TASK_AFTER, name)
            return completion

        instance.activate = activate_at_places  # type: ignore[method-assign]
        return instance


def _is_progress(act: WorkflowActivation) -> bool:
    """Whether the run can get on by it: a replay, a query and a removal from the cache are no such steps.

    A worker that took over and counted the tasks that it replays would die at the one that its predecessor
    died at, and so would the next.
    """
    kinds = {job.WhichOneof("variant") for job in act.jobs}
    return not act.is_replaying and not kinds <= {"query_workflow", "remove_from_cache"}
