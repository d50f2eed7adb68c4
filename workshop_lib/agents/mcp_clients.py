"""How a worker reaches the teams' MCP servers: a plugin with a client for each.

Each team has two clients, one a transport: over HTTP to a server that runs somewhere already, over standard
input and output to a process that the worker starts and ends. A connection is made when a session first
needs it and shared by all sessions of the worker; one that breaks, or whose server is elsewhere by now, is
made anew. Left out: the session's side of it (`mcp_team`).
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CONNECTION_CLOSED
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.mcp import MCPPlugin
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    WorkerConfig,
)

from workshop_lib.agents.mcp_team import TEAMS, server_name
from workshop_lib.heartbeat import heartbeating
from workshop_lib.mcp_wire import SERVER_DOWN, SERVERS, called_at, server_url

# A person waits for a listing, and the question may not need this team at all: no long patience here.
LISTING_TRIES = 3
_CONNECT_LIMIT = 5.0  # seconds; the server is on this machine
_PREFIX = "temporalio.mcp."
_validator_loaded = threading.Event()


def mcp_plugin() -> SimplePlugin:
    """A new plugin with the teams' servers, for the client of one worker."""
    over_http = {server_name(team, "http"): _http(team) for team in TEAMS}
    over_stdio = {server_name(team, "stdio"): _stdio(team) for team in TEAMS}
    return _Plugin(over_http | over_stdio)


def _http(team: str) -> Callable[[], Client]:
    return lambda: _ClientOverHttp(team)


def _stdio(team: str) -> Callable[[], Client]:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", SERVERS[team], "--transport", "stdio"],
        # By default a server gets next to nothing of the environment. This one is ours.
        env=dict(os.environ),
    )
    return lambda: Client(server)


class _ServerLeft(MCPError):
    """The server of a connection is not where it was when the connection was made."""


class _ClientOverHttp(Client):
    """A client that asks a team's server, and nobody who has taken the port of one that is gone.

    Args:
        team: a key of `mcp_wire.SERVERS`.
    """

    def __init__(self, team: str) -> None:
        self._team, self._url = team, called_at(team)
        if self._url is None:
            raise ConnectionError(f"no MCP server of the {team} team runs here")
        super().__init__(_streams(self._url))

    async def list_tools(self, *args: Any, **options: Any) -> Any:
        self._see_that_it_is_there()
        return await super().list_tools(*args, **options)

    async def call_tool(self, *args: Any, **options: Any) -> Any:
        self._see_that_it_is_there()
        return await super().call_tool(*args, **options)

    def _see_that_it_is_there(self) -> None:
        if called_at(self._team) != self._url:
            # As if it had been closed: it is not used any more, and another one is made.
            raise _ServerLeft(CONNECTION_CLOSED, f"{self._url} is not the {self._team} team's now")


@asynccontextmanager
async def _streams(url: str) -> AsyncIterator[Any]:
    """A connection to this machine, and so not by way of a proxy that the environment may name."""
    # How long a call may take is said where it is made (`mcp_team`).
    limits = httpx2.Timeout(_CONNECT_LIMIT, read=None)
    async with (
        httpx2.AsyncClient(timeout=limits, trust_env=False) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


class _Plugin(MCPPlugin):
    """Temporal's plugin, with what its activities lack."""

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        config = super().configure_worker(config)
        config["interceptors"] = [*config.get("interceptors", []), _McpActivities()]
        return config


class _McpActivities(Interceptor):
    """Heartbeats, so that a dead worker is noticed within seconds, and words for a server that cannot be
    reached."""

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
                return await self._by_a_connection(input)
        except Exception as error:
            if isinstance(error, ApplicationError) and error.non_retryable:
                raise  # the server's own answer
            name, _, operation = kind.removeprefix(_PREFIX).rpartition(".")
            gives_up = operation == "list-tools" and activity.info().attempt >= LISTING_TRIES
            raise ApplicationError(
                _no_connection(name), type=SERVER_DOWN, non_retryable=gives_up
            ) from error

    async def _by_a_connection(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        """By the one that there is, or a new one."""
        try:
            return await super().execute_activity(input)
        except ApplicationError as error:
            if not isinstance(error.__cause__, _ServerLeft):
                raise
        return await super().execute_activity(input)


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
