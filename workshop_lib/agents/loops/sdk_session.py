"""A chat session whose turns are runs of an OpenAI Agents SDK agent.

What the loops with the SDK share. A run that ends with an exception would end, or worse, hang the whole
conversation, so each kind of failure becomes a sentence: an unknown tool goes back to the model, too many
rounds and a model that is down go to the user. Left out: which tools an agent has, said in a subclass, and
how its model is called (`sdk_model`).
"""

import asyncio
from typing import Any, cast

from agents import Agent, FunctionTool, ModelSettings, RunConfig, RunHooks, Runner, Tool
from agents.exceptions import AgentsException, MaxTurnsExceeded
from agents.items import ModelResponse, TResponseInputItem
from agents.result import RunResultBase
from agents.run_config import CallModelData, ModelInputData, ToolErrorFormatterArgs
from agents.run_context import RunContextWrapper
from agents.tool_context import ToolContext
from temporalio import workflow
from temporalio.contrib.workflow_streams import WorkflowStream
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception
from temporalio.openai_agents.workflow import AgentsWorkflowError

from workshop_lib.agents.chat import (
    AGENT_BROKEN,
    MAX_TOOL_ROUNDS,
    MODEL_DOWN,
    NOTHING_SAID,
    TOO_MANY_ROUNDS,
    ChatSession,
    ChatStart,
)
from workshop_lib.agents.conversation.state import Conversation
from workshop_lib.agents.local_tools import READ_RESULT
from workshop_lib.agents.toolbox import Toolbox
from workshop_lib.agents.turn import Answer, Turn
from workshop_lib.llm.messages import ToolCall, ToolSpec, Usage, sendable_arguments
from workshop_lib.llm.tokens import at_most
from workshop_lib.llm.tools import ToolInputError
from workshop_lib.temporal.steps import causes, reason_of


class _GivenUp(AgentsException):
    """The model goes on asking for what cannot be done, or was done. The text is for the user."""


class AgentSession(ChatSession):
    """Base of the chat workflows that use the SDK: a subclass says in `agent` who answers."""

    part_type = dict  # a message, a call or a result, as the SDK writes it

    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)
        if start.stream:
            self.stream = WorkflowStream(start.carried.stream if start.carried else None)
        self._tools: list[Tool] = []  # of the toolbox, which a session has only one of

    def agent(self, tools: list[Tool]) -> Agent[Turn]:
        """The agent for one turn, with these tools among its own."""
        raise NotImplementedError

    async def respond(self, message: str, toolbox: Toolbox) -> Answer:
        """One turn. Whatever goes wrong with model or tools, it ends in words."""
        turn = self.turn = Turn(toolbox)
        try:
            if not self._tools:
                offered = {spec.name: spec for spec in [*toolbox.specs, READ_RESULT.spec]}
                self._tools = [as_sdk_tool(spec) for spec in offered.values()]
            result = await self._run(self.agent(self._tools), turn)
            self._is_under_way(result.to_input_list())
            return turn.answered(str(result.final_output or NOTHING_SAID))
        except MaxTurnsExceeded:
            return turn.answered(TOO_MANY_ROUNDS, failed=True)
        except _GivenUp as error:
            return turn.answered(str(error), failed=True)
        except (AgentsException, AgentsWorkflowError, FailureError) as error:
            if is_cancelled_exception(error):
                raise
            return turn.answered(_reason(error), failed=True)

    async def _run(self, agent: Agent[Turn], turn: Turn) -> RunResultBase:
        """Run the agent to its answer."""
        options: dict[str, Any] = {
            "context": turn,
            "max_turns": MAX_TOOL_ROUNDS,
            "hooks": _Hooks(self.conversation),
            "run_config": RunConfig(
                tracing_disabled=True,
                call_model_input_filter=self._select,
                model_settings=ModelSettings(max_tokens=self.conversation.most_output()),
                tool_not_found_behavior="return_error_to_model",
                tool_error_formatter=_unknown_tool,
            ),
        }
        # The latest only: a run copies what it is given again and again.
        given = self.conversation.latest()
        self._given = len(given)
        if self.stream is None:
            return await Runner.run(agent, given, **options)
        streamed = Runner.run_streamed(agent, given, **options)
        try:
            async for _ in streamed.stream_events():
                pass  # whoever listens gets them from the stream
        except asyncio.CancelledError:
            if streamed.run_loop_task:  # it is cancelled, and has yet to end
                await workflow.wait([streamed.run_loop_task])
            raise
        return streamed

    def _select(self, data: CallModelData[Turn]) -> ModelInputData:
        """What the model is sent, by the same policy as in the manual loop."""
        self._is_under_way(data.model_data.input)
        instructions, items = self.conversation.sent(data.model_data.instructions or "")
        return ModelInputData(input=[_sendable(item) for item in items], instructions=instructions)

    def _is_under_way(self, items: list[TResponseInputItem]) -> None:
        """A run's items: what it was given, which ends with the user's message, and what came since."""
        self.conversation.turn_is(items[self._given - 1 :])


