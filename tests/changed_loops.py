"""The loops as a careless change would leave them: a tool is called before the model is asked.

In a module of its own, since the sandbox imports a workflow's module anew for every run.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.chat import ChatStart, Reply
    from workshop_lib.agents.manual_loop import ManualChat
    from workshop_lib.agents.sdk_loop import SdkChat
    from workshop_lib.agents.toolbox import Toolbox
    from workshop_lib.llm.messages import ToolCall

EARLY = ToolCall(id="early", name="weather", arguments='{"city": "Seattle"}')


@workflow.defn(name="ManualChat")
class ChangedManualChat(ManualChat):
    """Looks at the weather first."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """As before."""
        return await self.until_ended()

    async def respond(self, message: str, toolbox: Toolbox, reply: Reply) -> None:
        """The same commands, and one before them."""
        await toolbox.run(EARLY, [])
        await super().respond(message, toolbox, reply)


@workflow.defn(name="SdkChat")
class ChangedSdkChat(SdkChat):
    """Looks at the weather first."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """As before."""
        return await self.until_ended()

    async def respond(self, message: str, toolbox: Toolbox, reply: Reply) -> None:
        """The same commands, and one before them."""
        await toolbox.run(EARLY, [])
        await super().respond(message, toolbox, reply)
