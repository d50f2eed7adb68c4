"""The finance team's side of its contract: each operation starts one of the team's workflows.

The handler answers within milliseconds with "started"; the result follows when the workflow is done, hours
later if need be. The server may send a start again when it got no answer. The workflow's id is made of the
request's id, which stays the same, so the second start finds the first run.
"""

from nexusrpc.handler import service_handler
from temporalio import nexus

from workshop_lib.teams.finance.contract import (
    FinanceService,
    Roi,
    RoiInput,
    StockPrice,
    StockPriceInput,
)
from workshop_lib.teams.finance.workflows import RoiWorkflow, StockPriceWorkflow
from workshop_lib.teams.run_ids import run_id
from workshop_lib.temporal.steps import TASK_TIMEOUT


@service_handler(service=FinanceService)
class FinanceHandler:
    """Serves `FinanceService`."""

    @nexus.workflow_run_operation
    async def stock_price(
        self, ctx: nexus.WorkflowRunOperationContext, request: StockPriceInput
    ) -> nexus.WorkflowHandle[StockPrice]:
        """Start, or find, the run that looks up a price."""
        return await ctx.start_workflow(
            StockPriceWorkflow.run,
            request,
            id=run_id("stock_price", request.ticker, ctx.request_id),
            task_timeout=TASK_TIMEOUT,
        )

    @nexus.workflow_run_operation
    async def calculate_roi(
        self, ctx: nexus.WorkflowRunOperationContext, request: RoiInput
    ) -> nexus.WorkflowHandle[Roi]:
        """Start, or find, the run that calculates a return."""
        return await ctx.start_workflow(
            RoiWorkflow.run,
            request,
            id=run_id("calculate_roi", "", ctx.request_id),
            task_timeout=TASK_TIMEOUT,
        )
