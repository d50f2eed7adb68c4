"""How a worker reaches the teams' MCP servers: a plugin with a client for each.

Each team has two clients, one a transport: over HTTP to a server that runs somewhere already, over standard
input and output to a process that the worker starts and ends. A connection is made when a session first
needs it and shared by all sessions of the worker; one that breaks, or whose server is elsewhere by now, is
made anew. Left out: the session's side of it (`mcp_team`).
"""

import asyncio
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT
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

from workshop_lib.agents.conversation import results
from workshop_lib.agents.held_tools import FINGERPRINT, fingerprint
from workshop_lib.agents.loops.mcp_team import TEAMS, server_name
from workshop_lib.llm.tools import readable_schema
from workshop_lib.mcp.addresses import REFUSED, SERVER_DOWN, TOKEN, reachable_url
from workshop_lib.temporal.bounded import MAX_RESULT, as_text, cut, whole
from workshop_lib.temporal.breaker import Breaker, HeldBack, breaker_of
from workshop_lib.temporal.caller import FORBIDDEN, REFUSALS
from workshop_lib.temporal.steps import heartbeating
from workshop_lib.temporal.tries import again_after, age, held_back, leaves, time_left, tries

# A person waits for a listing, and the question may not need this team at all: no long patience here.
LISTING_TRIES = 3
PATIENCE = (
    4.0  # seconds, with a server that has been down for some time: it may have come back just now
)
MAX_TOOLS = 100  # of a server; providers take no more than some 128 in all
MAX_DESCRIPTION = 4_000  # characters
MAX_META = 4_000  # characters, as JSON
_HTTP_LIMIT = 5.0  # seconds to connect, and to list the tools; a call has the limit of who makes it
_STDIO_LIMIT = 30.0  # the same; here it takes the start of a process
_PREFIX = "temporalio.mcp."

TokenFor: TypeAlias = Callable[[str], str]


def mcp_plugin(token_for: TokenFor | None = None) -> SimplePlugin:
    """A new plugin with the teams' servers, for the client of one worker.

    Args:
        token_for: makes the token that a call to a team carries, at the moment of the call. Left out, calls
            carry none.
    """
    clients: dict[str, Callable[[], Client]] = {}
    for team in TEAMS:
        clients[server_name(team, "http")] = partial(_HttpClient, team, token_for)
        clients[server_name(team, "stdio")] = partial(_stdio_client, team, token_for)
    return _Plugin(clients)


class _TeamClient(Client):
    """A client whose patience ends where a server accepts connections and does not answer.

    Args:
        server: as for `Client`.
        limit: seconds to connect, and seconds to list the tools.
    """

    def __init__(self, server: Any, limit: float) -> None:
        self._limit = limit
        super().__init__(server)

    async def __aenter__(self) -> Client:
        # The connections are made one after the other: one that never comes would keep all others.
        async with asyncio.timeout(self._limit):
            return await super().__aenter__()

    async def list_tools(self, *args: Any, **options: Any) -> Any:
        """As `Client.list_tools`, within the limit."""
        async with asyncio.timeout(self._limit):
            return await super().list_tools(*args, **options)


class _StdioClient(_TeamClient):
    """A client over a pipe, where a call has no header: its token stands beside the arguments."""

    def __init__(self, server: Any, team: str, token_for: TokenFor | None) -> None:
        super().__init__(server, _STDIO_LIMIT)
        self._team, self._token_for = team, token_for

    async def call_tool(self, *args: Any, **options: Any) -> Any:
        """As `Client.call_tool`, with a token."""
        if self._token_for:
            options["meta"] = {**(options.get("meta") or {}), TOKEN: self._token_for(self._team)}
        return await super().call_tool(*args, **options)


def _stdio_client(team: str, token_for: TokenFor | None) -> _TeamClient:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", f"workshop_lib.teams.{team}.mcp_server", "--transport", "stdio"],
        # By default a server gets next to nothing of the environment. This one is ours.
        env=dict(os.environ),
    )
    return _StdioClient(server, team, token_for)


