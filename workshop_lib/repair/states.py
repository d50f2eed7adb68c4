"""What a repair tells the world: its states, what it is started with, and what it is decided with.

These are the inputs and answers of the repair workflows. The module imports pydantic and the standard
library only, so clients and workflow code share it. Left out: the order of the states (`cycle`).
"""

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workshop_lib.repair.models import Id, RepairResult

APPROVAL_TIMEOUT = timedelta(hours=12)  # for a decision; then the plan is too old to be carried out

# Names of the signals. The first is for all repairs, the others for the proactive agent.
DECIDE_SIGNAL = "decide_by_signal"
STOP_WAITING = "stop_waiting"
REQUEST_EXIT = "request_exit"


class State(StrEnum):
    """Where a repair is. The first nine are the way of one that is approved."""

    INITIALIZING = "INITIALIZING"
    DETECTING = "DETECTING-PROBLEMS"
    ANALYZING = "ANALYZING-PROBLEMS"
    PLANNING = "PLANNING-REPAIR"
    PENDING_APPROVAL = "PENDING-APPROVAL"
    APPROVED = "APPROVED"
    PENDING_REPAIR = "PENDING-REPAIR"
    PENDING_REPORT = "PENDING-REPORT"
    COMPLETED = "REPORT-COMPLETED"
    NO_REPAIR_NEEDED = "NO-REPAIR-NEEDED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"
    # of the proactive agent
    WAITING = "WAITING-FOR-NEXT-CYCLE"
    STOPPED = "STOPPED"


# Nothing more happens in a pass that is in one of these.
ENDS = frozenset(
    {State.COMPLETED, State.NO_REPAIR_NEEDED, State.REJECTED, State.EXPIRED, State.FAILED}
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Callback(_Frozen):
    """A workflow that wants to hear of a repair, and the name of its signal, which gets a `Notice`."""

    workflow_id: Annotated[str, Field(min_length=1, max_length=1000)]
    signal: Annotated[str, Field(min_length=1, max_length=200)] = "repair_notice"


class RepairStart(_Frozen):
    """Input of a repair.

    Attributes:
        today: the day that analysts count from.
        user: who has started it.
        auto_approve: carry the whole plan out without asking anybody.
    """

    today: date
    user: Annotated[str, Field(max_length=200)] = ""
    auto_approve: bool = False
    callback: Callback | None = None


class Decision(_Frozen):
    """What a person decides about a plan.

    Attributes:
        plan_digest: of the plan that the person has seen. A decision counts for this plan and no other.
        proposals: for an approval of a part, the ids of the proposals in it; None for all of them.
        comment: why.
    """

    approve: bool
    plan_digest: Annotated[str, Field(min_length=1, max_length=100)]
    decided_by: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    proposals: list[Id] | None = None
    comment: Annotated[str, Field(max_length=1000)] = ""


Way = Literal["update", "signal", "automatic"]


class RecordedDecision(_Frozen):
    """A decision that counted.

    Attributes:
        way: how it came: from a client, by a signal, or by the agent itself.
        approved, declined: ids of the proposals.
    """

    approve: bool
    plan_digest: str
    decided_by: str
    decided_at: datetime
    way: Way
    comment: str = ""
    approved: list[str] = []
    declined: list[str] = []


class RefusedSignal(_Frozen):
    """A decision that came by signal and changed nothing, and why."""

    at: datetime
    kind: str
    reason: str


class StateChange(_Frozen):
    """When a state was entered."""

    state: State
    at: datetime


class RepairStatus(_Frozen):
    """Where a repair is, for people and programs.

    Attributes:
        reason: why it ended as it did.
        confidence: of the detection.
        plan_digest: to be given with a decision; None before there is a plan.
        decide_until: when the plan expires.
        refused_signals: the latest ones.
        warnings: what went wrong beside the repair, such as a notice that nobody received.
        states: every state so far, oldest first.
        cycle: of the proactive agent; 1 for a single repair.
    """

    state: State
    reason: str = ""
    confidence: float | None = None
    plan_digest: str | None = None
    decide_until: datetime | None = None
    decision: RecordedDecision | None = None
    proposed: int = 0
    skipped: int = 0
    refused: int = 0
    done: int = 0
    refused_signals: list[RefusedSignal] = []
    warnings: list[str] = []
    states: list[StateChange] = []
    cycle: int = 1


class ReportStatus(_Frozen):
    """The reports of a repair. Paths are of the machine where the worker runs.

    Attributes:
        planning, execution: the text, once it is written.
        files: where they lie, as Markdown and PDF.
    """

    planning: str | None = None
    execution: str | None = None
    files: list[str] = []


class RepairOutcome(_Frozen):
    """How a repair ended.

    Attributes:
        skipped: proposals that the agent was not sure enough about.
        report: the execution report, where anything was decided.
    """

    state: State
    reason: str = ""
    results: list[RepairResult] = []
    declined: list[str] = []
    skipped: int = 0
    report: str | None = None


class CycleRecord(_Frozen):
    """A past pass of the proactive agent.

    Attributes:
        plan_digest: None where it came to no plan.
    """

    cycle: int
    started: datetime
    state: State
    reason: str = ""
    plan_digest: str | None = None
    done: int = 0


class Carried(_Frozen):
    """What the proactive agent takes with it when it continues as new.

    Attributes:
        cycle: the number of the next cycle.
        started_at: when the first run began; its days are counted from here.
        next_at: when the next cycle is due.
        stop_waiting: a signal that has come and was not yet acted upon.
    """

    cycle: int
    started_at: datetime
    next_at: datetime
    stop_waiting: bool = False
    cycles: list[CycleRecord] = []
    refused_signals: list[RefusedSignal] = []
    warnings: list[str] = []


class ProactiveStart(_Frozen):
    """Input of the proactive agent.

    Attributes:
        today: the day of the first cycle; the others count on from it.
        user: who has started it, and is notified.
        carried: from the run before, when it continues as new; None for people.
    """

    today: date
    user: Annotated[str, Field(max_length=200)] = ""
    callback: Callback | None = None
    carried: Carried | None = None


class ProactiveOutcome(_Frozen):
    """How the proactive agent ended: the number of its cycles, and the latest of them."""

    state: State
    count: int
    cycles: list[CycleRecord] = []


class Notice(_Frozen):
    """What a callback signal or a notification says.

    Attributes:
        source: id of the workflow that says it.
        summary: one sentence.
    """

    source: str
    cycle: int = 1
    state: State
    summary: str
    plan_digest: str | None = None
