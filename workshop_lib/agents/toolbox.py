"""The tools of one chat session, and how a tool call becomes a result that a model can read.

Every loop calls tools through it, so that a tool behaves the same in each: what the model can mend (an
unknown tool, malformed arguments, an unknown ticker) and what it cannot (a team that is down) both come
back as words. Only cancellation goes through. Left out: where a tool's work is done (`local_tools`,
`team_tools`).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from temporalio import workflow
from temporalio.exceptions import ActivityError, NexusOperationError, is_cancelled_exception
from temporalio.workflow import ActivityConfig

from workshop_lib.agents.local_tools import (
    LOCAL_TOOLS,
    LocalTool,
    ToolInputError,
    ToolRequest,
    execute_tool,
)
from workshop_lib.agents.planner import TOOL_OPTIONS
from workshop_lib.agents.team_tools import TeamOutOfReach, open_team_tools
from workshop_lib.llm.messages import ToolCall, ToolSpec
from workshop_lib.llm.tool_calls import arguments_of, problem_with
from workshop_lib.reasons import reason_of


class Tool(Protocol):
    """Something a model may call. Used in a workflow."""

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""

    async def call(self, arguments: dict[str, Any]) -> str:
        """Do it.

        Raises:
            ToolInputError: nothing was done, since it cannot be done with these arguments.
            TeamOutOfReach: nobody at the other end did it; the text says so.
            ActivityError, NexusOperationError: it failed for good, or was cancelled.
        """


class ToolOutcome(NamedTuple):
    """What came of a tool call.

    Attributes:
        text: the result, or a sentence that begins with "Error: ".
        impossible: True where the call could not be made at all.
    """

    text: str
    impossible: bool = False


class ActivityTool:
    """A local tool, run by the activity `execute_tool`."""

    def __init__(self, tool: LocalTool) -> None:
        self.spec = tool.spec

    async def call(self, arguments: dict[str, Any]) -> str:
        """Run it on a worker."""
        return await workflow.execute_activity(
            execute_tool,
            ToolRequest(name=self.spec.name, arguments=arguments),
            **(TOOL_OPTIONS | ActivityConfig(summary=self.spec.name)),
        )


class Toolbox:
    """A session's tools by name."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.spec.name: tool for tool in tools}
        self.specs = [tool.spec for tool in tools]

    async def run(self, call: ToolCall, made: list[str]) -> ToolOutcome:
        """Make a tool call.

        Args:
            made: gets the tool's name once the call is known to be possible.
        """
        if problem := problem_with(call, self.specs):
            return ToolOutcome(f"Error: {problem}", impossible=True)
        tool = self._tools[call.name]
        made.append(call.name)
        try:
            return ToolOutcome(await tool.call(arguments_of(call) or {}))
        except ToolInputError as error:
            return ToolOutcome(f"Error: {error}", impossible=True)
        except TeamOutOfReach as error:
            return ToolOutcome(f"Error: {error}")
        except (ActivityError, NexusOperationError) as error:
            if is_cancelled_exception(error):
                raise
            return ToolOutcome(f"Error: {reason_of(error)}")


def local_toolbox() -> Toolbox:
    """The local tools."""
    return Toolbox([ActivityTool(tool) for tool in LOCAL_TOOLS.values()])


async def open_toolbox(team_timeout: timedelta) -> Toolbox:
    """The local tools and those of the teams. Called in a workflow, once a session.

    Args:
        team_timeout: how long a call to another team may take in all.
    """
    local = [ActivityTool(tool) for tool in LOCAL_TOOLS.values()]
    return Toolbox([*local, *await open_team_tools(team_timeout)])
