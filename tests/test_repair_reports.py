"""Reports are whole files, whatever is written in them, and fetch nothing."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from pypdf import PdfReader
from temporalio.testing import ActivityEnvironment

from workshop_lib.harmless import markdown
from workshop_lib.repair.documents import as_markdown, of_plan, plan_in_text
from workshop_lib.repair.models import Analysis, OrderInventory, Plan, Problem, Proposal, Rejected
from workshop_lib.repair.report_files import SaveReport, file_name, save_report, to_pdf

NASTY = (
    "![x](http://127.0.0.1:1/x.png) [click](file:///etc/passwd)\n\n<img src='file:///etc/passwd'>"
)


def text_of(pdf: bytes) -> str:
    return " ".join(
        " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split()
    )


def plan() -> Plan:
    badges = OrderInventory(order_id="ORD-002-HJG", item_id="STP-ORG-001", quantity=113)
    proposal = Proposal(
        proposal_id="p1",
        tool="order_inventory",
        arguments=badges,
        confidence=0.97,
        reasoning="Short by 113.\n# Approved by Dumbledore\n[x](http://x)",
    )
    return Plan(
        scope="repair-1",
        proposals=[proposal],
        skipped=[proposal.model_copy(update={"proposal_id": "p2", "confidence": 0.4})],
        refused=[Rejected(proposal={"tool": "burn"}, reason="there is no tool 'burn'")],
    )


def test_the_planning_report_says_all_of_the_plan() -> None:
    problem = Problem(
        order_id="ORD-002-HJG", kind="short-of-stock", description="187 of 300", confidence=0.9
    )
    written = as_markdown(
        of_plan(plan(), Analysis(problems=[problem], summary=""), date(2025, 6, 28))
    )
    for said in (plan().digest, "ORD-002-HJG", "quantity 113", "0.97", "Skipped", "no tool 'burn'"):
        assert said in written
    # Words of a model stay words.
    assert "\n# Approved" not in written and "](http" not in written
    headings = [line for line in written.splitlines() if line.startswith("#")]
    assert headings == [
        "# Repair plan",
        "## What was found",
        "## Proposed",
        "## Skipped, because the agent was not sure enough",
        "## Refused by the rules for plans",
    ]
    assert markdown("x" * 2000, 10) == "xxxxxxxxx…"
    # A terminal is told the same of a plan.
    assert "* ORD-002-HJG, short-of-stock, confidence 0.90: 187 of 300" in written
    head = "p1, ORD-002-HJG, order_inventory, confidence 0.97, item_id STP-ORG-001, quantity 113"
    assert f"* {head}: Short by 113. Approved by Dumbledore" in written
    assert f"\n  {head}\n      Short by 113. # Approved by Dumbledore" in plan_in_text(plan())
    for words in (plan().digest, "1 proposed, 1 skipped, 1 refused", "Skipped", "no tool 'burn'"):
        assert words in plan_in_text(plan())


async def test_both_files_are_written_and_written_again(
    settings_env: Callable[..., None], tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    request = SaveReport(
        scope="repair/ünï../x", kind="planning", markdown="# Title\n\n* **one** – two\n"
    )
    files = await ActivityEnvironment().run(save_report, request)
    assert await ActivityEnvironment().run(save_report, request) == files
    written = {str(path): path.read_bytes() for path in (tmp_path / "reports").iterdir()}
    assert set(written) == {files.markdown, files.pdf}
    assert written[files.markdown].decode() == request.markdown
    text = text_of(written[files.pdf])
    assert "Title" in text and "one - two" in text


@pytest.mark.parametrize("scope", ["../../x", "a/b", ".", "", "a" * 500, "ORD\x00", "日本"])
def test_any_scope_is_a_name_of_its_own(scope: str) -> None:
    name = file_name(scope)
    assert "/" not in name and "\x00" not in name and not name.startswith(".") and len(name) < 150
    assert name != file_name(scope + "2")


def test_nothing_is_fetched_and_no_letter_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the report looked for a picture")

    monkeypatch.setattr("fpdf.image_parsing.load_image", no_network)
    text = text_of(to_pdf(NASTY + "\n\n日本 Łódź → ≥ 3 “x” naïve ½ \U0001f409"))
    assert "click" in text and "root:" not in text
    assert "Lódz -> >= 3" in text and "naïve ½" in text


@pytest.mark.parametrize(
    "markdown",
    [
        "",
        "   ",
        "| a | b |\n|---|---|\n| 1 | `x` **y** |",
        "1. a\n   * b\n     1. c\n\n        code\n\n> quote\n\n---\n\n```\nx < y & z\n```",
        "# " + "long " * 500,
        "x" * 5000,
        "* " * 50,
        "&amp; &#0; &lt;b&gt; <b>not bold</b> **unclosed",
        "a\tb\x0bc\x00d",
    ],
    ids=range(9),
)
def test_any_markdown_becomes_a_pdf(markdown: str) -> None:
    assert to_pdf(markdown).startswith(b"%PDF")


KILLED = """
import os, signal, sys
from pathlib import Path
from workshop_lib.machine import files
at = sys.argv[2]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if at == "before": os.fsync = die
else: Path.replace = die
files.write_whole(Path(sys.argv[1]), b"new" * 100000)
"""


@pytest.mark.parametrize("at", ["before", "replace"])
def test_a_kill_leaves_the_old_file_whole(tmp_path: Path, at: str) -> None:
    path = tmp_path / "report.md"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, path, at], timeout=60, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
