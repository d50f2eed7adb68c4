"""ProactiveRepair: an agent that looks by itself, once a day or when it is told to.

It acts alone only where every proposal of the plan is above 0.95 and within the hard rules; the whole plan,
because its parts belong together: an order that is repaired by half counts as looked after. Otherwise it
notifies (log, e-mail, callback signal) and waits for a decision like any repair. Each cycle has a plan and a
decision of its own: one that is rejected, expired or failed does not touch the next.

After ten cycles, or when another version of its code is current, it continues as new, with its state.
Left out: what a cycle does (`cycle`).
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ActivityConfig

with workflow.unsafe.imports_passed_through():
    from workshop_lib.repair.cycle import RepairCycle
    from workshop_lib.repair.models import PROACTIVE_THRESHOLD, Plan
    from workshop_lib.repair.notify import NOTIFY_OPTIONS, Notification, notify
    from workshop_lib.repair.states import (
        DECIDE_SIGNAL,
        REQUEST_EXIT,
        STOP_WAITING,
        Carried,
        CycleRecord,
        ProactiveOutcome,
        ProactiveStart,
        RepairStatus,
        State,
    )
    from workshop_lib.repair.workflow import RepairWorkflow
    from workshop_lib.temporal.steps import reason_of
    from workshop_lib.temporal.versions import UPGRADE

PERIOD = timedelta(days=1)
CYCLES_A_RUN = 10
MAX_RECORDS = 30  # past cycles that are kept
MAX_WARNINGS = 20


@workflow.defn
class ProactiveRepair(RepairWorkflow):
    """Repairs orders every day until it is asked to leave.

    Signals: `stop_waiting` begins the next cycle at once, `request_exit` ends the agent when the repairs
    under way are made, `decide_by_signal` decides the plan. What may run twice is said at `OrderRepair`;
    a notification that is written twice is the same file.
    """

    @workflow.init
    def __init__(self, start: ProactiveStart) -> None:
        super().__init__()
        now = workflow.now()
        carried = start.carried or Carried(cycle=1, started_at=now, next_at=now)
        self._start = start
        self._cycle_number = carried.cycle
        self._started_at = carried.started_at
        self._next_at = carried.next_at
        self._stop_waiting = carried.stop_waiting
        self._exit = False
        self._cycles = list(carried.cycles)
        self._refused_signals = list(carried.refused_signals)
        self._warnings = list(carried.warnings)
        # Before the first cycle and between two there is a state of its own.
        self._between: State | None = State.WAITING if start.carried else None
        self._cycle = self._new_cycle()

    @workflow.run
    async def run(self, start: ProactiveStart) -> ProactiveOutcome:
        """Run cycles, one a day, until `request_exit`."""
        cycles = 0
        while not self._exit:
            # On another version of the code as soon as one is current.
            newer = workflow.info().is_target_worker_deployment_version_changed()
            if cycles == CYCLES_A_RUN or (newer and cycles):
                # Nothing is awaited between the look at the signals and here, so none is lost: those that
                # have come are carried along, and a later one finds the new run.
                onward = start.model_copy(update={"carried": self._carried()})
                workflow.continue_as_new(onward, initial_versioning_behavior=UPGRADE)
            await self._wait_for_next()
            if not self._exit:
                await self._run_cycle()
                cycles += 1
        return self._stopped()

    @workflow.query
    def cycles(self) -> list[CycleRecord]:
        """The past cycles, oldest first; the latest thirty."""
        return self._cycles

    async def _wait_for_next(self) -> None:
        """Wait until the next cycle is due, or somebody does not want to wait."""
        left = self._next_at - workflow.now()
        if left > timedelta() and not self._stop_waiting:
            self._between = State.WAITING
            self._changed()
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._stop_waiting or self._exit,
                    timeout=left,
                    timeout_summary=f"until cycle {self._cycle_number}",
                )
        self._stop_waiting = False
        self._between = None

    async def _run_cycle(self) -> None:
        """One pass, and its record. Nothing of it but the record reaches the next one."""
        started = workflow.now()
        self._next_at = started + PERIOD
        cycle = self._cycle = self._new_cycle()
        await cycle.run(self._ask, give_up=lambda: self._exit)
        if cycle.state == State.PENDING_APPROVAL:  # left undecided by `request_exit`
            cycle.end(State.EXPIRED, "The agent was asked to leave before anybody decided.")
        if cycle.state != State.NO_REPAIR_NEEDED:
            await self._announce(cycle.reason, cycle.reports.execution or "")
        record = CycleRecord(
            cycle=self._cycle_number,
            started=started,
            state=cycle.state,
            reason=cycle.reason,
            plan_digest=cycle.plan.digest if cycle.plan else None,
            done=sum(result.done for result in cycle.results),
        )
        self._cycles = [*self._cycles, record][-MAX_RECORDS:]
        self._warnings = [*self._warnings, *cycle.warnings][-MAX_WARNINGS:]
        cycle.warnings = []
        self._cycle_number += 1

    async def _ask(self, plan: Plan) -> None:
        """Act alone where everything is sure enough, else tell people that the plan waits."""
        lowest = min(proposal.confidence for proposal in plan.proposals)
        if lowest > PROACTIVE_THRESHOLD and not self._cycle.desk.needs_somebody_else:
            comment = f"The lowest confidence is {lowest:.2f}, above {PROACTIVE_THRESHOLD:.2f}."
            self._decide_alone("proactive agent", comment)
        else:
            summary = (
                f"{len(plan.proposals)} repairs wait for a decision; the lowest confidence is"
                f" {lowest:.2f}, and the agent acts alone only above {PROACTIVE_THRESHOLD:.2f}."
            )
            await self._announce(summary, self._cycle.reports.planning or "")

    async def _announce(self, summary: str, body: str) -> None:
        """Notify people and the workflow that wants to hear of it. Failing at it stops nothing."""
        notice = self._notice(summary)
        request = Notification(scope=self._cycle.scope, notice=notice, body=body)
        try:
            await workflow.execute_activity(
                notify, request, **(NOTIFY_OPTIONS | ActivityConfig(summary=str(notice.state)))
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._warnings.append(f"Nobody was notified: {reason_of(error)}")
        await self._tell(summary)

    def _take_signal(self, name: str, payloads: Sequence[RawValue]) -> None:
        # What comes along with these two is left unread; there is nothing to misunderstand.
        if name == STOP_WAITING:
            self._stop_waiting = True
        elif name == REQUEST_EXIT:
            self._exit = True
        elif name == DECIDE_SIGNAL:
            super()._take_signal(name, payloads)
        else:
            raise ApplicationError(
                f"There is no signal {name[:60]!r}; there are {DECIDE_SIGNAL}, {STOP_WAITING} and"
                f" {REQUEST_EXIT}.",
                type="UnknownSignal",
            )

    def _status(self) -> RepairStatus:
        status = super()._status()
        number = self._cycle_number if self._between is None else self._cycle_number - 1
        changes: dict[str, object] = {"cycle": max(number, 1)}
        if self._between is not None:
            changes["state"] = self._between
        return status.model_copy(update=changes)

    def _new_cycle(self) -> RepairCycle:
        info = workflow.info()
        days = (workflow.now() - self._started_at).days
        return RepairCycle(
            # The first run's id stays the same when the agent continues as new.
            f"{info.workflow_id}/{info.first_execution_run_id[-12:]}/cycle-{self._cycle_number}",
            self._start.today + timedelta(days=days),
            self._changed,
            {
                record.plan_digest: f"cycle {record.cycle}, which ended as {record.state}"
                for record in self._cycles
                if record.plan_digest
            },
        )

    def _stopped(self) -> ProactiveOutcome:
        self._between = State.STOPPED
        self._cycle.desk.close("The agent has left.")
        self._changed()
        return ProactiveOutcome(
            state=State.STOPPED, count=self._cycle_number - 1, cycles=self._cycles
        )

    def _carried(self) -> Carried:
        return Carried(
            cycle=self._cycle_number,
            started_at=self._started_at,
            next_at=self._next_at,
            stop_waiting=self._stop_waiting,
            cycles=self._cycles,
            refused_signals=self._refused_signals,
            warnings=self._warnings,
        )
