"""An event history, read once into steps: what the checks, the bill, linked runs and the timeline stand on.

A history says when work was scheduled, started and closed, in which attempt and by which worker. It does not
hold the attempts between the first and the last; those that are still pending come from the answer to a
describe call, where there is one. Left out: how steps are drawn (`timeline`), and codecs: a payload that is
not plain JSON (encrypted, binary) is None.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowHandle

from workshop_lib.errors import WorkshopError
from workshop_lib.harmless import line
from workshop_lib.temporal.compressed import inflated
from workshop_lib.temporal.failures import chain_of

ACTIVITY, OPERATION, TIMER, UPDATE = "activity", "operation", "timer", "update"
SIGNAL, TASK = "signal", "workflow task"

COMPLETED, FAILED, TIMED_OUT, CANCELLED = "completed", "failed", "timed out", "cancelled"
RUNNING, WAITING, RETRYING, UNFINISHED = "running", "waiting", "retrying", "unfinished"

_ENDINGS = {
    "completed": COMPLETED,
    "fired": COMPLETED,
    "failed": FAILED,
    "timed_out": TIMED_OUT,
    "canceled": CANCELLED,
    "terminated": "terminated",
    "continued_as_new": "continued as new",
}
_CLOSED = {
    f"{kind}_{ending}": state
    for kind in ("activity_task", "nexus_operation", "timer", "workflow_task")
    for ending, state in _ENDINGS.items()
} | {"workflow_execution_update_completed": COMPLETED}
_STARTED = ("activity_task_started", "nexus_operation_started", "workflow_task_started")
_RUN_ENDED = {f"workflow_execution_{ending}": state for ending, state in _ENDINGS.items()}
# What makes the server schedule a workflow task without any update being sent.
_TASK_CAUSES = (
    *("activity_task", "nexus_operation", "timer", "workflow_task"),
    *("workflow_execution_signaled", "workflow_execution_started"),
)
# What an event calls the step that it goes on with.
_REFERENCES = ("scheduled_event_id", "accepted_event_id", "started_event_id")


@dataclass(frozen=True)
class LinkedRun:
    """A workflow of another team that a Nexus operation has started.

    Attributes:
        operation: "FinanceService.stock_price".
        events: the run's history, from its first event on; empty until it is fetched.
    """

    operation: str
    namespace: str
    workflow_id: str
    run_id: str
    events: Sequence[HistoryEvent] = ()

    def __repr__(self) -> str:
        return line(f"{self.operation} → {self.namespace} · {self.workflow_id}")


@dataclass(kw_only=True)
class Step:
    """Something that a run has done or waits for. Times are seconds since the run's first event.

    Attributes:
        kind: `ACTIVITY`, `OPERATION`, `TIMER`, `UPDATE`, `SIGNAL` or `TASK`.
        name: the type of activity, "Service.operation", the update's or signal's name; of a timer its length.
        summary: what the workflow's author wrote about it.
        input: the first argument as plain JSON, or None.
        result: the result as plain JSON, or None.
        started: when the last attempt started; None if that is not known.
        ended: None while it is open.
        attempts: how often it was handed out, as far as history and server say; 0 before the first.
        queue: the task queue of an activity or a workflow task.
        worker: identity of the worker that the last attempt was handed to.
        note: the last failure, in words.
        lost: the attempt before the last was lost: nobody reported in time how it ended.
        failed_with: the type of the error that the attempt before the last reported, or "".
        links: of an operation, the runs that it has started elsewhere.
    """

    kind: str
    name: str
    scheduled: float = 0.0
    summary: str = ""
    input: Any = None
    result: Any = None
    started: float | None = None
    ended: float | None = None
    state: str = RUNNING
    attempts: int = 0
    queue: str = ""
    worker: str = ""
    note: str = ""
    lost: bool = False
    failed_with: str = ""
    links: Sequence[LinkedRun] = ()

    @property
    def completed(self) -> bool:
        """Whether its result is in the history."""
        return self.state == COMPLETED


@dataclass(kw_only=True)
class History:
    """A run as its history tells it.

    Attributes:
        status: "completed", "running", "failed" …
        reason: why it failed or was ended, in words.
        origin: the time of the first event, Unix seconds.
        end: when the run ended or was read, in seconds since the first event.
        steps: in the order in which they were scheduled.
    """

    workflow_type: str = "workflow"
    workflow_id: str = ""
    status: str = RUNNING
    reason: str = ""
    origin: float = 0.0
    end: float = 0.0
    steps: list[Step] = field(default_factory=list)

    def of(self, kind: str) -> list[Step]:
        """The steps of one kind."""
        return [step for step in self.steps if step.kind == kind]

    @property
    def activities(self) -> list[Step]:
        """The activities, in the order in which the workflow scheduled them."""
        return self.of(ACTIVITY)

    def named(self, name: str) -> list[Step]:
        """The activities of one type."""
        return [step for step in self.activities if step.name == name]

    @property
    def lost(self) -> list[Step]:
        """The activities that were lost with their worker and had to be handed out again.

        A workflow task that timed out is no such evidence: a worker that is merely replaced leaves one, too.
        """
        return [step for step in self.activities if step.lost]

    @property
    def asked(self) -> int:
        """How many updates, such as a chat's messages, it has accepted."""
        return len(self.of(UPDATE))

    @property
    def answered(self) -> int:
        """How many of them are over."""
        return sum(update.ended is not None for update in self.of(UPDATE))

    @property
    def signals(self) -> list[str]:
        """Names of the signals that have reached it, in order."""
        return [step.name for step in self.of(SIGNAL)]

    @property
    def linked(self) -> list[LinkedRun]:
        """The runs that its operations have started elsewhere, in the order of the operations."""
        return [link for step in self.of(OPERATION) for link in step.links]


