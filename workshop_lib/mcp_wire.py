"""What an MCP server and its callers agree on, apart from the protocol: names, addresses, a call's extras.

A server that listens writes its address into the state folder, so that callers on this machine find it on
whatever port it got. Left out: the server (`mcp_service`) and the callers.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, Field

from workshop_lib import state_folder
from workshop_lib.connect import live_record
from workshop_lib.ports import LOCALHOST
from workshop_lib.settings import DEFAULT_MCP_PORTS, get_settings

Transport = Literal["stdio", "http"]

# What `python -m` runs to serve one, by its name.
SERVERS = {
    "it": "workshop_lib.teams.it.mcp_server",
    "finance": "workshop_lib.teams.finance.mcp_server",
    "repair": "workshop_lib.repair.mcp_server",
}
TEAM_SERVERS = ("it", "finance")  # the ones that the chat agent uses
SERVER_DOWN = "McpServerDown"  # the type of a caller's error when a server did not answer


class CallMeta(BaseModel):
    """What a caller may put into the `_meta` of a tool call.

    Attributes:
        idempotency_key: the same for every try of one call, and different for every other. A call that is
            sent again with the same key and arguments gets the first one's result.
        time_limit: seconds that the caller is going to wait.
    """

    idempotency_key: str | None = Field(None, min_length=1, max_length=500)
    time_limit: float | None = Field(None, gt=0)


def users_port(name: str) -> int | None:
    """The port that the user set for a server, or None."""
    port: int | None = getattr(get_settings(), f"{name}_mcp_port")
    return port


def reachable_url(name: str) -> str | None:
    """Where agents reach a server over HTTP: where one listens, or else where the user says, or nowhere.

    Not at the default port: where no server of this state folder listens, one that does is another's.
    """
    if listening := listening_url(name):
        return listening
    port = users_port(name)
    return url_of(port) if port else None


def server_url(name: str) -> str:
    """Where a server is reached over HTTP: where agents reach it, or else where it would listen."""
    return reachable_url(name) or url_of(DEFAULT_MCP_PORTS[name])


def listening_url(name: str) -> str | None:
    """Where a server of this state folder listens, or None when none does."""
    record = live_record(get_settings().state_dir, _record_name(name))
    return str(record["url"]) if record else None


def url_of(port: int) -> str:
    """The address of an MCP server on a port of this machine."""
    return f"http://{LOCALHOST}:{port}/mcp"


def health_url(url: str) -> str:
    """Where the server at an MCP address says how it is."""
    return url.removesuffix("/mcp") + "/health"


def write_record(name: str, url: str) -> Path:
    """Say where this process serves. Returns the file, to be removed at the end."""
    process = psutil.Process()
    record: dict[str, Any] = {
        "url": url,
        "pid": process.pid,
        "create_time": process.create_time(),
        "command": process.cmdline(),
    }
    path = get_settings().state_dir / _record_name(name)
    state_folder.made(path.parent)
    # In one step: who reads it must not see half of it.
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(record), encoding="utf-8")
    draft.replace(path)
    return path


def remove_record(path: Path) -> None:
    """Take back what `write_record` said, unless another server has taken the name since."""
    _remove(path, os.getpid())


def forget_server(name: str, pid: int) -> None:
    """Take back what a server said that has died before it could do so itself."""
    _remove(get_settings().state_dir / _record_name(name), pid)


def _remove(path: Path, pid: int) -> None:
    try:
        if json.loads(path.read_text(encoding="utf-8"))["pid"] == pid:
            path.unlink()
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it is gone, with its folder perhaps


def _record_name(name: str) -> str:
    return f"mcp-{name}.json"
