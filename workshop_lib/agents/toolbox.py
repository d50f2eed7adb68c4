"""The tools of one chat session.

Left out: where a tool's work is done (`local_tools`, `team_tools`), and how a call becomes a result that a
model can read (`turn`).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from workshop_lib.agents.local_tools import (
    LOCAL_TOOLS,
    READ_RESULT,
    TOOL_OPTIONS,
    LocalTool,
    ToolRequest,
    execute_tool,
)
from workshop_lib.agents.team_tools import open_team_tools
from workshop_lib.llm.messages import ToolSpec
from workshop_lib.llm.tools import free_name, readable_schema


class Tool(Protocol):
    """Something a model may call. Used in a workflow."""

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""

    @property
    def changes(self) -> str:
        """What a call may have changed, in words for a person; empty for a tool that only looks things up."""

    async def call(self, arguments: dict[str, Any]) -> str:
        """Do it.

        Raises:
            ToolInputError: nothing was done, since it cannot be done with these arguments.
            TeamOutOfReach: nobody at the other end did it; the text says so.
            ActivityError, NexusOperationError: it failed for good, or was cancelled.
        """


class ActivityTool:
    """A local tool, run by the activity `execute_tool`."""

    def __init__(self, tool: LocalTool) -> None:
        self.spec = tool.spec
        self.changes = tool.changes

    async def call(self, arguments: dict[str, Any]) -> str:
        """Run it on a worker."""
        return await workflow.execute_activity(
            execute_tool,
            ToolRequest(name=self.spec.name, arguments=arguments),
            **(TOOL_OPTIONS | ActivityConfig(summary=self.spec.name)),
        )


class Toolbox:
    """A session's tools. Of two with one name the second gets its owner's in front; one whose schema cannot
    be read is left out."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.by_name: dict[str, Tool] = {}
        self.specs: list[ToolSpec] = []
        for tool in tools:
            if readable_schema(tool.spec.parameters):
                name = free_name(tool.spec.name, getattr(tool, "owner", ""), set(self.by_name))
                self.by_name[name] = tool
                self.specs.append(tool.spec.model_copy(update={"name": name}))

    def offer_reading(self) -> None:
        """From now on there is a tool that reads on in large results: one was shown in part."""
        if READ_RESULT.name not in self.by_name:
            self.by_name[READ_RESULT.name] = ActivityTool(READ_RESULT)
            self.specs.append(READ_RESULT.spec)


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
