"""Who is let in by the MCP servers: programs of this machine, and no web page, whatever name it came by.

A page on a name of its own may lead that name to this machine and so speak to every port of it (DNS
rebinding); one that does not may still send what a form can send. Each server is tried, in a process and in
this one, with requests written byte by byte, and by a page in a real browser.
"""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil
import pytest
from fastmcp import FastMCP
from jupyter_browser import browser
from lab_environment import free_port, lab, set_env

from workshop_lib.lab import registry
from workshop_lib.lab.services.mcp_in_kernel import serve_mcp
from workshop_lib.lab.services.mcp_servers import start_mcp_server
from workshop_lib.lab.services.programs import MCP_SERVERS

HERE = "here"  # the server that runs in this process
# Each of them switches a guard off, where a call leaves it open.
SWITCHES = {
    "FASTMCP_HTTP_HOST_ORIGIN_PROTECTION": "false",
    "FASTMCP_HTTP_ALLOWED_HOSTS": '["*"]',
    "FASTMCP_HTTP_ALLOWED_ORIGINS": '["*"]',
}
LIST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}})
JSON = "application/json"
OWN = "127.0.0.1:{port}"


class Attack(NamedTuple):
    """A request, and the status that it is to get."""

    name: str
    status: int
    host: str | None = OWN
    origin: str | None = None
    content: str = JSON
    method: str = "POST"


