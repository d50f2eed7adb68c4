"""The tools of one chat session, and how a tool call becomes a result that a model can read.

Every loop calls tools through it, so that a tool behaves the same in each: what the model can mend (an
unknown tool, malformed arguments, an unknown ticker) and what it cannot (a team that is down) both come
back as words. Only cancellation goes through. Left out: where a tool's work is done (`local_tools`,
`team_tools`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from temporalio import workflow
from temporalio.exceptions import ActivityError, NexusOperationError, is_cancelled_exception
from temporalio.workflow import ActivityConfig

from workshop_lib.agents.local_tools import (
    LOCAL_TOOLS,
    LocalTool,
    ToolRequest,
    execute_tool,
)
from workshop_lib.agents.planner import TOOL_OPTIONS
from workshop_lib.agents.team_tools import TeamOutOfReach, open_team_tools
from workshop_lib.llm.messages import ToolCall, ToolSpec
from workshop_lib.llm.tools import ToolInputError, arguments_for, free_name, readable_schema
from workshop_lib.temporal.bounded import as_text, cut
from workshop_lib.temporal.steps import reason_of


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


MAX_CORRECTIONS = 3  # a message; calls handed back because they cannot be made
MAX_REPEATS = 2  # a message; answers that ask for nothing but what the model has been told
MAX_ERROR = 2_000  # characters of why a call failed

TOO_MANY_CORRECTIONS = (
    "I could not work out a tool call that is possible. Please ask in other words."
)
GOING_ROUND = (
    "I called the same tool again and again without coming to an answer. Please ask in other words."
)
HAS_IT = (
    "Error: this very call was made before in this turn, and you have its result. Answer from it, or make"
    " another call."
)


@dataclass
class TurnCalls:
    """The tool calls of one turn.

    Attributes:
        made: names of the tools called, in order.
        corrections: calls that could not be made.
        repeats: in how many answers the model has asked for a call that was made before.
    """

    made: list[str]
    corrections: int = 0
    repeats: int = 0
    _asked_in: dict[str, int] = field(
        default_factory=dict
    )  # a call to the answer that asked for it
    _repeated_in: int = -1

    def is_repeated(self, name: str, arguments: Any, answer: int) -> bool:
        """Whether the same call was asked for before in this turn.

        Args:
            answer: which of the model's answers asks for it. One that asks twice at once does not repeat
                itself: it has seen no result yet.
        """
        call = json.dumps([name, arguments], sort_keys=True, default=str)
        first = self._asked_in.setdefault(call, answer)
        if first < answer and self._repeated_in != answer:
            self.repeats, self._repeated_in = self.repeats + 1, answer
        return first < answer

    @property
    def problem(self) -> str | None:
        """Why the turn had better end, in words for the user, or None."""
        if self.repeats >= MAX_REPEATS:
            return GOING_ROUND
        return TOO_MANY_CORRECTIONS if self.corrections > MAX_CORRECTIONS else None


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
    """A session's tools by name. Of two with one name the second gets its owner's in front; one whose schema
    cannot be read is left out."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        self.specs: list[ToolSpec] = []
        for tool in tools:
            if readable_schema(tool.spec.parameters):
                name = free_name(tool.spec.name, getattr(tool, "owner", ""), set(self._tools))
                self._tools[name] = tool
                self.specs.append(tool.spec.model_copy(update={"name": name}))

    async def run(self, call: ToolCall, turn: TurnCalls, answer: int) -> str:
        """Make a tool call. Returns the result, or a sentence that begins with "Error: ".

        Args:
            turn: learns of the call.
            answer: the number of the model's answer that asks for it.
        """
        try:
            arguments = arguments_for(call, self.specs)
            if turn.is_repeated(call.name, arguments, answer):
                return HAS_IT
            turn.made.append(call.name)
            return as_text(await self._tools[call.name].call(arguments))
        except ToolInputError as error:
            turn.corrections += 1
            return f"Error: {cut(str(error), MAX_ERROR)}"
        except TeamOutOfReach as error:
            return f"Error: {cut(str(error), MAX_ERROR)}"
        except (ActivityError, NexusOperationError) as error:
            if is_cancelled_exception(error):
                raise
            return f"Error: {cut(reason_of(error), MAX_ERROR)}"


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
