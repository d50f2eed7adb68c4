"""A team's MCP server, as an agent of the SDK has it in a workflow.

Temporal's `temporal_mcp_server` makes an activity of each listing and each call, so either may run twice:
when a worker dies before it can report, or when the server does. A listing only reads. A call carries a
key that is the same for every try, and the team's server joins the run that the first try has started. The
workflow makes the key, so it is in the history before the first try.

What fails becomes words for the model, as with every tool. Left out: which teams can be reached, and what
to say of the others (`mcp`); how a worker connects (`mcp_clients`).
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from agents import FunctionTool, RunContextWrapper, Tool
from agents.exceptions import ModelBehaviorError
from agents.mcp import MCPServer, MCPToolMetaContext, MCPUtil
from agents.tool_context import ToolContext
from mcp.types import Tool as MCPTool
from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception
from temporalio.openai_agents.workflow import temporal_mcp_server

from workshop_lib.agents.conversation.policy import plain_text
from workshop_lib.agents.held_tools import FINGERPRINT, KnownTools, fingerprint
from workshop_lib.agents.turn import Turn
from workshop_lib.llm.messages import ToolCall, ToolSpec
from workshop_lib.llm.tools import ToolInputError, free_name
from workshop_lib.mcp.addresses import TEAM_SERVERS, CallMeta, Transport
from workshop_lib.temporal.steps import step_options

TEAMS = TEAM_SERVERS
GRACE = timedelta(seconds=5)  # by then the server has said what kept it; this side could not


def server_name(team: str, transport: Transport) -> str:
    """What a team's server is called in the plugin and, as `temporalio.mcp.<name>.…`, in histories."""
    return f"{team}-{transport}"


def team_server(team: str, transport: Transport, time_limit: timedelta) -> MCPServer:
    """A team's server for `Agent(mcp_servers=…)`. Made in a workflow; it lists its tools once.

    Args:
        time_limit: how long a call may take, tries and waiting for a server that is down included.
    """

    def begin_call(context: MCPToolMetaContext) -> dict[str, Any]:
        """The SDK asks for the `_meta` of a call once, right before it makes it."""
        turn: Turn = context.run_context.context
        specs = [
            ToolSpec(name=tool.name, description="", parameters=tool.input_schema)
            for tool in server.cached_tools or []
        ]
        call = ToolCall(id="", name=context.tool_name, arguments=json.dumps(context.arguments))
        turn.begin(call, specs, team)
        key, seconds = str(workflow.uuid4()), time_limit.total_seconds()
        return CallMeta(idempotency_key=key, time_limit=seconds).model_dump()

    server = temporal_mcp_server(
        server_name(team, transport),
        activity_config=step_options(
            total=(time_limit + GRACE).total_seconds(), first_pause=0.3, longest_pause=2
        ),
        tool_meta_resolver=begin_call,
        failure_error_function=explain_failure,
        use_structured_content=True,
    )
    return server


async def tools_of(servers: Sequence[MCPServer], taken: set[str], known: KnownTools) -> list[Tool]:
    """The servers' tools, each under a name that no other has; the second gets its team's in front.

    Args:
        taken: names of the agent's other tools.
        known: of the session; what is held back is left out.
    """
    tools: list[Tool] = []
    for server in servers:
        team = server.name.rpartition("-")[0]
        known.lists(team)
        for tool in await server.list_tools():
            if known.listed(team, tool.name, _fingerprint(tool), tool.description or ""):
                continue
            name = free_name(tool.name, team, taken | {made.name for made in tools})
            made = MCPUtil.to_function_tool(tool, server, False, tool_name_override=name)
            tools.append(_stoppable(made, tool))
    return tools


def _fingerprint(tool: MCPTool) -> str:
    """As the listing has recorded it, of the whole definition; or of what was listed before it did."""
    recorded = (tool.meta or {}).get(FINGERPRINT)
    if isinstance(recorded, str):
        return recorded
    return fingerprint(tool.name, tool.description, tool.input_schema, tool.title or "")


def _stoppable(made: FunctionTool, tool: MCPTool) -> FunctionTool:
    """A tool whose calls end with a turn that is stopped, as those of the toolbox do."""
    call = made.on_invoke_tool
    only_looks = tool.annotations and tool.annotations.read_only_hint
    changes = "" if only_looks else "its server does not say what it changes"

    async def stoppable(context: ToolContext[Turn], arguments: str) -> Any:
        turn, work = context.context, _made(call, context, arguments)
        result = await turn.stoppable(made.name, arguments, changes, work)
        turn.seen(plain_text(result))
        return result

    return replace(made, on_invoke_tool=stoppable)


async def _made(call: Callable[..., Awaitable[Any]], *how: Any) -> Any:
    return await call(*how)


def explain_failure(context: RunContextWrapper[Turn], error: Exception) -> str:
    """What the model is told of a call that failed for good, or that could not be made at all."""
    turn, cause = context.context, error.__cause__  # the SDK's own exception is around it
    if isinstance(cause, ActivityError | ToolInputError) and not is_cancelled_exception(cause):
        return turn.in_words(cause)
    if isinstance(error, ModelBehaviorError):
        return turn.in_words(
            ToolInputError("the arguments are not a JSON object; write the call again")
        )
    raise error