ATTACKS = [
    Attack("another name", 421, host="evil.example"),
    Attack("another name with our port", 421, host="evil.example:{port}"),
    Attack("a page of that name", 421, host="evil.example:{port}", origin="http://evil.example:{port}"),
    Attack("a name that begins like ours", 421, host="127.0.0.1.evil.example:{port}"),
    Attack("a name that ends like ours", 421, host="evil.localhost:{port}"),
    Attack("a name with a dot at its end", 421, host="localhost.:{port}"),
    Attack("our address, written as one number", 421, host="2130706433:{port}"),
    Attack("every address", 421, host="0.0.0.0:{port}"),
    Attack("another address of this machine", 421, host="127.0.0.2:{port}"),
    Attack("a pattern", 421, host="*"),
    Attack("a page of nobody", 403, origin="null"),
    Attack("a page of another site", 403, origin="https://evil.example"),
    Attack("a page of another site, as a form", 403, origin="https://evil.example", content="text/plain"),
    Attack("a page of a name that begins like ours", 403, origin="http://localhost.evil.example:{port}"),
    Attack("a page whose user is called like us", 403, origin="http://localhost:{port}@evil.example"),
    Attack("a page of another program of this machine", 403, origin="http://localhost:3000"),
    Attack("a page of another program, by number", 403, origin="http://127.0.0.1:8888"),
    Attack("a page of another program, as a form", 403, origin="http://127.0.0.1:8888", content="text/plain"),
    Attack("a page of our port under another name", 403, origin="http://[::1]:{port}"),
    Attack("a page that asks whether it may", 403, origin="https://evil.example", method="OPTIONS"),
    Attack("a page that wants an end", 403, origin="https://evil.example", method="DELETE"),
    Attack("an empty origin", 403, origin=""),
]  # fmt: skip
LET_IN = [
    Attack("a program", 200),
    Attack("a program, by name", 200, host="localhost:{port}"),
    Attack("a program, by the other address", 200, host="[::1]:{port}"),
]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Every server, and one in this process, with the guards switched off as far as variables can."""
    with lab(tmp_path_factory.mktemp("state")) as patch, pytest.MonkeyPatch.context() as registries:
        registries.setattr(registry, "_started", {})
        set_env(patch, **SWITCHES, TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}")
        ports = {f"{name.upper()}_MCP_PORT": free_port() for name in MCP_SERVERS}
        set_env(patch, **ports)
        processes = {
            name: asyncio.run(start_mcp_server(name, announce=False)) for name in MCP_SERVERS
        }
        set_env(patch, IT_MCP_PORT=free_port())
        # Another of that name, which would otherwise take the first one's place.
        registries.setattr(registry, "_started", {})
        with guards_off():
            here = asyncio.run(serve_mcp(FastMCP("it")))
        try:
            yield {name: process.url for name, process in processes.items()} | {HERE: here.url}
        finally:
            here.stop()
            for process in processes.values():
                process.kill()


@contextmanager
def guards_off() -> Iterator[None]:
    """The settings that a kernel has which is started with `SWITCHES`: FastMCP reads them at import."""
    import fastmcp

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastmcp.settings, "http_host_origin_protection", False)
        patch.setattr(fastmcp.settings, "http_allowed_hosts", ["*"])
        patch.setattr(fastmcp.settings, "http_allowed_origins", ["*"])
        yield


every_server = pytest.mark.parametrize("name", [*MCP_SERVERS, HERE])


def status_of(address: str, path: str, attack: Attack) -> tuple[int, bytes]:
    """Status and answer of a request that is written byte by byte."""
    port = urlsplit(address).port
    body = LIST.encode() if attack.method == "POST" else b""
    lines = [f"{attack.method} {path} HTTP/1.1", f"Content-Type: {attack.content}"]
    lines += [f"Accept: {JSON}, text/event-stream", f"Content-Length: {len(body)}"]
    if attack.host is not None:
        lines.append(f"Host: {attack.host.format(port=port)}")
    if attack.origin is not None:
        lines.append(f"Origin: {attack.origin.format(port=port)}")
    if attack.method == "OPTIONS":
        lines += [
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type",
        ]
    lines += ["Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:
        wire.sendall("\r\n".join(lines).encode() + body)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    return int(answer.split()[1]), answer


@every_server
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_what_a_page_may_send_is_refused(
    addresses: dict[str, str], name: str, attack: Attack
) -> None:
    paths = ["/mcp", "/nothing"] if name == HERE else ["/mcp", "/health", "/nothing"]
    for path in paths:
        status, answer = status_of(addresses[name], path, attack)
        assert status == attack.status, f"{path}: {answer!r}"
        assert b"access-control" not in answer.lower()


@every_server
@pytest.mark.parametrize("attack", LET_IN, ids=lambda attack: attack.name)
def test_programs_are_let_in(addresses: dict[str, str], name: str, attack: Attack) -> None:
    status, answer = status_of(addresses[name], "/mcp", attack)
    assert status == 200 and b'"tools"' in answer, answer


@every_server
@pytest.mark.parametrize("content", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_form_calls_nothing_even_without_an_origin(
    addresses: dict[str, str], name: str, content: str
) -> None:
    status, answer = status_of(addresses[name], "/mcp", Attack("form", 400, content=content))
    assert status in (400, 415) and b'"tools"' not in answer, answer


@every_server
def test_they_listen_on_this_machine_only(addresses: dict[str, str], name: str) -> None:
    port = urlsplit(addresses[name]).port
    found = {
        connection.laddr.ip
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert found == {"127.0.0.1"}


PAGE = """async ([address, body]) => {
    const tried = {};
    const send = async (name, path, options) => {
        try {
            const answer = await fetch(address + path, options);
            tried[name] = [answer.status, await answer.text()];
        } catch (error) { tried[name] = [0, String(error)]; }
    };
    const headers = {'Content-Type': 'application/json', 'Accept': 'application/json, text/event-stream'};
    await send('call', '/mcp', {method: 'POST', headers, body});
    await send('form', '/mcp', {method: 'POST', mode: 'no-cors', body});
    await send('health', '/health', {});
    return tried;
}"""


@pytest.mark.browser
@every_server
def test_a_page_whose_name_leads_here_gets_nothing(addresses: dict[str, str], name: str) -> None:
    port = urlsplit(addresses[name]).port
    rebound = f"http://evil.example:{port}"
    with browser("--host-resolver-rules=MAP evil.example 127.0.0.1") as chrome:
        page = chrome.new_page()
        # To the browser a page of that site, on this machine: nothing of its own keeps it from the port.
        answer = page.goto(f"{rebound}/page")
        assert answer and answer.status == 421
        for target in (rebound, f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
            tried = page.evaluate(PAGE, [target, LIST])
            for what, (status, text) in tried.items():
                # 0: the browser shows nothing of an answer that does not allow it.
                assert status in ((421,) if target == rebound else (0,)), (target, what, status)
                assert "tools" not in text and "namespace" not in text, (target, what, text)
