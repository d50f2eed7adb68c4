"""An event history read into bars, marks and gaps: what `timeline` draws.

Pure: events in, a `Run` out. A history says when work was scheduled, started and closed, and by which
worker; it does not hold the attempts between the first and the last. Those that are still pending come
from the answer to a describe call, where there is one.

Left out: how a run is fetched (`timeline`), what payloads say (`timeline_labels`) and how it is drawn
(`timeline_view`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import PendingActivityState, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from workshop_lib.lab.timeline_labels import (
    MCP_PREFIX,
    NOTE_LIMIT,
    activity_label,
    decode,
    detail_of,
    failure_text,
    first_detail,
    shorten,
    summary_of,
)

PEOPLE, MODEL, TOOLS, NEXUS, TEAM = "people", "model", "tools", "Nexus", "other side"
CHILDREN, TIMERS, WORKFLOW = "children", "timers", "workflow"
LANES = (PEOPLE, MODEL, TOOLS, NEXUS, TEAM, CHILDREN, TIMERS, WORKFLOW)

# Activities that call a model, by the usual names; everything else an activity does is a tool.
MODEL_NAMES = (
    "*model*",
    "*plan*",
    "*llm*",
    "*completion*",
    "detect_*",
    "analyze_*",
    "write_report",
)

COMPLETED, FAILED, TIMED_OUT, CANCELLED = "completed", "failed", "timed out", "cancelled"
RUNNING, WAITING, RETRYING, UNFINISHED = "running", "waiting", "retrying", "unfinished"
BAD_STATES = (FAILED, TIMED_OUT, CANCELLED, RETRYING, UNFINISHED)

_OUTCOMES = {
    "completed": COMPLETED,
    "fired": COMPLETED,
    "failed": FAILED,
    "timed_out": TIMED_OUT,
    "canceled": CANCELLED,
    "terminated": "terminated",
    "continued_as_new": "continued as new",
}
_WORK = ("activity_task", "nexus_operation", "timer", "child_workflow_execution")
_CLOSERS = {f"{kind}_{ending}": state for kind in _WORK for ending, state in _OUTCOMES.items()}
_CLOSERS |= {
    "workflow_execution_update_completed": COMPLETED,
    "start_child_workflow_execution_failed": FAILED,
}
# Not an operation's: its caller's clock runs from its scheduling to its end, whoever works meanwhile.
_STARTERS = {"activity_task_started", "child_workflow_execution_started"}
_RUN_ENDS = {f"workflow_execution_{ending}": state for ending, state in _OUTCOMES.items()}
# What makes the server schedule a workflow task without any update being sent.
_TASK_CAUSES = (*_WORK, "workflow_execution_signaled", "workflow_execution_started")


@dataclass(kw_only=True)
class Bar:
    """Work that takes time. Times are seconds since the run's first event.

    Attributes:
        lane: one of `LANES`.
        name: the type of activity, operation, update, timer or child workflow.
        detail: what was said or asked, cut to 40 characters; may be empty.
        started: when the last attempt started; None: not known to have started.
        ended: None while it is open.
        attempt: number of the last attempt, from 1.
        note: the last failure, in words.
    """

    lane: str
    name: str
    detail: str = ""
    scheduled: float
    started: float | None = None
    ended: float | None = None
    state: str = RUNNING
    attempt: int = 1
    note: str = ""

    @property
    def label(self) -> str:
        """Name and detail."""
        return f"{self.name} {self.detail}".strip()


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that happened at one time. An empty name is a workflow task that went well."""

    lane: str
    name: str
    time: float
    bad: bool = False


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stretch in which work was due and no worker did any."""

    start: float
    end: float
    open: bool = False  # it lasts until now


@dataclass(kw_only=True)
class Run:
    """A run as it is drawn: from `since` to `end`, both in seconds since the first event.

    Attributes:
        origin: the time of the first event, Unix seconds.
    """

    workflow_type: str = "workflow"
    workflow_id: str = ""
    status: str = RUNNING
    origin: float = 0.0
    since: float = 0.0
    end: float = 0.0
    cut: str = ""  # says what of a long run is shown
    bars: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    newcomers: list[Mark] = field(default_factory=list)  # workers seen for the first time, but one


@dataclass(kw_only=True)
class _Task:
    """One workflow task: the worker decides what comes next."""

    scheduled: float
    queue: str
    sticky: str
    attempt: int
    for_update: bool  # nothing but an update can have caused it
    since: float  # of the first of the tasks that timed out before it
    started: float | None = None
    ended: float | None = None
    identity: str = ""
    outcome: str = ""
    note: str = ""


def read_run(
    events: Iterable[HistoryEvent],
    *,
    describe: DescribeWorkflowExecutionResponse | None = None,
    now: float | None = None,
    lanes: Mapping[str, str] | None = None,
    max_events: int = 200,
    gap: float = 0.5,
) -> Run:
    """Read an event history.

    Args:
        events: a run's history from its first event on.
        describe: the server's answer to a describe call, for what is pending.
        now: the time of reading, Unix seconds; where an unfinished run is drawn to.
        lanes: activity name or glob pattern → lane, looked up before the built-in rules.
        max_events: of a longer history, only the last turns are kept.
        gap: the shortest stretch without a worker that counts, in seconds.
    """
    return _Reader(list(events), describe, now, lanes or {}, gap).read(max_events)


def add_other_side(run: Run, namespace: str, events: Iterable[HistoryEvent]) -> None:
    """Put a run of another team, which an operation of `run` has started, into its picture.

    Its clock is the same server's, so the times of both can be compared.
    """
    theirs = read_run(events, now=run.origin + run.end)
    shift = theirs.origin - run.origin
    if shift + theirs.end < run.since:
        return
    whole = Bar(lane=TEAM, name=theirs.workflow_type, detail=f"in {namespace}", scheduled=shift)
    whole.started, whole.state = shift, theirs.status
    whole.ended = None if theirs.status == RUNNING else shift + theirs.end
    run.bars.append(whole)
    for bar in theirs.bars:
        if bar.lane in (MODEL, TOOLS):
            bar.lane, bar.scheduled = TEAM, bar.scheduled + shift
            bar.started = None if bar.started is None else bar.started + shift
            bar.ended = None if bar.ended is None else bar.ended + shift
            run.bars.append(bar)


class _Reader:
    def __init__(
        self,
        events: list[HistoryEvent],
        describe: DescribeWorkflowExecutionResponse | None,
        now: float | None,
        lanes: Mapping[str, str],
        gap: float,
    ) -> None:
        self.events = events
        self.describe = describe
        self.lanes = lanes
        self.gap = gap
        self.origin = _unix(events[0].event_time) if events else 0.0
        self.now = now
        self.run = Run(origin=self.origin)
        self.open: dict[int, Bar] = {}
        self.tasks: dict[int, _Task] = {}
        self.activity_ids: dict[str, int] = {}
        self.queues: dict[int, str] = {}  # of activities
        self.sightings: list[tuple[float, str, str]] = []  # time, queue, worker

    def read(self, max_events: int) -> Run:
        run, previous = self.run, ""
        for event in self.events:
            kind = (event.WhichOneof("attributes") or "").removesuffix("_event_attributes")
            if kind:
                attributes = getattr(event, f"{kind}_event_attributes")
                self._read(event, kind, attributes, self._seconds(event.event_time), previous)
                previous = kind
        last = self._seconds(self.events[-1].event_time) if self.events else 0.0
        run.end = last
        if run.status == RUNNING and self.now is not None:
            run.end = max(last, self.now - self.origin)
        self._read_pending()
        for bar in self.open.values():
            if run.status != RUNNING:
                bar.state = UNFINISHED
        self._read_tasks()
        self._find_newcomers()
        self._find_gaps()
        self._keep_last_turns(max_events)
        return run

    def _seconds(self, time: Timestamp) -> float:
        return max(0.0, _unix(time) - self.origin)

    def _lane(self, activity: str) -> str:
        for pattern, lane in self.lanes.items():
            if fnmatchcase(activity, pattern):
                return lane
        if activity.startswith(MCP_PREFIX):
            return TOOLS
        return MODEL if any(fnmatchcase(activity.lower(), p) for p in MODEL_NAMES) else TOOLS

    def _read(self, event: HistoryEvent, kind: str, a: Any, time: float, previous: str) -> None:
        """One event; `a` are its attributes, `previous` the kind of the event before it."""
        number = event.event_id
        if kind.startswith("workflow_task_"):
            self._read_task(number, kind, a, time, previous)
        elif kind in _CLOSERS:
            self._close(kind, a, time)
        elif kind in _STARTERS:
            if bar := self.open.get(
                a.scheduled_event_id if "child" not in kind else a.initiated_event_id
            ):
                bar.started = time
                if kind == "activity_task_started":
                    bar.attempt, bar.note = a.attempt, failure_text(a.last_failure)
                    self.sightings.append((time, self.queues[a.scheduled_event_id], a.identity))
        elif kind in _RUN_ENDS:
            self.run.status = _RUN_ENDS[kind]
            note = failure_text(a.failure) if kind.endswith("_failed") else getattr(a, "reason", "")
            name = f"{self.run.status}: {shorten(note, NOTE_LIMIT)}" if note else self.run.status
            bad = self.run.status not in (COMPLETED, "continued as new")
            self._mark(WORKFLOW, name, time, bad=bad)
        elif kind == "workflow_execution_started":
            self.run.workflow_type = shorten(a.workflow_type.name)
            self.run.workflow_id = shorten(a.workflow_id, 80)
        elif kind == "activity_task_scheduled":
            name, detail = activity_label(a.activity_type.name, a.input.payloads)
            detail = summary_of(event) or detail
            self.activity_ids[a.activity_id] = number
            self.queues[number] = a.task_queue.name
            self._open(number, self._lane(a.activity_type.name), name, detail, time)
        elif kind == "nexus_operation_scheduled":
            detail = summary_of(event) or detail_of(decode(a.input))
            bar = self._open(number, NEXUS, f"{a.service}.{a.operation}", detail, time)
            bar.started = time
        elif kind == "timer_started":
            wait = a.start_to_fire_timeout.ToTimedelta().total_seconds()
            name = summary_of(event) or f"timer of {wait:g} s"
            self._open(number, TIMERS, name, "", time).started = time
        elif kind == "start_child_workflow_execution_initiated":
            name, detail = a.workflow_type.name, first_detail(a.input.payloads)
            self._open(number, CHILDREN, name, detail, time)
        elif kind == "workflow_execution_update_accepted":
            self._read_update(number, a, time)
        elif kind == "workflow_execution_signaled":
            detail = first_detail(a.input.payloads)
            self._mark(PEOPLE, f"signal {a.signal_name} {detail}".strip(), time)
        elif kind == "workflow_execution_cancel_requested":
            self._mark(PEOPLE, "cancel", time)
        elif kind == "marker_recorded" and a.marker_name == "core_local_activity":
            self._read_local_activity(a, time)

    def _open(self, number: int, lane: str, name: str, detail: str, time: float) -> Bar:
        bar = Bar(lane=lane, name=shorten(name, 60), detail=detail, scheduled=time)
        self.open[number] = bar
        self.run.bars.append(bar)
        return bar

    def _mark(self, lane: str, name: str, time: float, *, bad: bool = False) -> None:
        self.run.marks.append(Mark(lane=lane, name=shorten(name, 80), time=time, bad=bad))

    def _close(self, kind: str, a: Any, time: float) -> None:
        references = ("scheduled", "initiated", "accepted", "started")
        numbers = (getattr(a, f"{name}_event_id", 0) for name in references)
        bar = self.open.pop(next((number for number in numbers if number), 0), None)
        if bar is None:
            return
        bar.ended, bar.state = time, _CLOSERS[kind]
        failure = a.outcome.failure if hasattr(a, "outcome") else getattr(a, "failure", None)
        if isinstance(failure, Failure) and (text := failure_text(failure)):
            bar.note = text
            if kind == "workflow_execution_update_completed":
                bar.state = FAILED

    def _read_update(self, number: int, a: Any, time: float) -> None:
        request = a.accepted_request.input
        detail = first_detail(request.args.payloads)
        bar = self._open(number, PEOPLE, request.name, detail, time)
        bar.started = time
        # Nobody writes down when an update was sent, but if it alone caused a workflow task, that is when.
        task = self.tasks.get(a.accepted_request_sequencing_event_id)
        if task and task.for_update:
            bar.scheduled = task.since

    def _read_local_activity(self, a: Any, time: float) -> None:
        """A local activity leaves one marker behind, when it is over."""
        data = decode(a.details["data"].payloads[0]) if "data" in a.details else None
        if not isinstance(data, dict):
            return
        task = max((t.started for t in self.tasks.values() if t.started is not None), default=0.0)
        begin, end = (
            # Its clocks are the worker's, not the server's: keep them within their workflow task.
            min(max(_clock(data.get(key)) - self.origin, task), time)
            for key in ("original_schedule_time", "complete_time")
        )
        name = str(data.get("activity_type", "local activity"))
        failure = failure_text(a.failure)
        bar = Bar(
            lane=self._lane(name),
            name=shorten(name, 60),
            detail="(local)",
            scheduled=begin,
            started=begin,
            ended=max(begin, end),
            state=FAILED if failure else COMPLETED,
            attempt=int(data.get("attempt") or 1),
            note=failure,
        )
        self.run.bars.append(bar)

    def _read_task(self, number: int, kind: str, a: Any, time: float, previous: str) -> None:
        if kind == "workflow_task_scheduled":
            last = next(reversed(self.tasks.values()), None)
            again = last is not None and last.outcome == TIMED_OUT
            self.tasks[number] = _Task(
                scheduled=time,
                queue=a.task_queue.normal_name or a.task_queue.name,
                sticky=a.task_queue.name if a.task_queue.normal_name else "",
                attempt=a.attempt,
                for_update=last.for_update
                if again and last
                else not previous.startswith(_TASK_CAUSES),
                since=last.since if again and last else time,
            )
            return
        task = self.tasks.get(a.scheduled_event_id)
        if task is None:
            return
        if kind == "workflow_task_started":
            task.started, task.identity = time, a.identity
            return
        task.ended, task.outcome = time, _OUTCOMES[kind.removeprefix("workflow_task_")]
        if task.outcome == FAILED:
            cause = WorkflowTaskFailedCause.Name(a.cause)
            task.note = failure_text(a.failure) or cause.removeprefix(
                "WORKFLOW_TASK_FAILED_CAUSE_"
            ).lower().replace("_", " ")

    def _read_pending(self) -> None:
        """What the history cannot know yet: attempts that are going on or failed."""
        if self.describe is None or self.run.status != RUNNING:
            return
        for activity in self.describe.pending_activities:
            bar = self.open.get(self.activity_ids.get(activity.activity_id, 0))
            if bar is None:
                continue
            bar.attempt = max(1, activity.attempt)
            bar.note = failure_text(activity.last_failure)
            if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED:
                bar.started = self._seconds(activity.last_started_time)
            else:
                bar.state = RETRYING if bar.attempt > 1 else WAITING
        for operation in self.describe.pending_nexus_operations:
            bar = self.open.get(operation.scheduled_event_id)
            if bar is None:
                continue
            bar.attempt = max(1, operation.attempt)
            failure = failure_text(operation.last_attempt_failure)
            bar.note = shorten(operation.blocked_reason, NOTE_LIMIT) or failure
            if bar.note and not operation.operation_token:
                bar.state = RETRYING

    def _read_tasks(self) -> None:
        """Workflow tasks: a tick each, and a bar from a failure to the task that went well."""
        tasks = list(self.tasks.values())
        for index, task in enumerate(tasks):
            following = tasks[index + 1] if index + 1 < len(tasks) else None
            if task.outcome == TIMED_OUT and task.started is not None:
                self._mark(WORKFLOW, "task timed out", task.started, bad=True)
            elif task.outcome == FAILED:
                self._add_stuck_task(task, following)
            elif task.started is not None:
                self.run.marks.append(Mark(lane=WORKFLOW, name="", time=task.started))
            if task.started is not None:
                self.sightings.append((task.started, task.queue, task.identity))
                # A worker names its own queue when it completes a task, and the next task is put there:
                # that tells two workers of one process apart. (The queue of the task itself may still
                # be that of a worker that is gone.)
                own = following.sticky if following and task.outcome == COMPLETED else ""
                if own:
                    self.sightings.append(
                        (task.started, f"{task.queue} {task.identity} (own)", own)
                    )

    def _add_stuck_task(self, task: _Task, following: _Task | None) -> None:
        """A task that failed is tried again until it goes well; only the first failure is recorded.

        While it fails, the server lists the attempt that is going on as if it were recorded.
        """
        over = following is not None and following.outcome != ""
        attempt = following.attempt if following else 1
        if not over and self.describe is not None:
            attempt = max(attempt, self.describe.pending_workflow_task.attempt)
        bar = Bar(
            lane=WORKFLOW,
            name="workflow task",
            scheduled=task.scheduled if task.started is None else task.started,
            ended=following.started if following and over else None,
            state=COMPLETED if over else RETRYING,
            attempt=max(1, attempt),
            note=task.note,
        )
        if not over and self.run.status != RUNNING:
            bar.state, bar.ended = UNFINISHED, self.run.end
        self.run.bars.append(bar)

    def _find_newcomers(self) -> None:
        known: dict[str, set[str]] = {}
        announced: set[str] = set()
        for time, queue, worker in sorted(self.sightings):
            seen = known.setdefault(queue, set())
            last = self.run.newcomers[-1].time if self.run.newcomers else None
            if worker and worker not in seen and seen and worker not in announced and last != time:
                name = "new worker" if queue.endswith("(own)") else f"new worker {shorten(worker)}"
                self.run.newcomers.append(Mark(lane=WORKFLOW, name=name, time=time))
            if worker:
                announced.add(worker)
                seen.add(worker)

    def _find_gaps(self) -> None:
        """Stretches in which something was due, less those in which a worker was at work."""
        run, due, busy = self.run, [], []
        for task in self.tasks.values():
            due.append((task.scheduled, task.started or task.ended or run.end))
            if task.outcome == TIMED_OUT:
                due.append((task.scheduled, task.ended or run.end))
                due.append((task.ended or run.end, self._next_task_start(task.ended or run.end)))
            elif task.started is not None and task.ended is not None:
                busy.append((task.started, task.ended))
        for bar in run.bars:
            if bar.lane not in (MODEL, TOOLS):
                continue
            if bar.started is None:
                if bar.state in (WAITING, TIMED_OUT):
                    due.append((bar.scheduled, bar.ended or run.end))
            elif bar.attempt == 1 or self._lost_a_worker(bar):
                due.append((bar.scheduled, bar.started))
            if bar.started is not None and bar.state != TIMED_OUT:
                busy.append((bar.started, bar.ended or run.end))
        for start, end in _less(_union(due), _union(busy)):
            if end - start >= self.gap:
                still = run.status == RUNNING and end >= run.end
                run.gaps.append(Gap(start=start, end=end, open=still))

    def _next_task_start(self, time: float) -> float:
        starts = (t.started for t in self.tasks.values() if t.started and t.started >= time)
        return min(starts, default=self.run.end)

    def _lost_a_worker(self, bar: Bar) -> bool:
        """True for an activity whose earlier attempt timed out and that another worker took up."""
        return "timeout" in bar.note.lower() and any(
            bar.scheduled < mark.time <= (bar.started or self.run.end) + 0.05
            for mark in self.run.newcomers
        )

    def _keep_last_turns(self, max_events: int) -> None:
        run, total = self.run, len(self.events)
        if total <= max_events:
            return
        turns = [
            (event.event_id, self._seconds(event.event_time))
            for event in self.events
            if event.HasField("workflow_execution_update_accepted_event_attributes")
        ]
        kept = [turn for turn in turns if turn[0] > total - max_events]
        if kept:
            run.since = kept[0][1]
            run.cut = f"the last {len(kept)} of {len(turns)} turns"
        else:
            run.since = self._seconds(self.events[total - max_events].event_time)
            run.cut = f"the last {max_events} of {total} events"
        run.bars = [bar for bar in run.bars if bar.ended is None or bar.ended >= run.since]
        run.marks = [mark for mark in run.marks if mark.time >= run.since]
        run.newcomers = [mark for mark in run.newcomers if mark.time >= run.since]
        run.gaps = [gap for gap in run.gaps if gap.end > run.since]


# --- times ------------------------------------------------------------------------------------------


def _unix(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9


def _clock(value: Any) -> float:
    return value["seconds"] + value["nanos"] / 1e9 if isinstance(value, dict) else 0.0


def _union(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


def _less(
    stretches: list[tuple[float, float]], without: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    left: list[tuple[float, float]] = []
    for start, end in stretches:
        for low, high in without:
            if low < end and high > start:
                left.append((start, low))
                start = high
        left.append((start, end))
    return [(start, end) for start, end in left if end > start]
