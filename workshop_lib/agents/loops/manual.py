"""The agent loop spelled out: plan, call tools, plan again, until the model answers in words.

Every step outside the loop is an activity, so the workflow can be replayed on another worker at any point
and goes on where it was. What may run twice after a kill is said at the activities: one model call, or one
look-up by a tool. Neither changes anything, so the turn ends with the same reply.

Left out: what a model is sent (`conversation`), how a tool is called (`turn`) and what a session is
(`chat`).
"""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.chat import (
        MAX_TOOL_ROUNDS,
        MODEL_DOWN,
        NOTHING_SAID,
        TOO_MANY_ROUNDS,
        ChatSession,
        ChatStart,
    )
    from workshop_lib.agents.model_call import PLAN_OPTIONS, PlanRequest, plan_next_action
    from workshop_lib.agents.toolbox import Toolbox
    from workshop_lib.agents.turn import Answer, Turn
    from workshop_lib.llm.messages import Completion, Message
    from workshop_lib.temporal.steps import reason_of


@workflow.defn
class ManualChat(ChatSession):
    """A chat whose loop is written out."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """Serve messages until the chat is ended; returns the number of turns."""
        return await self.until_ended()

    async def respond(self, message: str, toolbox: Toolbox) -> Answer:
        """One turn. Whatever goes wrong with model or tools, it ends in words."""
        turn = self.turn = Turn(toolbox)
        for _ in range(MAX_TOOL_ROUNDS):
            try:
                plan = await self._plan(turn.toolbox)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                return turn.answered(f"{MODEL_DOWN} {reason_of(error)}", failed=True)
            turn.model_calls += 1
            calls = plan.message.tool_calls
            if not calls:
                return turn.answered(plan.message.content or NOTHING_SAID)
            self.conversation.add(plan.message)
            results = await asyncio.gather(*map(turn.run, calls))
            self.conversation.add(*map(Message.tool_result, calls, results))
            if turn.problem:
                return turn.answered(turn.problem, failed=True)
        return turn.answered(TOO_MANY_ROUNDS, failed=True)

    async def _plan(self, toolbox: Toolbox) -> Completion:
        system, messages = self.conversation.sent(self.instructions)
        request = PlanRequest(messages=[Message.system(system), *messages], tools=toolbox.specs)
        request.max_tokens = self.conversation.most_output()
        await self.conversation.afford(request.model_dump())
        plan = await workflow.execute_activity(plan_next_action, request, **PLAN_OPTIONS)
        self.conversation.paid(plan.usage)
        return plan
