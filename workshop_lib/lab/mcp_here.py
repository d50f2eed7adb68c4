"""An MCP server in a background thread of the notebook: for one that a learner has written in a cell."""

import asyncio
import threading

import uvicorn
from fastmcp import FastMCP

from workshop_lib.errors import WorkshopError
from workshop_lib.lab import registry
from workshop_lib.mcp_service import listen
from workshop_lib.mcp_wire import remove_record, url_of, write_record

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
        # As `mcp_service` serves it, but with an end that can be asked for from another thread.
        app = server.http_app(path="/mcp", stateless_http=True)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
        self._web = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name=f"mcp-{server.name}", daemon=True)

    def __repr__(self) -> str:
        state = "runs" if self._thread.is_alive() else "has ended"
        return f"<MCP server {self._server.name} at {self.url}, in this kernel, {state}>"

    def start(self) -> None:
        """Serve in the background, where callers on this machine find it."""
        self._record = write_record(self._server.name, self.url)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and wait for the end."""
        remove_record(self._record)
        self._web.should_exit = True
        self._thread.join(STOP_LIMIT)

    def _run(self) -> None:
        asyncio.run(self._web.serve(sockets=[self._socket]))


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
    here.start()
    registry.also_stop(key, here)
    # The socket listens already: a caller that comes before the server is ready waits in its queue.
    return here
