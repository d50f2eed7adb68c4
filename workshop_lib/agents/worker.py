"""What the orchestrator's worker serves: the chat workflows and their activities.

`python -m workshop_lib.agents.worker` runs it as a service.
"""

import asyncio
from functools import partial

from workshop_lib.agents.conversation.results import keep_result
from workshop_lib.agents.conversation.summary import summarise
from workshop_lib.agents.local_tools import execute_tool
from workshop_lib.agents.loops.manual import ManualChat
from workshop_lib.agents.loops.mcp import McpChat
from workshop_lib.agents.loops.mcp_clients import mcp_plugin
from workshop_lib.agents.loops.sdk import SdkChat
from workshop_lib.agents.loops.sdk_model import agents_plugin
from workshop_lib.agents.model_call import plan_next_action
from workshop_lib.agents.team_tools import discover_teams
from workshop_lib.auth.door import doors
from workshop_lib.auth.mcp import token_for
from workshop_lib.llm.gateway import warm_up
from workshop_lib.settings import get_settings
from workshop_lib.temporal.service import serve
from workshop_lib.temporal.worker import WorkerSpec


def orchestrator() -> WorkerSpec:
    """The worker behind every chat loop."""
    settings = get_settings()
    return WorkerSpec(
        name="orchestrator",
        namespace=settings.orchestrator_namespace,
        task_queue=settings.orchestrator_queue,
        workflows=[ManualChat, SdkChat, McpChat],
        activities=[plan_next_action, execute_tool, discover_teams, summarise, keep_result],
        client_plugins=[agents_plugin, partial(mcp_plugin, token_for())],
        interceptors=doors("chat"),
        warm_ups=[warm_up],
    )


if __name__ == "__main__":
    asyncio.run(serve(orchestrator()))
