"""A chaos plan: which faults happen where, as data.

    seed: 7
    faults:
      - {place: model, kind: rate_limit, chance: 0.3}
      - {place: model, kind: server_error, down_for: 10}
      - {place: activity, kind: lost_completion, name: order_inventory, when: {attempt: 1}}
      - {place: worker, at: activity-report, name: execute_tool, when: {step: 2}}
      - {place: server, when: {event: 20}}

Whether a fault strikes is a pure function of the seed, the workflow's id, the step in its run and the
attempt: another process, or one that takes over from a process that was killed, decides the same. Of an id
does not count what is new each time: a UUID, and what follows a `~`. So `bad-day~1` and `bad-day~2` have the
same day. `down_for` is the exception: an outage has a beginning, which is its first strike.

A plan holds faults and nothing else: it is a person's file, and cannot name code. Left out: how a fault is
made (`injection`), what came of it (`experiment`), and reading a plan (`plan_file`).
"""

import hashlib
import re
from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from workshop_lib import harmless
from workshop_lib.temporal.places import Step, Where

MAX_FAULTS = 100
_NEW = re.compile(r"[\da-f]{8}(-?[\da-f]{4}){3}-?[\da-f]{12}|~[^~]*$")


class Place(StrEnum):
    """Where a fault happens."""

    MODEL = "model"  # a request to the offline model; `name` is the activity that makes it
    LOCAL_TOOL = "local_tool"  # `name` is the tool
    ACTIVITY = "activity"  # any activity; `name` is its type
    NEXUS = "nexus"  # at the team that is called; `name` is the operation
    MCP = "mcp"  # `name` is the tool, "list-tools", or the server as histories name it
    WORKER = (
        "worker"  # `name` is the type of the workflow or activity, or the operation, of its `at`
    )
    SERVER = "server"  # the same


# What each does to a request to the model. The last four change an answer that calls a tool, and no other.
MODEL_KINDS = {
    "rate_limit": "429 with a retry-after of one second",
    "server_error": "500",
    "timeout": "no answer in time",
    "cut_json": "the arguments of a tool call end in the middle",
    "unknown_tool": "a tool is called that does not exist",
    "wrong_argument": "an argument of a tool call has a wrong name",
    "gullible": "an instruction in the notes of an order is obeyed: the tool calls it demands are made",
}
_FAILS = {"fails": "it fails, and may be tried again", "slow": "it begins `seconds` later"}
_ANSWER_LOST = {"answer_lost": "it is done, and the answer does not arrive"}
KINDS: dict[Place, dict[str, str]] = {
    Place.MODEL: MODEL_KINDS,
    Place.LOCAL_TOOL: _FAILS,
    Place.ACTIVITY: _FAILS
    | {
        "lost_completion": "it is done, and the server is never told",
        "stalled_heartbeat": "its worker gives no sign of life, is given up, and does it then",
    },
    Place.NEXUS: _FAILS | _ANSWER_LOST,
    Place.MCP: {
        "connection_lost": "the connection breaks before the call",
        "server_error": "the server answers with an internal error",
        "slow": _FAILS["slow"],
    }
    | _ANSWER_LOST,
    Place.WORKER: {"killed": "SIGKILL to the worker's process"},
    Place.SERVER: {"killed": "SIGKILL to the dev server"},
}
# What can go on for a while.
_OUTAGES = {"rate_limit", "server_error", "timeout", "fails", "connection_lost"}

Name = Annotated[str, Field(min_length=1, max_length=100)]
Positive = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]


def _several(given: Any) -> Any:
    return given if isinstance(given, list | tuple) else (given,)


Several = Annotated[
    tuple[Positive, ...], BeforeValidator(_several), Field(min_length=1, max_length=MAX_FAULTS)
]


Steps = Annotated[
    tuple[Positive | Name, ...],
    BeforeValidator(_several),
    Field(min_length=1, max_length=MAX_FAULTS),
]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class When(_Data):
    """Exactly when.

    Attributes:
        step: ids of activities in their run, numbers of the caller's Nexus operations, or what a workflow
            task is told, such as "activity 3" (see `places.Step`). Left out: each.
        attempt: of the step.
        event: in place of both, for kills: the first workflow task of a run that has so many events or more.
    """

    step: Steps | None = None
    attempt: Several = (1,)
    event: Positive | None = None


