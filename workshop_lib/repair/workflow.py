"""OrderRepair: one DAPER pass with a human in it, and what every repair workflow answers to.

Detect, analyse, plan, wait up to twelve hours for a decision that is bound to the plan shown, execute what
is approved, report. Started with `auto_approve` it asks nobody.

A decision comes as an update or as a signal. An update is refused before anything is recorded, and whoever
sent it hears why. A signal has nobody to answer to: one that does not count changes nothing, and its reason
shows in the status. Left out: the steps themselves (`cycle`), and passes that repeat (`proactive`).
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from workshop_lib.harmless import faults
    from workshop_lib.repair.cycle import RepairCycle
    from workshop_lib.repair.documents import status_details
    from workshop_lib.repair.models import Analysis, Plan, RepairResult
    from workshop_lib.repair.states import (
        DECIDE_SIGNAL,
        Decision,
        Notice,
        ProactiveStart,
        RecordedDecision,
        RefusedSignal,
        RepairOutcome,
        RepairStart,
        RepairStatus,
        ReportStatus,
        State,
    )
    from workshop_lib.temporal.search_attributes import REPAIR_STATUS
    from workshop_lib.temporal.steps import reason_of

MAX_REFUSED_SIGNALS = 5  # that are shown
_EXPECTED = 'send a JSON object like {"approve": true, "plan_digest": "…", "decided_by": "…"}'
NOTICE_LIMIT = timedelta(seconds=30)  # for a callback signal to be taken by the server


class RepairWorkflow:
    """Base of the repair workflows: what they answer to about `_cycle`, the pass that is under way."""

    _start: RepairStart | ProactiveStart
    _cycle: RepairCycle
    _cycle_number = 1

    def __init__(self) -> None:
        self._refused_signals: list[RefusedSignal] = []
        self._warnings: list[str] = []

    @workflow.update
    def decide(self, decision: Decision) -> RecordedDecision:
        """Approve the plan, a part of it, or reject it. Counts for the plan with the digest given."""
        recorded = self._cycle.desk.take(decision, workflow.now(), "update")
        self._changed()
        return recorded

    @decide.validator
    def _check_decision(self, decision: Decision) -> None:
        """Refuse before anything is recorded: a refused decision leaves no event in the history."""
        if not isinstance(decision, Decision):  # null is read as None
            raise ApplicationError(f"That is no decision; {_EXPECTED}.", type="Unreadable")
        self._cycle.desk.check(decision, workflow.now())

    @workflow.signal(dynamic=True)
    def any_signal(self, name: str, payloads: Sequence[RawValue]) -> None:
        """Take `decide_by_signal`: the same as the update, for the Web UI.

        Every signal comes here, raw. A handler of its own name and type would fail the workflow task,
        again and again, at a payload that is no decision or at one payload too many; this way whatever is
        sent is either taken or refused.
        """
        try:
            self._take_signal(name, payloads)
        except ApplicationError as error:
            refused = RefusedSignal(
                at=workflow.now(), kind=error.type or "Unreadable", reason=error.message
            )
            self._refused_signals = [*self._refused_signals, refused][-MAX_REFUSED_SIGNALS:]
        self._changed()

    def _take_signal(self, name: str, payloads: Sequence[RawValue]) -> None:
        """Do what a signal says.

        Raises:
            ApplicationError: it says nothing that can be done.
        """
        if name != DECIDE_SIGNAL:
            raise ApplicationError(
                f"There is no signal {name[:60]!r}; to decide, send {DECIDE_SIGNAL}.",
                type="UnknownSignal",
            )
        self._cycle.desk.take(_read_decision(payloads), workflow.now(), "signal")

    @workflow.query
    def status(self) -> RepairStatus:
        """Where the repair is."""
        return self._status()

    @workflow.query
    def problems(self) -> Analysis | None:
        """What is wrong, once it has been analysed."""
        return self._cycle.analysis

    @workflow.query
    def plan(self) -> Plan | None:
        """The plan, once there is one."""
        return self._cycle.plan

    @workflow.query
    def results(self) -> list[RepairResult]:
        """What became of the approved proposals so far."""
        return self._cycle.results

    @workflow.query
    def report(self) -> ReportStatus:
        """The reports, as far as they are written."""
        return self._cycle.reports

    def _status(self) -> RepairStatus:
        cycle, plan = self._cycle, self._cycle.plan
        return RepairStatus(
            state=cycle.state,
            reason=cycle.reason,
            confidence=cycle.detection.confidence if cycle.detection else None,
            plan_digest=plan.digest if plan else None,
            decide_until=cycle.desk.until,
            decision=cycle.desk.decision,
            proposed=len(plan.proposals) if plan else 0,
            skipped=len(plan.skipped) if plan else 0,
            refused=len(plan.refused) if plan else 0,
            done=sum(result.done for result in cycle.results),
            refused_signals=self._refused_signals,
            warnings=[*self._warnings, *cycle.warnings],
            states=cycle.states,
            cycle=self._cycle_number,
        )

    def _changed(self) -> None:
        """Keep up to date what the Web UI shows, and what the repair is found by.

        A run that was started without this attribute has none: another's script has started it, or the server
        does not know it and would fail the task for ever.
        """
        status = self._status()
        workflow.set_current_details(status_details(status, self._cycle.plan))
        if workflow.info().typed_search_attributes.get(REPAIR_STATUS, status.state) != status.state:
            workflow.upsert_search_attributes([REPAIR_STATUS.value_set(status.state)])

    def _decide_alone(self, decided_by: str, comment: str = "") -> None:
        """Approve the whole plan without asking anybody."""
        cycle = self._cycle
        assert cycle.plan is not None
        decision = Decision(
            approve=True, plan_digest=cycle.plan.digest, decided_by=decided_by, comment=comment
        )
        cycle.desk.take(decision, workflow.now(), "automatic")

    def _notice(self, summary: str) -> Notice:
        plan = self._cycle.plan
        return Notice(
            source=workflow.info().workflow_id,
            cycle=self._cycle_number,
            state=self._cycle.state,
            summary=summary,
            plan_digest=plan.digest if plan else None,
        )

    async def _tell(self, summary: str) -> None:
        """Send a notice to the workflow that wants to hear of it. That nobody is there is a warning."""
        callback = self._start.callback
        if callback is None:
            return
        handle: workflow.ExternalWorkflowHandle[Any] = workflow.get_external_workflow_handle(
            callback.workflow_id
        )
        try:
            # Recorded when it is sent: a replay does not send it again.
            sending = handle.signal(callback.signal, self._notice(summary))
            await asyncio.wait_for(sending, NOTICE_LIMIT.total_seconds())
        except Exception as error:
            if is_cancelled_exception(error):
                raise
            self._warnings.append(f"{callback.workflow_id} was not told: {reason_of(error)}")


@workflow.defn
class OrderRepair(RepairWorkflow):
    """Repairs orders once.

    Its steps may run twice when a worker dies: analysts ask a model again and change nothing, reports are
    written over with the same text, and the store makes a repair once for its key.
    """

    @workflow.init
    def __init__(self, start: RepairStart) -> None:
        super().__init__()
        info = workflow.info()
        # A workflow id may be used again for another run, whose repairs are others.
        scope = f"{info.workflow_id}/{info.first_execution_run_id[-12:]}"
        self._start = start
        self._auto_approve = start.auto_approve
        self._cycle = RepairCycle(scope, start.today, self._changed)

    @workflow.run
    async def run(self, start: RepairStart) -> RepairOutcome:
        """Run to one of the last states.

        Raises:
            ApplicationError: type `RepairFailed`, where the state is FAILED. The reason is the message.
        """
        await self._cycle.run(self._ask)
        outcome = self._cycle.outcome
        await self._tell(outcome.reason)
        if outcome.state == State.FAILED:
            raise ApplicationError(outcome.reason, outcome, type="RepairFailed", non_retryable=True)
        return outcome

    async def _ask(self, plan: Plan) -> None:
        """Have the plan decided."""
        if self._auto_approve:
            user = self._start.user
            self._decide_alone(f"auto-approve of {user}" if user else "auto-approve")
        else:
            await self._tell(f"{len(plan.proposals)} repairs wait for a decision.")


def _read_decision(payloads: Sequence[RawValue]) -> Decision:
    """What a signal holds, as a decision.

    Raises:
        ApplicationError: it is none; the message says what is wrong with it.
    """
    why = f"it has {len(payloads)} payloads"
    if len(payloads) == 1:
        try:
            read = workflow.payload_converter().from_payload(payloads[0].payload, Decision)
            if isinstance(read, Decision):  # null is read as None, whatever type is asked for
                return read
            why = "it is null"
        except ValidationError as error:
            why = faults(error)
        except Exception:  # not JSON, or of an encoding that nobody knows
            why = "it is not JSON"
    raise ApplicationError(f"The signal holds no decision: {why}; {_EXPECTED}.", type="Unreadable")
