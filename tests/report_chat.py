"""A chat whose one tool is not the agent's own: its results come large, as another team's may."""

from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.chat import ChatStart
    from workshop_lib.agents.loops.manual import ManualChat
    from workshop_lib.agents.toolbox import Toolbox
    from workshop_lib.llm.messages import ToolSpec

REPORT = " ".join(f"line-{number}" for number in range(2_000))


class TeamReport:
    """A tool that answers within the workflow."""

    spec = ToolSpec(name="team_report", description="Get it.", parameters={"type": "object"})
    changes = ""

    async def call(self, arguments: dict[str, Any]) -> str:
        """The report."""
        return REPORT


@workflow.defn(name="ManualChat")
class ReportChat(ManualChat):
    """Has the one tool."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        return await self.until_ended()

    async def open_toolbox(self) -> Toolbox:
        return Toolbox([TeamReport()])
