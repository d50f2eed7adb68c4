"""OrderRepair: one DAPER pass with a human in it.

Detect, analyse, plan, wait up to twelve hours for a decision that is bound to the plan shown, execute what
is approved, report. Started with `auto_approve` it asks nobody. Left out: the steps themselves (`cycle`),
what clients send (`handlers`), and passes that repeat (`proactive`).
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workshop_lib.repair.cycle import RepairCycle
    from workshop_lib.repair.handlers import RepairFace
    from workshop_lib.repair.states import Decision, RepairOutcome, RepairStart, State


@workflow.defn
class OrderRepair(RepairFace):
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
        self._cycle = RepairCycle(scope, start.today, self._changed)

    @workflow.run
    async def run(self, start: RepairStart) -> RepairOutcome:
        """Run to one of the last states.

        Raises:
            ApplicationError: type `RepairFailed`, where the state is FAILED. The reason is the message.
        """
        try:
            await self._repair()
        except (ActivityError, ApplicationError) as error:
            self._cycle.fail(error)
            if is_cancelled_exception(error):
                raise
        except BaseException as error:
            if is_cancelled_exception(error):
                self._cycle.fail(error)
            raise
        outcome = self._cycle.outcome
        await self._tell(start.callback, outcome.state, outcome.reason)
        if outcome.state == State.FAILED:
            raise ApplicationError(outcome.reason, outcome, type="RepairFailed", non_retryable=True)
        return outcome

    async def _repair(self) -> None:
        cycle = self._cycle
        if not await cycle.make_plan():
            if not cycle.ended:
                await cycle.report_nothing_done()
            return
        cycle.show_plan()
        if self._start.auto_approve:
            self._approve_all()
        else:
            waiting = f"{len(self._proposals)} repairs wait for a decision."
            await self._tell(self._start.callback, State.PENDING_APPROVAL, waiting)
        if await cycle.wait_for_decision():
            await cycle.carry_out()

    @property
    def _proposals(self) -> list[str]:
        plan = self._cycle.plan
        return [proposal.proposal_id for proposal in plan.proposals] if plan else []

    def _approve_all(self) -> None:
        assert self._cycle.plan is not None
        who = f"auto-approve of {self._start.user}" if self._start.user else "auto-approve"
        decision = Decision(approve=True, plan_digest=self._cycle.plan.digest, decided_by=who)
        self._cycle.decide(decision, "automatic")
