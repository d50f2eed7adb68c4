"""How a worker reaches the teams' MCP servers: what Temporal's plugin is given to connect with.

Each team has two entries, one a transport: over HTTP a server that runs somewhere already, over standard
input and output a process that the worker starts and ends. A connection is made when a session first needs
it and shared by all sessions of the worker; one that breaks is made anew, wherever the server is by then.
Left out: the session's side of it (`mcp_team`).
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from agents.mcp import MCPServer, MCPServerStdio, MCPServerStreamableHttp
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from workshop_lib.agents.mcp_team import TEAMS, server_name
from workshop_lib.heartbeat import heartbeating
from workshop_lib.mcp_wire import SERVERS, server_url

# A person waits for a listing, and the question may not need this team at all: no long patience here.
LISTING_TRIES = 3
# The activity that makes a call has the time limit; the library's own is longer than any.
_LONGEST_CALL = timedelta(hours=1)
_PREFIX = "temporalio.mcp."
_validator_loaded = threading.Event()


def mcp_servers() -> dict[str, Callable[[], MCPServer]]:
    """For `OpenAIAgentsPlugin(mcp_servers=…)`: how each of the teams' servers is connected to."""
    over_http = {server_name(team, "http"): _http(team) for team in TEAMS}
    over_stdio = {server_name(team, "stdio"): _stdio(team) for team in TEAMS}
    return over_http | over_stdio


def _http(team: str) -> Callable[[], MCPServer]:
    def connection() -> MCPServer:
        return MCPServerStreamableHttp(
            name=team,
            params={
                "url": server_url(team),
                "timeout": _LONGEST_CALL,
                "sse_read_timeout": _LONGEST_CALL,
            },
            client_session_timeout_seconds=_LONGEST_CALL.total_seconds(),
        )

    return connection


def _stdio(team: str) -> Callable[[], MCPServer]:
    def connection() -> MCPServer:
        return MCPServerStdio(
            name=team,
            params={
                "command": sys.executable,
                "args": ["-m", SERVERS[team], "--transport", "stdio"],
                # By default a server gets next to nothing of the environment. This one is ours.
                "env": dict(os.environ),
            },
            client_session_timeout_seconds=_LONGEST_CALL.total_seconds(),
        )

    return connection


class McpActivities(Interceptor):
    """What the plugin's activities lack: heartbeats, so that a dead worker is noticed within seconds, and
    words for a server that cannot be reached."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Put around every activity; acts on those of MCP."""
        return _McpActivity(next)


class _McpActivity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        kind = activity.info().activity_type
        if not kind.startswith(_PREFIX):
            return await super().execute_activity(input)
        try:
            async with heartbeating():
                await _load_validator()
                return await super().execute_activity(input)
        except Exception as error:
            if isinstance(error, ApplicationError) and error.non_retryable:
                raise  # the server's own answer
            name, _, operation = kind.removeprefix(_PREFIX).rpartition(".")
            gives_up = operation == "list-tools" and activity.info().attempt >= LISTING_TRIES
            raise ApplicationError(
                _no_connection(name), type="McpServerDown", non_retryable=gives_up
            ) from error


async def _load_validator() -> None:
    """Import what checks a tool's result, off the event loop.

    MCP's client imports it when the first result is there, and that may take two seconds. On the loop
    nothing else would move meanwhile, heartbeats neither: the call would be given up and made again.
    """
    if not _validator_loaded.is_set():
        await asyncio.to_thread(_import_validator)


def _import_validator() -> None:
    import jsonschema  # type: ignore[import-untyped]  # noqa: F401

    _validator_loaded.set()


def _no_connection(server: str) -> str:
    team, _, transport = server.rpartition("-")
    if transport == "stdio":
        return f"the {team} team's MCP server, started by the worker, does not answer"
    return (
        f"the {team} team's MCP server at {server_url(team)} does not answer"
        f" (`workshop mcp serve {team}` starts it)"
    )
