"""The workflows as a careless change would leave them: something happens before all that happened so far.

In a module of its own, since the sandbox imports a workflow's module anew for every run.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.chat import ChatSession, ChatStart
    from workshop_lib.agents.loops.manual import ManualChat
    from workshop_lib.agents.loops.mcp import McpChat
    from workshop_lib.agents.loops.sdk import SdkChat
    from workshop_lib.agents.toolbox import Toolbox
    from workshop_lib.agents.turn import Answer, Turn
    from workshop_lib.llm.messages import ToolCall
    from workshop_lib.repair.proactive import ProactiveRepair
    from workshop_lib.repair.states import (
        ProactiveOutcome,
        ProactiveStart,
        RepairOutcome,
        RepairStart,
    )
    from workshop_lib.repair.workflow import OrderRepair

EARLY = ToolCall(id="early", name="weather", arguments='{"city": "Seattle"}')


class EarlyTool(ChatSession):
    """Put before a loop: the same commands, and one before them."""

    async def respond(self, message: str, toolbox: Toolbox) -> Answer:
        """Look at the weather first."""
        await Turn(toolbox).run(EARLY)
        return await super().respond(message, toolbox)


@workflow.defn(name="ManualChat")
class ChangedManualChat(EarlyTool, ManualChat):
    """Looks at the weather first."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """As before."""
        return await self.until_ended()


@workflow.defn(name="SdkChat")
class ChangedSdkChat(EarlyTool, SdkChat):
    """Looks at the weather first."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """As before."""
        return await self.until_ended()


@workflow.defn(name="McpChat")
class ChangedMcpChat(EarlyTool, McpChat):
    """Looks at the weather first."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """As before."""
        return await self.until_ended()


@workflow.defn(name="OrderRepair")
class ChangedOrderRepair(OrderRepair):
    """Takes its time first."""

    @workflow.init
    def __init__(self, start: RepairStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: RepairStart) -> RepairOutcome:
        """The same commands, and a timer before them."""
        await workflow.sleep(1)
        return await super().run(start)


@workflow.defn(name="ProactiveRepair")
class ChangedProactiveRepair(ProactiveRepair):
    """Takes its time first."""

    @workflow.init
    def __init__(self, start: ProactiveStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ProactiveStart) -> ProactiveOutcome:
        """The same commands, and a timer before them."""
        await workflow.sleep(1)
        return await super().run(start)


CHANGED: dict[str, type] = {
    "ManualChat": ChangedManualChat,
    "SdkChat": ChangedSdkChat,
    "McpChat": ChangedMcpChat,
    "OrderRepair": ChangedOrderRepair,
    "ProactiveRepair": ChangedProactiveRepair,
}
