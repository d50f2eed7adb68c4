"""A chat's code in versions: the first is `ManualChat` as it is, the others are what it became.

In a module of its own, since the sandbox imports a workflow's module anew for every run.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.chat import ChatStart
    from workshop_lib.agents.loops.manual import ManualChat
    from workshop_lib.agents.toolbox import Toolbox
    from workshop_lib.agents.turn import Answer

SECOND_PROMPT = "You are version two, and say so."


@workflow.defn(name="ManualChat")
class SecondChat(ManualChat):
    """Has another prompt, and signs its answers."""

    prompt = SECOND_PROMPT

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        return await self.until_ended()

    async def respond(self, message: str, toolbox: Toolbox) -> Answer:
        answer = await super().respond(message, toolbox)
        answer.text += " (version 2)"
        return answer


@workflow.defn(name="ManualChat")
class BrokenChat(ManualChat):
    """Has a bug where it answers."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        return await self.until_ended()

    async def respond(self, message: str, toolbox: Toolbox) -> Answer:
        raise KeyError("answer")
