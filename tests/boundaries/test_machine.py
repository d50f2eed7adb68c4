"""What a machine's environment holds: variables that cannot be used, proxies, files of the folder that a
client starts us in, blanks and relative paths, a Python that lacks a part."""

import http.server
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_environment import free_port
from mcp_teams import INITIALIZE
from openai_server import KEY, OpenAIServer
from sampled import sampled
from workshop_command import Workshop, workshop_command

from workshop_lib.machine import environment
from workshop_lib.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with workshop_command() as command:
        yield command


def python(code: str, *, cwd: Path | None = None, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run Python as a notebook's kernel would."""
    state = Path(os.environ["WORKSHOP_STATE_DIR"])
    return Workshop(state).run([sys.executable, "-c", code], cwd=cwd, **env)


# Variables that make a library fail while it is imported, or when it makes its first client.
UNUSABLE = {
    "ALL_PROXY": ("socks5://127.0.0.1:9", "ftp://proxy:1"),
    "HTTPS_PROXY": ("http://proxy:abc", "garbage://proxy", ":::", "http://"),
    "http_proxy": ("http://pro xy:80", "[::1"),
    "SSL_CERT_FILE": ("/nowhere.pem", str(PROJECT_ROOT / "README.md"), "/"),
    "SSL_CERT_DIR": ("/nowhere",),
    "REQUESTS_CA_BUNDLE": ("/nowhere.pem",),
    "CURL_CA_BUNDLE": ("/nowhere.pem",),
    "SSLKEYLOGFILE": ("/nowhere/keys",),
    "SSL_SECURITY_LEVEL": ("junk",),
    "FASTMCP_PORT": ("abc",),
    "FASTMCP_TELEMETRY_MODE": ("junk",),
    "OTEL_PROPAGATORS": ("junk",),
    "OTEL_PYTHON_TRACER_PROVIDER": ("junk",),
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": ("abc", "-1"),
    "LITELLM_LOG": ("junk",),
    "LITELLM_PRINT_STANDARD_LOGGING_PAYLOAD": ("true",),  # it would print into `--json`
}
CASES = [(name, value) for name, values in UNUSABLE.items() for value in values]
USABLE = {
    "ALL_PROXY": "http://user:secret@proxy.example:3128",
    "HTTPS_PROXY": "proxy.example:3128",
    "http_proxy": "https://proxy.example",
    "OTEL_PROPAGATORS": "tracecontext, baggage",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "10",
    "SSL_SECURITY_LEVEL": "DEFAULT@SECLEVEL=1",
    "SSL_CERT_DIR": "/",
}


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_variable_that_cannot_be_used_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKSHOP_LEFT_OUT", "{}")  # so that it is taken away again
    monkeypatch.setenv(name, value)
    environment.put_in_order()
    assert name not in os.environ
    assert name in environment.left_out()


@pytest.mark.parametrize(("name", "value"), USABLE.items())
def test_a_variable_that_can_be_used_stays(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    environment.put_in_order()
    assert os.environ[name] == value
    assert name not in environment.left_out()


# Each of them kept the offline model from answering, in this process, in workers or in their MCP servers.
TOGETHER = [
    {name: values[0] for name, values in UNUSABLE.items()},
    {name: values[-1] for name, values in UNUSABLE.items()}
    | {"LC_ALL": "xx_YY", "LANG": "zz", "OPENAI_BASE_URL": "junk", "PYTHONPATH": "/nowhere:"},
]


@pytest.mark.parametrize("junk", sampled(TOGETHER, 1, ids=["first", "last"]))
def test_the_offline_model_answers_all_the_same(workshop: Workshop, junk: dict[str, str]) -> None:
    if not workshop.command()[
        0
    ].isascii():  # with a locale that there is not, Python itself cannot start
        junk = junk | {"LC_ALL": "C.UTF-8"}
    done = workshop.cold(
        *("ask", "--json", "--loop", "mcp", "--mcp-transport", "stdio"),
        "What's the stock price of TSLA?",
        **junk,
    )
    assert done.returncode == 0, done.stderr
    assert "242.80 USD" in json.loads(done.stdout)["reply"]


def test_a_worker_of_a_notebook_answers_all_the_same(workshop: Workshop) -> None:
    code = """
import asyncio
from workshop_lib import lab
from workshop_lib.agents.worker import orchestrator
from workshop_lib.agents.sessions import ChatClient

async def main():
    client = await lab.start()
    await lab.start_process(orchestrator())
    print((await ChatClient(client, "sdk").send("What is 125 * 8?")).text)
    lab.stop_all()

asyncio.run(main())
"""
    done = python(code, WORKSHOP_STATE_DIR=str(workshop.state), **TOGETHER[0])
    assert "125 * 8 = 1000." in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", sampled(["HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE"], 1))
def test_a_model_out_there_is_not_called_past_such_a_variable(
    workshop: Workshop, name: str
) -> None:
    done = workshop.cold(
        *("ask", "hello"),
        OPENAI_API_KEY="sk-proj-4fG7hJ2kL9mN3pQ5rS8tU1vW",
        LLM_MODEL="openai/gpt-5-mini",
        **{name: UNUSABLE[name][0]},
    )
    assert done.returncode == 1
    assert f"{name} cannot be used" in done.stderr and "Traceback" not in done.stderr


def test_the_doctor_names_them(workshop: Workshop) -> None:
    done = workshop.cold("doctor", "--json", **TOGETHER[0])
    findings = json.loads(done.stdout)
    said = " ".join(f["text"] for f in findings if f["name"] == "environment")
    assert all(f"{name} is left out" in said for name in TOGETHER[0])
    assert not [f for f in findings if f["status"] == "FAIL"], findings


# This machine is never reached by way of a proxy


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that answers nothing, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            asked.append(self.rfile.readline(2000).decode(errors="replace"))
            self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


CALLS = """
import asyncio, contextlib, sys
import aiohttp, httpx, httpx2
from workshop_lib.llm.gateway import complete
from workshop_lib.llm.messages import Message

url = sys.argv[-1] + "/chat/completions"

async def others():
    async with aiohttp.ClientSession(trust_env=True) as session:
        await session.post(url, json={})

with contextlib.suppress(Exception):
    print(asyncio.run(complete([Message.user("What is 125 * 8?")], timeout=10)).message.content)
with contextlib.suppress(aiohttp.ClientError):
    asyncio.run(others())
for client in (httpx, httpx2):
    with contextlib.suppress(client.HTTPError):
        client.post(url, json={})
"""


HOSTS = ["127.0.0.1", "localhost", "0.0.0.0", "127.0.0.2", "[::1]"]


@pytest.mark.parametrize(
    ("host", "no_proxy"), sampled(itertools.product(HOSTS, ["", "intra.example"]), 2)
)
def test_loopback_goes_past_every_proxy(host: str, no_proxy: str) -> None:
    model = OpenAIServer()
    base = model.base.replace("127.0.0.1", host)
    with proxy() as (url, asked):
        done = python(
            CALLS.replace("sys.argv[-1]", repr(base)),
            LLM_API_BASE=base,
            LLM_MODEL="openai/local",
            OPENAI_API_KEY=KEY,
            NO_PROXY=no_proxy,
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), url),
        )
        assert done.returncode == 0, done.stderr
        assert asked == []
    if host not in ("127.0.0.2", "[::1]"):  # the server does not listen there
        assert "set of rules" in done.stdout, done.stderr
        assert len(model.requests) >= 1


