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
from collections.abc import Callable, Sequence
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
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import Info

from workshop_lib.errors import WorkshopError
from workshop_lib.temporal.worker import RESTRICTIONS

INSIDE_AFTER = 0.05  # seconds of work after which an activity counts as being in the midst of it


class Where(StrEnum):
    """The places, in the order in which a step passes them."""

    TASK_BEFORE = "workflow-task-before"  # the task has arrived, workflow code has not run
    TASK_AFTER = "workflow-task-after"  # workflow code has decided, the server has not heard
    ACTIVITY_BEFORE = "activity-before"  # the activity has arrived, its function has not begun
    ACTIVITY_INSIDE = (
        "activity-inside"  # its function has been at work for `INSIDE_AFTER`, or has just finished
    )
    ACTIVITY_RESULT = "activity-result"  # its function has returned to the innermost interceptor
    ACTIVITY_REPORT = (
        "activity-report"  # the interceptors are done; only the report to the server is missing
    )
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


def interceptors_for(
    point: KillPoint, executioner: Executioner | None = None
) -> tuple[Interceptor, Interceptor]:
    """The interceptors that put the places of activities and operations into a worker.

    The first belongs outside all other interceptors of the worker, the second inside all of them.
    """
    executioner = executioner or Executioner(point)
    return (
        _KillOutside(executioner, Where.ACTIVITY_BEFORE, Where.ACTIVITY_REPORT),
        _KillInActivities(executioner, Where.ACTIVITY_INSIDE, Where.ACTIVITY_RESULT),
    )


def runner_for(point: KillPoint, executioner: Executioner | None = None) -> WorkflowRunner:
    """The sandboxed runner with the workflow task places around it."""
    return _KillInWorkflowTasks(
        executioner=executioner or Executioner(point), restrictions=RESTRICTIONS
    )


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


class _KillInActivities(Interceptor):
    def __init__(self, executioner: Executioner, first: Where, last: Where) -> None:
        self._executioner = executioner
        self._first = first
        self._last = last

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _ActivityPlaces(next, self._executioner, self._first, self._last)


class _KillOutside(_KillInActivities):
    """The outermost interceptor has the places of operations too: these need no second one."""

    def intercept_nexus_operation(
        self,
        next: NexusOperationInboundInterceptor,  # noqa: A002
    ) -> NexusOperationInboundInterceptor:
        return _OperationPlaces(next, self._executioner)


class _OperationPlaces(NexusOperationInboundInterceptor):
    def __init__(
        self, following: NexusOperationInboundInterceptor, executioner: Executioner
    ) -> None:
        super().__init__(following)
        self._executioner = executioner

    async def execute_nexus_operation_start(
        self,
        input: ExecuteNexusOperationStartInput,  # noqa: A002
    ) -> StartOperationResultSync[Any] | StartOperationResultAsync:
        self._executioner.pass_by(Where.OPERATION_BEFORE, input.ctx.operation)
        result = await self.next.execute_nexus_operation_start(input)
        self._executioner.pass_by(Where.OPERATION_AFTER, input.ctx.operation)
        return result


class _ActivityPlaces(ActivityInboundInterceptor):
    def __init__(
        self,
        following: ActivityInboundInterceptor,
        executioner: Executioner,
        first: Where,
        last: Where,
    ) -> None:
        super().__init__(following)
        self._executioner = executioner
        self._first = first
        self._last = last

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        name = activity.info().activity_type
        if self._first is Where.ACTIVITY_INSIDE and self._executioner.awaits(self._first, name):
            running = asyncio.ensure_future(self.next.execute_activity(input))
            try:
                await asyncio.wait([running], timeout=INSIDE_AFTER)
            except asyncio.CancelledError:
                running.cancel()
                raise
            self._executioner.pass_by(self._first, name)
            result = await running
        else:
            self._executioner.pass_by(self._first, name)
            result = await self.next.execute_activity(input)
        self._executioner.pass_by(self._last, name)
        return result


@dataclass(frozen=True, kw_only=True)
class _KillInWorkflowTasks(SandboxedWorkflowRunner):
    """A sandboxed runner like any other, so that plugins can add their modules to what it lets through."""

    executioner: Executioner

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = super().create_instance(det)
        # An instance for validation only never gets a task.
        return _TaskPlaces(instance, det.info.workflow_type, self.executioner)


class _TaskPlaces(WorkflowInstance):
    def __init__(self, inner: WorkflowInstance, name: str, executioner: Executioner) -> None:
        self._inner = inner
        self._name = name
        self._executioner = executioner

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        if not _is_progress(act):
            return self._inner.activate(act)
        self._executioner.pass_by(Where.TASK_BEFORE, self._name)
        completion = self._inner.activate(act)
        self._executioner.pass_by(Where.TASK_AFTER, self._name)
        return completion

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._inner.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._inner.get_external_store_context(command_info)

    def get_info(self) -> Info:
        return self._inner.get_info()

    def get_thread_id(self) -> int | None:
        return self._inner.get_thread_id()


def _is_progress(act: WorkflowActivation) -> bool:
    """Whether the run can get on by it: a replay, a query and a removal from the cache are no such steps.

    A worker that took over and counted the tasks that it replays would die at the one that its predecessor
    died at, and so would the next.
    """
    kinds = {job.WhichOneof("variant") for job in act.jobs}
    return not act.is_replaying and not kinds <= {"query_workflow", "remove_from_cache"}
