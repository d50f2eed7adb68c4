"""What checks read from an event history: which activities ran, in which attempt, on which worker."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.converter import DefaultPayloadConverter


@dataclass
class ActivityRun:
    """One activity of a run.

    Attributes:
        name: its type.
        input: its first argument as plain JSON, or None.
        attempts: how often it was handed to a worker; known once the activity is over.
        worker: identity of the worker that the last attempt was handed to.
        lost: True if the attempt before the last was lost: nobody reported in time how it ended.
        failed_with: the type of the error that the attempt before the last reported, or "".
        completed: True if a result is in the history.
        result: that result as plain JSON, or None.
    """

    name: str
    input: Any = None
    attempts: int = 0
    worker: str = ""
    lost: bool = False
    failed_with: str = ""
    completed: bool = False
    result: Any = None


@dataclass
class Evidence:
    """A run as its history tells it.

    Attributes:
        activities: in the order in which the workflow scheduled them.
        workers: identities of those who ran its workflow tasks, each once, in order.
        asked, answered: how many updates, such as a chat's messages, it has accepted and completed.
        signals: names of the signals that have reached it, in order.
        status: "completed", "running", "failed" …
    """

    activities: list[ActivityRun] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    asked: int = 0
    answered: int = 0
    signals: list[str] = field(default_factory=list)
    status: str = "running"

    def named(self, name: str) -> list[ActivityRun]:
        """The activities of one type."""
        return [run for run in self.activities if run.name == name]

    @property
    def lost(self) -> list[ActivityRun]:
        """The activities that were lost with their worker and had to be handed out again.

        A workflow task that timed out is no such evidence: a worker that is merely replaced leaves one, too.
        """
        return [run for run in self.activities if run.lost]


async def evidence(handle: WorkflowHandle[Any, Any], timeout: float = 10) -> Evidence:
    """Read a run's history."""
    async with asyncio.timeout(timeout):
        history = await handle.fetch_history()
    found = Evidence()
    by_event: dict[int, ActivityRun] = {}
    for event in history.events:
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                scheduled = event.activity_task_scheduled_event_attributes
                run = ActivityRun(scheduled.activity_type.name, _first(scheduled.input.payloads))
                by_event[event.event_id] = run
                found.activities.append(run)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                started = event.activity_task_started_event_attributes
                run, failure = by_event[started.scheduled_event_id], started.last_failure
                run.attempts, run.worker = started.attempt, started.identity
                run.lost = failure.HasField("timeout_failure_info")
                run.failed_with = failure.application_failure_info.type
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                by_event[done.scheduled_event_id].completed = True
                by_event[done.scheduled_event_id].result = _first(done.result.payloads)
            case EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                identity = event.workflow_task_started_event_attributes.identity
                if identity not in found.workers:
                    found.workers.append(identity)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                found.asked += 1
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
                found.answered += 1
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                signaled = event.workflow_execution_signaled_event_attributes
                found.signals.append(signaled.signal_name)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
                found.status = "completed"
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
                found.status = "failed"
            case _:
                pass
    return found


def _first(payloads: Any) -> Any:
    """The first of them, without the types it was sent with."""
    if not payloads:
        return None
    try:
        return DefaultPayloadConverter().from_payload(payloads[0])
    except Exception:  # another encoding; no check depends on it
        return None
