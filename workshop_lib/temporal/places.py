"""Places in a worker's work, and a watcher that is told whenever one of them is passed.

The history alone cannot be watched for these places, since events are written in batches: by the time an
event is visible, the worker has moved on. So the hooks are in the worker itself: around each workflow task
(a wrapper of the workflow runner), around each activity and around each start of a Nexus operation (an
interceptor). Left out: what a watcher does then (`lab.workers.kill_points`, `temporal.chaos`), and an
operation's cancellation.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

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

from workshop_lib.temporal.worker import RESTRICTIONS

STEP_HEADER = "workshop-step"  # of an operation, where its caller counts them
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


class Step(NamedTuple):
    """A step of a run, by what is the same in every process that comes to it.

    Attributes:
        name: type of the workflow or activity, or the operation.
        workflow_id: of the run; of a Nexus start, the caller's. Empty where nobody says.
        step: id of the activity in its run; of a workflow task, the first thing that it is told; of a Nexus
            start, its number among its caller's where that counts them, else the event that scheduled it.
        attempt: of the activity, from 1; 0 where the server does not tell.
        told: all that a workflow task is told: "start", "activity 3", "operation 1 started", "operation 1",
            "timer 2", "update 1", "signal 1" … numbered as they were begun, or have come in, in this run.
            What is told together depends on the machine, so no number of events finds the same task again.
        event: the last one of the history that a workflow task brings; 0 elsewhere.
    """

    name: str
    workflow_id: str = ""
    step: str = ""
    attempt: int = 0
    told: tuple[str, ...] = ()
    event: int = 0


class Watcher(Protocol):
    """Whoever is told."""

    def awaits(self, where: Where, name: str) -> bool:
        """Whether this place matters at all. Whoever awaits `ACTIVITY_INSIDE` makes the step longer."""

    def pass_by(self, where: Where, step: Step) -> Awaitable[None] | None:
        """A place is passed. What it returns is waited for, except in a workflow task."""


def watched(watcher: Watcher) -> dict[str, Any]:
    """The options of a worker whose places are watched: its interceptors and its sandboxed runner."""
    # The first belongs outside all other interceptors of the worker, the second inside all of them.
    outside = _OuterPlaces(watcher, Where.ACTIVITY_BEFORE, Where.ACTIVITY_REPORT)
    inside = _Places(watcher, Where.ACTIVITY_INSIDE, Where.ACTIVITY_RESULT)
    runner = _Runner(watcher=watcher, restrictions=RESTRICTIONS)
    return {"interceptors": (outside, inside), "workflow_runner": runner}


def activity_step() -> Step:
    """The activity that is being worked on here."""
    info = activity.info()
    return Step(info.activity_type, info.workflow_id or "", info.activity_id, info.attempt)


def operation_step(input: ExecuteNexusOperationStartInput) -> Step:  # noqa: A002
    """The operation that a start asks for. Who calls stands in a link, which a caller could forge."""
    for link in input.ctx.inbound_links:
        url = urlsplit(link.url)
        match url.path.split("/"):
            case ["", "namespaces", _, "workflows", workflow_id, _, "history"]:
                event = parse_qs(url.query).get("eventID", [""])[0]
                step = input.ctx.headers.get(STEP_HEADER) or event
                return Step(input.ctx.operation, unquote(workflow_id), step)
    return Step(input.ctx.operation)


@dataclass(frozen=True)
class _Places(Interceptor):
    """Two places of activities: before and after what stands further inside."""

    watcher: Watcher
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
        around.pass_by = self.watcher.pass_by
        return around


class _AroundActivity(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, places: _Places) -> None:
        super().__init__(following)
        self._places = places

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        step = activity_step()
        watcher, first = self._places.watcher, self._places.first
        work: Awaitable[Any] = self.next.execute_activity(input)
        if first is Where.ACTIVITY_INSIDE and watcher.awaits(first, step.name):
            running = work = asyncio.ensure_future(work)
            try:
                await asyncio.wait([running], timeout=INSIDE_AFTER)
            except asyncio.CancelledError:
                running.cancel()
                raise
        await _passed(watcher.pass_by(first, step))
        result = await work
        await _passed(watcher.pass_by(self._places.last, step))
        return result


class _AroundOperation(NexusOperationInboundInterceptor):
    pass_by: Callable[[Where, Step], Awaitable[None] | None]

    async def execute_nexus_operation_start(
        self,
        input: ExecuteNexusOperationStartInput,  # noqa: A002
    ) -> StartOperationResultSync[Any] | StartOperationResultAsync:
        step = operation_step(input)
        await _passed(self.pass_by(Where.OPERATION_BEFORE, step))
        result = await self.next.execute_nexus_operation_start(input)
        await _passed(self.pass_by(Where.OPERATION_AFTER, step))
        return result


async def _passed(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting


@dataclass(frozen=True, kw_only=True)
class _Runner(SandboxedWorkflowRunner):
    """A sandboxed runner like any other, so that plugins can add their modules to what it lets through."""

    watcher: Watcher

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = super().create_instance(det)
        activate = instance.activate
        come_in: Counter[str] = Counter()  # updates and signals, those of a replay included

        def activate_at_places(act: WorkflowActivation) -> WorkflowActivationCompletion:
            told = tuple(_told(act, come_in))
            if not told or act.is_replaying:
                return activate(act)
            step = Step(
                det.info.workflow_type,
                det.info.workflow_id,
                told[0],
                told=told,
                event=act.history_length,
            )
            self.watcher.pass_by(Where.TASK_BEFORE, step)
            completion = activate(act)
            self.watcher.pass_by(Where.TASK_AFTER, step)
            return completion

        instance.activate = activate_at_places  # type: ignore[method-assign]
        return instance


def _told(act: WorkflowActivation, come_in: Counter[str]) -> Iterator[str]:
    """What a task is told: nothing, where the run cannot get on by it (a query, a removal from the cache).

    Of a replay that is asked for, too, since it counts. But no place is passed then: a worker that took over
    would else die at the task that its predecessor died at, and so would the next.
    """
    for job in act.jobs:
        kind = job.WhichOneof("variant") or ""
        match kind:
            case "initialize_workflow":
                yield "start"
            case "resolve_activity" | "fire_timer" | "resolve_nexus_operation":
                yield f"{kind.rpartition('_')[2]} {getattr(job, kind).seq}"
            case "resolve_nexus_operation_start":
                yield f"operation {job.resolve_nexus_operation_start.seq} started"
            case "do_update" | "signal_workflow":
                name = "update" if kind == "do_update" else "signal"
                come_in[name] += 1
                yield f"{name} {come_in[name]}"
            case "query_workflow" | "remove_from_cache" | "notify_has_patch" | "update_random_seed":
                pass
            case _:
                yield kind.replace("_", " ")
