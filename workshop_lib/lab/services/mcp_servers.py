"""MCP servers as processes that a notebook or the command line starts, kills and starts again.

    finance = await lab.start_mcp_server("finance")
    finance.kill()
    await finance.restart()  # on the same port

A server says its address on its standard output once it listens, and leaves when its parent is gone. What
it logs goes to `<state_dir>/logs/mcp-<name>.log`. Left out: servers that clients start themselves, over
standard input and output.
"""

import asyncio
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import StartedProcess, first_line, spawn, stop, take_over
from workshop_lib.lab.services.programs import MCP_SERVERS
from workshop_lib.lab.watching.waiting import within
from workshop_lib.machine import state_folder
from workshop_lib.machine.records import record_service
from workshop_lib.mcp.addresses import (
    MCP_PREFIX,
    TEAM_SERVERS,
    forget_server,
    health_url,
    reachable_url,
)
from workshop_lib.settings import get_settings
from workshop_lib.temporal.connect import server_address
from workshop_lib.temporal.own_server import NoServer

START_LIMIT = 60.0  # seconds until a server must listen; one that fails is noticed at once


class McpServerProcess(StartedProcess):
    """An MCP server in a process of its own.

    Attributes:
        name: a key of `programs.MCP_SERVERS`.
        url: where it listens.
        log: the file that its output goes to.
    """

    def __init__(self, name: str, port: int | None) -> None:
        self.name = name
        self.url = ""
        self._port = port  # it listens at this one or not at all

    @property
    def key(self) -> str:
        """What it goes by among all that this process has started."""
        return MCP_PREFIX + self.name

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"MCP server {self.name} at {self.url}"

    async def start(self, preferred: int | None = None) -> None:
        """Start the process, and wait until it listens.

        Args:
            preferred: the port where it listens if that is free and none has to be.
        """
        process, log, address = _launch(self.name, port=self._port, preferred=preferred)
        super().__init__(process, log)
        self._input = process.stdin  # its end tells the server that this process is gone
        try:
            # The thread has a limit of its own; this lets the Interrupt button through.
            waiting = asyncio.to_thread(address)
            self.url = await within(waiting, 2 * START_LIMIT, "The MCP server's address")
        except BaseException:  # an Interrupt too: nothing half started stays behind
            self.kill()
            raise
        await asyncio.to_thread(take_over, self)

    async def restart(self) -> None:
        """Start it again on the same port; what still runs is stopped first.

        A port that nobody had asked for and that is taken by now is given up for another: agents look up
        where a server is whenever they connect.

        Raises:
            WorkshopError: the port that was asked for is taken by now, or the server did not start.
        """
        if self.alive:
            await asyncio.to_thread(self.stop)
        await self.start(preferred=urlsplit(self.url).port)

    def _gone(self) -> None:
        if self._input:
            self._input.close()
        super()._gone()
        forget_server(self.name, self.pid)


async def start_mcp_server(
    name: str, *, port: int | None = None, announce: bool = True
) -> McpServerProcess:
    """Start a team's MCP server, in place of the one that this process has started before.

    Args:
        name: a key of `programs.MCP_SERVERS`: "it", "finance", "repair".
        port: the settings' one when left out, or another where that is taken.
        announce: print where it listens.

    Returns:
        The server, listening.

    Raises:
        WorkshopError: there is no such server, its port is taken, or it did not start.
    """
    if name not in MCP_SERVERS:
        raise WorkshopError(f"There is no MCP server {name!r}.", expected=" or ".join(MCP_SERVERS))
    server = McpServerProcess(name, port)
    await asyncio.to_thread(stop, server.key)
    await server.start()
    if announce:
        print(f"MCP server {name} · {server.url}")
    return server


@asynccontextmanager
async def ensured(names: Iterable[str] = TEAM_SERVERS) -> AsyncIterator[list[McpServerProcess]]:
    """See to it that these servers answer while the block runs. Yields those that were started for it."""
    started: list[McpServerProcess] = []
    try:
        for name in names:
            if await asyncio.to_thread(is_healthy, name):
                continue
            started.append(await start_mcp_server(name, announce=False))
        yield started
    finally:
        for server in started:
            await asyncio.to_thread(server.stop)


def is_healthy(name: str) -> bool:
    """True where a server of this name answers, and works on the Temporal server that we work on."""
    return answers(name, reachable_url(name))


def answers(name: str, url: str | None) -> bool:
    """True where the server at an address is of this name, and works on our Temporal server."""
    if url is None:
        return False
    # Not by way of a proxy that the environment may name: it is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(health_url(url), timeout=3) as response:
            health = json.load(response)
        return bool(health["server"] == name and health["temporal"] == server_address())
    except (OSError, ValueError, KeyError, TypeError, NoServer):
        return False  # nobody there, somebody else, or one that cannot work


def start_service(name: str) -> None:
    """Start a server that stays when this process ends. Returns once it listens.

    Raises:
        WorkshopError: it did not start.
    """
    process, _, address = _launch(name, outlive=True)
    try:
        address()
    except BaseException:
        process.kill()
        process.wait()
        raise


def _launch(
    name: str, *, port: int | None = None, preferred: int | None = None, outlive: bool = False
) -> tuple["subprocess.Popen[bytes]", Path, Callable[[], str]]:
    """Start a server's process. Returns it, its log, and a function that waits until it says its address.

    Args:
        port: where it has to listen.
        preferred: where it listens if that port is free and none has to be.
        outlive: it stays when this process ends.
    """
    options = ["--transport=http"]
    options += [f"--port={port}"] if port else []
    options += [f"--preferred-port={preferred}"] if preferred else []
    options += [] if outlive else ["--while-stdin-open"]
    state = get_settings().state_dir
    log = state_folder.made(state, "logs") / f"{MCP_PREFIX}{name}.log"
    with log.open("ab") as output:
        begins_at = output.tell()
        process = spawn(
            MCP_SERVERS[name],
            *options,
            stdin=subprocess.DEVNULL if outlive else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output.fileno(),
        )
    if outlive:  # at once: who started it may be killed before it says the same itself, and more
        record_service(state, MCP_PREFIX + name, process.pid, kind="service")

    def address() -> str:
        assert process.stdout
        with process.stdout as stdout:  # closed at the end: it says nothing more
            line = first_line(stdout.fileno(), START_LIMIT)
        if line:
            return line
        reason = f"The {name} MCP server did not listen within {START_LIMIT:.0f} s."
        if line == "":
            with log.open("rb") as lines:
                lines.seek(begins_at)
                reason = lines.read().decode(errors="replace").strip()
        raise WorkshopError(reason or f"The {name} MCP server left.", fix=f"read {log}.")

    return process, log, address
