"""The model call as an activity: `plan_next_action`.

The answer is either words for the user or tool calls to make. Errors are of three kinds, and each has its
own way:

* transient (429, 5xx, timeout, lost connection): retried, with growing pauses or after the pause that the
  provider asks for (`PLAN_OPTIONS`, `next_retry_delay`);
* permanent (key refused, unknown model, request refused): not retried. The loop tells the user;
* fixable by the model (an unknown tool, malformed arguments): no error here at all. `problem_with` finds
  them and the loop hands the reason back to the model.
"""

import json
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import activity
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

from workshop_lib.agents.model_call import ask_model
from workshop_lib.heartbeat import HEARTBEAT_TIMEOUT
from workshop_lib.llm.messages import Completion, Message, ToolCall, ToolSpec

PLAN_OPTIONS = ActivityConfig(
    start_to_close_timeout=timedelta(seconds=90),
    schedule_to_close_timeout=timedelta(minutes=3),  # then the user is told, and can ask again
    heartbeat_timeout=HEARTBEAT_TIMEOUT,
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=20)
    ),
)
TOOL_OPTIONS = ActivityConfig(
    start_to_close_timeout=timedelta(seconds=20),
    schedule_to_close_timeout=timedelta(minutes=1),
    heartbeat_timeout=HEARTBEAT_TIMEOUT,
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500)),
)


class PlanRequest(BaseModel):
    """Input of `plan_next_action`: what the model is sent."""

    messages: list[Message]
    tools: list[ToolSpec] = []


@activity.defn
async def plan_next_action(request: PlanRequest) -> Completion:
    """Ask the model for the next step: words, or tool calls.

    May run twice, when a worker dies after the provider has answered and before the answer is recorded:
    that call is paid for twice, and nothing else happens, since a model call changes nothing. A call whose
    answer is in the history is never made again.

    Raises:
        ApplicationError: type `ModelUnavailable` (retried) or `ModelRefused` (not retried).
    """
    return await ask_model(request.messages, request.tools)


def problem_with(call: ToolCall, tools: list[ToolSpec]) -> str | None:
    """What makes a tool call impossible, in words for the model, or None.

    Pure, so that workflow code may call it. Types and values of arguments are left to the tool.
    """
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return f"there is no tool {call.name!r}; there are {', '.join(t.name for t in tools) or 'none'}"
    arguments = arguments_of(call)
    if arguments is None:
        return "the arguments are not a JSON object; write the call again"
    missing = [name for name in tool.parameters.get("required", []) if name not in arguments]
    if missing:
        return f"missing arguments: {', '.join(missing)}"
    return None


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """A call's arguments, or None where the model did not write a JSON object that can be sent on."""
    try:
        arguments = json.loads(call.arguments or "{}")
        json.dumps(arguments, ensure_ascii=False).encode()  # half a character cannot be sent on
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
