"""A local tool as an activity with plain arguments, the form that the Agents SDK makes tools of.

For agents that a person writes with `activity_as_tool`; the loops of the library call tools through
`toolbox`. It is a pure look-up, so running it twice is harmless.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio import activity

from workshop_lib.agents.local_tools import LOCAL_TOOLS, TOOL_OPTIONS
from workshop_lib.llm.tools import ToolInputError
from workshop_lib.temporal.bounded import as_text

if TYPE_CHECKING:
    from agents import Tool


@activity.defn
async def get_weather(city: str) -> str:
    """Get the current weather in a city: temperature in °C, conditions and wind.

    Args:
        city: Name of the city, such as Seattle or Portland, Oregon.
    """
    try:
        return LOCAL_TOOLS["weather"].run({"city": city})
    except ToolInputError as error:
        return f"Error: {error}"  # raised, it would be tried again, and only the model can mend it


def as_tool(function: Callable[..., Any]) -> "Tool":
    """`activity_as_tool` with the limits and retries of the library's own tools."""
    from agents import FunctionTool
    from temporalio.openai_agents.workflow import activity_as_tool

    tool = activity_as_tool(
        function,
        start_to_close_timeout=TOOL_OPTIONS["start_to_close_timeout"],
        schedule_to_close_timeout=TOOL_OPTIONS["schedule_to_close_timeout"],
        retry_policy=TOOL_OPTIONS["retry_policy"],
    )

    assert isinstance(tool, FunctionTool)
    invoke = tool.on_invoke_tool

    async def call(context: Any, arguments: str) -> str:
        return as_text(await invoke(context, arguments))

    return replace(tool, on_invoke_tool=call)
