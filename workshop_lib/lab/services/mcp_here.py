"""An MCP server in a background thread of the notebook: for one that a learner has written in a cell."""

import asyncio
import contextlib
import socket
import threading

import uvicorn
from fastmcp import FastMCP

from workshop_lib.errors import WorkshopError
from workshop_lib.lab import registry
from workshop_lib.machine.records import remove_record
from workshop_lib.mcp.server import HTTP_OPTIONS, listen
from workshop_lib.mcp.wire import url_of, write_record

START_LIMIT = 30.0  # seconds until it must answer
STOP_LIMIT = 3.0  # seconds that its calls get to finish


class McpServerHere:
    """A server that runs in this process.

    Attributes:
        url: where it listens.
    """

    def __init__(self, server: FastMCP) -> None:
        self._server = server
        self._socket = listen(server.name)
        self.url = url_of(self._socket.getsockname()[1])
        # As `mcp.server` serves it, but with an end that can be asked for from another thread.
        app = server.http_app(**HTTP_OPTIONS)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
        self._web = _Web(config)
        self._thread = threading.Thread(target=self._run, name=f"mcp-{server.name}", daemon=True)

    def __repr__(self) -> str:
        state = "runs" if self._thread.is_alive() else "has ended"
        return f"<MCP server {self._server.name} at {self.url}, in this kernel, {state}>"

    def start(self) -> None:
        """Serve in the background, where callers on this machine find it. Returns when it does.

        Raises:
            WorkshopError: it does not start.
        """
        self._record = write_record(self._server.name, self.url)
        self._thread.start()
        self._web.begun.wait(START_LIMIT)
        if not (self._web.started and self._thread.is_alive()):
            self.stop()
            raise WorkshopError(
                f"The MCP server {self._server.name} did not start in this kernel.",
                fix="run the cells that make it again; its lifespan must not raise.",
            )

    def stop(self) -> None:
        """Stop serving, and wait for the end."""
        remove_record(self._record)  # first: nobody is to be sent here any more
        self._web.should_exit = True
        self._thread.join(STOP_LIMIT)

    def _run(self) -> None:
        try:
            with contextlib.suppress(SystemExit):  # of a server whose lifespan raises
                asyncio.run(self._web.serve(sockets=[self._socket]))
        finally:  # also where it did not come to serve
            remove_record(self._record)
            self._socket.close()
            self._web.begun.set()


class _Web(uvicorn.Server):
    """A web server that says when it has come up, or will not."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun.set()


async def serve_mcp(server: FastMCP) -> McpServerHere:
    """Serve an MCP server from this kernel, in place of the one of its name that this kernel has started.

    Raises:
        WorkshopError: the server has no name that the workshop knows, or does not start.
    """
    from workshop_lib.settings import DEFAULT_MCP_PORTS

    if server.name not in DEFAULT_MCP_PORTS:
        raise WorkshopError(
            f"There is no team {server.name!r}.",
            expected=f"a server called {' or '.join(DEFAULT_MCP_PORTS)}.",
        )
    key = f"mcp-{server.name}"
    await asyncio.to_thread(registry.stop_other, key)
    here = McpServerHere(server)
    await asyncio.to_thread(here.start)
    await asyncio.to_thread(registry.also_stop, key, here)
    return here
