"""Workers and MCP servers that outlive the command that started them: `workshop up`, `down`, `status`.

Each is started as a service would be (`python -m …`), in a session of its own, with a pid file in the state
folder. Left out: the dev server (`server`), and workers of a notebook, which end with it (`workers`).
"""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from workshop_lib import state_folder
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.mcp_servers import spawn
from workshop_lib.mcp_wire import SERVERS
from workshop_lib.settings import get_settings

# The workers that `workshop up` runs besides the dev server and the MCP servers: name and module.
SERVICES = {
    "orchestrator": "workshop_lib.agents.worker",
    "it": "workshop_lib.teams.it.worker",
    "finance": "workshop_lib.teams.finance.worker",
    "repair": "workshop_lib.repair.worker",
}
MCP_PREFIX = "mcp-"  # what the names of MCP servers begin with


@dataclass(frozen=True)
class Service:
    """A process that was started as a service.

    Attributes:
        created: when the process began, seconds since 1970; tells it from a later one with the same pid.
    """

    name: str
    pid: int
    created: float

    @property
    def mcp_server(self) -> str | None:
        """The MCP server's name, or None for a worker."""
        name = self.name.removeprefix(MCP_PREFIX)
        return name if name != self.name else None

    def __str__(self) -> str:
        return f"MCP server {self.mcp_server}" if self.mcp_server else f"worker {self.name}"

    def process(self) -> psutil.Process | None:
        """The process, if it still lives."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) < 1 and process.status() != "zombie":
                return process
        return None


def start_services() -> list[Service]:
    """Start what does not run yet. Returns all of them.

    Raises:
        WorkshopError: one of them left at once.
    """
    running = {service.name: service for service in running_services()}
    names = {f"{MCP_PREFIX}{server}": server for server in SERVERS}
    # First what is waited for until it listens: beside four workers that load libraries it takes long.
    servers = [
        running.get(name) or _record(name, spawn(server)[0]) for name, server in names.items()
    ]
    workers = [running.get(name) or _start(name, module) for name, module in SERVICES.items()]
    return workers + servers


def running_services() -> list[Service]:
    """The services that live."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        with contextlib.suppress(ValueError, TypeError, OSError):
            service = Service(**json.loads(path.read_text(encoding="utf-8")))
            if service.process() is not None:
                found.append(service)
    return found


def stop_services(timeout: float = 10) -> list[str]:
    """Stop the services: first politely, after `timeout` seconds for good. Returns what they are."""
    stopped = []
    for service in running_services():
        process = service.process()
        if process is None:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):  # it left by itself in the meantime
            process.terminate()
            try:
                process.wait(timeout)
            except psutil.TimeoutExpired:
                process.kill()
        stopped.append(str(service))
    for path in _folder().glob("*.json"):
        if path.stem in SERVICES or path.stem.startswith(MCP_PREFIX):
            path.unlink(missing_ok=True)
    return stopped


def _start(name: str, module: str) -> Service:
    log = state_folder.made(get_settings().state_dir, "logs") / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return _record(name, process)
    raise WorkshopError(f"The worker {name} left at once.", fix=f"read {log}.")


def _record(name: str, process: "subprocess.Popen[bytes]") -> Service:
    service = Service(name, process.pid, psutil.Process(process.pid).create_time())
    folder = state_folder.made(get_settings().state_dir, "services")
    (folder / f"{name}.json").write_text(json.dumps(asdict(service)), encoding="utf-8")
    return service


def _folder() -> Path:
    """Where the pid files are. It may not exist yet."""
    return get_settings().state_dir / "services"
