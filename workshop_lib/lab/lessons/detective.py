"""A case for notebook 03: somebody has moved an endpoint, and a conversation waits."""

from temporalio.client import Client

from workshop_lib.lab.server.namespaces import point_endpoint
from workshop_lib.settings import get_settings


async def open_case(client: Client) -> None:
    """Do to the lab what happens in the best of teams. What exactly is for the learner to find."""
    settings = get_settings()
    await point_endpoint(
        client, settings.finance_endpoint, settings.finance_namespace, "finance-queue-2024"
    )
    print("Case opened. Something between the orchestrator and the finance team is wrong now.")
