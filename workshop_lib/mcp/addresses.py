"""What an MCP server and its callers agree on, apart from the protocol: names, addresses, a call's extras.

A server that listens writes its address into the state folder, so that callers on this machine find it on
whatever port it got. Left out: the server (`mcp.server`) and the callers.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from workshop_lib.machine.ports import LOCALHOST
from workshop_lib.machine.records import SERVICES, record_service, remove_record, services
from workshop_lib.settings import DEFAULT_MCP_PORTS, get_settings

Transport = Literal["stdio", "http"]

TEAM_SERVERS = ("it", "finance")  # the ones that the chat agent uses
MCP_PREFIX = "mcp-"  # what the names of their records begin with
# The key of `_meta` that holds a caller's token, where no header can.
TOKEN = "workshop/token"  # noqa: S105
REFUSED = (
    "workshop/refused"  # and, in a result, why nothing was done: no retry and no model can mend it
)
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
    urls = [
        str(record["url"])
        for record in services(get_settings().state_dir)
        if record.get("name") == MCP_PREFIX + name and "url" in record
    ]
    return urls[-1] if urls else None


def url_of(port: int) -> str:
    """The address of an MCP server on a port of this machine."""
    return f"http://{LOCALHOST}:{port}/mcp"


def health_url(url: str) -> str:
    """Where the server at an MCP address says how it is."""
    return url.removesuffix("/mcp") + "/health"


def write_record(name: str, url: str, *, stays: bool = False) -> Path:
    """Say where this process serves. Returns the file, to be removed at the end.

    Args:
        stays: it does not end with the process that started it, but with `workshop down`.
    """
    kind = "service" if stays else "mcp"
    return record_service(get_settings().state_dir, MCP_PREFIX + name, kind=kind, url=url)


def forget_server(name: str, pid: int) -> None:
    """Take back what a server said that has died before it could do so itself."""
    remove_record(get_settings().state_dir / SERVICES / f"{MCP_PREFIX}{name}-{pid}.json")
