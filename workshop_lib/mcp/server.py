"""Runs one MCP server, over HTTP or over standard input and output: what every server of ours shares.

A server is a FastMCP object made by `create_server`. Its tools find a connection to Temporal in the
lifespan. Whatever a tool raises that is not a `ToolError` is masked, for a model, and who reads what it
writes, should not see the inside of a program. Left out: the tools (`teams.mcp_tools`).
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import uvicorn
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.auth import AuthProvider
from fastmcp.server.middleware import Middleware as CallMiddleware
from fastmcp.tools import Tool
from fastmcp.tools.base import ToolResult
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from temporalio.client import Client, Interceptor
from temporalio.service import RPCError

from workshop_lib.errors import WorkshopError
from workshop_lib.logs import log_to_stderr
from workshop_lib.machine.ports import LOCALHOST, holder, is_free, next_free
from workshop_lib.machine.records import remove_record
from workshop_lib.mcp.addresses import REFUSED, url_of, users_port, write_record
from workshop_lib.settings import DEFAULT_MCP_PORTS
from workshop_lib.temporal import tracing
from workshop_lib.temporal.connect import connect, server_address

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What stands in front of a server, and what its calls to Temporal go through; mostly nothing.

    Attributes:
        auth: looks at the header of every HTTP request.
        middleware: looks at every MCP message, over HTTP or not.
        interceptors: of the server's client.
    """

    auth: AuthProvider | None = None
    middleware: Sequence[CallMiddleware] = ()
    interceptors: Sequence[Interceptor] = ()


class Connection:
    """A client of one namespace: made at the first need, kept, and made anew when its server is gone."""

    def __init__(self, namespace: str, interceptors: Sequence[Interceptor] = ()) -> None:
        self.namespace = namespace
        self._interceptors = interceptors
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> Client:
        """The client.

        Raises:
            ToolError: there is no Temporal server to connect to.
        """
        async with self._connecting:
            if self._client is None:
                try:
                    self._client = await connect(self.namespace, interceptors=self._interceptors)
                except WorkshopError as error:
                    raise ToolError(f"Error: {' '.join(error.lines)}") from None
            return self._client

    def lost(self) -> None:
        """The server does not answer: it may be elsewhere by now."""
        self._client = None

    async def reachable(self) -> bool:
        """True where the Temporal server answers."""
        try:
            client = await self.client()
            return await client.service_client.check_health(timeout=timedelta(seconds=2))
        except (ToolError, RPCError):
            self.lost()
            return False


def create_server(
    name: str,
    *,
    instructions: str,
    version: str,
    namespace: str,
    tools: Sequence[Tool],
    guard: Guard | None = None,
) -> FastMCP:
    """A server with these tools, a health route and a connection to a namespace.

    Args:
        name: a key of `DEFAULT_MCP_PORTS`.
        instructions: what a client may tell its model of the server.
        version: of what it offers.
        guard: what is put around it; nothing when left out.
    """
    guard = guard or Guard()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastMCP) -> AsyncIterator[dict[str, Any]]:
        yield {"temporal": connection}

    connection = Connection(namespace, guard.interceptors)
    server: FastMCP = FastMCP(
        name,
        instructions=instructions,
        version=version,
        lifespan=lifespan,
        tools=tools,
        auth=guard.auth,
        middleware=guard.middleware,
        mask_error_details=True,
    )

    @server.custom_route("/health", methods=["GET"])
    async def health(_: Request) -> JSONResponse:
        """200 where calls can be served, 503 where Temporal is out of reach."""
        reachable = await connection.reachable()
        said = {
            "status": "ok" if reachable else "no Temporal server",
            "server": name,
            "namespace": namespace,
            "temporal": server_address() if reachable else None,
        }
        return JSONResponse(said, status_code=200 if reachable else 503)

    return server