async def history_of(handle: WorkflowHandle[Any, Any], timeout: float = 10) -> History:
    """Fetch and read a run's history; `timeout` seconds the server may take."""
    async with asyncio.timeout(timeout):
        return read_history((await handle.fetch_history()).events)


def read_history(
    events: Iterable[HistoryEvent],
    *,
    describe: DescribeWorkflowExecutionResponse | None = None,
    now: float | None = None,
) -> History:
    """Read an event history.

    Args:
        events: a run's history from its first event on.
        describe: the server's answer to a describe call, for what is pending.
        now: the time of reading, Unix seconds: where a run that is not over ends for now.
    """
    return _Reader(list(events)).read(describe, now)


class _Reader:
    def __init__(self, events: list[HistoryEvent]) -> None:
        self.events = events
        origin = _unix(events[0].event_time) if events else 0.0
        self.history = History(origin=origin)
        self.by_event: dict[int, Step] = {}
        self.by_activity: dict[str, Step] = {}
        self.for_updates: list[Step] = []  # tasks that nothing but an update can have caused
        self.previous = ""  # the kind of the event before

    def read(
        self, describe: DescribeWorkflowExecutionResponse | None, now: float | None
    ) -> History:
        history = self.history
        for event in self.events:
            kind = (event.WhichOneof("attributes") or "").removesuffix("_event_attributes")
            if kind:
                attributes = getattr(event, f"{kind}_event_attributes")
                self._read(event, kind, attributes)
                self.previous = kind
                history.end = self._seconds(event.event_time)
        if history.status == RUNNING:
            history.end = max(history.end, (now or 0.0) - history.origin)
            if describe is not None:
                self._read_pending(describe)
        else:
            for step in history.steps:
                if step.state == RUNNING:
                    step.state = UNFINISHED
        return history

    def _seconds(self, time: Timestamp) -> float:
        return max(0.0, _unix(time) - self.history.origin)

    def _read(self, event: HistoryEvent, kind: str, a: Any) -> None:
        """One event; `a` are its attributes."""
        time = self._seconds(event.event_time)
        if step := self._new_step(event, kind, a):
            step.scheduled = step.scheduled or time
            step.summary = _text(event.user_metadata.summary)
            self.by_event[event.event_id] = step
            self.history.steps.append(step)
        elif kind in _CLOSED:
            self._close(kind, a, time)
        elif kind in _STARTED:
            self._start(event, a, time)
        elif kind in _RUN_ENDED:
            self.history.status = _RUN_ENDED[kind]
            failed = kind.endswith("_failed")
            self.history.reason = failure_text(a.failure) if failed else getattr(a, "reason", "")
        elif kind == "workflow_execution_started":
            self.history.workflow_type = a.workflow_type.name
            self.history.workflow_id = a.workflow_id

    def _new_step(self, event: HistoryEvent, kind: str, a: Any) -> Step | None:
        match kind:
            case "activity_task_scheduled":
                step = Step(kind=ACTIVITY, name=a.activity_type.name, queue=a.task_queue.name)
                step.input = _first(a.input.payloads)
                self.by_activity[a.activity_id] = step
                return step
            case "nexus_operation_scheduled":
                name = f"{a.service}.{a.operation}"
                return Step(kind=OPERATION, name=name, input=decode(a.input))
            case "timer_started":
                seconds = a.start_to_fire_timeout.ToTimedelta().total_seconds()
                return Step(kind=TIMER, name=f"timer of {seconds:g} s")
            case "workflow_execution_update_accepted":
                # Nobody writes down when an update was sent; if it alone caused a task, that is when.
                task = self.by_event.get(a.accepted_request_sequencing_event_id)
                step = Step(kind=UPDATE, name=a.accepted_request.input.name)
                step.input = _first(a.accepted_request.input.args.payloads)
                step.scheduled = task.scheduled if task and task in self.for_updates else 0.0
                step.started = self._seconds(event.event_time)
                return step
            case "workflow_execution_signaled":
                value = _first(a.input.payloads)
                return Step(kind=SIGNAL, name=a.signal_name, input=value, state=COMPLETED)
            case "workflow_execution_cancel_requested":
                return Step(kind=SIGNAL, name="cancel", state=COMPLETED)
            case "workflow_task_scheduled":
                queue = a.task_queue.normal_name or a.task_queue.name
                task = Step(kind=TASK, name=TASK, attempts=a.attempt, queue=queue)
                if not self.previous.startswith(_TASK_CAUSES):
                    self.for_updates.append(task)
                return task
        return None

    def _start(self, event: HistoryEvent, a: Any, time: float) -> None:
        step = self.by_event.get(a.scheduled_event_id)
        if step is None:
            return
        step.started = time
        step.worker = getattr(a, "identity", "")
        if step.kind == ACTIVITY:
            step.attempts = a.attempt
            step.note = failure_text(a.last_failure)
            step.lost = a.last_failure.HasField("timeout_failure_info")
            step.failed_with = a.last_failure.application_failure_info.type
        elif step.kind == OPERATION:
            step.links = [
                LinkedRun(step.name, run.namespace, run.workflow_id, run.run_id)
                for run in (link.workflow_event for link in event.links)
            ]

    def _close(self, kind: str, a: Any, time: float) -> None:
        numbers = (getattr(a, name, 0) for name in _REFERENCES)
        step = self.by_event.get(next(filter(None, numbers), 0))
        if step is None:
            return
        step.ended, step.state = time, _CLOSED[kind]
        outcome = getattr(a, "outcome", None)
        failure = outcome.failure if outcome is not None else getattr(a, "failure", None)
        if outcome is not None and outcome.HasField("failure"):
            step.state = FAILED
        if isinstance(failure, Failure):
            step.note = failure_text(failure) or step.note
        if hasattr(a, "result"):
            result = a.result
            step.result = decode(result) if isinstance(result, Payload) else _first(result.payloads)

    def _read_pending(self, describe: DescribeWorkflowExecutionResponse) -> None:
        """What the history cannot know yet: attempts that are going on or failed."""
        for activity in describe.pending_activities:
            if (step := self.by_activity.get(activity.activity_id)) and step.ended is None:
                step.attempts = max(1, activity.attempt)
                step.note = failure_text(activity.last_failure)
                if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED:
                    step.started = self._seconds(activity.last_started_time)
                else:
                    step.state = RETRYING if step.attempts > 1 else WAITING
        for operation in describe.pending_nexus_operations:
            if (step := self.by_event.get(operation.scheduled_event_id)) and step.ended is None:
                step.attempts = max(1, operation.attempt)
                step.note = operation.blocked_reason or failure_text(operation.last_attempt_failure)
                if step.note and not operation.operation_token:
                    step.state = RETRYING
        tasks = self.history.of(TASK)
        if tasks and tasks[-1].ended is None:
            tasks[-1].attempts = max(tasks[-1].attempts, describe.pending_workflow_task.attempt)


