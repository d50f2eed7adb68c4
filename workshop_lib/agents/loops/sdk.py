"""The same chat with the OpenAI Agents SDK: the loop is the SDK's, the session is ours.

Temporal's plugin makes an activity of each model call, and our toolbox makes the tool calls, so a killed
worker loses nothing: what may run twice is one model call or one look-up, as in the manual loop, and the
turn ends with the same reply.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from agents import Agent, Tool
    from agents.exceptions import AgentsException

    from workshop_lib.agents.chat import ChatStart
    from workshop_lib.agents.loops.sdk_session import AgentSession
    from workshop_lib.agents.turn import Turn


# What the SDK raises would otherwise fail the workflow task again and again, for ever.
@workflow.defn(failure_exception_types=[AgentsException])
class SdkChat(AgentSession):
    """A chat whose loop is the Agents SDK's."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """Serve messages until the chat is ended; returns the number of turns."""
        return await self.until_ended()

    def agent(self, tools: list[Tool]) -> Agent[Turn]:
        """An assistant with the local tools and those of the teams."""
        return Agent(name="assistant", instructions=self.instructions, tools=tools)