def test_the_whole_lab_goes_past_every_proxy(workshop: Workshop) -> None:
    with proxy() as (url, asked):
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "grpc_proxy")
        done = workshop.cold(
            "ask", "--loop", "mcp", "What's the stock price of TSLA?", **dict.fromkeys(names, url)
        )
        assert "242.80 USD" in done.stdout, done.stderr
        assert workshop.cold("doctor", **dict.fromkeys(names, url)).returncode == 0
        assert asked == []


# The folder that a client happens to start us in

DOTENV = {
    "binary": b"\xff\xfe\x00\x01",
    "UTF-16": "OPENAI_API_KEY=sk-proj-4fG7hJ2kL9mN3pQ5rS8tU1vW\n".encode("utf-16"),
    "settings": b"FASTMCP_PORT=abc\nLLM_MODEL=openai/gpt-5-mini\nLITELLM_LOG=junk\n"
    b"OPENAI_API_KEY=sk-proj-4fG7hJ2kL9mN3pQ5rS8tU1vW\nWORKSHOP_STATE_DIR=/nowhere\n",
}
SHADOWS = ("litellm", "agents", "openai", "fastmcp", "mcp", "temporalio", "yaml", "sqlite3")


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder with modules and settings that must not be read."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the {name} of this folder')")
    (tmp_path / "workshop_lib").mkdir()
    (tmp_path / "workshop_lib" / "__init__.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "orders.db").write_text("not ours")
    return tmp_path


@pytest.mark.parametrize("content", sampled(DOTENV.values(), 1, ids=DOTENV))
def test_an_mcp_server_reads_nothing_of_where_it_is_started(
    workshop: Workshop, strange: Path, content: bytes
) -> None:
    (strange / ".env").write_bytes(content)
    printed = workshop("mcp", "config", "claude").stdout
    for server in json.loads(printed)["mcpServers"].values():
        done = workshop.run(
            [server["command"], *server["args"]],
            cwd=strange,
            typed=json.dumps(INITIALIZE) + "\n",
            **server["env"],
        )
        assert '"serverInfo"' in done.stdout, done.stderr


def test_the_command_reads_nothing_of_where_it_is_started(
    workshop: Workshop, strange: Path
) -> None:
    (strange / ".env").write_bytes(DOTENV["settings"])
    ask = ("ask", "--json", "--loop", "mcp", "--mcp-transport", "stdio")
    done = workshop.run(workshop.command(*ask, "What's the stock price of TSLA?"), cwd=strange)
    said = json.loads(done.stdout)
    assert said["model"] == "offline/rules"
    assert "242.80 USD" in said["reply"], done.stderr


def test_a_kernel_prefers_what_is_installed(strange: Path) -> None:
    (strange / "workshop_lib" / "__init__.py").unlink()
    (strange / "workshop_lib").rmdir()
    (strange / "helper.py").write_text("word = 'mine'")
    code = "import workshop_lib, litellm, yaml, helper; print(litellm.__file__, helper.word)"
    done = python(code, cwd=strange)
    assert "site-packages" in done.stdout and "mine" in done.stdout, done.stderr


# Empty, blank, relative, at home

PATHS = {
    "": None,
    "  ": None,
    "~/lab": "{home}/lab",
    " ~/lab\t": "{home}/lab",
    "lab": f"{PROJECT_ROOT}/lab",
    "./lab/x": f"{PROJECT_ROOT}/lab/x",
    "/srv/lab": "/srv/lab",
}
SHOW = (
    "import json; from workshop_lib.settings import get_settings; s = get_settings();"
    "u = s.orders_database_url; print(json.dumps({n: str(getattr(s, n)) for n in s.model_fields}"
    " | {'orders_database_url': u and u.get_secret_value()}))"
)


@pytest.mark.parametrize(("value", "expected"), PATHS.items())
def test_paths_mean_the_same_in_every_folder(
    tmp_path: Path, value: str, expected: str | None
) -> None:
    names = ("WORKSHOP_STATE_DIR", "WORKSHOP_WORKSPACE", "WORKSHOP_MODEL_JOURNAL")
    given = dict.fromkeys(names, value)
    given["WORKSHOP_WORKSPACE"] = value and f"{value.rstrip()}/w" if value.strip() else value
    given["ORDERS_DATABASE_URL"] = f"sqlite:///{value.strip()}" if value.strip() else value
    done = python(SHOW, cwd=tmp_path, HOME=str(tmp_path), **given)
    found = json.loads(done.stdout)
    wanted = expected and expected.format(home=tmp_path)
    assert found["state_dir"] == (wanted or f"{PROJECT_ROOT}/.workshop")
    assert found["workspace"] == (f"{wanted}/w" if wanted else f"{PROJECT_ROOT}/workspace")
    assert found["model_journal"] == str(wanted)
    assert found["orders_database_url"] == (wanted and f"sqlite:///{wanted}")


def test_an_empty_variable_is_unset(tmp_path: Path) -> None:
    names = (
        *("WORKSHOP_TEMPORAL_PORT", "WORKSHOP_UI_PORT", "IT_MCP_PORT", "LLM_TIMEOUT", "USER_NAME"),
        *("OFFLINE_LATENCY_MS", "WORKSHOP_TODAY", "TEMPORAL_NAMESPACE", "IT_QUEUE", "LLM_API_BASE"),
    )
    default = python(SHOW).stdout
    for value in ("", "  "):
        done = python(SHOW, **dict.fromkeys(names, value))
        assert done.stdout == default, done.stderr
    found = json.loads(python(SHOW, WORKSHOP_UI_PORT=" 8233 ", IT_QUEUE=" mine\n").stdout)
    assert (found["ui_port"], found["it_queue"]) == ("8233", "mine")


def test_an_empty_variable_does_not_hide_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.env").write_text("USER_NAME=Ada\nWORKSHOP_WORKSPACE=\n")
    done = python(SHOW, WORKSHOP_ENV_FILE="~/mine.env", HOME=str(tmp_path), USER_NAME="")
    assert json.loads(done.stdout)["user_name"] == "Ada", done.stderr


def test_common_variables_of_other_programs_are_not_ours() -> None:
    default = python(SHOW).stdout
    theirs = {"WORKSPACE": "/srv/ci", "STATE_DIR": "/srv", "UI_PORT": "1", "TODAY": "Monday"}
    done = python(SHOW, **theirs)
    assert done.stdout == default, done.stderr


def test_the_home_of_nobody(workshop: Workshop) -> None:
    done = Workshop(Path("~nobody-of-this-name/lab")).cold("status")
    assert done.returncode == 1
    assert "WORKSHOP_STATE_DIR=~nobody-of-this-name/lab" in done.stderr


@pytest.mark.parametrize("value", ["/nowhere.toml", "{bad}", "{folder}"])
def test_a_profile_file_that_cannot_be_used(workshop: Workshop, tmp_path: Path, value: str) -> None:
    (tmp_path / "bad.toml").write_bytes(b"\xff[profile")
    path = value.format(bad=tmp_path / "bad.toml", folder=tmp_path)
    done = workshop("status", TEMPORAL_CONFIG_FILE=path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "TEMPORAL_CONFIG_FILE" in done.stderr


# A Python without a part


def test_a_python_without_sqlite(tmp_path: Path) -> None:
    (tmp_path / "_sqlite3.py").write_text("raise ModuleNotFoundError('No module named _sqlite3')")
    with workshop_command() as workshop:
        env = {"PYTHONPATH": str(tmp_path), "WORKSHOP_TEMPORAL_PORT": str(free_port())}
        done = workshop.cold("doctor", **env)
        assert done.returncode == 1
        assert "was built without sqlite3" in done.stdout and "Traceback" not in done.stderr
        for command in (["ask", "hello"], ["up"], ["--no-browser"], ["repair", "orders"]):
            done = workshop.cold(*command, **env)
            assert done.returncode == 1, command
            assert "was built without sqlite3" in done.stderr
            assert "Traceback" not in done.stderr, done.stderr
