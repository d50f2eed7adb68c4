"""An MCP server in a background thread of the notebook: for one that a learner has written in a cell."""

import asyncio
import contextlib
import threading

from fastmcp import FastMCP

from workshop_lib.errors import WorkshopError
from workshop_lib.lab import registry
from workshop_lib.mcp.addresses import MCP_PREFIX
from workshop_lib.mcp.server import HttpServer, listen
from workshop_lib.settings import DEFAULT_MCP_PORTS

START_LIMIT = 30.0  # seconds until it must answer
STOP_LIMIT = 3.0  # seconds that its calls get to finish


class McpServerHere(registry.Started):
    """A server that runs in this process.

    Attributes:
        name: what it is called.
        url: where it listens.
    """

    def __init__(self, server: FastMCP) -> None:
        self.name = server.name
        self._http = HttpServer(server, listen(server.name))
        self.url = self._http.url
        self._settled = threading.Event()  # it serves, or never will
        self._thread = threading.Thread(target=self._run, name=self.key, daemon=True)

    def __repr__(self) -> str:
        state = "runs" if self.alive else "has ended"
        return f"<MCP server {self.name} at {self.url}, in this kernel, {state}>"

    @property
    def key(self) -> str:
        """What it goes by among all that this process has started."""
        return MCP_PREFIX + self.name

    @property
    def alive(self) -> bool:
        """True until it has ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Serve in the background, where callers on this machine find it. Returns when it does.

        Raises:
            WorkshopError: it does not start.
        """
        self._thread.start()
        self._settled.wait(START_LIMIT)
        if not (self._http.started and self.alive):
            self.stop()
            raise WorkshopError(
                f"The MCP server {self.name} did not start in this kernel.",
                fix="run the cells that make it again; its lifespan must not raise.",
            )

    def stop(self) -> None:
        """Stop serving, and wait for the end."""
        self._http.should_exit = True
        self._thread.join(STOP_LIMIT)

    def _run(self) -> None:
        try:
            with contextlib.suppress(SystemExit):  # of a server whose lifespan raises
                self._http.serve_until_end(self._settled.set)
        finally:
            self._settled.set()


async def serve_mcp(server: FastMCP) -> McpServerHere:
    """Serve an MCP server from this kernel, in place of the one of its name that this kernel has started.

    Raises:
        WorkshopError: the server has no name that the workshop knows, or does not start.
    """
    if server.name not in DEFAULT_MCP_PORTS:
        raise WorkshopError(
            f"There is no team {server.name!r}.",
            expected=f"a server called {' or '.join(DEFAULT_MCP_PORTS)}.",
        )
    await asyncio.to_thread(registry.stop, MCP_PREFIX + server.name)
    here = McpServerHere(server)
    await asyncio.to_thread(here.start)
    await asyncio.to_thread(registry.take_over, here)
    return here
