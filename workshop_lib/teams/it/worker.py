"""What the IT team's worker serves.

`python -m workshop_lib.teams.it.worker` runs it as a service.
"""

import asyncio

from workshop_lib.auth.door import doors
from workshop_lib.settings import get_settings
from workshop_lib.teams.it.activities import count_issues, look_up_ip
from workshop_lib.teams.it.nexus_handler import ITHandler
from workshop_lib.teams.it.workflows import IpWorkflow, JiraMetricsWorkflow
from workshop_lib.temporal.service import serve
from workshop_lib.temporal.worker import WorkerSpec


def it() -> WorkerSpec:
    """The worker behind `ITService`."""
    settings = get_settings()
    return WorkerSpec(
        name="it",
        namespace=settings.it_namespace,
        task_queue=settings.it_queue,
        workflows=[JiraMetricsWorkflow, IpWorkflow],
        activities=[count_issues, look_up_ip],
        nexus_handlers=[ITHandler],
        interceptors=doors("it"),
    )


if __name__ == "__main__":
    asyncio.run(serve(it()))