class _Bearer(httpx2.Auth):
    """A token in the header of each request, made for it: all sessions of a worker share a connection."""

    def __init__(self, team: str, token_for: TokenFor) -> None:
        self._team, self._token_for = team, token_for

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Sign one request."""
        request.headers["Authorization"] = f"Bearer {self._token_for(self._team)}"
        yield request


class _HttpClient(_TeamClient):
    """A client that asks a team's server, and nobody who has taken the port of one that is gone.

    All calls share a connection. Where one of them breaks it, all are made again, which their keys allow.
    """

    def __init__(self, team: str, token_for: TokenFor | None) -> None:
        self._team, self._url = team, reachable_url(team)
        if self._url is None:
            raise ConnectionError(f"no MCP server of the {team} team runs here")
        auth = _Bearer(team, token_for) if token_for else None
        super().__init__(_local_http(self._url, auth), _HTTP_LIMIT)

    async def list_tools(self, *args: Any, **options: Any) -> Any:
        """As `Client.list_tools`, of the team's server only."""
        self._check_url()
        return await super().list_tools(*args, **options)

    async def call_tool(self, *args: Any, **options: Any) -> Any:
        """As `Client.call_tool`, of the team's server only."""
        self._check_url()
        return await super().call_tool(*args, **options)

    def _check_url(self) -> None:
        if reachable_url(self._team) != self._url:
            # As if it had been closed: it is not used any more, and the next attempt makes another one.
            raise MCPError(CONNECTION_CLOSED, f"{self._url} is not the {self._team} team's now")


