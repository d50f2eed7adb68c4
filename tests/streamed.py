"""A streamed answer, read as the Agents SDK's loop reads it: through the model that its plugin is given."""

from collections.abc import AsyncIterator, Sequence

from agents import FunctionTool, ModelSettings
from agents.models.interface import ModelTracing
from temporalio.exceptions import ApplicationError

from workshop_lib.agents.loops.sdk_model import SettingsProvider
from workshop_lib.llm.failures import ModelRefused, ModelUnavailable
from workshop_lib.llm.messages import Completion, Message, ToolCall, ToolSpec, Usage

FAILURES = {"ModelRefused": ModelRefused, "ModelUnavailable": ModelUnavailable}


async def stream(
    messages: Sequence[Message], tools: Sequence[ToolSpec] = ()
) -> AsyncIterator[str | Completion]:
    """The text of an answer, piece by piece; the last item is all of it.

    Args:
        messages: what the user says.

    Raises:
        ModelUnavailable, ModelRefused: what the activity says of it, as the gateway would.
    """

    async def never(*_: object) -> str:
        raise AssertionError("a model's answer calls no tool by itself")

    offered = [
        FunctionTool(tool.name, tool.description, tool.parameters, never, strict_json_schema=False)
        for tool in tools
    ]
    events = (
        SettingsProvider()
        .get_model(None)
        .stream_response(
            system_instructions=None,
            input=[{"role": "user", "content": message.content or ""} for message in messages],
            model_settings=ModelSettings(),
            tools=list(offered),
            output_schema=None,
            handoffs=[],
            tracing=ModelTracing.DISABLED,
            previous_response_id=None,
            conversation_id=None,
            prompt=None,
        )
    )
    try:
        async for event in events:
            if event.type == "response.output_text.delta":
                yield event.delta
            elif event.type == "response.completed":
                output, usage = event.response.output, event.response.usage
                calls = [
                    ToolCall(id=item.call_id, name=item.name, arguments=item.arguments)
                    for item in output
                    if item.type == "function_call"
                ]
                said = [part for item in output if item.type == "message" for part in item.content]
                text = "".join(getattr(part, "text", "") for part in said)
                yield Completion(
                    message=Message(role="assistant", content=text or None, tool_calls=calls),
                    usage=Usage(
                        prompt_tokens=usage.input_tokens if usage else 0,
                        completion_tokens=usage.output_tokens if usage else 0,
                    ),
                    model=event.response.model,
                )
    except ApplicationError as error:
        raise FAILURES[error.type or ""](error.message) from None