class _OwnPagesOnly:
    """Refuses what a web page sends that does not come from the server itself, whose pages are none.

    FastMCP's guard has looked at the host by now, and lets pages of every other program of this machine
    through: what a notebook, a development server or another user shows is not to approve repairs.
    Browsers say with every POST whose page it is; other programs say nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            own = f"http://{headers.get('host')}"
            if any(origin != own for origin in headers.getlist("origin")):
                answer = PlainTextResponse("Forbidden Origin", status_code=403)
        await answer(scope, receive, send)


# How everybody serves over HTTP, in a process or a notebook's kernel. What is said here no FASTMCP_…
# variable can say otherwise; and without the guard any web page could call tools by way of a name of its
# own that leads to this machine.
HTTP_OPTIONS: dict[str, Any] = {
    "path": "/mcp",
    # A request says all that is needed to answer it, so one that is sent again after a restart is
    # answered like any other.
    "stateless_http": True,
    "host_origin_protection": True,
    "allowed_hosts": [],
    "allowed_origins": [],
    "middleware": [Middleware(_OwnPagesOnly)],
}


def refusal(reason: str, kind: str) -> ToolResult:
    """A result that says that nothing was done, since whoever asks may not have it.

    Args:
        kind: one of `temporal.caller.REFUSALS`.
    """
    return ToolResult(content=f"Error: {reason}", meta={REFUSED: kind}, is_error=True)


def connection_of(context: Context) -> Connection:
    """The connection that the server of a call has."""
    connection = context.lifespan_context["temporal"]
    assert isinstance(connection, Connection)
    return connection


def run(make: Callable[[], FastMCP], arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C, or, over standard input and output, until the input ends.

    Over HTTP the first and only line on stdout is the server's address, once it listens.

    Args:
        make: makes the server.
        arguments: those of the command line by default.

    Raises:
        WorkshopError: the port that the user asked for is taken.
    """
    parser = argparse.ArgumentParser(description="Serves a team's tools by MCP.")
    parser.add_argument("--transport", choices=["stdio", "http"], default="http")
    parser.add_argument("--port", type=int, help="for http; this one or none")
    parser.add_argument("--preferred-port", type=int, help="for http; this one if it is free")
    parser.add_argument(
        "--while-stdin-open", action="store_true", help="for http; leave when the input ends"
    )
    asked = parser.parse_args(arguments)
    server = make()
    tracing.begin()  # the first call has a span before it needs a connection
    log_to_stderr(logging.WARNING)  # over stdio, stdout is the protocol's
    logging.getLogger("fastmcp").setLevel(logging.WARNING)
    with contextlib.suppress(KeyboardInterrupt):
        if asked.transport == "stdio":
            asyncio.run(server.run_stdio_async(show_banner=False))
            return
        listening = listen(server.name, asked.port, asked.preferred_port)
        http = HttpServer(server, listening, stays=not asked.while_stdin_open)
        # Whenever it comes: the record is to be removed. The web server passes the signal on when it is done.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        if asked.while_stdin_open:
            threading.Thread(target=_leave_with_stdin, daemon=True).start()
        http.serve_until_end(lambda: print(http.url, flush=True))


class HttpServer(uvicorn.Server):
    """An MCP server over HTTP: in a process, or in a thread of a notebook's kernel.

    Attributes:
        url: where it listens.

    Args:
        stays: it does not end with the process that started it, but with `workshop down`.
    """

    def __init__(self, server: FastMCP, listening: socket.socket, *, stays: bool = False) -> None:
        app = server.http_app(**HTTP_OPTIONS)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=2,  # seconds; a client that listens would keep it for ever
        )
        super().__init__(config)
        self.url = url_of(listening.getsockname()[1])
        self._name = server.name
        self._listening = listening
        self._stays = stays
        self._begun: Callable[[], object]

    def serve_until_end(self, begun: Callable[[], object]) -> None:
        """Serve until a signal or `should_exit`, and say where for as long.

        Args:
            begun: called when it serves.
        """
        record = write_record(self._name, self.url, stays=self._stays)
        self._begun = begun
        try:
            asyncio.run(self.serve(sockets=[self._listening]))
        finally:
            remove_record(record)
            self._listening.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The web server calls this; it returns also where the application does not start."""
        await super().startup(sockets)
        if self.started:
            self._begun()


def listen(name: str, port: int | None = None, preferred: int | None = None) -> socket.socket:
    """A socket that listens, on the port of a server.

    Args:
        port: asked for by the user. Left out, it is the settings' one, or else the server's default
            port, and where that is taken the next one that is free.
        preferred: in place of the default port.

    Raises:
        WorkshopError: the port that the user asked for is taken; it names who has it.
    """
    users = port or users_port(name)
    wanted = users or preferred or DEFAULT_MCP_PORTS[name]
    while True:
        chosen = wanted if users else next_free(wanted)
        if users and not is_free(users):
            raise WorkshopError(
                f"Port {users} of the {name} MCP server is taken by {holder(users)}.",
                expected="a free port, or none set.",
                fix=f"stop that program, or unset {name.upper()}_MCP_PORT (or --port).",
            )
        # The last argument matters: without it answers wait for 40 ms.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOCALHOST, chosen))
            listening.listen(2048)
        except OSError:  # somebody was quicker: look again
            listening.close()
            continue
        if chosen != wanted:
            logger.warning(
                "port %s is taken by %s; the %s MCP server takes %s",
                wanted,
                holder(wanted),
                name,
                chosen,
            )
        return listening


def _leave_with_stdin() -> None:
    """End this process when its standard input ends."""
    # Not by way of `sys.stdin`, whose lock this thread would hold when the interpreter ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