@asynccontextmanager
async def _local_http(url: str, auth: httpx2.Auth | None) -> AsyncIterator[Any]:
    """A connection to this machine, and so not by way of a proxy that the environment may name."""
    limits = httpx2.Timeout(None, connect=_HTTP_LIMIT)
    hooks = {"response": [_note_status]}
    async with (
        httpx2.AsyncClient(timeout=limits, trust_env=False, auth=auth, event_hooks=hooks) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


# Of each server the last status that was an error: MCP's client says only that there was one.
_statuses: dict[str, int] = {}


async def _note_status(response: httpx2.Response) -> None:
    if response.status_code >= 400:
        _statuses[str(response.request.url)] = response.status_code


def _was_refused(server: str) -> bool:
    """Whether a server has refused this caller (4xx), which says nothing of others'."""
    team, _, transport = server.rpartition("-")
    status = _statuses.pop(reachable_url(team) or "", 0) if transport == "http" else 0
    return 400 <= status < 500 and status not in (408, 429)


class _Plugin(MCPPlugin):
    """Temporal's plugin, with what its activities lack."""

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        config = super().configure_worker(config)
        config["interceptors"] = [*config.get("interceptors", []), _McpActivities()]
        return config


class _McpActivities(Interceptor):
    """Heartbeats, so that a dead worker is noticed within seconds; words for a server that cannot be reached;
    and a breaker for each, so that one that is down is asked once a second, whoever waits for it."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Put around every activity; acts on those of MCP."""
        return _McpActivity(next)


class _McpActivity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        kind = activity.info().activity_type
        if not kind.startswith(_PREFIX):
            return await super().execute_activity(input)
        server, _, operation = kind.removeprefix(_PREFIX).rpartition(".")
        breaker = breaker_of(_named(server))
        try:
            async with heartbeating():
                # MCP's client imports what checks a tool's result when the first one is there, and that may
                # take two seconds. On the loop nothing else would move meanwhile, heartbeats neither: the
                # call would be given up and made again.
                await asyncio.to_thread(importlib.import_module, "jsonschema")
                with breaker.call(_Down):
                    leaves()
                    try:
                        async with asyncio.timeout(time_left()):
                            return _bounded(await super().execute_activity(input))
                    except Exception as error:
                        if isinstance(error, ApplicationError) and error.non_retryable:
                            raise  # the server's own answer
                        kind_of = _Unusable if _was_refused(server) else _Down
                        raise kind_of(cut(whole(_in_words(error, server)))) from None
        except HeldBack:
            final = age() >= PATIENCE and _was_down(breaker)
            raise held_back(breaker, SERVER_DOWN, final=final) from None
        except _Unusable as error:
            final = _was_down(breaker) and age() >= PATIENCE
            if operation == "list-tools":
                final = _was_down(breaker) or tries() >= LISTING_TRIES
            again = again_after(breaker.wait())
            raise ApplicationError(
                str(error), type=SERVER_DOWN, non_retryable=final, next_retry_delay=again
            ) from None
        except ApplicationError as error:
            text = cut(whole(error.message))
            raise ApplicationError(text, type=error.type, non_retryable=True) from None


class _Unusable(Exception):
    """A server could not be used. The text says why, for who waits for it."""


class _Down(_Unusable):
    """Whoever asks it."""


def _was_down(breaker: Breaker) -> bool:
    """Whether a server was known to be down when this activity was asked for.

    Then nobody waits long for it. One that goes down during a call may be just starting again, and holds
    what the call has begun.
    """
    return breaker.state != "closed" and breaker.down_for > age()


def _bounded(result: dict[str, Any]) -> dict[str, Any]:
    """What a server has answered, such that it can be recorded and sent to a model.

    Of its tools those that a model can be told of; of a large result the first part, as text, while the
    whole is kept. Pictures, sounds and files are only named.
    """
    if isinstance(result.get("tools"), list):
        tools = [tool for tool in result["tools"] if readable_schema(tool["input_schema"])]
        kept = [
            {**tool, "description": cut(tool["description"] or "", MAX_DESCRIPTION)}
            | {"output_schema": None, "icons": None, "meta": {FINGERPRINT: _fingerprint(tool)}}
            for tool in tools[:MAX_TOOLS]
        ]
        return {**result, "tools": kept, "meta": None}
    if "content" not in result:
        return result
    if refused := result["is_error"] and (result["meta"] or {}).get(REFUSED):
        reason = "".join(part.get("text") or "" for part in result["content"])
        kind = refused if refused in REFUSALS else FORBIDDEN
        raise ApplicationError(reason.removeprefix("Error: "), type=kind, non_retryable=True)
    structured = None if result["is_error"] else result["structured_content"]
    parts = [part if part["type"] == "text" else _told(part) for part in result["content"]]
    text = as_text(structured or "\n".join(p["text"] for p in parts), results.MAX_KEPT)
    if len(text) > results.SHOWN or len(json.dumps([structured, parts])) > MAX_RESULT:
        text = results.kept(text)
        structured, parts = None, [{"type": "text", "text": text}]
    meta = result["meta"] if len(json.dumps(result["meta"])) < MAX_META else None
    return {**result, "content": parts, "structured_content": structured, "meta": meta}


def _fingerprint(tool: dict[str, Any]) -> str:
    title = tool["title"] or (tool["annotations"] or {}).get("title") or ""
    return fingerprint(tool["name"], tool["description"], tool["input_schema"], title)


def _told(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a result that is no text, as one that says what it was."""
    inner = part.get("resource") or part
    if isinstance(inner.get("text"), str):
        return {"type": "text", "text": inner["text"]}
    kind = inner.get("mime_type") or part["type"]
    where = f" at {inner['uri']}" if inner.get("uri") else ""
    return {"type": "text", "text": f"({kind}{where}, which cannot be shown here)"}


def _named(server: str) -> str:
    """What people call a server."""
    team, _, transport = server.rpartition("-")
    own = ", started by the worker," if transport == "stdio" else ""
    return f"the {team} team's MCP server{own}"


def _in_words(error: BaseException, server: str) -> str:
    """Why a server could not be used, for who waits for it."""
    team, _, transport = server.rpartition("-")
    if transport == "stdio":
        return f"{_named(server)} does not answer"
    url = reachable_url(team)
    if url is None:
        return f"no MCP server of the {team} team runs here (`workshop mcp serve {team}` starts it)"
    where = f"{_named(server)} at {url}"
    for answer in _answers(error):
        return f"{where} answers, but not as that server should: {answer}"
    return f"{where} does not answer (`workshop mcp serve {team}` starts it)"


def _answers(error: BaseException | None) -> Iterator[str]:
    """What a server has answered in place of a result, by an error, its cause and its group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _answers(inner)
    elif isinstance(error, ApplicationError):
        yield from _answers(error.__cause__)
    elif isinstance(error, MCPError) and error.code not in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
        yield error.message
