"""What a run that is not done is waiting for, and whether anybody is there to do it.

One look at a run gives a `Situation`: what is pending, in words, and what is wrong. Left out: waiting
(`lab.watching.waiting`).
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import (
    PendingActivityState,
    PendingNexusOperationState,
    PendingWorkflowTaskState,
)
from temporalio.api.workflow.v1 import PendingActivityInfo, PendingNexusOperationInfo
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
)
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib import harmless
from workshop_lib.lab.history import decode
from workshop_lib.lab.registry import identity_alive
from workshop_lib.lab.server.dev_server import BREAKER_PAUSE
from workshop_lib.lab.server.namespaces import known_endpoint
from workshop_lib.lab.watching.failures import root_failure
from workshop_lib.lab.watching.listening import TaskFailure, last_task_failure
from workshop_lib.lab.watching.queues import look_at_queue
from workshop_lib.temporal.lookup import ACTIVITY, NEXUS, WAITS, WORKFLOW, Kind, find_endpoint
from workshop_lib.temporal.versions import in_words, wanted

UNSERVED_AFTER = 2.0  # seconds that a task lies in its queue before we ask who polls it
SETTLED = 0.5  # seconds after which an attempt that began has failed rather than not yet succeeded
MANY_ATTEMPTS = 3  # an activity that has come to this attempt "keeps failing"
UNANSWERED_AFTER = 3.0  # seconds after which the worker that took a workflow task may be gone
LONG_PAUSE = 3.0  # and so does one whose next attempt is further off than this many seconds

_TASK_STARTED = PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
_ACTIVITY_STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
_OPERATION_STARTED = PendingNexusOperationState.PENDING_NEXUS_OPERATION_STATE_STARTED
_OPERATION_BLOCKED = PendingNexusOperationState.PENDING_NEXUS_OPERATION_STATE_BLOCKED


@dataclass(kw_only=True)
class Situation:
    """One look at a run, or at a part of it.

    Attributes:
        waits_for: what is pending, a phrase each.
        stuck: why its workflow task fails, if it does.
        pinned: the version that the run is on, where its code has versions.
        unserved: where a task lies that nobody polls for.
        troubles: things that fail and are tried again: a stable key and what to say about it.
        failing: the first of these that fails each time it is tried.
        ended: the run is over.
    """

    waits_for: list[str] = field(default_factory=list)
    stuck: TaskFailure | None = None
    pinned: WorkerDeploymentVersion | None = None
    unserved: "Unserved | None" = None
    troubles: dict[str, str] = field(default_factory=dict)
    failing: str | None = None
    ended: bool = False

    @property
    def unsaid_troubles(self) -> list[str]:
        """Those that `waits_for` does not say as well."""
        return [said for key, said in self.troubles.items() if key != WAITS]

    @property
    def lines(self) -> list[str]:
        """All of it, a line each."""
        lines = [f"waits for {what}" for what in self.waits_for]
        lines += self.unsaid_troubles
        if self.stuck:
            lines.append(f"its workflow task fails: {self.stuck.message}")
        if self.stuck and self.pinned:
            lines.append(f"it is pinned to {in_words(self.pinned)}: no other version gets its task")
        if self.unserved:
            lines.append(f"nobody polls {self.unserved.what} in {self.unserved.namespace}")
        return lines


class Unserved(NamedTuple):
    """A task queue that nobody polls, or nobody of the version that is asked for."""

    namespace: str
    queue: str
    version: WorkerDeploymentVersion | None = None

    @property
    def what(self) -> str:
        """The queue, and the version."""
        return self.queue + (f" for {in_words(self.version)}" if self.version else "")


def _together(parts: Iterable[Situation], *, ended: bool) -> Situation:
    """What parts come to; of what there can be one of only, the first part's."""
    whole = Situation(ended=ended)
    for part in parts:
        whole.waits_for += part.waits_for
        whole.troubles |= part.troubles
        if part.stuck and not whole.stuck:
            whole.stuck, whole.pinned = part.stuck, part.pinned
        whole.unserved = whole.unserved or part.unserved
        whole.failing = whole.failing or part.failing
    return whole


