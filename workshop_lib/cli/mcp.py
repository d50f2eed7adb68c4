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
    commands = {
        f"workshop-{name}": ["-P", "-m", module, "--transport", "stdio"]
        for name, module in MCP_SERVERS.items()
    }
    env = _environment()
    match client:
        case ClientName.GOOSE:
            return {
                "extensions": {
                    name: {
                        "enabled": True,
                        "type": "stdio",
                        "name": name,
                        "cmd": sys.executable,
                        "args": arguments,
                        "envs": dict(env),
                        "timeout": 300,
                    }
                    for name, arguments in commands.items()
                }
            }
        case ClientName.WSL:
            distribution = os.environ.get("WSL_DISTRO_NAME")
            prefix = ["-d", distribution] if distribution else []
            # Windows passes no environment on to Linux, so `env` sets it there.
            settings = [f"{name}={value}" for name, value in env.items()]
            start = [*prefix, "--", "/usr/bin/env", *settings, sys.executable]
            return {
                "mcpServers": {
                    name: {"command": "wsl.exe", "args": [*start, *arguments]}
                    for name, arguments in commands.items()
                }
            }
        case _:
            servers: dict[str, Any] = {
                name: {"command": sys.executable, "args": arguments, "env": env}
                for name, arguments in commands.items()
            }
            if client is ClientName.INSPECTOR:
                servers |= {
                    f"workshop-{name}-http": {"type": "streamable-http", "url": server_url(name)}
                    for name in MCP_SERVERS
                }
            return {"mcpServers": servers}


def _environment() -> dict[str, str]:
    paths = {name: os.environ[name] for name in PATHS if os.environ.get(name)}
    names = {name: os.environ[name] for name in NAMES if os.environ.get(name)}
    # The client's working folder is another.
    if (settings := get_settings()).identity == "on":
        # Over a pipe nobody brings a proof: the server acts for whoever configures it.
        names |= {"WORKSHOP_IDENTITY": "on", "MCP_LOCAL_USER": settings.user_name}
    return {name: str(Path(path).resolve()) for name, path in paths.items()} | names