def as_sdk_tool(spec: ToolSpec) -> FunctionTool:
    """A tool of the turn's toolbox as one of the SDK's: the schema is sent as it is, errors come back as
    words. A model is told of it as soon as the toolbox has it."""

    async def call(context: ToolContext[Turn], arguments: str) -> str:
        return await context.context.run(
            ToolCall(id=context.tool_call_id, name=spec.name, arguments=arguments)
        )

    return FunctionTool(
        name=spec.name,
        description=spec.description,
        params_json_schema=spec.parameters,
        on_invoke_tool=call,
        is_enabled=lambda context, _: spec.name in context.context.toolbox.by_name,
        strict_json_schema=False,  # strict mode forbids what schemas of other teams may hold
    )


class _Hooks(RunHooks[Turn]):
    """Counts model calls, also those of a run that fails later, lets them wait for the budget, and sets the
    run an end."""

    def __init__(self, conversation: Conversation[Any]) -> None:
        self._conversation, self._sent = conversation, Usage()

    async def on_llm_start(
        self,
        context: RunContextWrapper[Turn],
        agent: Agent[Turn],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        if problem := context.context.problem:
            raise _GivenUp(problem)
        tools = [spec.model_dump() for spec in context.context.toolbox.specs]
        self._sent = await self._conversation.afford(system_prompt, input_items, tools)

    async def on_llm_end(
        self, context: RunContextWrapper[Turn], agent: Agent[Turn], response: ModelResponse
    ) -> None:
        context.context.model_calls += 1
        usage = Usage(
            prompt_tokens=response.usage.input_tokens,
            completion_tokens=response.usage.output_tokens,
        )
        if not usage.tokens:  # its provider does not say
            received = at_most([item.model_dump() for item in response.output])
            usage = self._sent.model_copy(update={"completion_tokens": received})
        self._conversation.paid(usage)


def _sendable(item: TResponseInputItem) -> TResponseInputItem:
    if item.get("type") != "function_call":
        return item
    arguments = sendable_arguments(str(item.get("arguments", "")))
    return cast(TResponseInputItem, {**item, "arguments": arguments})


def _unknown_tool(error: ToolErrorFormatterArgs[Turn]) -> str | None:
    """What the model is told of a tool that does not exist; None for the SDK's own words."""
    if error.kind != "tool_not_found":
        return None
    turn: Turn = error.run_context.context
    return turn.in_words(ToolInputError(f"there is no tool {error.tool_name!r}"))


def _reason(error: BaseException) -> str:
    """What the user is told of a run that failed: what the model's activity said, or that we are to blame.

    The SDK's own words are advice to programmers; they go to the worker's log.
    """
    for cause in causes(error):
        if isinstance(cause, ActivityError):
            return f"{MODEL_DOWN} {reason_of(cause)}"
    workflow.logger.error("The agent cannot run: %s: %s", type(error).__name__, error)
    return AGENT_BROKEN