async def look(
    client: Client,
    workflow_id: str,
    run_id: str = "",
    depth: int = 1,
    *,
    doors: bool = False,
    asks: bool = False,
) -> Situation:
    """Look at a run, and at its children.

    Args:
        doors: look behind the endpoints too: who polls where a pending operation leads?
        asks: somebody wants an answer of the run's own worker, whatever the run waits for.

    Raises:
        RPCError: the server does not answer, or has no such run.
    """
    run = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
    described = await client.workflow_service.describe_workflow_execution(
        DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=run)
    )
    info, now = described.workflow_execution_info, _clock_of(described)
    ended = info.HasField("close_time")
    parts = [await _workflow_task(client, described, now)]
    version = wanted(info.versioning_info)
    if asks and not ended:
        unserved = await _unserved(client, info.task_queue, WORKFLOW, version=version)
        parts.append(Situation(unserved=unserved))
    if told := decode(info.memo.fields[WAITS]) if WAITS in info.memo.fields else "":
        parts.append(
            Situation(waits_for=[told], troubles={WAITS: harmless.line(f"It waits for {told}")})
        )
    parts += [await _activity(client, one, now, version) for one in described.pending_activities]
    for operation in described.pending_nexus_operations:
        parts.append(_operation(operation, now))
        if doors:
            with contextlib.suppress(RPCError):  # this client may not look behind every door
                parts.append(Situation(unserved=await _nobody_behind(client, operation, now)))
    for child in described.pending_children if depth else ():
        parts.append(Situation(waits_for=[f"child workflow {child.workflow_id}"]))
        parts.append(await look(client, child.workflow_id, child.run_id, depth - 1, doors=doors))
    return _together(parts, ended=ended)


async def waits_for(
    handle: WorkflowHandle[Any, Any], *, until: str = "", timeout: float = 10
) -> list[str]:
    """What a run is waiting for right now, and what is wrong with it, a line each.

    Args:
        until: look again until a line holds this text.
        timeout: seconds that this may take; what was seen last is returned then.
    """
    now = asyncio.get_running_loop().time
    end = now() + timeout
    while True:
        try:
            async with asyncio.timeout(5):
                situation = await look(handle._client, handle.id, handle.run_id or "")
            lines = situation.lines or ["nothing is pending"]
        except TimeoutError:
            lines = ["the server has not said it yet"]
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            lines = [f"there is no run {handle.id} yet"]  # its first message is just being sent
        if any(until in line for line in lines) or now() >= end:
            return lines
        await asyncio.sleep(0.2)  # the server has no event for what is pending


async def describe_endpoint(client: Client, name: str, timeout: float = 10) -> str:
    """Where a Nexus endpoint leads, and whether a living worker polls there.

    Raises:
        WorkshopError: there is no such endpoint.
    """
    async with asyncio.timeout(timeout):
        target = (await known_endpoint(client, name)).spec.target.worker
        queue = await look_at_queue(client, target.namespace, target.task_queue, NEXUS)
    who = f"polled by {', '.join(queue.living)}" if queue.living else "nobody polls there"
    return f"{name} → {target.namespace} / {target.task_queue} · {who}"


async def _workflow_task(
    client: Client, described: DescribeWorkflowExecutionResponse, now: float
) -> Situation:
    if not described.HasField("pending_workflow_task"):
        return Situation()
    task, info = described.pending_workflow_task, described.workflow_execution_info
    run, version = info.execution, wanted(info.versioning_info)
    situation = Situation(waits_for=[f"a workflow task, attempt {task.attempt}"], pinned=version)
    if task.state != _TASK_STARTED:
        if _age(task.scheduled_time, now) > UNSERVED_AFTER:
            situation.unserved = await _unserved(client, info.task_queue, WORKFLOW, version=version)
        return situation
    since = _age(task.started_time, now)
    if task.attempt > 1 and since > SETTLED:
        situation.stuck = await last_task_failure(client, run.workflow_id, run.run_id)
    if not situation.stuck and since > UNANSWERED_AFTER:
        # Who took it is not known; one that was stopped or killed in that moment never answers.
        situation.troubles[f"task of {run.run_id} unanswered"] = (
            "a worker took the workflow task and has not answered; if it was stopped or killed meanwhile, "
            "the server gives the task to another one, ten seconds after the first took it"
        )
    return situation


