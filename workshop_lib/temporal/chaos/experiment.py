"""A plan that is carried out: what of it has happened, in a file that all its workers share.

Each line of the file is one thing that a process did or could not do, written before it is done: a process
that kills itself has said so. Where the server tells no attempt (a workflow task, the start of an operation),
the strikes so far stand for it. The report lists what was planned beside what happened; a fault that has not
struck says why.

Left out: making faults happen (`injection`).
"""

import os
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.machine import state_folder
from workshop_lib.machine.files import append
from workshop_lib.settings import get_settings
from workshop_lib.temporal.chaos.plan import ChaosPlan, Place, lasting
from workshop_lib.temporal.places import Step

_reading = threading.Lock()  # workflow tasks run in threads
SHOWN = 4  # strikes of a fault that the report names


class Entry(BaseModel):
    """A line of the file.

    Attributes:
        time: seconds since 1970.
        what: "serves", a worker has begun; "passed", a process has come to the place of a fault for the first
            time; "struck"; "kept", a strike was due and could not be.
        fault: its number in the plan, counted from 0.
        name, workflow_id, step, attempt: of the step, as in `places.Step`.
        lets_go_on: the step's attempt is not over with it.
        why: it was kept.
        serves: of a worker, names of its workflows, activities and operations.
    """

    time: float
    pid: int
    what: Literal["serves", "passed", "struck", "kept"]
    fault: int = -1
    name: str = ""
    workflow_id: str = ""
    step: str = ""
    attempt: int = 0
    event: int = 0
    lets_go_on: bool = False
    why: str = ""
    serves: list[str] = []

    def ends(self, step: Step) -> bool:
        """Whether it has ended an attempt of a step whose attempts the server does not tell."""
        return not self.lets_go_on and (self.name, self.workflow_id, self.step) == step[:3]


class Line(BaseModel):
    """A fault in the report.

    Attributes:
        planned: it in words.
        times: how often it has struck.
        happened: where, or why it has not.
    """

    planned: str
    times: int
    happened: str


class Report(BaseModel):
    """What was planned beside what happened, a line a fault."""

    lines: list[Line]

    def __str__(self) -> str:
        width = max((len(line.planned) for line in self.lines), default=0)
        return "\n".join(f"{line.planned:<{width}}  {line.happened}" for line in self.lines)

    def _repr_html_(self) -> str:
        """The same as a table: a notebook asks for it."""
        rows = (
            f"<tr><td style='text-align:left'>{harmless.html(line.planned)}</td>"
            f"<td style='text-align:left'>{harmless.html(line.happened)}</td></tr>"
            for line in self.lines
        )
        head = "<tr><th style='text-align:left'>planned</th><th style='text-align:left'>happened</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>"


