"""`workshop mcp`: serve a team's tools, and print what MCP clients want to know in order to use them.

Configurations go to stdout, ready to paste, with absolute paths: the client starts the server from wherever
it is. Where to put them goes to stderr. Left out: servers that a notebook or `workshop up` starts
(`lab.services.mcp_servers`).
"""

import os
import sys
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from workshop_lib.cli.support import one_of, show, show_json
from workshop_lib.edge import say
from workshop_lib.lab.services.programs import MCP_SERVERS
from workshop_lib.mcp.addresses import Transport, server_url
from workshop_lib.settings import get_settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def mcp() -> None:
    """The teams' tools, and the repair agent, as MCP servers."""


class ClientName(StrEnum):
    """The clients whose configuration is known."""

    CLAUDE = "claude"
    GOOSE = "goose"
    WSL = "wsl"
    INSPECTOR = "inspector"


WHERE = {
    ClientName.CLAUDE: "Claude Desktop: Settings, Developer, Edit Config; then start it again.",
    ClientName.GOOSE: "Goose: add it to ~/.config/goose/config.yaml.",
    ClientName.WSL: "Claude Desktop on Windows, the workshop in WSL: Settings, Developer, Edit Config.",
    ClientName.INSPECTOR: "MCP Inspector: save it as mcp.json, then\n"
    "npx @modelcontextprotocol/inspector --config mcp.json --server workshop-finance",
}
# Of the environment, what a server must have too if it is set here. Keys and tokens are not among it: what
# is printed is pasted and shared.
PATHS = ("WORKSHOP_STATE_DIR", "WORKSHOP_ENV_FILE", "TEMPORAL_CONFIG_FILE")
NAMES = (
    *("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE"),
    *("IT_NAMESPACE", "IT_QUEUE", "FINANCE_NAMESPACE", "FINANCE_QUEUE"),
)


@app.command()
def serve(
    name: Annotated[str, typer.Argument(help="Whose tools.", callback=one_of(MCP_SERVERS))],
    transport: Annotated[Transport, typer.Option(help="How.")] = "http",
    port: Annotated[
        int | None, typer.Option(help="Port on 127.0.0.1, for http.", min=1, max=65535)
    ] = None,
) -> None:
    """Serve a team's tools until Ctrl-C. Its worker has to run too: `workshop up`."""
    from workshop_lib.mcp.server import run  # loads a web framework, which no configuration needs

    options = [f"--transport={transport}"] + ([f"--port={port}"] if port else [])
    run(import_module(MCP_SERVERS[name]).server, options)


@app.command()
def config(
    client: Annotated[ClientName, typer.Argument(help="The program that is to use the tools.")],
) -> None:
    """Print a client's configuration for all servers."""
    document = configuration(client)
    if client is ClientName.GOOSE:
        show(yaml.safe_dump(document, sort_keys=False), end="")
    else:
        show_json(document, indent=2)
    say(WHERE[client])


def configuration(client: ClientName) -> dict[str, Any]:
    """What a client reads, as data."""
    env, servers = _environment(), dict[str, Any]()
    for name, module in MCP_SERVERS.items():
        arguments = ["-P", "-m", module, "--transport", "stdio"]
        entry: dict[str, Any] = {"command": sys.executable, "args": arguments, "env": env}
        if client is ClientName.GOOSE:
            entry = {"enabled": True, "type": "stdio", "name": f"workshop-{name}"}
            entry |= {"cmd": sys.executable, "args": arguments, "envs": dict(env), "timeout": 300}
        elif client is ClientName.WSL:
            distribution = os.environ.get("WSL_DISTRO_NAME")
            prefix = ["-d", distribution] if distribution else []
            # Windows passes no environment on to Linux, so `env` sets it there.
            settings = [f"{variable}={value}" for variable, value in env.items()]
            start = [*prefix, "--", "/usr/bin/env", *settings, sys.executable]
            entry = {"command": "wsl.exe", "args": [*start, *arguments]}
        servers[f"workshop-{name}"] = entry
        if client is ClientName.INSPECTOR:
            url = {"type": "streamable-http", "url": server_url(name)}
            servers[f"workshop-{name}-http"] = url
    return {"extensions" if client is ClientName.GOOSE else "mcpServers": servers}


def _environment() -> dict[str, str]:
    paths = {name: os.environ[name] for name in PATHS if os.environ.get(name)}
    names = {name: os.environ[name] for name in NAMES if os.environ.get(name)}
    if (settings := get_settings()).identity == "on":
        # Over a pipe nobody brings a proof: the server acts for whoever configures it.
        names |= {"WORKSHOP_IDENTITY": "on", "MCP_LOCAL_USER": settings.user_name}
    # The client's working folder is another.
    return {name: str(Path(path).resolve()) for name, path in paths.items()} | names
