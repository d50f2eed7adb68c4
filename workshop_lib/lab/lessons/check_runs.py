"""Workflows that checks run: one does a learner's step twice, one sends a request under a given id.

Not among the checks, whose package loads what the workflow sandbox does not take. Left out: what is made of
their histories, which is the checks' own.
"""

import sys
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.teams.finance.contract import FinanceService, StockPriceInput


@workflow.defn(sandboxed=False)  # it needs the module of the learner's cell, as it was loaded
class Twice:
    """Does in one run what a workflow of a learner's does, and again."""

    @workflow.run
    async def run(self, call: tuple[str, str, int]) -> None:
        """Run the class of this module and name with this argument, and once more."""
        module, name, argument = call
        learners = getattr(sys.modules[module], name)
        steps = learners()
        for _ in range(2):
            await workflow._Definition.must_from_class(learners).run_fn(steps, argument)


@workflow.defn
class AskPrice:
    """Asks the finance team for a price."""

    @workflow.run
    async def run(self, call: tuple[str, str]) -> None:
        """Start the operation at this endpoint under this id, which one that is sent again carries, too."""
        endpoint, request_id = call
        door = workflow.create_nexus_client(service=FinanceService, endpoint=endpoint)
        # The price is not waited for: it goes to whoever has started its run.
        await door.start_operation(
            FinanceService.stock_price,
            StockPriceInput(ticker="TSLA"),
            headers={"nexus-request-id": request_id},
            schedule_to_close_timeout=timedelta(seconds=20),
        )
