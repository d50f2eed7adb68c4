"""The finance team's tools as an MCP server.

`python -m workshop_lib.teams.finance.mcp_server` serves them.
"""

from fastmcp import FastMCP

from workshop_lib.auth.mcp import guard
from workshop_lib.mcp.server import create_server, run
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.contract import VERSION, FinanceService
from workshop_lib.teams.finance.workflows import RoiWorkflow, StockPriceWorkflow
from workshop_lib.teams.mcp_tools import Team, workflow_tool


def server() -> FastMCP:
    """The server: each of its tools runs a workflow in the team's namespace."""
    settings = get_settings()
    team = Team(
        name="finance",
        service=FinanceService,
        namespace=settings.finance_namespace,
        task_queue=settings.finance_queue,
        errors={"UnknownTicker", "CannotCalculate", "ServiceDown"},
    )
    return create_server(
        team.name,
        instructions="Share prices, and what an investment comes to.",
        version=VERSION,
        namespace=team.namespace,
        guard=guard(team.name),
        tools=[
            workflow_tool(
                team, "stock_price", StockPriceWorkflow.run, subject=lambda asked: asked.ticker
            ),
            workflow_tool(team, "calculate_roi", RoiWorkflow.run),
        ],
    )


if __name__ == "__main__":
    run(server)
