"""The teams' workers and MCP servers as processes, for the tests of a module."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import pytest
from lab_environment import free_port, set_env
from temporalio.client import WorkflowExecution

from workshop_lib.lab.services.mcp_servers import McpServerProcess, start_mcp_server
from workshop_lib.lab.workers.process import WorkerProcess, start_process
from workshop_lib.mcp.wire import TEAM_SERVERS
from workshop_lib.settings import get_settings, reload_settings
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.worker import it
from workshop_lib.temporal.connect import connect

WORKERS = {"it": it, "finance": finance}


@dataclass
class Teams:
    """What runs, by the team's name."""

    workers: dict[str, WorkerProcess]
    servers: dict[str, McpServerProcess]

    def url(self, name: str) -> str:
        return self.servers[name].url


@contextmanager
def served_teams(address: str) -> Iterator[Teams]:
    """Workers on queues of their own and servers in front of them, while the block runs.

    Args:
        address: of the Temporal server.
    """
    teams = Teams({}, {})
    with pytest.MonkeyPatch.context() as patch:
        set_env(
            patch,
            TEMPORAL_ADDRESS=address,
            IT_QUEUE=f"it-{uuid.uuid4().hex[:8]}",
            FINANCE_QUEUE=f"finance-{uuid.uuid4().hex[:8]}",
            # While one is down, nobody else's server takes its port.
            IT_MCP_PORT=free_port(),
            FINANCE_MCP_PORT=free_port(),
        )
        try:
            for name in TEAM_SERVERS:
                teams.workers[name] = asyncio.run(start_process(WORKERS[name]()))
                teams.servers[name] = asyncio.run(start_mcp_server(name))
            yield teams
        finally:
            for process in [*teams.servers.values(), *teams.workers.values()]:
                if process.alive:
                    process.kill()
    reload_settings()


async def team_runs(
    name: str, queue: str | None = None, since: datetime | None = None
) -> list[WorkflowExecution]:
    """The runs that a team has been asked for on its queue of this module.

    Args:
        since: only those that were started then or later. The list follows a moment after the facts, so
            what it holds at the beginning of a test is no number to count on.
    """
    settings = get_settings()
    namespace, own = {
        "it": (settings.it_namespace, settings.it_queue),
        "finance": (settings.finance_namespace, settings.finance_queue),
    }[name]
    client = await connect(namespace)
    return [
        run
        async for run in client.list_workflows()
        if run.task_queue == (queue or own) and (since is None or run.start_time >= since)
    ]
