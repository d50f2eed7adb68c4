"""The crash lattice: for every event of a recorded run, the place where its worker can be killed.

A worker writes an event when it reports a workflow task or an activity; before it has done so it can die, and
the server, too. So each event belongs to the place before or after which it is written: what a task has
decided to the moment when its code has run and nobody has heard (`TASK_AFTER`), what a task has been told to
the moment when it has arrived (`TASK_BEFORE`), and so on for activities. Events of one batch share a place.
Between an activity's two events there are two more places: in the midst of its work, and right after it.

A place is named by the run's own numbers: the id of an activity, or what a task is told first (`activity 3`,
`update 2`). Those are the same in every run of the same conversation, while event ids are not: what comes in
together depends on the machine.

Left out: whoever dies there, and what must hold afterwards (`test_crash_lattice`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from workshop_lib.lab.workers.kill_points import KillPoint, Where

POINTS_HIT = "points hit"  # a property of a test, which the summary of a test run adds up
HISTORIES = Path(__file__).parent / "histories"
AROUND = (
    Where.ACTIVITY_BEFORE,
    Where.ACTIVITY_INSIDE,
    Where.ACTIVITY_RESULT,
    Where.ACTIVITY_REPORT,
)


@dataclass(frozen=True)
class Place:
    """A place that a recorded run passes.

    Attributes:
        turn: the update that is under way, counted from 1; 0 before the first.
        events: ids of the events that are written there.
    """

    point: KillPoint
    turn: int = 0
    events: tuple[int, ...] = ()

    def __str__(self) -> str:
        return str(self.point)


@cache
def recorded_events(name: str) -> Sequence[HistoryEvent]:
    """The events of `tests/histories/<name>.json`."""
    text = (HISTORIES / f"{name}.json").read_text(encoding="utf-8")
    return WorkflowHistory.from_json(name, text).events


def places_of(events: Sequence[HistoryEvent]) -> list[Place]:
    """Every place that a run passes, in the order of its events."""
    return list(_Reader(events).read())


class _Reader:
    """Reads a history of a run that was not disturbed: no attempt of it was lost."""

    def __init__(self, events: Sequence[HistoryEvent]) -> None:
        self.events = events
        self.type = events[0].workflow_execution_started_event_attributes.workflow_type.name
        self.numbers: Counter[str] = (
            Counter()
        )  # of activities, operations, timers, updates, signals
        self.called: dict[int, str] = {}  # what a task is told of the step that an event has begun
        self.told: list[str] = []  # what the next task is told
        self.told_by: list[int] = []

    def read(self) -> Iterator[Place]:
        places: dict[KillPoint, tuple[int, list[int]]] = {}
        task = ""
        for event in self.events:
            kind = (event.WhichOneof("attributes") or "").removesuffix("_event_attributes")
            a = getattr(event, f"{kind}_event_attributes")
            number = event.event_id
            if kind.startswith("activity_task") and not kind.endswith(("scheduled", "requested")):
                begun = self.events[a.scheduled_event_id - 1]
                wanted = begun.activity_task_scheduled_event_attributes
                steps = AROUND[:1] if kind.endswith("started") else AROUND[1:]
                for where in steps:
                    point = KillPoint(where, wanted.activity_type.name, step=wanted.activity_id)
                    self._add(places, point, number if where in (AROUND[0], AROUND[-1]) else None)
            if said := self._says(kind, a):
                self.told.append(said)
            told = said and not kind.startswith("activity_task")  # those have a place of their own
            if told or kind in ("workflow_task_scheduled", "workflow_task_started"):
                self.told_by.append(number)
            elif kind == "workflow_task_completed":
                # An update has no event before the task that takes it has accepted it.
                task = self.told[0] if self.told else f"update {self.numbers['update'] + 1}"
                before = KillPoint(Where.TASK_BEFORE, self.type, step=task)
                for earlier in self.told_by:
                    self._add(places, before, earlier)
                self.told, self.told_by = [], []
            if kind == "workflow_task_completed" or _is_decided(event):
                self._add(places, KillPoint(Where.TASK_AFTER, self.type, step=task), number)
            self._count(kind, number)
        for point, (turn, written) in places.items():
            yield Place(point, turn, tuple(written))

    def _add(
        self, places: dict[KillPoint, tuple[int, list[int]]], point: KillPoint, event: int | None
    ) -> None:
        # A task that is told of an update belongs to that update's turn.
        update = int(point.step.removeprefix("update ")) if "update" in point.step else 0
        _, written = places.setdefault(point, (update or self.numbers["update"], []))
        written += [] if event is None else [event]

    def _says(self, kind: str, a: object) -> str:
        """What the next workflow task is told because of an event, if anything."""
        scheduled = self.called.get(getattr(a, "scheduled_event_id", 0), "")
        match kind.removeprefix("workflow_execution_"):
            case "started":
                return "start"
            case "signaled":
                return f"signal {self.numbers['signal'] + 1}"
            case "timer_fired":
                return self.called[a.started_event_id]  # type: ignore[attr-defined]
            case "nexus_operation_started":
                return f"{scheduled} started"
            case closed if scheduled and closed.endswith(
                ("completed", "failed", "timed_out", "canceled")
            ):
                return scheduled
        return ""

    def _count(self, kind: str, number: int) -> None:
        begins = {
            "activity_task_scheduled": "activity",
            "nexus_operation_scheduled": "operation",
            "timer_started": "timer",
            "workflow_execution_update_accepted": "update",
            "workflow_execution_signaled": "signal",
        }
        if step := begins.get(kind):
            self.numbers[step] += 1
            self.called[number] = f"{step} {self.numbers[step]}"


def _is_decided(event: HistoryEvent) -> bool:
    """Whether an event is the command of a workflow task, and so written with its completion."""
    kind = event.WhichOneof("attributes") or ""
    a = getattr(event, kind)
    return bool(getattr(a, "workflow_task_completed_event_id", 0)) or "update_" in kind
