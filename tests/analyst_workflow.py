"""A workflow that runs the four analysts one after the other and carries out nothing: for tests of them."""

from pydantic import BaseModel
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.repair import analysts
    from workshop_lib.repair.models import (
        Analysis,
        AnalyzeRequest,
        Detection,
        DetectRequest,
        Plan,
        PlanRequest,
        RepairResult,
        Report,
        ReportRequest,
        Snapshot,
    )


class Outcome(BaseModel):
    """What each analyst said."""

    detection: Detection
    analysis: Analysis
    plan: Plan
    report: Report


@workflow.defn
class AllAnalysts:
    """Detect, analyse, plan, report."""

    @workflow.run
    async def run(self, snapshot: Snapshot) -> Outcome:
        options = analysts.ANALYST_OPTIONS
        detection = await workflow.execute_activity(
            analysts.detect_problems, DetectRequest(snapshot=snapshot), **options
        )
        analysis = await workflow.execute_activity(
            analysts.analyze_problems,
            AnalyzeRequest(snapshot=snapshot, detection=detection),
            **options,
        )
        plan = await workflow.execute_activity(
            analysts.plan_repair, PlanRequest(snapshot=snapshot, analysis=analysis), **options
        )
        results = [
            RepairResult(
                proposal_id=proposal.proposal_id,
                idempotency_key=proposal.proposal_id,
                tool=proposal.tool,
                order_id=proposal.order_id,
                outcome="as if it had been done",
            )
            for proposal in plan.proposals
        ]
        request = ReportRequest(
            today=snapshot.today, analysis=analysis, plan=plan, results=results, decided_by="a test"
        )
        report = await workflow.execute_activity(analysts.write_report, request, **options)
        return Outcome(detection=detection, analysis=analysis, plan=plan, report=report)