@dataclass(frozen=True)
class Experiment:
    """A plan and its file. Can be sent to another process.

    Attributes:
        may_kill: this process is a worker's own, and may be killed.
    """

    plan: ChaosPlan
    file: Path
    may_kill: bool = False
    _told: set[tuple[int, str]] = field(default_factory=set, compare=False, repr=False)
    _seen: list[Entry] = field(default_factory=list, compare=False, repr=False)
    _read_to: list[int] = field(default_factory=lambda: [0], compare=False, repr=False)

    @classmethod
    def begin(cls, plan: ChaosPlan) -> "Experiment":
        """A new one, of which nothing has happened yet.

        Raises:
            WorkshopError: the state folder cannot be written.
        """
        folder = get_settings().state_dir
        try:
            made = state_folder.made(folder, "chaos")
            file = made / f"{plan.digest}-{uuid.uuid4().hex[:8]}.jsonl"
            file.touch(0o600)
        except OSError as error:
            raise WorkshopError(
                f"{folder} cannot be written: {error.strerror}.",
                fix="mend its permissions, or point WORKSHOP_STATE_DIR elsewhere.",
            ) from None
        return cls(plan, file)

    def serves(self, names: Iterable[str]) -> None:
        """A worker begins."""
        self._write(Entry(time=time.time(), pid=os.getpid(), what="serves", serves=list(names)))

    def strike(self, place: Place, names: Sequence[str], step: Step, **more: object) -> int | None:
        """The number of the fault that strikes a step here and now, if one does.

        Whoever asks says `struck` or `kept` then.

        Args:
            names: what the step goes by, see `plan.Place`.
            more: attributes that the fault must have, such as its `kind`.
        """
        for number, fault in enumerate(self.plan.faults):
            if fault.place is not place or not fault.concerns(names, step.workflow_id):
                continue
            if any(getattr(fault, name) != value for name, value in more.items()):
                continue
            self._pass(number, step)
            if self._strikes(number, step):
                return number
        return None

    def struck(self, number: int, step: Step) -> None:
        """Say that a fault strikes, right before it does."""
        self._say("struck", number, step)

    def kept(self, number: int, step: Step, why: str) -> None:
        """Say why a fault that was due could not be. Once a process."""
        if (number, why) not in self._told:
            self._told.add((number, why))
            self._say("kept", number, step, why)

    def entries(self) -> list[Entry]:
        """The file so far, oldest first; what a process has not written to its end is left out."""
        with _reading, self.file.open("rb") as file:
            file.seek(self._read_to[0])
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_to[0] += len(line)
                try:
                    self._seen.append(Entry.model_validate_json(line))
                except ValidationError:
                    continue
            return [*self._seen]

    def report(self) -> Report:
        """What was planned beside what happened, so far."""
        entries = self.entries()
        return Report(lines=[self._line(n, entries) for n in range(len(self.plan.faults))])

    def _strikes(self, number: int, step: Step) -> bool:
        fault = self.plan.faults[number]
        exact = bool(fault.when and fault.when.event)
        if fault.down_for or exact:
            before = [e for e in self.entries() if e.what == "struck" and e.fault == number]
            if fault.down_for:
                return not before or time.time() < before[0].time + fault.down_for
            here = any(e.workflow_id == step.workflow_id for e in before)
            return not here and bool(fault.when and step.event >= (fault.when.event or 0))
        if not step.attempt:
            ended = [e for e in self.entries() if e.what == "struck" and e.ends(step)]
            step = step._replace(attempt=1 + len(ended))
        return self.plan.strikes(number, step)

    def _pass(self, number: int, step: Step) -> None:
        if (number, "") not in self._told:
            self._told.add((number, ""))
            self._say("passed", number, step)

    def _say(
        self, what: Literal["passed", "struck", "kept"], number: int, step: Step, why: str = ""
    ) -> None:
        goes_on = self.plan.faults[number].kind == "slow"
        who = {"time": time.time(), "pid": os.getpid(), "what": what, "lets_go_on": goes_on}
        self._write(Entry(**who, fault=number, why=why, **step._asdict()))

    def _write(self, entry: Entry) -> None:
        append(self.file, (entry.model_dump_json(exclude_defaults=True) + "\n").encode())

    def _line(self, number: int, entries: Sequence[Entry]) -> Line:
        fault = self.plan.faults[number]
        mine = [entry for entry in entries if entry.fault == number]
        struck = [entry for entry in mine if entry.what == "struck"]
        if struck:
            places = [_place(entry) for entry in struck[:SHOWN]]
            more = [f"and {len(struck) - SHOWN} more"] * (len(struck) > SHOWN)
            said = f"{len(struck)} ×: {', '.join([*places, *more])}"
        elif why := next((entry.why for entry in mine if entry.what == "kept"), ""):
            said = f"no: {harmless.line(why, 200)}"
        elif not any(entry.what == "serves" for entry in entries):
            said = "no: no worker with this plan has begun"
        elif passed := [entry for entry in mine if entry.what == "passed"]:
            said = f"no: {_place(passed[0])} was reached, {self._not_drawn(number)}"
        else:
            served = {name for entry in entries for name in entry.serves}
            known = fault.place in (Place.LOCAL_TOOL, Place.MCP) or fault.concerns(
                [*served], fault.workflow
            )
            said = "no: nothing came there before the end" if known else self._unknown(number)
        return Line(planned=fault.title, times=len(struck), happened=said)

    def _not_drawn(self, number: int) -> str:
        fault = self.plan.faults[number]
        if fault.chance is not None:
            return "and the seed has drawn no fault"
        if fault.when and fault.when.event:
            return f"and no run came to event {fault.when.event}"
        return "but not this step and attempt"

    def _unknown(self, number: int) -> str:
        return f"no: no worker with this plan serves {harmless.line(self.plan.faults[number].name, 60)}"


def _place(entry: Entry) -> str:
    step = f" step {entry.step}" if entry.step else ""
    attempt = f" attempt {entry.attempt}" if entry.attempt else ""
    return harmless.line(f"{entry.name}{step}{attempt} of {lasting(entry.workflow_id)}", 120)
