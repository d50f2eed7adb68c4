"""What the repair worker serves: the repair workflows, the analysts, the repairs.

`python -m workshop_lib.repair.worker` runs it as a service.
"""

import asyncio

from workshop_lib.auth.door import doors
from workshop_lib.llm.gateway import warm_up
from workshop_lib.repair import analysts, notify, tools
from workshop_lib.repair import report_files as reports
from workshop_lib.repair.proactive import ProactiveRepair
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
            tools.look_at_orders,
            analysts.detect_problems,
            analysts.analyze_problems,
            analysts.plan_repair,
            tools.request_approval,
            tools.order_inventory,
            tools.request_payment_update,
            analysts.write_report,
            reports.save_report,
            notify.notify,
        ],
        interceptors=doors("repair"),
        warm_ups=[warm_up],
    )


if __name__ == "__main__":
    asyncio.run(serve(repair()))
