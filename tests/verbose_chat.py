"""A chat that answers by itself and at length: long transcripts come without a model's help."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.chat import ChatSession, ChatStart
    from workshop_lib.agents.toolbox import Toolbox
    from workshop_lib.agents.turn import Answer


@workflow.defn(name="ManualChat")
class VerboseChat(ChatSession):
    """Answers with as many letters as the message says."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        return await self.until_ended()

    async def open_toolbox(self) -> Toolbox:
        return Toolbox([])

    async def respond(self, message: str, toolbox: Toolbox) -> Answer:
        return Answer("ä" * int(message))
