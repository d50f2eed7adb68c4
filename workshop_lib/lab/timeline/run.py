"""A history as the timeline shows it: bars in lanes, marks, and the stretches in which nobody was at work.

Pure: a `History` in, a `Run` out. Left out: words and picture (`rows`).
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from temporalio.api.history.v1 import HistoryEvent

from workshop_lib.lab.history import (
    CANCELLED,
    COMPLETED,
    FAILED,
    OPERATION,
    RETRYING,
    RUNNING,
    SIGNAL,
    TASK,
    TIMED_OUT,
    TIMER,
    UNFINISHED,
    UPDATE,
    WAITING,
    History,
    Step,
    read_history,
)
from workshop_lib.lab.timeline.labels import MCP, NOTE_LIMIT, detail_of, shorten, step_name

PEOPLE, MODEL, TOOLS, NEXUS, TEAM = "people", "model", "tools", "Nexus", "other side"
TIMERS, WORKFLOW = "timers", "workflow"
LANES = (PEOPLE, MODEL, TOOLS, NEXUS, TEAM, TIMERS, WORKFLOW)

# Activities that call a model, by the usual names; everything else an activity does is a tool.
MODEL_NAMES = (
    *("*model*", "*plan*", "*llm*", "*completion*"),
    *("detect_*", "analyze_*", "write_report", "summarise"),
)
SHORTEST_GAP = 0.5  # seconds without a worker that are shown
BAD_STATES = (FAILED, TIMED_OUT, CANCELLED, RETRYING, UNFINISHED)
_LANE_OF = {UPDATE: PEOPLE, OPERATION: NEXUS, TIMER: TIMERS}
Stretch = tuple[float, float]  # from, to


@dataclass(kw_only=True)
class Bar(Step):
    """A step that takes time, as it is drawn: in a lane, and in a few words.

    Attributes:
        lane: one of `LANES`.
        detail: what was said or asked, cut to 40 characters; may be empty.
        attempts: number of the last attempt, from 1.
    """

    lane: str
    detail: str = ""
    attempts: int = 1

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
    """A run as it is drawn: from `since` to its end, in seconds since the first event.

    Attributes:
        cut: says what of a long run is shown.
        newcomers: when a worker was first seen, but for the first one.
    """

    history: History
    since: float = 0.0
    cut: str = ""
    bars: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    newcomers: list[Mark] = field(default_factory=list)

    @property
    def end(self) -> float:
        """When it ended or was read."""
        return self.history.end


def drawn_run(history: History, *, most_steps: int) -> Run:
    """What is drawn of a history.

    Args:
        most_steps: of a longer run only the last turns are kept.
    """
    run, tasks = Run(history=history), history.of(TASK)
    run.bars = [_bar(step) for step in history.steps if step.kind not in (SIGNAL, TASK)]
    run.bars += [
        _stuck(task, after, history) for task, after in _pairs(tasks) if task.state == FAILED
    ]
    run.bars.sort(key=lambda bar: bar.scheduled)
    run.marks = list(_marks(history, tasks))
    run.newcomers = list(_newcomers(history))
    run.gaps = [
        Gap(start=start, end=end, open=history.status == RUNNING and end >= run.end)
        for start, end in _less(_due(run, tasks), _busy(run, tasks))
        if end - start >= SHORTEST_GAP
    ]
    _keep_last_turns(run, most_steps)
    return run


def other_side(run: Run, namespace: str, events: Iterable[HistoryEvent]) -> list[Bar]:
    """The bars of a run of another team, which an operation of `run` has started, in its picture.

    Its clock is the same server's, so the times of both can be compared.
    """
    history = read_history(events, now=run.history.origin + run.end)
    shift = history.origin - run.history.origin
    if shift + history.end < run.since:
        return []
    over = None if history.status == RUNNING else history.end
    name = shorten(history.workflow_type)
    whole = Bar(kind=TEAM, lane=TEAM, name=name, detail=f"in {namespace}", started=0.0)
    whole.ended, whole.state = over, history.status
    bars = [whole, *(_bar(step, TEAM) for step in history.activities)]
    for bar in bars:
        bar.scheduled += shift
        bar.started = None if bar.started is None else bar.started + shift
        bar.ended = None if bar.ended is None else bar.ended + shift
    return bars


def _bar(step: Step, lane: str | None = None) -> Bar:
    # An operation's time counts from when it was scheduled: only asynchronous ones tell when they started.
    at_once = step.kind in (OPERATION, TIMER)
    named = step.kind == TIMER and step.summary
    drawn = {
        "lane": lane or _LANE_OF.get(step.kind) or _activity_lane(step.name),
        "name": shorten(step.summary if named else step_name(step.name), 60),
        "detail": "" if named else shorten(step.summary) or detail_of(step.input),
        "started": step.scheduled if at_once else step.started,
        "attempts": max(1, step.attempts),
        "note": shorten(step.note, NOTE_LIMIT),
    }
    return Bar(**vars(step) | drawn)


def _activity_lane(name: str) -> str:
    calls_model = any(fnmatchcase(name.lower(), pattern) for pattern in MODEL_NAMES)
    return MODEL if calls_model and not name.startswith(MCP) else TOOLS


def _pairs(tasks: list[Step]) -> Iterable[tuple[Step, Step | None]]:
    return zip(tasks, [*tasks[1:], None], strict=False)


def _stuck(task: Step, after: Step | None, history: History) -> Bar:
    """A task that failed is tried again until it goes well; only the first failure is recorded.

    While it fails, the server lists the attempt that is going on as if it were recorded.
    """
    over = after is not None and after.ended is not None
    bar = Bar(
        kind=TASK,
        lane=WORKFLOW,
        name=TASK,
        scheduled=task.scheduled if task.started is None else task.started,
        ended=after.started if after and over else None,
        state=COMPLETED if over else RETRYING,
        attempts=max(1, after.attempts if after else 1),
        note=shorten(task.note, NOTE_LIMIT),
    )
    if not over and history.status != RUNNING:
        bar.state, bar.ended = UNFINISHED, history.end
    return bar


def _marks(history: History, tasks: list[Step]) -> Iterable[Mark]:
    for signal in history.of(SIGNAL):
        words = f"signal {signal.name} {detail_of(signal.input)}".strip()
        yield Mark(lane=PEOPLE, name=shorten(words, 80), time=signal.scheduled)
    for task in tasks:
        if task.started is not None and task.state != FAILED:
            late = task.state == TIMED_OUT
            yield Mark(lane=WORKFLOW, name="task timed out" * late, time=task.started, bad=late)
    if history.status != RUNNING:
        words = history.status + (f": {history.reason}" if history.reason else "")
        bad = history.status not in (COMPLETED, "continued as new")
        yield Mark(lane=WORKFLOW, name=shorten(words, NOTE_LIMIT), time=history.end, bad=bad)


def _newcomers(history: History) -> Iterable[Mark]:
    """Workers seen for the first time on a task queue that another has served."""
    seen: dict[str, set[str]] = {}
    for step in sorted(history.steps, key=lambda step: step.started or 0.0):
        if not step.worker:
            continue
        if step.worker not in set().union(*seen.values()) and seen.get(step.queue):
            name = f"new worker {shorten(step.worker)}"
            yield Mark(lane=WORKFLOW, name=name, time=step.started or 0.0)
        seen.setdefault(step.queue, set()).add(step.worker)


# --- gaps -------------------------------------------------------------------------------------------


def _due(run: Run, tasks: list[Step]) -> list[Stretch]:
    """Stretches in which something waited for a worker."""
    due = []
    for task, after in _pairs(tasks):
        taken = task.started if task.started is not None else task.ended
        due.append((task.scheduled, run.end if taken is None else taken))
        if task.state == TIMED_OUT:  # whoever took it is gone: until the next one is taken
            again = after.started if after and after.started is not None else run.end
            due.append((task.scheduled, again))
    for bar in run.bars:
        if bar.lane not in (MODEL, TOOLS):
            continue
        if bar.started is None:
            if bar.state in (WAITING, TIMED_OUT):
                due.append((bar.scheduled, bar.ended or run.end))
        elif bar.attempts == 1 or _lost_a_worker(run, bar):
            due.append((bar.scheduled, bar.started))
    return due


def _lost_a_worker(run: Run, bar: Bar) -> bool:
    """Whether an earlier attempt timed out and another worker took it up."""
    until = (bar.started or run.end) + 0.05
    return "timeout" in bar.note.lower() and any(
        bar.scheduled < mark.time <= until for mark in run.newcomers
    )


def _busy(run: Run, tasks: list[Step]) -> list[Stretch]:
    """Stretches in which a worker was at work."""
    worked = [
        (task.started, task.ended)
        for task in tasks
        if task.started is not None and task.ended is not None and task.state != TIMED_OUT
    ]
    return worked + [
        (bar.started, bar.ended or run.end)
        for bar in run.bars
        if bar.lane in (MODEL, TOOLS) and bar.started is not None and bar.state != TIMED_OUT
    ]


def _less(due: list[Stretch], busy: list[Stretch]) -> list[Stretch]:
    """The due stretches, joined, without the busy ones."""
    times = sorted({time for stretch in [*due, *busy] for time in stretch})
    left: list[Stretch] = []
    for start, end in itertools.pairwise(times):
        middle = (start + end) / 2
        if _covers(due, middle) and not _covers(busy, middle):
            joined = left and left[-1][1] == start
            left[-1:] = [(left[-1][0], end)] if joined else [*left[-1:], (start, end)]
    return left


def _covers(stretches: list[Stretch], time: float) -> bool:
    return any(start <= time <= end for start, end in stretches)


# --- long runs --------------------------------------------------------------------------------------


def _keep_last_turns(run: Run, most_steps: int) -> None:
    total = len(run.bars)
    if total <= most_steps:
        return
    oldest = run.bars[-most_steps].scheduled
    turns = [bar.scheduled for bar in run.bars if bar.lane == PEOPLE]
    kept = [turn for turn in turns if turn >= oldest]
    run.since = kept[0] if kept else oldest
    run.cut = (
        f"the last {len(kept)} of {len(turns)} turns"
        if kept
        else f"the last {most_steps} of {total} steps"
    )
    run.bars = [bar for bar in run.bars if bar.ended is None or bar.ended >= run.since]
    run.marks = [mark for mark in run.marks if mark.time >= run.since]
    run.newcomers = [mark for mark in run.newcomers if mark.time >= run.since]
    run.gaps = [gap for gap in run.gaps if gap.end > run.since]
