"""What a run that is not done is waiting for, and whether anybody is there to do it.

One look at a run gives a `Situation`: what is pending, in words, and what is wrong. Left out: waiting
(`lab.watching.waiting`).
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

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
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import identity_alive
from workshop_lib.lab.watching.failures import root_failure
from workshop_lib.lab.watching.listening import TaskFailure, last_task_failure
from workshop_lib.lab.watching.queues import look_at_queue
from workshop_lib.temporal.lookup import ACTIVITY, NEXUS, WORKFLOW, Kind, find_endpoint

UNSERVED_AFTER = 2.0  # seconds that a task lies in its queue before we ask who polls it
SETTLED = 0.5  # seconds after which an attempt that began has failed rather than not yet succeeded
MANY_ATTEMPTS = 3  # an activity that has come to this attempt "keeps failing"
UNANSWERED_AFTER = 3.0  # seconds after which the worker that took a workflow task may be gone
LONG_PAUSE = 3.0  # and so does one whose next attempt is further off than this many seconds


@dataclass
class Situation:
    """One look at a run.

    Attributes:
        waits_for: what is pending, a phrase each.
        stuck: why its workflow task fails, if it does.
        unserved: namespace and queue that hold a task and that nobody polls.
        troubles: things that fail and are tried again: a stable key and what to say about it.
        failing: the first of these that fails each time it is tried.
        ended: the run is over.
    """

    waits_for: list[str] = field(default_factory=list)
    stuck: TaskFailure | None = None
    unserved: tuple[str, str] | None = None
    troubles: dict[str, str] = field(default_factory=dict)
    failing: str | None = None
    ended: bool = False

    def keeps_failing(self, key: str, text: str) -> None:
        """Note what fails each time it is tried."""
        self.troubles[key] = text
        self.failing = self.failing or text


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
    situation = Situation(ended=described.workflow_execution_info.HasField("close_time"))
    now = _clock_of(described)
    await _look_at_workflow_task(client, described, situation, now)
    queue = described.workflow_execution_info.task_queue
    if asks and not situation.ended:
        situation.unserved = await _unserved(client, client.namespace, queue, WORKFLOW)
    for activity in described.pending_activities:
        await _look_at_activity(client, activity, situation, now)
    for operation in described.pending_nexus_operations:
        _look_at_operation(operation, situation)
        if doors and not situation.unserved:
            with contextlib.suppress(RPCError):  # this client may not look behind every door
                situation.unserved = await _nobody_behind(client, operation, now)
    for child in described.pending_children if depth else ():
        situation.waits_for.append(f"child workflow {child.workflow_id}")
        below = await look(client, child.workflow_id, child.run_id, depth - 1, doors=doors)
        situation.stuck = situation.stuck or below.stuck
        situation.unserved = situation.unserved or below.unserved
        situation.failing = situation.failing or below.failing
        situation.troubles |= below.troubles
        situation.waits_for += below.waits_for
    return situation


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
                found = await look(handle._client, handle.id, handle.run_id or "")
            lines = _said(found) or ["nothing is pending"]
        except TimeoutError:
            lines = ["the server has not said it yet"]
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            lines = [f"there is no run {handle.id} yet"]  # its first message is just being sent
        if any(until in line for line in lines) or now() >= end:
            return lines
        await asyncio.sleep(0.2)  # the server has no event for what is pending


def _said(found: Situation) -> list[str]:
    lines = [f"waits for {what}" for what in found.waits_for] + [*found.troubles.values()]
    if found.stuck:
        lines.append(f"its workflow task fails: {found.stuck.message}")
    if found.unserved:
        lines.append("nobody polls {1} in {0}".format(*found.unserved))
    return lines


async def describe_endpoint(client: Client, name: str, timeout: float = 10) -> str:
    """Where a Nexus endpoint leads, and whether a living worker polls there.

    Raises:
        WorkshopError: there is no such endpoint.
    """
    async with asyncio.timeout(timeout):
        found = await find_endpoint(client, name)
        if found is None:
            raise WorkshopError(
                f"There is no endpoint {name!r}.",
                fix="`await lab.start()` makes the workshop's own.",
            )
        target = found.spec.target.worker
        queue = await look_at_queue(client, target.namespace, target.task_queue, NEXUS)
    who = f"polled by {', '.join(queue.living)}" if queue.living else "nobody polls there"
    return f"{name} → {target.namespace} / {target.task_queue} · {who}"


async def _look_at_workflow_task(
    client: Client, described: DescribeWorkflowExecutionResponse, situation: Situation, now: float
) -> None:
    if not described.HasField("pending_workflow_task"):
        return
    task = described.pending_workflow_task
    situation.waits_for.append(f"a workflow task, attempt {task.attempt}")
    info = described.workflow_execution_info
    started = task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
    if not started and _age(task.scheduled_time, now) > UNSERVED_AFTER:
        place = client.namespace, info.task_queue
        situation.unserved = await _unserved(client, *place, WORKFLOW)
    if task.attempt > 1 and started and _age(task.started_time, now) > SETTLED:
        failure = await last_task_failure(client, info.execution.workflow_id, info.execution.run_id)
        situation.stuck = failure
    if started and not situation.stuck and _age(task.started_time, now) > UNANSWERED_AFTER:
        # Who took it is not known; one that was stopped or killed in that moment never answers.
        situation.troubles[f"task of {info.execution.run_id} unanswered"] = (
            "a worker took the workflow task and has not answered; if it was stopped or killed meanwhile, "
            "the server gives the task to another one, ten seconds after the first took it"
        )


async def _look_at_activity(
    client: Client, activity: PendingActivityInfo, situation: Situation, now: float
) -> None:
    name, queue = activity.activity_type.name, activity.activity_options.task_queue.name
    situation.waits_for.append(f"activity {name}, attempt {activity.attempt}")
    started = activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
    lost = started and not identity_alive(activity.last_worker_identity)
    next_in = -_age(activity.next_attempt_schedule_time, now) if not started else 0.0
    if lost:
        situation.troubles[f"{activity.activity_id} lost"] = (
            f"activity {name} was begun by worker {activity.last_worker_identity}, which is gone; the "
            "server gives it to another one when its timeout is over"
        )
    if queue and (lost or (not started and _age(activity.scheduled_time, now) > UNSERVED_AFTER)):
        unserved = await _unserved(client, client.namespace, queue, ACTIVITY)
        situation.unserved = unserved or situation.unserved
    keeps_failing = activity.attempt >= MANY_ATTEMPTS or next_in > LONG_PAUSE
    if activity.HasField("last_failure") and activity.attempt > 1 and keeps_failing:
        kind_of_error, message, line = root_failure(activity.last_failure)
        most = f" of {activity.maximum_attempts}" if activity.maximum_attempts else ", no limit"
        soon = f"again in {next_in:.0f} s" if next_in >= 1 else "again now"
        said = f"{kind_of_error}: {message}" if kind_of_error else message
        failed = _failed_attempts(activity.attempt - 1)
        situation.keeps_failing(
            activity.activity_id,
            f"activity {name} keeps failing ({failed}{most}, {soon}): {said}"
            + (f"\nIn {line}" if line else ""),
        )


def _look_at_operation(operation: PendingNexusOperationInfo, situation: Situation) -> None:
    name = f"Nexus operation {operation.operation} of endpoint {operation.endpoint}"
    if operation.state == PendingNexusOperationState.PENDING_NEXUS_OPERATION_STATE_STARTED:
        situation.waits_for.append(f"{name}, which the other team has begun")
        return
    # Unlike an activity's, its attempts are counted when they are over.
    failed = _failed_attempts(operation.attempt)
    situation.waits_for.append(f"{name}, {failed}")
    if operation.state == PendingNexusOperationState.PENDING_NEXUS_OPERATION_STATE_BLOCKED:
        situation.troubles[f"{operation.operation_id} blocked"] = (
            f"{name} is held back for some seconds, as the server does after a row of failed attempts: "
            f"{operation.blocked_reason}"
        )
    elif operation.HasField("last_attempt_failure"):
        _, message, _ = root_failure(operation.last_attempt_failure)
        situation.keeps_failing(
            f"{operation.scheduled_event_id} failing", f"{name} keeps failing ({failed}): {message}"
        )


def _failed_attempts(count: int) -> str:
    return f"{count or 'no'} failed attempt{'' if count == 1 else 's'}{'' if count else ' yet'}"


async def _nobody_behind(
    client: Client, operation: PendingNexusOperationInfo, now: float
) -> tuple[str, str] | None:
    """Namespace and queue that an endpoint leads to, where nobody polls there."""
    if _age(operation.scheduled_time, now) <= UNSERVED_AFTER:
        return None
    found = await find_endpoint(client, operation.endpoint)
    target = found.spec.target.worker if found else None
    if not target or not target.namespace:
        return None
    # What has begun is a workflow; what has not waits for a handler.
    begun = operation.state == PendingNexusOperationState.PENDING_NEXUS_OPERATION_STATE_STARTED
    kind = WORKFLOW if begun else NEXUS
    return await _unserved(client, target.namespace, target.task_queue, kind)


async def _unserved(
    client: Client, namespace: str, queue: str, kind: Kind
) -> tuple[str, str] | None:
    """A queue's namespace and name, where no living worker polls it."""
    looked = await look_at_queue(client, namespace, queue, kind)
    return None if looked.living else (namespace, queue)


def _clock_of(described: DescribeWorkflowExecutionResponse) -> float:
    """What a run's own clock says, in Unix seconds: it is ahead where a lesson has let time pass."""
    extended = described.workflow_extended_info
    if extended.HasField("time_skipping_info"):
        return extended.time_skipping_info.current_time.ToNanoseconds() / 1e9
    return time.time()


def _age(moment: Timestamp, now: float) -> float:
    """Seconds since a moment; 0 for one that is not set, negative for one to come."""
    return now - moment.ToNanoseconds() / 1e9 if moment.seconds else 0.0
