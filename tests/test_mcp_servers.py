"""The teams' MCP servers, met by clients that nobody here wrote: the protocol's own SDK and the Inspector."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from fastmcp import FastMCP
from filelock import FileLock
from lab_environment import LIMIT, free_port, listening
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import CallToolResult, TextContent
from mcp_teams import INITIALIZE, ServedTeams, finance_runs, served_teams
from notebook_runner import processes_of
from typer.testing import CliRunner

from workshop_lib.cli.main import app
from workshop_lib.cli.mcp import ClientName, configuration
from workshop_lib.errors import WorkshopError
from workshop_lib.lab import registry
from workshop_lib.lab.services.mcp_in_kernel import serve_mcp
from workshop_lib.lab.services.mcp_servers import is_healthy, start_mcp_server
from workshop_lib.lab.services.programs import MCP_SERVERS
from workshop_lib.machine.ports import is_free
from workshop_lib.mcp.addresses import (
    TEAM_SERVERS,
    health_url,
    listening_url,
    reachable_url,
    server_url,
)
from workshop_lib.mcp.server import listen
from workshop_lib.settings import DEFAULT_MCP_PORTS, get_settings

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"

# Every tool, with arguments and what comes back.
CALLS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    (
        "finance",
        "stock_price",
        {"ticker": "TSLA"},
        {"ticker": "TSLA", "company": "Tesla", "price": 242.8, "currency": "USD"},
    ),
    (
        "finance",
        "calculate_roi",
        {"principal": 10000, "rate": 5, "years": 10},
        {
            "principal": 10000.0,
            "rate": 5.0,
            "years": 10.0,
            "future_value": 16288.95,
            "gain": 6288.95,
            "roi_percent": 62.89,
        },
    ),
    ("it", "get_ip", {}, {"ip_address": "172.16.0.1"}),
    (
        "it",
        "jira_metrics",
        {"project": "DEMO-456"},
        {"project": "DEMO-456", "open": 23, "closed": 45, "total": 68},
    ),
]


@pytest.fixture(scope="module")
def teams(temporal_server: str) -> Iterator[ServedTeams]:
    with served_teams(temporal_server) as running:
        yield running


@pytest.fixture
def registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started does not take the place of the other tests' one."""
    monkeypatch.setattr(registry, "_started", {})


Connect = Callable[[str], Any]


@pytest.fixture(params=["http", "stdio"])
def connect_to(request: pytest.FixtureRequest, teams: ServedTeams) -> Connect:
    """Opens a client of a team's server, over each transport in turn."""

    @asynccontextmanager
    async def opened(name: str) -> AsyncIterator[Client]:
        target = teams.url(name) if request.param == "http" else over_stdio(name)
        async with asyncio.timeout(LIMIT), Client(target) as client:
            yield client

    return opened


def stdio_command(name: str) -> list[str]:
    return [sys.executable, "-m", MCP_SERVERS[name], "--transport", "stdio"]


def over_stdio(name: str) -> Any:
    command, *arguments = stdio_command(name)
    return stdio_client(
        StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    )


def text_of(result: CallToolResult) -> str:
    return " ".join(part.text for part in result.content if isinstance(part, TextContent))


# --- what is offered, and what comes back ------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TEAM_SERVERS))
async def test_every_tool_is_listed_and_called(connect_to: Connect, name: str) -> None:
    async with connect_to(name) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        mine = [call for call in CALLS if call[0] == name]
        assert set(tools) == {tool for _, tool, _, _ in mine}
        for _, tool, arguments, expected in mine:
            offered = tools[tool]
            assert offered.description and offered.annotations and offered.output_schema
            assert offered.annotations.read_only_hint and offered.annotations.idempotent_hint
            assert set(offered.input_schema["properties"]) == set(arguments)  # flat
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
            assert result.structured_content == expected
            assert json.loads(text_of(result)) == expected


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("stock_price", {}, "ticker: Field required"),
        ("stock_price", {"ticker": 5}, "ticker: Input should be a valid string"),
        ("stock_price", {"ticker": "TSLA", "extra": 1}, "extra: Extra inputs are not permitted"),
        ("stock_price", {"ticker": "ZZZZ"}, "unknown ticker 'ZZZZ'; known are AAPL"),
        ("calculate_roi", {"principal": -1, "rate": 5, "years": 1}, "principal: Input should be"),
    ],
)
async def test_what_a_model_can_mend_is_a_tool_error_in_words(
    teams: ServedTeams, tool: str, arguments: dict[str, Any], words: str
) -> None:
    async with asyncio.timeout(LIMIT), Client(teams.url("finance")) as client:
        result = await client.call_tool(tool, arguments)
        assert result.is_error
        assert text_of(result).startswith("Error: ") and words in text_of(result)
        # The server is as well as before.
        assert not (await client.call_tool("stock_price", {"ticker": "AAPL"})).is_error


