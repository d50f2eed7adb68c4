"""The finance team's workflows: one for each operation of its contract.

Each runs one activity. A workflow around one activity is not much, and yet it is what makes the operation
durable: it has a history of its own, it is retried on the team's side of the fence, and it is found again
by a caller whose first request got lost.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.teams.finance.activities import compute_roi, look_up_price
    from workshop_lib.teams.finance.contract import Roi, RoiInput, StockPrice, StockPriceInput
    from workshop_lib.temporal.steps import step_options

_OPTIONS = step_options(attempt=10, total=300, longest_pause=5)


@workflow.defn
class StockPriceWorkflow:
    """The price of one share."""

    @workflow.run
    async def run(self, request: StockPriceInput) -> StockPrice:
        """Look it up."""
        return await workflow.execute_activity(look_up_price, request, **_OPTIONS)


@workflow.defn
class RoiWorkflow:
    """What an investment comes to."""

    @workflow.run
    async def run(self, request: RoiInput) -> Roi:
        """Calculate it."""
        return await workflow.execute_activity(compute_roi, request, **_OPTIONS)
