"""The doctor: looks at everything that has ever gone wrong in a classroom and says how to repair it.

`examine` never raises for something that a person or a machine can cause, and is bounded in time. Left
out: how each thing is looked at (`doctor_machine`, `doctor_server`).
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.lab import doctor_machine as machine
from workshop_lib.lab import doctor_server as around
from workshop_lib.lab.finding import Finding, fail, warn
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.settings import get_settings
from workshop_lib.temporal import connect

__all__ = ["Finding", "examine", "render", "to_json"]

LIMIT = 10.0  # seconds for one part; the parts that wait run at the same time
START_LIMIT = 45.0  # for the part that may start the server


async def examine(*, fix: bool = False) -> list[Finding]:
    """All findings, in the order a person would look.

    Args:
        fix: repair what can be repaired: make the state folder, start the server, create namespaces and
            endpoints, mend an endpoint's target (also on a server of the user's).
    """
    connect.quiet_runtime()
    before = [
        _look("Python", machine.python_version),
        _look("packages", machine.packages),
        _look("temporal CLI", machine.temporal_cli),
        _look("sandbox", machine.sandbox),
        _look("kernel", machine.kernel),
        _look("proxy", machine.proxies),
        _look("environment", machine.environment_variables),
        _look(".env", machine.dotenv_file),
    ]
    findings = [f for found in await asyncio.gather(*before) for f in found]
    try:
        get_settings()
        connect.connect_config()
    except WorkshopError as error:
        # Nothing that depends on settings can be looked at; where `.env` is the cause its line says so.
        if not any(f.name == ".env" and f.status == "FAIL" for f in findings):
            findings.append(
                fail("settings", error.what, error.fix or "mend it in the environment or .env")
            )
        return findings
    findings += await _look("model", machine.model)
    findings += await _look("state folder", lambda: machine.state_folder(fix=fix))
    findings += await _look("ports", around.server_ports)
    findings += await _look("MCP ports", around.mcp_ports)
    return findings + await _server(fix)


async def _server(fix: bool) -> list[Finding]:
    """The server's line and, when it runs, what lives on it."""
    server: list[Server] = []

    def look() -> list[Finding]:
        found, finding = around.find_server(fix=fix)
        if found:
            server.append(found)
        return [finding]

    findings = await _look("server", look, START_LIMIT if fix else LIMIT)
    if not server:
        return findings + await _look("workers", around.waiting_services)
    try:
        async with asyncio.timeout(START_LIMIT if fix else LIMIT):
            return findings + await around.on_server(server[0], fix=fix)
    except TimeoutError:
        return [*findings, warn("namespaces", "the server takes too long to answer", around.FIX)]
    except Exception as error:
        return [*findings, _surprise("namespaces", error)]


async def _look(
    name: str, look: Callable[[], list[Finding]], limit: float | None = None
) -> list[Finding]:
    """One part, in a thread so that a hanging disk or resolver holds up nothing else."""
    limit = limit or LIMIT
    try:
        async with asyncio.timeout(limit):
            return await asyncio.to_thread(look)
    except WorkshopError as error:
        return [fail(name, error.what, error.fix or "workshop doctor --fix")]
    except TimeoutError:
        return [warn(name, f"no answer within {limit:g} s", "try again; is a disk or proxy slow?")]
    except Exception as error:
        return [_surprise(name, error)]


def _surprise(name: str, error: Exception) -> Finding:
    # The type only: a message of unknown origin might quote a secret.
    return warn(name, f"it could not be looked at ({type(error).__name__})", "uv sync")


def render(findings: list[Finding]) -> str:
    """The report for a person: a line each, and below it how to repair what is not OK."""
    lines = []
    for finding in findings:
        text = harmless.line(finding.text)
        lines.append(f"{finding.status}  {finding.name}: {text}")
        if finding.repair and finding.status != "OK":
            lines.append(f"      repair: {finding.repair}")
    worst = [sum(f.status == status for f in findings) for status in ("FAIL", "WARN")]
    lines.append(
        "Everything is in order."
        if not any(worst)
        else f"{worst[0]} to repair, {worst[1]} to know about."
    )
    return "\n".join(lines)


def to_json(findings: list[Finding]) -> str:
    """The report for a program: a JSON list of objects with name, status, text and repair."""
    return json.dumps([asdict(finding) for finding in findings], indent=1)