async def test_meta_that_cannot_be_used_is_a_tool_error(teams: ServedTeams) -> None:
    async with Client(teams.url("finance")) as client:
        for meta in ({"idempotency_key": 5}, {"idempotency_key": ""}, {"time_limit": -1}):
            result = await client.call_tool("stock_price", {"ticker": "TSLA"}, meta=meta)
            assert result.is_error and next(iter(meta)) in text_of(result)


async def test_a_call_tells_that_it_runs_and_where(connect_to: Connect) -> None:
    told: list[str] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async with connect_to("finance") as client:
        result = await client.call_tool("stock_price", {"ticker": "TSLA"}, progress_callback=note)
    assert result.meta and told
    assert result.meta["workflow_id"] in told[0]
    assert result.meta["workflow_id"].startswith("stock-price-TSLA-")
    assert get_settings().finance_queue in told[0]


async def test_a_hundred_calls_at_once_are_each_answered(teams: ServedTeams) -> None:
    async with asyncio.timeout(LIMIT), Client(teams.url("finance")) as client:
        results = await asyncio.gather(
            *(
                client.call_tool("calculate_roi", {"principal": n, "rate": 0, "years": 1})
                for n in range(1, 101)
            )
        )
    gained = [result.structured_content for result in results]
    assert [roi and roi["future_value"] for roi in gained] == list(range(1, 101))


# --- calls that are made again -----------------------------------------------------------------------


async def test_calls_with_one_key_are_one_run(teams: ServedTeams) -> None:
    key, begin = {"idempotency_key": uuid.uuid4().hex}, datetime.now(UTC)

    async def call(ticker: str, meta: Any = None) -> CallToolResult:
        async with asyncio.timeout(LIMIT), Client(teams.url("finance")) as client:
            return await client.call_tool("stock_price", {"ticker": ticker}, meta=meta)

    first, second = await asyncio.gather(call("TSLA", key), call("TSLA", key))  # at once
    third = await call("TSLA", key)  # and when the run is over
    assert first.structured_content == second.structured_content == third.structured_content
    ids = {result.meta and result.meta["workflow_id"] for result in (first, second, third)}
    assert len(ids) == 1
    # Another question is another run, whatever its key; so is a call without one.
    other = await call("AAPL", key)
    assert other.structured_content and other.structured_content["ticker"] == "AAPL"
    await call("TSLA")
    await listed(3, begin)


async def test_a_failure_is_the_same_again(teams: ServedTeams) -> None:
    key = {"idempotency_key": uuid.uuid4().hex}
    async with Client(teams.url("finance")) as client:
        two = [await client.call_tool("stock_price", {"ticker": "NO"}, meta=key) for _ in range(2)]
    assert two[0].is_error and text_of(two[0]) == text_of(two[1])


