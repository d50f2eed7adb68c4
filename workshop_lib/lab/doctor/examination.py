"""The doctor: looks at everything that has ever gone wrong in a classroom and says how to repair it.

`examine` never raises for something that a person or a machine can cause, and is bounded in time. Left
out: what needs no server (`machine`).
"""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import psutil
from temporalio.service import RPCError

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.doctor import machine
from workshop_lib.lab.doctor.machine import Finding, fail, ok, warn
from workshop_lib.lab.registry import local_process
from workshop_lib.lab.server import dev_server, lifecycle, namespaces
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.lab.services.background import at_work, lost_services, running_services
from workshop_lib.lab.watching.queues import Queue, look_at, places
from workshop_lib.machine import ports
from workshop_lib.machine.records import live_record
from workshop_lib.mcp.addresses import listening_url, users_port
from workshop_lib.settings import DEFAULT_MCP_PORTS, get_settings
from workshop_lib.temporal import connect
from workshop_lib.temporal.lookup import find_endpoint

LIMIT = 10.0  # seconds for one look; those that need no server are taken at the same time
START_LIMIT = 45.0  # for one that may start the server
FIX = "workshop doctor --fix"
AGAIN = "workshop up"

Look: TypeAlias = Callable[[], Iterable[Finding] | Awaitable[list[Finding]]]


async def examine(*, fix: bool = False) -> list[Finding]:
    """All findings, in the order a person would look.

    Args:
        fix: repair what can be repaired: make the state folder, start the server, create namespaces and
            endpoints, mend an endpoint's target (also on a server of the user's).
    """
    connect.quiet_runtime()
    findings = await _all(
        ("Python", machine.python_version),
        ("packages", machine.packages),
        ("temporal CLI", machine.temporal_cli),
        ("sandbox", machine.sandbox),
        ("kernel", machine.kernel),
        ("proxy", machine.proxies),
        ("environment", machine.environment_variables),
        (".env", machine.dotenv_file),
    )
    if unusable := await _look("settings", _settings):
        # Nothing that depends on settings can be looked at; where `.env` is the cause its line says so.
        known = any(f.name == ".env" and f.status == "FAIL" for f in findings)
        return findings if known else findings + unusable
    findings += await _all(
        ("model", machine.model),
        ("key", machine.keys),
        ("state folder", partial(machine.state_folder, fix=fix)),
        ("identity", machine.identity),
        ("ports", _server_ports),
        ("MCP ports", _mcp_ports),
    )
    server: Server | None = None

    def find() -> Iterator[Finding]:
        nonlocal server
        server = _find(fix)
        yield _how_it_is(server)

    limit = START_LIMIT if fix else LIMIT
    findings += await _look("server", find, limit)
    if server is None:
        return findings + await _look("workers", _waiting)
    if fix:
        findings += await _look("mended", partial(_mended, server), limit)
    for name, look in ("namespaces", _namespaces), ("endpoints", _endpoints), ("workers", _workers):
        findings += await _look(name, look)
    return findings


def render(findings: list[Finding]) -> str:
    """The report for a person: a line each, and below it how to repair what is not OK."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.status}  {finding.name}: {harmless.line(finding.text)}")
        if finding.repair and finding.status != "OK":
            lines.append(f"      repair: {finding.repair}")
    worst = [sum(f.status == status for f in findings) for status in ("FAIL", "WARN")]
    told = f"{worst[0]} to repair, {worst[1]} to know about."
    return "\n".join([*lines, told if any(worst) else "Everything is in order."])


async def _all(*looks: tuple[str, Look]) -> list[Finding]:
    return [f for found in await asyncio.gather(*(_look(*look) for look in looks)) for f in found]


async def _look(name: str, look: Look, limit: float | None = None) -> list[Finding]:
    """One look; what asks this machine in a thread: a hanging disk or resolver holds up nothing else."""
    limit = limit or LIMIT
    findings: list[Finding] = []

    try:
        async with asyncio.timeout(limit):
            if inspect.iscoroutinefunction(look):
                findings += await look()
            else:
                await asyncio.to_thread(lambda: findings.extend(look()))  # type: ignore[arg-type]
    except WorkshopError as error:
        findings.append(fail(error.what, error.fix or FIX))
    except RPCError as error:
        findings.append(
            warn(
                f"they cannot be looked at: {error.status.name.lower().replace('_', ' ')}",
                "check them in the Web UI; on Temporal Cloud an administrator makes them",
            )
        )
    except TimeoutError:
        findings.append(
            warn(f"no answer within {limit:g} s", "try again; is a disk or proxy slow?")
        )
    except Exception as error:
        # The type only: a message of unknown origin might quote a secret.
        findings.append(warn(f"it could not be looked at ({type(error).__name__})", "uv sync"))
    return [replace(finding, name=name) for finding in findings]


def _settings() -> Iterator[Finding]:
    """Nothing, where they can be used."""
    get_settings()
    connect.connect_config()
    yield from ()


def _server_ports() -> Iterator[Finding]:
    """The dev server's ports: its own, free, or held by somebody."""
    settings = get_settings()
    if connect.address_is_users():
        yield ok("not needed: TEMPORAL_ADDRESS or a profile names the server")
    elif live_record(settings.state_dir):
        yield ok("held by this project's dev server")
    else:
        # The HTTP API's default follows the port of Temporal, and another one is nothing to tell.
        http = [("WORKSHOP_HTTP_PORT", settings.http_port, 0)] if settings.http_port else []
        yield from _ports(
            ("WORKSHOP_TEMPORAL_PORT", settings.temporal_port, dev_server.DEFAULT_PORT),
            *http,
            ("WORKSHOP_UI_PORT", settings.ui_port, dev_server.DEFAULT_UI_PORT),
        )


