"""One pass of DAPER: detect, analyse, plan, wait for a decision, execute, report.

Workflow code that both repair workflows share. Its steps are activities: the analysts change nothing, and
each repair carries an idempotency key made of the plan's scope and the proposal, so whatever runs twice
after a kill leaves one repair in the ledger. What goes wrong ends the pass as FAILED with a reason; repairs
that were made are always reported, by code where no model can.

Left out: what happens before and after a pass, and who may hear of it (`workflow`, `proactive`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any, Literal, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ActivityConfig

with workflow.unsafe.imports_passed_through():
    from workshop_lib.repair import tools
    from workshop_lib.repair.analysts import (
        ANALYST_OPTIONS,
        analyze_problems,
        detect_problems,
        plan_repair,
        write_report,
    )
    from workshop_lib.repair.approval import ApprovalDesk
    from workshop_lib.repair.documents import as_markdown, of_plan, plain_report
    from workshop_lib.repair.models import (
        DETECTION_THRESHOLD,
        Analysis,
        AnalyzeRequest,
        Detection,
        DetectRequest,
        Plan,
        PlanRequest,
        Proposal,
        RepairResult,
        ReportRequest,
        Snapshot,
    )
    from workshop_lib.repair.pages import MAX_PAGES, suspects
    from workshop_lib.repair.plan_rules import within_limits
    from workshop_lib.repair.report_files import REPORT_OPTIONS, SaveReport, save_report
    from workshop_lib.repair.states import (
        APPROVAL_TIMEOUT,
        RepairOutcome,
        ReportStatus,
        State,
        StateChange,
    )
    from workshop_lib.temporal.steps import reason_of


MAX_REASON = 2000  # characters

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class RepairCycle:
    """One pass.

    Args:
        scope: names this pass among all passes of all workflows; keys and digests begin with it.
        today: the day that analysts count from.
        changed: called at every new state.
        past: digests of earlier plans of the same workflow, and what became of them.
    """

    def __init__(
        self,
        scope: str,
        today: date,
        changed: Callable[[], None],
        past: dict[str, str] | None = None,
    ) -> None:
        self.scope = scope
        self.today = today
        self.state = State.INITIALIZING
        self.reason = ""
        self.states = [StateChange(state=self.state, at=workflow.now())]
        self.detection: Detection | None = None
        self.analysis: Analysis | None = None
        self.desk = ApprovalDesk(past)
        self.plan: Plan | None = None
        self.results: list[RepairResult] = []
        self.reports = ReportStatus()
        self.warnings: list[str] = []
        self._changed = changed
        self._stop = False

    @property
    def outcome(self) -> RepairOutcome:
        """How it ended, or where it is."""
        decision = self.desk.decision
        return RepairOutcome(
            state=self.state,
            reason=self.reason,
            results=self.results,
            declined=decision.declined if decision else [],
            skipped=len(self.plan.skipped) if self.plan else 0,
            report=self.reports.execution,
        )

    async def run(
        self, ask: Callable[[Plan], Awaitable[None]], give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Run the pass. What goes wrong ends it as FAILED; a cancellation is passed on after that.

        Args:
            ask: has the plan decided, once it is shown.
            give_up: stops the waiting for a decision where it becomes true; the pass is then left as it is.
        """
        try:
            plan = await self._make_plan()
            if plan is None:
                return
            if not plan.proposals:
                await self._report_nothing_done(plan)
                return
            self.desk.open(plan, workflow.now())
            self.enter(State.PENDING_APPROVAL)
            await ask(plan)
            if await self._is_approved(give_up):
                await self._carry_out()
        except BaseException as error:
            cancelled = is_cancelled_exception(error)
            if cancelled or isinstance(error, (ActivityError, ApplicationError)):
                self._fail(error)
            if cancelled or not isinstance(error, (ActivityError, ApplicationError)):
                raise

    async def _make_plan(self) -> Plan | None:
        """Detect, analyse and plan. Returns None where nothing is wrong.

        Detection is one cheap call; where it finds nothing, no model is asked anything more.
        """
        self.enter(State.DETECTING)
        snapshot, self.detection = await self._detect()
        if self.detection.confidence < DETECTION_THRESHOLD:
            self.end(State.NO_REPAIR_NEEDED, self.detection.reason or "Nothing is wrong.")
            return None
        self.enter(State.ANALYZING)
        self.analysis = await _run(
            analyze_problems, AnalyzeRequest(snapshot=snapshot, detection=self.detection)
        )
        if not self.analysis.problems:
            self.end(State.NO_REPAIR_NEEDED, self.analysis.summary or "The analysis found nothing.")
            return None
        self.enter(State.PLANNING)
        planned = await _run(plan_repair, PlanRequest(snapshot=snapshot, analysis=self.analysis))
        self.plan = within_limits(planned.proposals, snapshot, planned, self.scope)
        await self._file("planning", as_markdown(of_plan(self.plan, self.analysis, self.today)))
        return self.plan

    async def _detect(self) -> tuple[Snapshot, Detection]:
        """Examine the shop page by page. Returns the orders to look closer at, and what is said of them."""
        examined: list[tuple[Snapshot, Detection]] = []
        after: str | None = None
        while not examined or (after and len(examined) < MAX_PAGES):
            look = tools.LookRequest(today=self.today, after=after)
            seen = await _run(tools.look_at_orders, look, tools.STORE_OPTIONS, "orders and stock")
            examined.append((seen, await _run(detect_problems, DetectRequest(snapshot=seen))))
            after = seen.more_after
        if after:
            self.warnings.append(f"Orders after {after} were not looked at: there are too many.")
        return suspects(examined)

    async def _is_approved(self, give_up: Callable[[], bool]) -> bool:
        """Wait until the plan is decided or has expired."""
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self.desk.decision is not None or give_up(),
                timeout=APPROVAL_TIMEOUT,
                timeout_summary="until the plan expires undecided",
            )
        # A decision may have come in the very same moment; it counts.
        decision = self.desk.decision
        if decision is None:
            if not give_up():
                hours = APPROVAL_TIMEOUT.total_seconds() / 3600
                self.end(State.EXPIRED, f"Nobody decided within {hours:g} hours.")
            return False
        if not decision.approve:
            why = f": {decision.comment}" if decision.comment else "."
            self.end(State.REJECTED, f"Rejected by {decision.decided_by}{why}")
            return False
        self.enter(State.APPROVED)
        return True

    async def _carry_out(self) -> None:
        """Execute what is approved, and report.

        The repairs are made one after the other, in the order of the plan. Any of them may run twice
        when a worker dies; the second time the store answers with what the first has done. A
        cancellation lets the repair under way finish, makes no further one, and is reported.
        """
        work = asyncio.create_task(self._execute())
        try:
            await asyncio.shield(work)
            report = await self._write_report()
        except BaseException as error:
            if not is_cancelled_exception(error):
                raise
            self._stop = True
            await work
            report = plain_report(self._report_request(), "The repair was cancelled.").markdown
            await self._file("execution", report)
            raise
        await self._conclude(report)

    async def _report_nothing_done(self, plan: Plan) -> None:
        """Report on a plan that holds nothing to carry out."""
        self.reason = (
            "The plan holds nothing that may be carried out: "
            f"{len(plan.skipped)} skipped, {len(plan.refused)} refused."
        )
        self.desk.close(self.reason)
        await self._conclude(await self._write_report())

    def _fail(self, error: BaseException) -> None:
        """End as FAILED, with the reason."""
        if is_cancelled_exception(error):
            done = sum(result.done for result in self.results)
            reason = f"Cancelled while {self.state}; {done} repairs had been made."
        else:
            reason = reason_of(error)
        self.end(State.FAILED, reason)

    def enter(self, state: State) -> None:
        """Go on to a state."""
        self.state = state
        self.states.append(StateChange(state=state, at=workflow.now()))
        self._changed()

    def end(self, state: State, reason: str) -> None:
        """Go on to a last state. No decision is taken any more."""
        self.reason = reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + " …"
        self.desk.close(f"The repair has ended: {state}. {self.reason}")
        self.enter(state)

    async def _execute(self) -> None:
        assert self.plan is not None and self.desk.decision is not None
        self.enter(State.PENDING_REPAIR)
        approved = set(self.desk.decision.approved)
        why_not = ""
        for proposal in self.plan.proposals:
            if proposal.proposal_id not in approved:
                continue
            if self._stop:
                why_not = "The repair was cancelled before this one."
            if why_not:
                self.results.append(self._not_done(proposal, why_not))
                continue
            try:
                self.results.append(await self._repair(proposal))
            except ActivityError as error:
                self.results.append(self._not_done(proposal, reason_of(error)))
                if not _is_refusal(error):
                    # The store is in trouble, not this repair; the next ones would only wait for it too.
                    why_not = "Not tried, because the one before could not be confirmed."
            self._changed()

    async def _repair(self, proposal: Proposal) -> RepairResult:
        """Carry one proposal out, in an activity of its own."""
        call = tools.RepairCall[Any](
            key=self._key(proposal),
            proposal_id=proposal.proposal_id,
            arguments=proposal.arguments,
        )
        summary = f"{proposal.proposal_id}: {proposal.order_id}"
        # Each tool is an activity of its name.
        result: RepairResult = await workflow.execute_activity(
            proposal.tool,
            call,
            result_type=RepairResult,
            **(tools.STORE_OPTIONS | ActivityConfig(summary=summary[:200])),
        )
        return result

    def _key(self, proposal: Proposal) -> str:
        return f"{self.scope}/{proposal.proposal_id}"

    def _not_done(self, proposal: Proposal, why: str) -> RepairResult:
        return RepairResult(
            proposal_id=proposal.proposal_id,
            idempotency_key=self._key(proposal),
            tool=proposal.tool,
            order_id=proposal.order_id,
            outcome=why[:4000],
            done=False,
        )

    def _report_request(self) -> ReportRequest:
        assert self.plan is not None and self.analysis is not None
        decision = self.desk.decision
        return ReportRequest(
            today=self.today,
            analysis=self.analysis,
            plan=self.plan,
            declined=decision.declined if decision else [],
            decided_by=decision.decided_by if decision else "",
            results=self.results,
        )

    async def _write_report(self) -> str:
        """The execution report as Markdown; written by code where no model can."""
        self.enter(State.PENDING_REPORT)
        request = self._report_request()
        try:
            return (await _run(write_report, request)).markdown
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return plain_report(request, reason_of(error)).markdown

    async def _conclude(self, report: str) -> None:
        """File the execution report, and end."""
        await self._file("execution", report)
        made = len(self.results)
        if failed := [result for result in self.results if not result.done]:
            reasons = " ".join(f"{result.proposal_id}: {result.outcome}" for result in failed)
            self.end(State.FAILED, f"{len(failed)} of {made} repairs were not made. {reasons}")
        else:
            count = "1 repair was" if made == 1 else f"{made} repairs were"
            self.end(State.COMPLETED, self.reason or f"{count} made.")

    async def _file(self, kind: Literal["planning", "execution"], markdown: str) -> None:
        """Keep a report, and write it to files. Where that fails, a warning says so."""
        self.reports = self.reports.model_copy(update={kind: markdown})
        request = SaveReport(scope=self.scope, kind=kind, markdown=markdown)
        try:
            files = await _run(save_report, request, REPORT_OPTIONS, f"{kind} report")
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self.warnings.append(f"The {kind} report is in no file: {reason_of(error)}")
            return
        known = [*self.reports.files, files.markdown, files.pdf]
        self.reports = self.reports.model_copy(update={"files": known})


async def _run(
    step: Callable[[Request], Awaitable[Answer]],
    request: Request,
    options: ActivityConfig = ANALYST_OPTIONS,
    summary: str | None = None,
) -> Answer:
    """Run an activity, with a summary for the Web UI; by default an analyst."""
    answer: Answer = await workflow.execute_activity(
        step, request, **(options | ActivityConfig(summary=summary))
    )
    return answer


def _is_refusal(error: ActivityError) -> bool:
    return isinstance(error.cause, ApplicationError) and error.cause.type == "RepairRefused"