async def listed(count: int, since: datetime) -> None:
    """The finance team's runs since then are this many; the list follows a moment later, and then stays."""
    async with asyncio.timeout(20):
        while len(await finance_runs(since=since)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert len(await finance_runs(since=since)) == count


# --- nobody there ------------------------------------------------------------------------------------


async def test_a_call_that_nobody_serves_ends_with_who_did_not_answer(
    teams: ServedTeams, monkeypatch: pytest.MonkeyPatch, settings_env: Callable[..., None]
) -> None:
    settings_env(FINANCE_QUEUE="nobody-polls-here")
    async with asyncio.timeout(LIMIT), Client(over_stdio("finance")) as client:
        result = await client.call_tool("stock_price", {"ticker": "TSLA"}, meta={"time_limit": 1.0})
    assert result.is_error
    for word in ("finance", "1 s", "finance-namespace", "nobody-polls-here"):
        assert word in text_of(result)


async def test_a_server_without_temporal_says_so_and_lives(
    settings_env: Callable[..., None], registry_of_its_own: None, tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    settings_env(TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}", FINANCE_MCP_PORT=free_port())
    server = await start_mcp_server("finance")
    try:
        assert not await asyncio.to_thread(is_healthy, "finance")
        with pytest.raises(urllib.error.HTTPError) as answer:
            await asyncio.to_thread(urllib.request.urlopen, health_url(server.url), timeout=10)
        assert answer.value.code == 503
        async with asyncio.timeout(LIMIT), Client(server.url) as client:
            result = await client.call_tool("stock_price", {"ticker": "TSLA"})
            assert result.is_error and "No Temporal server" in text_of(result)
            assert len((await client.list_tools()).tools) == 2
    finally:
        server.kill()


def test_health(teams: ServedTeams, temporal_server: str) -> None:
    for name in TEAM_SERVERS:
        with urllib.request.urlopen(health_url(teams.url(name)), timeout=10) as response:
            said = json.load(response)
        assert said["status"] == "ok" and said["server"] == name
        assert said["temporal"] == temporal_server


# --- processes and ports -----------------------------------------------------------------------------


async def test_a_server_is_killed_and_started_again_in_its_place(teams: ServedTeams) -> None:
    server = teams.servers["it"]
    url, pid = server.url, server.pid
    server.kill()
    assert not server.alive
    assert not await asyncio.to_thread(is_healthy, "it")
    await server.restart()
    assert server.alive and server.url == url == server_url("it") and server.pid != pid
    assert await asyncio.to_thread(is_healthy, "it")


async def test_a_port_that_is_taken_meanwhile_is_given_up_unless_it_was_asked_for(
    teams: ServedTeams, settings_env: Callable[..., None], registry_of_its_own: None, tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path, IT_MCP_PORT=free_port())
    server = await start_mcp_server("it")
    settings_env(IT_MCP_PORT=None)  # from now on any will do
    url, port = server.url, urlsplit(server.url).port
    assert port
    server.kill()
    with listening(port):
        await server.restart()
        assert server.url == server_url("it") != url
        assert await asyncio.to_thread(is_healthy, "it")
    server.kill()
    asked = await start_mcp_server("it", port=free_port())
    port = urlsplit(asked.url).port
    assert port
    asked.kill()
    with listening(port), pytest.raises(WorkshopError, match=f"Port {port}"):
        await asked.restart()


async def test_stop_all_ends_servers_and_takes_back_their_address(
    settings_env: Callable[..., None], registry_of_its_own: None, tmp_path: Path
) -> None:
    port = free_port()
    settings_env(WORKSHOP_STATE_DIR=tmp_path, FINANCE_MCP_PORT=port)
    first = await start_mcp_server("finance")
    assert server_url("finance") == first.url
    second = await start_mcp_server("finance")
    assert second.alive and not first.alive  # one a name
    registry.stop_all()
    assert not second.alive
    assert not {entry for entry in os.listdir(tmp_path) if entry.startswith("mcp-")}  # noqa: PTH208
    assert server_url("finance") == f"http://127.0.0.1:{port}/mcp"


async def test_an_interrupted_start_leaves_nothing_behind(
    settings_env: Callable[..., None], registry_of_its_own: None, tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    starting = asyncio.create_task(start_mcp_server("it"))
    async with asyncio.timeout(LIMIT):
        while not processes_of(tmp_path):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert processes_of(tmp_path) == []


async def test_of_two_that_start_at_once_one_stays_and_is_stopped(
    settings_env: Callable[..., None], registry_of_its_own: None, tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path, IT_MCP_PORT=None)
    both = await asyncio.gather(start_mcp_server("it"), start_mcp_server("it"))
    assert sum(server.alive for server in both) == 1
    older = next(server for server in both if not server.alive)
    await older.restart()
    assert sum(server.alive for server in both) == 1
    registry.stop_all()
    assert processes_of(tmp_path) == []


async def test_a_server_in_the_kernel_is_served_and_replaced(
    settings_env: Callable[..., None], registry_of_its_own: None, tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path, FINANCE_MCP_PORT=None)
    for answer in (1, 2):
        server = FastMCP("finance")
        server.tool(lambda number=answer: number, name="answer")
        here = await serve_mcp(server)
        assert here.url == reachable_url("finance")
        async with asyncio.timeout(LIMIT), Client(here.url) as client:
            assert text_of(await client.call_tool("answer", {})) == str(answer)
    registry.stop_all()
    assert reachable_url("finance") is None
    with pytest.raises(WorkshopError, match="no team 'sales'"):
        await serve_mcp(FastMCP("sales"))


async def test_a_server_in_the_kernel_that_cannot_start_is_said(
    settings_env: Callable[..., None], registry_of_its_own: None, tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path, FINANCE_MCP_PORT=(port := free_port()))

    @asynccontextmanager
    async def broken(_: FastMCP) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    with pytest.raises(WorkshopError, match="finance did not start in this kernel"):
        await serve_mcp(FastMCP("finance", lifespan=broken))
    assert listening_url("finance") is None and is_free(port)


def test_a_taken_default_port_is_replaced_and_said(
    settings_env: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    with listening() as port:
        monkeypatch.setitem(DEFAULT_MCP_PORTS, "repair", port)
        with listen("repair") as chosen:
            assert chosen.getsockname()[0] == "127.0.0.1"
            assert chosen.getsockname()[1] != port
    assert str(port) in caplog.text and str(os.getpid()) in caplog.text


def test_a_preferred_port_is_taken_where_it_is_free_and_the_user_asks_for_none(
    settings_env: Callable[..., None],
) -> None:
    preferred, users = free_port(), free_port()
    settings_env(REPAIR_MCP_PORT=None)
    with listen("repair", preferred=preferred) as chosen:
        assert chosen.getsockname()[1] == preferred
        with listen("repair", preferred=preferred) as another:
            assert another.getsockname()[1] != preferred
    settings_env(REPAIR_MCP_PORT=users)
    with listen("repair", preferred=preferred) as chosen:
        assert chosen.getsockname()[1] == users


def test_a_taken_port_that_the_user_set_is_an_error_that_names_its_holder(
    settings_env: Callable[..., None],
) -> None:
    with listening() as port:
        settings_env(REPAIR_MCP_PORT=port)
        for asked in (None, port):
            with pytest.raises(WorkshopError) as refused:
                listen("repair", asked)
            assert str(port) in refused.value.what and str(os.getpid()) in refused.value.what


async def test_a_server_that_cannot_start_says_why(registry_of_its_own: None) -> None:
    with listening() as port, pytest.raises(WorkshopError, match=f"Port {port}"):
        await start_mcp_server("finance", port=port)
    with pytest.raises(WorkshopError, match="no MCP server 'sales'"):
        await start_mcp_server("sales")


# --- the bare wire -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MCP_SERVERS))
def test_on_stdio_every_line_is_a_message_of_the_protocol(teams: ServedTeams, name: str) -> None:
    of_a_team = ((t, a) for team, t, a, _ in CALLS if team == name)
    tool, arguments = next(of_a_team, ("list_orders", {}))
    called = {"name": tool, "arguments": arguments, "_meta": {"progressToken": "p"}}
    wrongly = {"name": tool, "arguments": {"nonsense": 1}}
    lines = [
        INITIALIZE,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": called},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": wrongly},
    ]
    with subprocess.Popen(
        stdio_command(name),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The most talkative start that there is.
        env=os.environ | {"PYTHONUNBUFFERED": "1", "FASTMCP_LOG_LEVEL": "DEBUG"},
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
        process.stdin.flush()
        messages: list[dict[str, Any]] = []
        while not {1, 2, 3, 4} <= {message.get("id") for message in messages}:
            messages.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        rest = process.stdout.read()
        assert process.wait(20) == 0
    assert rest == ""
    assert all(message["jsonrpc"] == "2.0" for message in messages)
    answers = {message["id"]: message["result"] for message in messages if "id" in message}
    assert tool in {offered["name"] for offered in answers[2]["tools"]}
    assert not answers[3].get("isError") and answers[4]["isError"]
    if name in TEAM_SERVERS:  # whose calls wait for a workflow
        assert "notifications/progress" in {message.get("method") for message in messages}


# --- the official Inspector --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def inspector() -> list[str]:
    """The Inspector's command line, from npm, on the Node that is among the Python packages."""
    binaries = Path(sys.executable).parent
    if not (binaries / "npm").exists():
        pytest.skip("Node is not installed: uv sync --group ci.")
    folder = Path.home() / ".cache" / "durable-agents-workshop" / INSPECTOR.rsplit("@", 1)[1]
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "node_modules" / ".bin" / "mcp-inspector"
    with FileLock(folder / "install.lock"):
        if not (folder / "complete").exists():
            done = subprocess.run(
                [
                    binaries / "npm",
                    "install",
                    "--prefix",
                    folder,
                    "--no-audit",
                    "--no-fund",
                    INSPECTOR,
                ],
                capture_output=True,
                text=True,
                timeout=170,
                env=os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"},
            )
            if done.returncode:
                pytest.skip(f"npm cannot install the MCP Inspector: {done.stderr[-300:]}")
            (folder / "complete").touch()
    return [str(binaries / "node"), str(program), "--cli"]


@pytest.mark.parametrize(
    ("transport", "calls"),
    [
        pytest.param("http", CALLS, id="http"),
        pytest.param("stdio", CALLS[1:3], id="stdio"),  # one of each team
        pytest.param("stdio", CALLS, id="stdio-all", marks=pytest.mark.long),
    ],
)
def test_the_inspector_lists_and_calls_every_tool(
    teams: ServedTeams, inspector: list[str], transport: str, calls: list[Any], tmp_path: Path
) -> None:
    # As a person would: with the configuration that we print for it.
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps(configuration(ClientName.INSPECTOR)), encoding="utf-8")

    def inspect(name: str, *arguments: str) -> Any:
        server = f"workshop-{name}" + ("-http" if transport == "http" else "")
        done = subprocess.run(
            [*inspector, "--config", config, "--server", server, "--method", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
        return json.loads(done.stdout)

    def call(name: str, tool: str, arguments: dict[str, Any], expected: dict[str, Any]) -> None:
        pairs = (f"{key}={value}" for key, value in arguments.items())
        words = [word for pair in pairs for word in ("--tool-arg", pair)]
        result = inspect(name, "tools/call", "--tool-name", tool, *words)
        assert result["structuredContent"] == expected

    with ThreadPoolExecutor(2) as two_at_a_time:
        listings = two_at_a_time.map(lambda name: inspect(name, "tools/list"), TEAM_SERVERS)
        assert [None] * len(calls) == list(two_at_a_time.map(call, *zip(*calls, strict=True)))
        offered = {tool["name"] for listing in listings for tool in listing["tools"]}
    assert offered == {tool for _, tool, _, _ in CALLS}


# --- configurations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["claude", "goose", "wsl", "inspector"])
def test_a_printed_configuration_starts_the_servers(
    client: str, settings_env: Callable[..., None], tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path, TEMPORAL_API_KEY="secret-of-the-user")
    printed = CliRunner().invoke(app, ["mcp", "config", client])
    assert printed.exit_code == 0 and "secret" not in printed.stdout
    document = (yaml.safe_load if client == "goose" else json.loads)(printed.stdout)
    servers = document["extensions" if client == "goose" else "mcpServers"]
    commands = {name: entry for name, entry in servers.items() if "url" not in entry}
    assert set(commands) == {f"workshop-{name}" for name in MCP_SERVERS}
    for name, entry in commands.items():
        whole = [entry.get("command") or entry["cmd"], *entry["args"]]
        assert sys.executable in whole and MCP_SERVERS[name.removeprefix("workshop-")] in whole
        told = entry.get("envs") or entry.get("env")
        if client == "wsl":
            assert whole[0] == "wsl.exe" and f"WORKSHOP_STATE_DIR={tmp_path}" in whole
        else:
            assert Path(whole[0]).is_absolute()
            assert told == {**told, "WORKSHOP_STATE_DIR": str(tmp_path)}
    assert {entry["url"] for entry in servers.values() if "url" in entry} == (
        {server_url(name) for name in MCP_SERVERS} if client == "inspector" else set()
    )


async def test_a_server_starts_from_its_configuration_in_any_folder(
    teams: ServedTeams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = CliRunner().invoke(app, ["mcp", "config", "claude"])
    entry = json.loads(printed.stdout)["mcpServers"]["workshop-it"]
    # A desktop program has next to nothing in its environment.
    parameters = StdioServerParameters(
        command=entry["command"], args=entry["args"], env=entry["env"], cwd=tmp_path
    )
    async with asyncio.timeout(LIMIT), Client(stdio_client(parameters)) as client:
        assert len((await client.list_tools()).tools) == 2
