"""What the repair worker serves: the repair workflows, the analysts, the repairs.

`python -m workshop_lib.repair.worker` runs it as a service.
"""

import asyncio

from workshop_lib.llm.gateway import warm_up
from workshop_lib.repair.analysts import (
    analyze_problems,
    detect_problems,
    plan_repair,
    write_report,
)
from workshop_lib.repair.notify import notify
from workshop_lib.repair.proactive import ProactiveRepair
from workshop_lib.repair.reports import save_report
from workshop_lib.repair.tools import (
    look_at_orders,
    order_inventory,
    request_approval,
    request_payment_update,
)
from workshop_lib.repair.workflow import OrderRepair
from workshop_lib.settings import get_settings
from workshop_lib.temporal.service import serve
from workshop_lib.temporal.worker import WorkerSpec


def repair() -> WorkerSpec:
    """The worker behind every repair."""
    settings = get_settings()
    return WorkerSpec(
        name="repair",
        namespace=settings.orchestrator_namespace,
        task_queue=settings.repair_queue,
        workflows=[OrderRepair, ProactiveRepair],
        activities=[
            look_at_orders,
            detect_problems,
            analyze_problems,
            plan_repair,
            request_approval,
            order_inventory,
            request_payment_update,
            write_report,
            save_report,
            notify,
        ],
        warm_ups=[warm_up],
    )


if __name__ == "__main__":
    asyncio.run(serve(repair()))
