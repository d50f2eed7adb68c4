"""The teams' workers and MCP servers as processes, for the tests of a module."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import pytest
from lab_environment import free_port, set_env
from teams_environment import new_names, runs_on
from temporalio.client import WorkflowExecution

from workshop_lib.lab.services.mcp_servers import McpServerProcess, start_mcp_server
from workshop_lib.lab.workers.process import WorkerProcess, start_process
from workshop_lib.settings import get_settings, reload_settings
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.worker import it

WORKERS = {"it": it, "finance": finance}
# How a client of the older protocol begins, on the bare wire.
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@dataclass
class ServedTeams:
    """What runs, by the team's name."""

    workers: dict[str, WorkerProcess]
    servers: dict[str, McpServerProcess]

    def url(self, name: str) -> str:
        return self.servers[name].url


@contextmanager
def served_teams(address: str) -> Iterator[ServedTeams]:
    """Workers on queues of their own and servers in front of them, while the block runs.

    Args:
        address: of the Temporal server.
    """
    teams = ServedTeams({}, {})
    with pytest.MonkeyPatch.context() as patch:
        # With ports of their own: while one is down, nobody else's server takes its port.
        ports = {"IT_MCP_PORT": free_port(), "FINANCE_MCP_PORT": free_port()}
        set_env(patch, TEMPORAL_ADDRESS=address, **new_names(), **ports)
        try:
            for name, spec in WORKERS.items():
                teams.workers[name] = asyncio.run(start_process(spec()))
                teams.servers[name] = asyncio.run(start_mcp_server(name))
            yield teams
        finally:
            for process in [*teams.servers.values(), *teams.workers.values()]:
                if process.alive:
                    process.kill()
    reload_settings()


async def finance_runs(
    queue: str | None = None, since: datetime | None = None
) -> list[WorkflowExecution]:
    """The runs that the finance team has been asked for on its queue of this module.

    Args:
        since: only those that were started then or later: what the list holds at the beginning of a test
            is no number to count on.
    """
    settings = get_settings()
    runs = await runs_on(queue or settings.finance_queue, settings.finance_namespace)
    return [run for run in runs if since is None or run.start_time >= since]