class Fault(_Data):
    """One line of a plan.

    Attributes:
        kind: one of `KINDS` of the place.
        name: what fails there, see `Place`; `*` stands for any letters, also in `workflow`.
        workflow: the id of the run, or of the caller's.
        at: where in its work a worker is killed, or passes when the server is.
        chance: between 0 and 1, drawn anew for each step and attempt.
        when: in place of a chance.
        down_for: in place of both: seconds from the first time on.
        seconds: that "slow" lasts.
    """

    place: Place
    kind: str = "killed"
    name: Name = "*"
    workflow: Name = "*"
    at: Where | None = None
    chance: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    when: When | None = None
    down_for: float | None = Field(None, gt=0, le=600, allow_inf_nan=False)
    seconds: float = Field(2.0, gt=0, le=30, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits(self) -> "Fault":
        kinds = KINDS[self.place]
        given = [name for name in ("chance", "when", "down_for") if getattr(self, name) is not None]
        kill, event = self.kind == "killed", self.when is not None and self.when.event is not None
        task = self.at in (Where.TASK_BEFORE, Where.TASK_AFTER)
        problems = {
            f"{harmless.line(self.kind, 40)} is no kind of {self.place}; there are "
            f"{', '.join(kinds)}": self.kind not in kinds,
            "it needs one of chance, when and down_for"
            + f", not {' and '.join(given)}" * bool(given): len(given) != 1,
            f"{self.kind} does not last, so it has no down_for": self.down_for
            and self.kind not in _OUTAGES,
            "it needs `at`, as in activity-report, or `when: {event: …}`": kill
            and not (self.at or event),
            "only a kill has `at` and `when: {event: …}`": not kill and (self.at or event),
            "an event is one of a workflow task": event and self.at and not task,
            "an event stands in place of step and attempt": event
            and self.when
            and (self.when.step or self.when.attempt != (1,)),
        }
        for problem, there in problems.items():
            if there:
                raise ValueError(problem)
        return self

    @property
    def where(self) -> Where | None:
        """The place in a worker's work where it kills."""
        return self.at or (Where.TASK_BEFORE if self.kind == "killed" else None)

    @property
    def title(self) -> str:
        """The fault in words."""
        words = [self.place, self.kind]
        words += [f"at {self.at}"] * bool(self.at) + [self.name] * (self.name != "*")
        words += [f"of {self.workflow}"] * (self.workflow != "*")
        if self.chance is not None:
            words.append(f"chance {self.chance:g}")
        elif self.down_for:
            words.append(f"for {self.down_for:g} s")
        elif self.when and self.when.event:
            words.append(f"at event {self.when.event}")
        elif self.when:
            steps = [f"step {_listed(self.when.step)}"] if self.when.step else []
            words.append(", ".join([*steps, f"attempt {_listed(self.when.attempt)}"]))
        return harmless.line(" · ".join(words), 200)

    def concerns(self, names: Sequence[str], workflow_id: str) -> bool:
        """Whether it may strike something that has these names, in this run."""
        return fnmatchcase(workflow_id, self.workflow) and any(
            fnmatchcase(name, self.name) for name in names
        )


class ChaosPlan(_Data):
    """Faults, and the seed that decides on the ones that have a chance."""

    seed: int = Field(0, ge=-(2**63), lt=2**63, strict=True)
    faults: tuple[Fault, ...] = Field((), max_length=MAX_FAULTS)

    @property
    def digest(self) -> str:
        """Eight hex digits that stand for this plan."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    def strikes(self, number: int, step: Step) -> bool:
        """Whether a fault with a chance or with an exact `when` strikes a step. Pure.

        Args:
            number: of the fault, counted from 0.
            step: its attempt counts from 1.
        """
        fault = self.faults[number]
        if fault.when:
            wanted = fault.when.step
            # Of a step with several requests only the first is called by its bare number.
            here = not wanted or step.step in map(str, wanted)
            return here and step.attempt in fault.when.attempt
        return fault.chance is not None and self._drawn(fault, step) < fault.chance

    def _drawn(self, fault: Fault, step: Step) -> float:
        """A number in [0, 1) that is the same wherever this step, at this attempt, meets this fault.

        The chance is no part of it: raising it adds strikes and takes none away.
        """
        what = (fault.place, fault.kind, fault.at, fault.name, fault.workflow)
        run = lasting(step.workflow_id)
        text = repr((self.seed, *map(str, what), run, step.step, step.attempt))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) / 2**56


def lasting(workflow_id: str) -> str:
    """An id without what is new each time."""
    return _NEW.sub("", workflow_id)


def _listed(numbers: Sequence[int | str]) -> str:
    return " and ".join(map(str, numbers))
