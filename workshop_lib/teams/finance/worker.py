"""What the finance team's worker serves.

`python -m workshop_lib.teams.finance.worker` runs it as a service.
"""

import asyncio

from workshop_lib.auth.door import doors
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.activities import compute_roi, look_up_price
from workshop_lib.teams.finance.nexus_handler import FinanceHandler
from workshop_lib.teams.finance.workflows import RoiWorkflow, StockPriceWorkflow
from workshop_lib.temporal.service import serve
from workshop_lib.temporal.worker import WorkerSpec


def finance() -> WorkerSpec:
    """The worker behind `FinanceService`."""
    settings = get_settings()
    return WorkerSpec(
        name="finance",
        namespace=settings.finance_namespace,
        task_queue=settings.finance_queue,
        workflows=[StockPriceWorkflow, RoiWorkflow],
        activities=[look_up_price, compute_roi],
        nexus_handlers=[FinanceHandler],
        interceptors=doors("finance"),
    )


if __name__ == "__main__":
    asyncio.run(serve(finance()))
