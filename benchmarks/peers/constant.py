"""The work that every system does: one question, one tool, one answer, always the same.

The model is a constant: asked with a question it calls the calculator, asked with the calculator's result it
answers. Whoever measures it with this model measures what lies around the model. Left out: the systems.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from agents import Model, ModelProvider, ModelResponse, Usage
from agents.items import TResponseStreamEvent
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)
from temporalio import activity

from workshop_lib.agents.local_tools import CalculatorInput
from workshop_lib.agents.local_tools import calculator as calculate
from workshop_lib.agents.loops.sdk_model import agents_plugin
from workshop_lib.agents.model_call import PlanRequest, plan_next_action
from workshop_lib.llm import messages as ours
from workshop_lib.llm.gateway import stand_in

QUESTION = "What is 125 * 8?"
TOOL, ARGUMENTS, RESULT = "calculator", '{"expression": "125 * 8"}', "1000"
ANSWER = "125 * 8 = 1000."
INSTRUCTIONS = "You answer questions. Use a tool where one helps."
TOKENS = 100  # that each call is said to have used


def calculator(expression: str) -> str:
    """Calculate an arithmetic expression exactly as written and return the result as a number."""
    return calculate(CalculatorInput(expression=expression))


class ConstantModel(Model):
    """The constant as a model of the Agents SDK."""

    async def get_response(self, *_: Any, **request: Any) -> ModelResponse:
        """A call of the calculator, or the answer where its result is there."""
        return _respond((_ or (None, request["input"]))[1])

    def stream_response(self, *_: Any, **request: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Not measured."""
        raise NotImplementedError


class ConstantProvider(ModelProvider):
    """Gives the constant, whatever model is asked for."""

    def get_model(self, model_name: str | None) -> Model:
        """The constant."""
        return ConstantModel()


def _respond(items: Any) -> ModelResponse:
    answered = isinstance(items, list) and items[-1].get("type") == "function_call_output"
    output: Any = (
        ResponseOutputMessage(
            id="answer",
            type="message",
            role="assistant",
            status="completed",
            content=[ResponseOutputText(text=ANSWER, type="output_text", annotations=[])],
        )
        if answered
        else ResponseFunctionToolCall(
            type="function_call", name=TOOL, arguments=ARGUMENTS, call_id=f"call-{len(items)}"
        )
    )
    return ModelResponse(
        output=[output],
        usage=Usage(requests=1, input_tokens=TOKENS, output_tokens=1, total_tokens=TOKENS + 1),
        response_id=None,
    )


@activity.defn(name="plan_next_action")
async def plan_constantly(request: PlanRequest) -> ours.Completion:
    """The workshop's model call as it is, but for the model."""
    stand_in.set(_complete)
    return await plan_next_action(request)


async def _complete(
    messages: Sequence[ours.Message], tools: Sequence[ours.ToolSpec]
) -> ours.Completion:
    call = ours.ToolCall(id=f"call-{len(messages)}", name=TOOL, arguments=ARGUMENTS)
    answered = messages[-1].role == "tool"
    message = (
        ours.Message.assistant(ANSWER)
        if answered
        else ours.Message(role="assistant", tool_calls=[call])
    )
    usage = ours.Usage(prompt_tokens=TOKENS, completion_tokens=1)
    return ours.Completion(message=message, usage=usage, model="constant")


def constant_plugin() -> Any:
    """The Agents SDK's plugin, with the constant for a model."""
    return agents_plugin(ConstantProvider())
