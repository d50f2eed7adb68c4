"""The same chat once more, with the teams' tools through MCP instead of Nexus.

The loop is the Agents SDK's, the local tools are the same, and each team is an MCP server that the agent
asks for its tools. Listings and calls are activities of Temporal's plugin, so a killed worker loses nothing.
What may run twice: a model call, a listing, a look-up; a call to a team carries a key, by which the team's
server finds the run that the first try has started.

A team that cannot be reached is missing from the agent's tools, and model and user are told so; the other
team's tools still work. So is a tool that has changed since the session knows it, until somebody accepts it.
"""

import asyncio
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from agents import Agent, Tool
    from agents.exceptions import AgentsException
    from agents.mcp import MCPServer

    from workshop_lib.agents.chat import ChatStart
    from workshop_lib.agents.held_tools import HeldTool, KnownTools
    from workshop_lib.agents.local_tools import READ_RESULT
    from workshop_lib.agents.loops.mcp_team import TEAMS, team_server, tools_of
    from workshop_lib.agents.loops.sdk_session import AgentSession
    from workshop_lib.agents.toolbox import Toolbox, local_toolbox
    from workshop_lib.agents.turn import Answer, Turn
    from workshop_lib.temporal.steps import reason_of


@workflow.defn(failure_exception_types=[AgentsException])
class McpChat(AgentSession):
    """A chat whose agent has the teams' MCP servers."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)
        self._transport = start.mcp_transport
        self._servers = self._new_servers()
        self._known = KnownTools(self.known_tools)
        # Of this turn: the tools of the servers that answer, and a sentence on each that is missing.
        self._team_tools: list[Tool] = []
        self._missing: list[str] = []

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """Serve messages until the chat is ended; returns the number of turns."""
        return await self.until_ended()

    @workflow.signal
    def tools_changed(self) -> None:
        """A server has other tools than before: from the next message on the agent has them."""
        self._servers = self._new_servers()

    @workflow.update
    async def accept_tool(self, tool: str, fingerprint: str = "") -> HeldTool:
        """Believe a tool that is held back: from the next message on the agent has it as it is now.

        Args:
            tool: its name, or its team's and its name ("finance/stock_price").
            fingerprint: the beginning of the one that was looked at; it is refused if it is another by now.
        """
        self._taken()
        return self._known.accept(tool, fingerprint)

    @accept_tool.validator
    def _check_accept(self, tool: str, fingerprint: str = "") -> None:
        self._check_open("Accept it again.")
        try:
            self._known.find(tool, fingerprint)
        except ValueError as error:
            raise ApplicationError(str(error), type="NotHeld", non_retryable=True) from None

    @workflow.query
    def held_tools(self) -> list[HeldTool]:
        """The tools that have changed, and wait for somebody to accept them."""
        return self._known.held

    async def open_toolbox(self) -> Toolbox:
        """Only the local tools: those of the teams belong to the agent's servers."""
        return local_toolbox()

    async def respond(self, message: str, toolbox: Toolbox) -> Answer:
        """One turn, with the tools of the teams that can be reached."""
        # What was listed stays listed; a team that was out of reach is asked again.
        servers = list(self._servers)
        outages = await asyncio.gather(*(_outage(server) for server in servers))
        reached = [server for server, outage in zip(servers, outages, strict=True) if not outage]
        self._team_tools = await tools_of(
            reached, {spec.name for spec in toolbox.specs} | {READ_RESULT.name}, self._known
        )
        self._missing = [sentence for sentence in outages if sentence]
        self._missing += [tool.sentence for tool in self._known.held]
        answer = await super().respond(message, toolbox)
        return replace(answer, text="\n\n".join([answer.text, *self._missing]))

    def agent(self, tools: list[Tool]) -> Agent[Turn]:
        """An assistant with the tools of the teams' servers and the local ones."""
        return Agent(
            name="assistant",
            instructions="\n".join([self.instructions, *self._missing]),
            tools=[*self._team_tools, *tools],
        )

    def _new_servers(self) -> list[MCPServer]:
        return [team_server(team, self._transport, self._team_timeout) for team in TEAMS]


async def _outage(server: MCPServer) -> str | None:
    """Ask a server for its tools, which it then knows. Returns None, or why that was not possible."""
    try:
        await server.list_tools()
        return None
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        return f"Some tools cannot be used now: {reason_of(error)}."
