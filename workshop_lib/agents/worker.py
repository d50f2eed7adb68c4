"""What the orchestrator's worker serves: the chat workflows and their activities.

`python -m workshop_lib.agents.worker` runs it as a service.
"""

import asyncio
import logging

from workshop_lib.agents.local_tools import execute_tool
from workshop_lib.agents.manual_loop import ManualChat
from workshop_lib.agents.planner import plan_next_action
from workshop_lib.llm.gateway import warm_up
from workshop_lib.settings import get_settings
from workshop_lib.worker_spec import WorkerSpec, run_worker


def orchestrator() -> WorkerSpec:
    """The worker behind every chat loop."""
    settings = get_settings()
    return WorkerSpec(
        name="orchestrator",
        namespace=settings.orchestrator_namespace,
        task_queue=settings.orchestrator_queue,
        workflows=[ManualChat],
        activities=[plan_next_action, execute_tool],
        warm_ups=[warm_up],
    )


async def main() -> None:
    """Run until interrupted."""
    from workshop_lib.connect import connect

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    spec = orchestrator()
    await run_worker(spec, await connect(spec.namespace))


if __name__ == "__main__":
    asyncio.run(main())
