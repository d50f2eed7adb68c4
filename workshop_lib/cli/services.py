"""`workshop up`, `down` and `status`: the dev server, the workers and the MCP servers, without JupyterLab.

Left out: what they do (`lab.services.background`, `lab.server.lifecycle`).
"""

from typing import TYPE_CHECKING

import typer

from workshop_lib.cli.support import Json, prepare, run, show, show_json, start_server
from workshop_lib.edge import say

if TYPE_CHECKING:
    from workshop_lib.lab.server.dev_server import Server
    from workshop_lib.lab.services.background import Service


def up() -> None:
    """Start the dev server and all workers as processes, without JupyterLab."""
    from workshop_lib.lab.services.background import all_at_work, one_at_a_time, start_services

    async def see_them_work(server: "Server") -> "list[tuple[Service, bool]]":
        from workshop_lib.temporal.connect import connect

        return await all_at_work(await connect())

    with one_at_a_time(say):
        server = start_server()
        run(prepare(server))
        start_services()
        found = run(see_them_work(server))
    for service, works in found:
        say(_line(service, works, server))
    say(f"{_where(server)}\nStop all of it with `workshop down`.")
    raise typer.Exit(0 if all(works for _, works in found) else 1)


def down() -> None:
    """Stop the workers and the dev server of this project."""
    from workshop_lib.lab.server.lifecycle import stop
    from workshop_lib.lab.services.background import one_at_a_time, stop_services

    with one_at_a_time(say):
        stopped = stop_services()
        if stop():
            stopped.append("dev server")
    say(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")


def status(as_json: Json = False) -> None:
    """Say what runs."""
    from workshop_lib.lab.server.lifecycle import status as server_status
    from workshop_lib.lab.services.background import at_work, lost_services, running_services

    server, services = server_status(), running_services()

    async def look() -> list[bool]:
        from workshop_lib.temporal.connect import connect

        return await at_work(await connect() if server else None, services)

    found = list(zip(services, run(look()), strict=True))
    if as_json:
        show_json(
            {
                "server": server and {"address": server.address, "ui_url": server.ui_url},
                "workers": [
                    {"name": s.name, "pid": s.pid, "polls": works}
                    for s, works in found
                    if not s.mcp_server
                ],
                "mcp_servers": [
                    {"name": s.mcp_server, "pid": s.pid, "url": s.url, "works": works}
                    for s, works in found
                    if s.mcp_server
                ],
            }
        )
        return
    show(f"dev server: {_where(server)}" if server else "dev server: does not run")
    for service, works in found:
        show(_line(service, works, server))
    for lost in lost_services():
        show(f"{lost}: is gone (`workshop up` starts it again)")
    if not services:
        show("workers: none (`workshop up` starts them)")


def _line(service: "Service", works: bool, server: "Server | None") -> str:
    """A service in one line, and what keeps it from working."""
    line = f"{service}: pid {service.pid}" + (f", {service.url}" if service.url else "")
    if works:
        return line
    if server is None:
        return f"{line}, waits for the dev server (`workshop up` starts it)"
    fault = "does not answer" if service.mcp_server else "does not poll"
    return f"{line}, {fault} (`workshop down`, then `workshop up`)"


def _where(server: "Server") -> str:
    """A server's addresses in one line."""
    http = f", HTTP API {server.http_address}" if server.http_address else ""
    return f"{server.address}{http}, Web UI {server.ui_url or 'none'}"
