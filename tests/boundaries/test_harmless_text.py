"""What others have written is text wherever it is shown: terminals, HTML, Markdown, reports, names."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client as McpClient
from fastmcp.exceptions import ToolError
from markdown_it import MarkdownIt
from temporalio.client import Client
from workshop_command import Workshop, workshop_command

from workshop_lib import harmless
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.errors import WorkshopError
from workshop_lib.repair import mcp_server
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.documents import plain_report, problem_with_report, status_in_text
from workshop_lib.repair.models import Analysis, Plan, ReportRequest
from workshop_lib.repair.proactive_client import ProactiveClient
from workshop_lib.repair.schedule import RepairSchedules
from workshop_lib.repair.states import RepairStatus, State
from workshop_lib.settings import PROJECT_ROOT, reload_settings
from workshop_lib.temporal.connect import connect

ESCAPES = "\x1b[31m\x1b]0;title\x07\x9b2J\u202ekcab\u2066\r\x00\ud800"
HOSTILE = (
    f"Ada {ESCAPES}\n# Approved\r\n* [here](https://evil.example) <script>alert(1)</script>"
    " ![x](//evil.example/x.png) www.evil.example `code` **bold** [red]rich[/red] \u2028end"
)
REQUEST = ReportRequest(
    today=date(2025, 6, 28),
    analysis=Analysis(problems=[], summary=""),
    plan=Plan(scope="r", proposals=[], skipped=[], refused=[]),
    results=[],
    decided_by=HOSTILE.replace("\ud800", ""),
)


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with workshop_command() as command:
        reload_settings()
        yield command
    reload_settings()


def assert_shown(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in text), repr(text)


def test_a_line_is_one_line_and_bounded() -> None:
    shown = harmless.line(HOSTILE)
    assert_shown(shown)
    assert "\n" not in shown and shown.startswith("Ada") and shown.endswith("end")
    assert harmless.line("x" * 5_000_000, 100) == "x" * 99 + "…"
    assert harmless.line(None) == "None"


def test_a_block_keeps_its_lines_and_letters() -> None:
    assert_shown(harmless.block(HOSTILE))
    persian = "می\u200cخواهم\n\tشما 👩\u200d🚀"
    assert harmless.block(persian) == persian
    assert harmless.block("a\r\nAgent: b", "  ") == "a\n  Agent: b"


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "&lt;b&gt;<b",
        "http://a.b",
        "HTTPS://A.B",
        "ftp://a.b",
        "[x]: //a.b",
        "~~x~~",
        "a\\<b>",
    ],
)
def test_markdown_is_nothing_but_text(text: str) -> None:
    reader = MarkdownIt("gfm-like", {"linkify": False, "html": True})
    page = reader.render(f"* {harmless.markdown(text)}\n")
    assert set(re.findall(r"</?(\w+)", page)) == {"ul", "li"}, page
    assert not re.search(r"\w://|\bwww\.\w", page)


def test_html_is_nothing_but_text() -> None:
    page = harmless.html(HOSTILE + '" onclick="x')
    assert not set("<>\"'") & set(page)
    assert_shown(page)


def test_the_execution_report_quotes_who_decided() -> None:
    report = plain_report(REQUEST, HOSTILE).markdown
    assert_shown(report)
    assert [line for line in report.splitlines() if line.startswith("#")] == ["# Repair report"]
    assert "<script" not in report and "](" not in report and "://" not in report
    assert "decided by Ada" in report


@pytest.mark.parametrize(
    "bad", ["\x1b[2J", "\u202e", "[x][y]", "[y]: //evil", "<!-- x", "www.evil.example", "FTP://x"]
)
def test_a_models_report_with_more_than_text_goes_back_to_it(bad: str) -> None:
    assert problem_with_report("All is well.", REQUEST) is None
    assert problem_with_report(f"All is well. {bad}", REQUEST) is not None


def test_a_status_begins_with_a_name_on_one_line() -> None:
    shown = status_in_text(HOSTILE, RepairStatus(state=State.REJECTED, reason=HOSTILE))
    assert_shown(shown)
    assert len(shown.splitlines()) == 2


async def test_names_that_others_gave_are_listed_on_one_line_each(workshop: Workshop) -> None:
    assert workshop("sessions").returncode == 0  # starts the server
    client = await connect()
    name = "x\x1b[31m\n\u202eevil; rm -rf ~"
    for kind, prefix in (("ManualChat", "chat-manual-"), ("OrderRepair", "")):
        await client.start_workflow(
            kind, id=f"{prefix}{name}", task_queue="nobody", rpc_timeout=timedelta(seconds=10)
        )
    await RepairSchedules(client).create("mine")
    for call, lines in (
        (["sessions"], 1),
        (["repair", "list"], 2),
        (["repair", "schedule", "list"], 1),
    ):
        done = workshop(*call)
        assert done.returncode == 0, done.stderr
        assert_shown(done.stdout)
        assert len(done.stdout.splitlines()) == lines, done.stdout
    listed = json.loads(workshop("sessions", "--json").stdout)
    assert listed[0]["session"] == name  # a program gets all of it, as ASCII
    looked = workshop("repair", "status", name)
    assert looked.returncode == 1
    assert_shown(looked.stderr)


LONG = "x" * 1001
NAMES = {
    "empty": "",
    "long": LONG,
    "very long": "x" * 100_000,
    "half": "\ud800",
    "escape": "a\x1bb",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_the_library_takes_no_name_that_the_command_refuses(
    client: Client, name: str
) -> None:
    with pytest.raises(WorkshopError, match="session's name"):
        ChatClient(client, session=name)
    with pytest.raises(WorkshopError, match="repair's name"):
        await RepairClient.start(client, workflow_id=name)
    with pytest.raises(WorkshopError, match="agent's name"):
        await ProactiveClient.start_agent(client, workflow_id=name)
    with pytest.raises(WorkshopError, match="schedule's name"):
        await RepairSchedules(client).upsert(name)


@pytest.mark.parametrize(
    "name", [LONG, "x" * 100_000, "a\x1bb"], ids=["long", "very long", "escape"]
)
async def test_nor_do_mcp_servers(
    client: Client, settings_env: Callable[..., None], tmp_path: Path, name: str
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    connected: McpClient[Any]
    async with McpClient(mcp_server.server()) as connected:
        with pytest.raises(ToolError, match="repair's name"):
            await connected.call_tool("start_repair", {"repair_id": name})
        with pytest.raises(ToolError, match=r"repair's name|no repair"):
            await connected.call_tool("get_status", {"repair_id": name})


def test_commands_print_in_one_place() -> None:
    """Else somebody's `print` forgets what `show` and `say` see to."""
    prints = re.compile(r"(?<![\w.])print\(|[ (,]print[,)]| else print\b")
    files = (PROJECT_ROOT / "workshop_lib" / "cli").glob("*.py")
    assert [path.name for path in files if prints.search(path.read_text("utf-8"))] == ["support.py"]