def _mcp_ports() -> Iterator[Finding]:
    """The ports of the MCP servers that do not run."""
    asked = [
        (f"{name.upper()}_MCP_PORT", users_port(name), default)
        for name, default in DEFAULT_MCP_PORTS.items()
        if listening_url(name) is None
    ]
    yield from _ports(*asked) if asked else [ok("held by this project's servers")]


def _ports(*asked: tuple[str, int | None, int]) -> Iterator[Finding]:
    """What is odd about some ports: the variable that sets each, what it says, and the default."""
    taken = [one for one in asked if not ports.is_free(one[1] or one[2])]
    for variable, users, default in taken:
        text = f"{users or default} is held by {ports.holder(users or default)}"
        if users:
            repair = f"stop that process, or set {variable} to another port or to nothing"
            yield fail(f"{text}, and {variable} asks for it", repair)
        else:
            repair = f"nothing needs to be done; to choose the port yourself set {variable}"
            yield warn(f"{text}: another one will be chosen", repair)
    if not taken:
        yield ok("free")


def _find(fix: bool) -> Server | None:
    """The server that runs; with `fix` it is started where it may be."""
    if fix or connect.address_is_users():
        return lifecycle.ensure_server()
    return lifecycle.status()


def _how_it_is(server: Server | None) -> Finding:
    if server is None:
        if live_record(get_settings().state_dir.absolute()):
            return fail("the dev server runs and does not answer", FIX)
        return ok("not running; it is started when needed")
    whose = "yours" if server.adopted == "user" else "this project's dev server"
    ui = f", Web UI {server.ui_url}" if server.ui_url else ""
    return ok(f"{server.address}, {whose}{ui}" + (f" ({server.note})" if server.note else ""))


async def _mended(server: Server) -> list[Finding]:
    return [ok(line) for line in await namespaces.ensure_namespaces(server, repair=True)]


async def _namespaces() -> list[Finding]:
    client, wanted = await connect.connect(), namespaces.wanted_namespaces()
    missing = [n for n in wanted if not await namespaces.namespace_exists(client, n)]
    missing = missing or await namespaces.missing_attributes(client)
    return [warn(f"missing: {', '.join(missing)}", FIX) if missing else ok(", ".join(wanted))]


async def _endpoints() -> list[Finding]:
    client, findings = await connect.connect(), []
    for wanted in namespaces.wanted_endpoints():
        target = namespaces.target_of(wanted)
        endpoint = await find_endpoint(client, wanted.name)
        if endpoint is None:
            findings.append(warn(f"{wanted.name} is missing", FIX))
        elif endpoint.spec.target != wanted.target:
            points = namespaces.target_of(endpoint.spec)
            findings.append(fail(f"{wanted.name} points to {points} instead of {target}", FIX))
        else:
            findings.append(ok(f"{wanted.name} → {target}"))
    return findings


def _waiting() -> Iterator[Finding]:
    """What lives without the server that it was started for."""
    waiting = ", ".join(f"{service} (pid {service.pid})" for service in running_services())
    if waiting:
        yield fail(f"the dev server is gone, and {waiting} wait for it", AGAIN)


async def _workers() -> list[Finding]:
    client, services = await connect.connect(), running_services()
    findings = [warn(f"{lost} has ended by itself", AGAIN) for lost in lost_services()]
    for service, works in zip(services, await at_work(client, services), strict=True):
        if not works:
            fault = "does not answer" if service.mcp_server else "does not poll this server"
            text = f"{service} (pid {service.pid}) lives and {fault}"
            findings.append(fail(text, "`workshop down`, then `workshop up`"))
    queues = await look_at(client, *places().values())
    findings += [finding for queue in queues for finding in _odd(queue)]
    names = sorted({name for queue in queues for name in queue.living})
    return findings or [ok(", ".join(names) or "none runs at the moment")]


def _odd(queue: Queue) -> Iterator[Finding]:
    """What is odd about the workers of one queue."""
    again = "restart the kernel, or `workshop down` and `workshop up`"
    # That a worker has left is no fault where nothing waits for it.
    if queue.waiting and not queue.living:
        gone = f"; {', '.join(queue.pollers)} is gone" if queue.pollers else ""
        yield warn(f"{queue.name}: {queue.waiting} tasks wait and nobody serves them{gone}", AGAIN)
    changed = machine.newest_code()
    processes: set[str | int] = set()
    for poller in queue.living:
        local = local_process(poller)
        processes.add(local[1] if local else poller)
        with contextlib.suppress(psutil.Error):  # it has just left
            if local and psutil.Process(local[1]).create_time() < changed:
                text = f"{queue.name}: {poller} was started before the code was last changed"
                yield warn(text, again)
    if len(processes) > 1:
        both = ", ".join(queue.living)
        text = f"{queue.name}: several processes serve it, and either may answer: {both}"
        yield warn(text, "stop all but one of them")
