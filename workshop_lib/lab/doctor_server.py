"""What the doctor looks at on and around the server: ports, namespaces, endpoints, workers.

Left out: what needs no server (`doctor_machine`).
"""

import psutil
from temporalio.client import Client
from temporalio.service import RPCError

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.doctor_machine import newest_code
from workshop_lib.lab.finding import Finding, fail, ok, warn
from workshop_lib.lab.registry import local_process
from workshop_lib.lab.server import dev_server, namespaces
from workshop_lib.lab.server import lifecycle as lab_server
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.lab.services.background import at_work, lost_services, running_services
from workshop_lib.lab.watching.queues import Queue, look_at, places
from workshop_lib.machine import ports
from workshop_lib.machine.records import live_record
from workshop_lib.mcp.wire import listening_url, users_port
from workshop_lib.settings import DEFAULT_MCP_PORTS, get_settings
from workshop_lib.temporal import connect
from workshop_lib.temporal.lookup import find_endpoint

FIX = "workshop doctor --fix"
AGAIN = "workshop up"


def server_ports() -> list[Finding]:
    """The dev server's ports: its own, free, or held by somebody."""
    if connect.address_is_users():
        return [ok("ports", "not needed: TEMPORAL_ADDRESS or a profile names the server")]
    settings = get_settings()
    if live_record(settings.state_dir):
        return [ok("ports", "held by this project's dev server")]
    # Its default follows the port of Temporal, and another one is nothing to tell.
    http = [("WORKSHOP_HTTP_PORT", settings.http_port, 0)] if settings.http_port else []
    return _ports(
        "ports",
        ("WORKSHOP_TEMPORAL_PORT", settings.temporal_port, dev_server.DEFAULT_PORT),
        *http,
        ("WORKSHOP_UI_PORT", settings.ui_port, dev_server.DEFAULT_UI_PORT),
    )


def mcp_ports() -> list[Finding]:
    """The ports of the MCP servers that do not run."""
    asked = [
        (f"{name.upper()}_MCP_PORT", users_port(name), default)
        for name, default in DEFAULT_MCP_PORTS.items()
        if listening_url(name) is None
    ]
    return _ports("MCP ports", *asked)


def _ports(name: str, *asked: tuple[str, int | None, int]) -> list[Finding]:
    """What is odd about some ports: the variable that sets each, what it says, and the default."""
    findings = []
    for variable, wanted, default in asked:
        port = wanted or default
        if ports.is_free(port):
            continue
        text = f"{port} is held by {ports.holder(port)}"
        if wanted:
            repair = f"stop that process, or set {variable} to another port or to nothing"
            findings.append(fail(name, f"{text}, and {variable} asks for it", repair))
        else:
            repair = f"nothing needs to be done; to choose the port yourself set {variable}"
            findings.append(warn(name, f"{text}: another one will be chosen", repair))
    return findings or [ok(name, "free" if asked else "held by this project's servers")]


def find_server(*, fix: bool = False) -> tuple[Server | None, Finding]:
    """The server that runs, and what to say about it. With `fix` it is started where it may be."""
    folder = get_settings().state_dir.absolute()
    try:
        if fix or connect.address_is_users():
            server: Server | None = lab_server.ensure_server()
        else:
            server = lab_server.status()
    except WorkshopError as error:
        return None, fail("server", error.what, error.fix or "workshop up")
    if server is None:
        if live_record(folder):
            return None, fail("server", "the dev server runs and does not answer", FIX)
        return None, ok("server", "not running; it is started when needed")
    whose = "yours" if server.adopted == "user" else "this project's dev server"
    text = f"{server.address}, {whose}"
    if server.ui_url:
        text += f", Web UI {server.ui_url}"
    return server, ok("server", text + (f" ({server.note})" if server.note else ""))


