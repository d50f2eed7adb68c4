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
import os
import select
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from workshop_lib.errors import WorkshopError
from workshop_lib.lab import registry
from workshop_lib.lab.watching.waiting import within
from workshop_lib.machine import state_folder
from workshop_lib.machine.records import record_service
from workshop_lib.mcp.wire import (
    MCP_PREFIX,
    SERVERS,
    TEAM_SERVERS,
    forget_server,
    health_url,
    reachable_url,
)
from workshop_lib.settings import get_settings
from workshop_lib.temporal.connect import server_address
from workshop_lib.temporal.own_server import NoServer

START_LIMIT = 60.0  # seconds until a server must listen; one that fails is noticed at once
STOP_LIMIT = 5.0  # seconds that it gets to finish its calls


class McpServerProcess:
    """An MCP server in a process of its own.

    Attributes:
        name: a key of `mcp.wire.SERVERS`.
        url: where it listens.
    """

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", url: str, *, fixed: bool
    ) -> None:
        self.name = name
        self.url = url
        self._process = process
        self._fixed = fixed  # it listens at the port that was asked for, or not at all

    def __repr__(self) -> str:
        state = "runs" if self.alive else f"ended with {self._process.returncode}"
        return f"<MCP server {self.name} at {self.url}, process {self.pid}, {state}>"

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: no clean-up, no goodbye. Returns when the process is gone."""
        self._process.kill()
        self._gone()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that takes too long. Returns when the process is gone."""
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._gone()

    async def restart(self) -> None:
        """Start it again on the same port; what still runs is stopped first.

        A port that nobody had asked for and that is taken by now is given up for another: agents look up
        where a server is whenever they connect.

        Raises:
            WorkshopError: the port that was asked for is taken by now, or the server did not start.
        """
        if self.alive:
            await asyncio.to_thread(self.stop)
        port = urlsplit(self.url).port
        self._process, self.url = await _listening(
            _launch(self.name, port=port if self._fixed else None, preferred=port)
        )
        await _register(self)

    def _gone(self) -> None:
        self._process.wait()
        forget_server(self.name, self.pid)
        if self._process.stdin:
            self._process.stdin.close()
        registry.no_longer(_key(self.name), self)


async def start_mcp_server(
    name: str, *, port: int | None = None, announce: bool = True
) -> McpServerProcess:
    """Start a team's MCP server, in place of the one that this process has started before.

    Args:
        name: a key of `mcp.wire.SERVERS`: "it", "finance", "repair".
        port: the settings' one when left out, or another where that is taken.
        announce: print where it listens.

    Returns:
        The server, listening.

    Raises:
        WorkshopError: there is no such server, its port is taken, or it did not start.
    """
    _refuse_unknown(name)
    await asyncio.to_thread(registry.stop_other, _key(name))
    process, url = await _listening(_launch(name, port=port))
    server = McpServerProcess(name, process, url, fixed=port is not None)
    await _register(server)
    if announce:
        print(f"MCP server {name} · {url}")
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
            said = json.load(response)
        return bool(said["server"] == name and said["temporal"] == server_address())
    except (OSError, ValueError, KeyError, TypeError, NoServer):
        return False  # nobody there, somebody else, or one that cannot work


def spawn(name: str) -> tuple["subprocess.Popen[bytes]", str]:
    """Start a server that stays when this process ends. Returns it and its address, once it listens.

    Raises:
        WorkshopError: there is no such server, or it did not start.
    """
    _refuse_unknown(name)
    starting = _launch(name, outlive=True)
    try:
        return starting.process, _address(starting)
    except BaseException:
        starting.give_up()
        raise


class _Starting(NamedTuple):
    """A server that does not listen yet."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    begins_at: int  # in the log

    def give_up(self) -> None:
        self.process.kill()
        self.process.wait()


def _refuse_unknown(name: str) -> None:
    if name not in SERVERS:
        raise WorkshopError(f"There is no MCP server {name!r}.", expected=" or ".join(SERVERS))


def _launch(
    name: str, *, port: int | None = None, preferred: int | None = None, outlive: bool = False
) -> _Starting:
    """Start a server's process.

    Args:
        port: where it has to listen.
        preferred: where it listens if that port is free and none has to be.
        outlive: it stays when this process ends.
    """
    command = [sys.executable, "-P", "-m", SERVERS[name], "--transport", "http"]
    if port:
        command += ["--port", str(port)]
    if preferred:
        command += ["--preferred-port", str(preferred)]
    if not outlive:
        command.append("--while-stdin-open")
    state = get_settings().state_dir
    log = state_folder.made(state, "logs") / f"mcp-{name}.log"
    with log.open("ab") as output:
        begins_at = output.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if outlive else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,  # the Interrupt button reaches the kernel's whole group
            env=os.environ | {"WORKSHOP_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"},
        )
    if outlive:  # at once: who started it may be killed before it says the same itself, and more
        record_service(state, MCP_PREFIX + name, process.pid, kind="service")
    return _Starting(name, process, log, begins_at)


async def _listening(starting: _Starting) -> tuple["subprocess.Popen[bytes]", str]:
    """The process and its address, once it listens."""
    address = asyncio.to_thread(_address, starting)
    try:
        # The thread has a limit of its own; this lets the Interrupt button through.
        return starting.process, await within(address, 2 * START_LIMIT, "The MCP server's address")
    except BaseException:  # an Interrupt too: nothing half started stays behind
        starting.give_up()
        raise


def _address(starting: _Starting) -> str:
    """What a server says once it listens."""
    name, process, log, begins_at = starting
    assert process.stdout
    said, end = b"", time.monotonic() + START_LIMIT
    with process.stdout as stdout:  # closed at the end: it says nothing more
        while not said.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise WorkshopError(
                    f"The {name} MCP server did not listen within {START_LIMIT:.0f} s.",
                    fix=f"read {log}.",
                )
            chunk = os.read(stdout.fileno(), 4096)
            if not chunk:
                with log.open("rb") as lines:
                    lines.seek(begins_at)
                    reason = lines.read().decode(errors="replace").strip()
                raise WorkshopError(reason or f"The {name} MCP server left.", fix=f"read {log}.")
            said += chunk
    return said.decode().strip()


async def _register(server: McpServerProcess) -> None:
    await asyncio.to_thread(registry.also_stop, _key(server.name), server)


def _key(name: str) -> str:
    return f"mcp-{name}"
