"""The IT team's tools as an MCP server.

`python -m workshop_lib.teams.it.mcp_server` serves them.
"""

from fastmcp import FastMCP

from workshop_lib.auth.mcp import guard
from workshop_lib.mcp.server import create_server, run
from workshop_lib.settings import get_settings
from workshop_lib.teams.it.contract import VERSION, ITService
from workshop_lib.teams.it.workflows import IpWorkflow, JiraMetricsWorkflow
from workshop_lib.teams.mcp_tools import Team, workflow_tool


def server() -> FastMCP:
    """The server: each of its tools runs a workflow in the team's namespace."""
    settings = get_settings()
    team = Team(
        name="it",
        service=ITService,
        namespace=settings.it_namespace,
        task_queue=settings.it_queue,
        errors={"UnknownProject", "Forbidden", "ServiceDown"},
    )
    return create_server(
        team.name,
        instructions="Figures of Jira projects, and the address of the user's machine.",
        version=VERSION,
        namespace=team.namespace,
        guard=guard(team.name),
        tools=[
            workflow_tool(
                team, "jira_metrics", JiraMetricsWorkflow.run, subject=lambda asked: asked.project
            ),
            workflow_tool(team, "get_ip", IpWorkflow.run),
        ],
    )


if __name__ == "__main__":
    run(server)