async def on_server(server: Server, *, fix: bool = False) -> list[Finding]:
    """Namespaces, endpoints and the workers that poll."""
    mended: list[str] = []
    try:
        if fix:
            mended = await namespaces.ensure_namespaces(server, repair=True, timeout=15)
        client = await connect.connect()
        findings = await _namespaces(client) + await _endpoints(client)
        findings = [ok("mended", line) for line in mended] + findings
        return findings + await _workers(client)
    except WorkshopError as error:
        return [fail("namespaces", error.what, error.fix or FIX)]


async def _namespaces(client: Client) -> list[Finding]:
    wanted = namespaces.wanted_namespaces()
    try:
        missing = [n for n in wanted if not await namespaces.namespace_exists(client, n)]
    except RPCError as error:
        return [_refused("namespaces", error)]
    if missing:
        return [warn("namespaces", f"missing: {', '.join(missing)}", FIX)]
    return [ok("namespaces", ", ".join(wanted))]


async def _endpoints(client: Client) -> list[Finding]:
    findings = []
    for wanted in namespaces.wanted_endpoints():
        target = namespaces.target_of(wanted)
        try:
            found = await find_endpoint(client, wanted.name)
        except RPCError as error:
            return [_refused("endpoints", error)]
        if found is None:
            findings.append(warn("endpoints", f"{wanted.name} is missing", FIX))
        elif found.spec.target != wanted.target:
            points = namespaces.target_of(found.spec)
            text = f"{wanted.name} points to {points} instead of {target}"
            findings.append(fail("endpoints", text, FIX))
        else:
            findings.append(ok("endpoints", f"{wanted.name} → {target}"))
    return findings


def _refused(name: str, error: RPCError) -> Finding:
    return warn(
        name,
        f"they cannot be looked at: {error.status.name.lower().replace('_', ' ')}",
        "check them in the Web UI; on Temporal Cloud an administrator makes them",
    )


def waiting_services() -> list[Finding]:
    """What lives without the server that it was started for."""
    waiting = [f"{service} (pid {service.pid})" for service in running_services()]
    if not waiting:
        return []
    return [fail("workers", f"the dev server is gone, and {', '.join(waiting)} wait for it", AGAIN)]


async def _workers(client: Client) -> list[Finding]:
    found = [warn("workers", f"{lost} has ended by itself", AGAIN) for lost in lost_services()]
    services = running_services()
    for service, works in zip(services, await at_work(client, services), strict=True):
        if not works:
            fault = "does not answer" if service.mcp_server else "does not poll this server"
            text = f"{service} (pid {service.pid}) lives and {fault}"
            found.append(fail("workers", text, "`workshop down`, then `workshop up`"))
    names: set[str] = set()
    for queue in await look_at(client, *places().values()):
        names |= set(queue.living)
        found += _judge(queue)
    return found or [ok("workers", ", ".join(sorted(names)) or "none runs at the moment")]


def _judge(queue: Queue) -> list[Finding]:
    """What is odd about the workers of one queue."""
    again = "restart the kernel, or `workshop down` and `workshop up`"
    findings = []
    # That a worker has left is no fault where nothing waits for it.
    if queue.waiting and not queue.living:
        gone = ", ".join(queue.pollers)
        text = f"{queue.name}: {queue.waiting} tasks wait and nobody serves them"
        findings.append(warn("workers", text + (f"; {gone} is gone" if gone else ""), AGAIN))
    changed = newest_code()
    processes = {poller: (local_process(poller) or ("", poller))[1] for poller in queue.living}
    for poller, pid in processes.items():
        if isinstance(pid, int) and psutil.Process(pid).create_time() < changed:
            text = f"{queue.name}: {poller} was started before the code was last changed"
            findings.append(warn("workers", text, again))
    if len({*processes.values()}) > 1:
        both = ", ".join(queue.living)
        text = f"{queue.name}: several processes serve it, and either may answer: {both}"
        findings.append(warn("workers", text, "stop all but one of them"))
    return findings