def event_lines(events: Iterable[HistoryEvent]) -> list[str]:
    """One line an event: its number, its type and, where it has one, the activity."""
    lines = []
    for event in events:
        kind = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
        name = line(event.activity_task_scheduled_event_attributes.activity_type.name)
        words = kind.replace("_", " ").lower()
        lines.append(f"{event.event_id:>3}  {words}{f' · {name}' if name else ''}")
    return lines


def decode(payload: Payload) -> Any:
    """The value of a JSON payload, compressed or not, or None."""
    try:
        payload = inflated(payload)
        is_json = payload.metadata.get("encoding", b"").startswith(b"json/")
        return json.loads(payload.data) if is_json else None
    except (ValueError, WorkshopError):  # whoever wrote it
        return None


def failure_text(failure: Failure) -> str:
    """A failure in words: its innermost message, which is the one that says what happened."""
    failure = chain_of(failure)[-1]
    text = failure.message
    if failure.HasField("timeout_failure_info") and "timeout" not in text.lower():
        return f"timeout {text}"
    return text


def _first(payloads: Sequence[Payload]) -> Any:
    return decode(payloads[0]) if payloads else None


def _text(payload: Payload) -> str:
    text = decode(payload)
    return text if isinstance(text, str) else ""


def _unix(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9
