"""`workshop up`, `down` and `status`: the dev server, the workers and the MCP servers, without JupyterLab.

Left out: what they do (`lab.services.background`, `lab.server.lifecycle`).
"""

import asyncio
from typing import Annotated

import typer

from workshop_lib.cli.support import Answer, Json, command, prepare, start_server
from workshop_lib.edge import say
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.lab.server.lifecycle import status as server_status
from workshop_lib.lab.server.lifecycle import stop
from workshop_lib.lab.services.background import (
    Service,
    agreed_on_versions,
    all_at_work,
    at_work,
    lost_services,
    one_at_a_time,
    running_services,
    start_services,
    stop_services,
)
from workshop_lib.temporal.connect import connect

app = typer.Typer()


@command(app)
def up() -> Answer:
    """Start the dev server and all workers as processes, without JupyterLab."""

    async def see_them_work() -> tuple[list[tuple[Service, bool]], list[str]]:
        client = await connect()
        return await all_at_work(client), await agreed_on_versions(client)

    with one_at_a_time(say):
        server = start_server()
        asyncio.run(prepare(server))
        start_services()
        services, said = asyncio.run(see_them_work())
    for service, works in services:
        say(_line(service, works, server))
    for line in said:
        say(line)
    say(f"{_where(server)}\nStop all of it with `workshop down`.")
    return Answer(failed=not all(works for _, works in services))


@command(app)
def down() -> None:
    """Stop the workers and the dev server of this project."""
    with one_at_a_time(say):
        stopped = stop_services()
        if stop():
            stopped.append("dev server")
    say(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


@command(app)
def status(
    name: Annotated[str | None, typer.Argument(help="Of a worker or MCP server: mcp-it.")] = None,
    as_json: Json = False,
) -> Answer:
    """Say what runs; of one service, by exit status, whether it does what it can."""
    server, services = server_status(), running_services()
    if name:
        services = [service for service in services if service.name == name]

    async def look() -> list[bool]:
        return await at_work(await connect() if server else None, services)

    looked = list(zip(services, asyncio.run(look()), strict=True))
    document = {
        "server": server and {"address": server.address, "ui_url": server.ui_url},
        "workers": [
            {"name": s.name, "pid": s.pid, "polls": works}
            for s, works in looked
            if not s.mcp_server
        ],
        "mcp_servers": [
            {"name": s.mcp_server, "pid": s.pid, "url": s.url, "works": works}
            for s, works in looked
            if s.mcp_server
        ],
    }
    lines = [f"dev server: {_where(server)}" if server else "dev server: does not run"]
    lines += [_line(service, works, server) for service, works in looked]
    lines += [f"{lost}: is gone (`workshop up` starts it again)" for lost in lost_services()]
    if not services:
        lines.append(f"{name or 'workers'}: none (`workshop up` starts them)")
    # A service whose server is away waits for it: to start it anew would mend nothing.
    fails = name and not (services and (server is None or all(works for _, works in looked)))
    return Answer(document, "\n".join(lines), failed=bool(fails))


def _line(service: Service, works: bool, server: Server | None) -> str:
    """A service in one line, and what keeps it from working."""
    line = f"{service}: pid {service.pid}" + (f", {service.url}" if service.url else "")
    if works:
        return line
    if server is None:
        return f"{line}, waits for the dev server (`workshop up` starts it)"
    fault = "does not answer" if service.mcp_server else "does not poll"
    return f"{line}, {fault} (`workshop down`, then `workshop up`)"


def _where(server: Server) -> str:
    """A server's addresses in one line."""
    http = f", HTTP API {server.http_address}" if server.http_address else ""
    return f"{server.address}{http}, Web UI {server.ui_url or 'none'}"