async def _activity(
    client: Client,
    activity: PendingActivityInfo,
    now: float,
    version: WorkerDeploymentVersion | None,
) -> Situation:
    name, queue = activity.activity_type.name, activity.activity_options.task_queue.name
    situation = Situation(waits_for=[f"activity {name}, attempt {activity.attempt}"])
    started = activity.state == _ACTIVITY_STARTED
    lost = started and not identity_alive(activity.last_worker_identity)
    next_in = -_age(activity.next_attempt_schedule_time, now) if not started else 0.0
    if lost:
        situation.troubles[f"{activity.activity_id} lost"] = (
            f"activity {name} was begun by worker {activity.last_worker_identity}, which is gone; the "
            "server gives it to another one when its timeout is over"
        )
    if queue and (lost or (not started and _age(activity.scheduled_time, now) > UNSERVED_AFTER)):
        situation.unserved = await _unserved(client, queue, ACTIVITY, version=version)
    keeps_failing = activity.attempt >= MANY_ATTEMPTS or next_in > LONG_PAUSE
    if activity.HasField("last_failure") and activity.attempt > 1 and keeps_failing:
        kind, message, line = root_failure(activity.last_failure)
        most = f" of {activity.maximum_attempts}" if activity.maximum_attempts else ", no limit"
        soon = f"again in {next_in:.0f} s" if next_in >= 1 else "again now"
        failed = _failed_attempts(activity.attempt - 1)
        situation.failing = (
            f"activity {name} keeps failing ({failed}{most}, {soon}): "
            + (f"{kind}: {message}" if kind else message)
            + (f"\nIn {line}" if line else "")
        )
        situation.troubles[activity.activity_id] = situation.failing
    return situation


def _operation(operation: PendingNexusOperationInfo, now: float) -> Situation:
    name = f"Nexus operation {operation.operation} of endpoint {operation.endpoint}"
    if operation.state == _OPERATION_STARTED:
        return Situation(waits_for=[f"{name}, which the other team has begun"])
    # Unlike an activity's, its attempts are counted when they are over.
    failed = _failed_attempts(operation.attempt)
    _, message, _ = root_failure(operation.last_attempt_failure)
    if operation.state == _OPERATION_BLOCKED:
        # When it closes the server does not say; it counts from when it first held a call back.
        since = _age(operation.last_attempt_complete_time, now)
        last = f", the last {since:.0f} s ago: {message}" if message else ""
        reason = operation.blocked_reason.strip().rstrip(".") or "it does not say why"
        situation = Situation(waits_for=[f"{name}, {failed}, held back by the server"])
        situation.troubles[f"{operation.scheduled_event_id} blocked"] = (
            f"{name} is held back by the server, with all others of its endpoint ({reason}), after "
            f"{failed}{last}\nOne of them tries when the pause is over ({BREAKER_PAUSE} s here, by default a "
            "minute). Where it succeeds, all go on."
        )
        return situation
    next_in = -_age(operation.next_attempt_schedule_time, now)
    soon = f", again in {max(next_in, 0):.0f} s" if next_in else ""
    situation = Situation(waits_for=[f"{name}, {failed}{soon}"])
    if operation.HasField("last_attempt_failure"):
        situation.failing = f"{name} keeps failing ({failed}{soon}): {message}"
        situation.troubles[f"{operation.scheduled_event_id} failing"] = situation.failing
    return situation


def _failed_attempts(count: int) -> str:
    return f"{count or 'no'} failed attempt{'' if count == 1 else 's'}{'' if count else ' yet'}"


async def _nobody_behind(
    client: Client, operation: PendingNexusOperationInfo, now: float
) -> Unserved | None:
    """The queue that an endpoint leads to, where nobody polls there."""
    if _age(operation.scheduled_time, now) <= UNSERVED_AFTER:
        return None
    endpoint = await find_endpoint(client, operation.endpoint)
    target = endpoint.spec.target.worker if endpoint else None
    if not target or not target.namespace:
        return None
    # What has begun is a workflow; what has not waits for a handler.
    kind = WORKFLOW if operation.state == _OPERATION_STARTED else NEXUS
    return await _unserved(client, target.task_queue, kind, target.namespace)


async def _unserved(
    client: Client,
    queue: str,
    kind: Kind,
    namespace: str = "",
    version: WorkerDeploymentVersion | None = None,
) -> Unserved | None:
    """A queue, where no living worker polls it; or none of a version, and where that is not said, of the
    version that the server sends runs to."""
    looked = await look_at_queue(client, namespace or client.namespace, queue, kind)
    version = (version or looked.current) if looked.current or looked.versions else None
    return None if looked.living_of(version) else Unserved(looked.namespace, queue, version)


def _clock_of(described: DescribeWorkflowExecutionResponse) -> float:
    """What a run's own clock says, in Unix seconds: it is ahead where a lesson has let time pass."""
    extended = described.workflow_extended_info
    if extended.HasField("time_skipping_info"):
        return extended.time_skipping_info.current_time.ToNanoseconds() / 1e9
    return time.time()


def _age(moment: Timestamp, now: float) -> float:
    """Seconds since a moment; 0 for one that is not set, negative for one to come."""
    return now - moment.ToNanoseconds() / 1e9 if moment.seconds else 0.0
