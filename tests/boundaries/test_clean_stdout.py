"""Where a program reads our standard output, nothing else is written there, whoever writes it."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from fastmcp.tools import Tool
from lab_environment import lab
from workshop_command import Workshop

from workshop_lib.lab import registry
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.server.lifecycle import run_sync
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.services.mcp_in_kernel import serve_mcp
from workshop_lib.mcp.server import create_server
from workshop_lib.settings import get_settings


def stock_price(ticker: str) -> str:
    """The price of a company's shares."""
    return f"{ticker}: 1 USD. " * 200_000


def test_a_result_that_is_too_large_leaves_json_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_started", {})
    with lab(tmp_path):
        found = server.ensure_server(in_memory=True)
        run_sync(ensure_namespaces(found))
        finance = create_server(
            "finance",
            instructions="Share prices.",
            version="1",
            namespace=get_settings().finance_namespace,
            tools=[Tool.from_function(stock_price)],
        )
        here = asyncio.run(serve_mcp(finance))
        try:
            question = "What's the stock price of AAPL?"
            workshop = Workshop(tmp_path)
            done = workshop("ask", "--loop", "mcp", "--json", question)
        finally:
            here.stop()
    assert json.loads(done.stdout)["reply"], done.stderr
    assert "\x1b" not in done.stdout


NOISE = """
import os, sys
from workshop_lib.__main__ import main
import workshop_lib.lab.doctor.examination as doctor
examine = doctor.examine
async def noisy(**options):
    print("a library prints")
    os.write(1, b"\\x1b[31mits core writes\\x1b[0m\\n")
    os.system("echo its child says")
    return await examine(**options)
doctor.examine = noisy
sys.argv = ["workshop", "doctor", *{arguments!r}]
main()
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_what_others_print_is_for_people(tmp_path: Path, as_json: bool) -> None:
    arguments = ["--json"] if as_json else []
    done = Workshop(tmp_path).run([sys.executable, "-c", NOISE.format(arguments=arguments)])
    for noise in ("a library prints", "its core writes", "its child says"):
        assert (noise in done.stderr) is as_json
    if as_json:
        assert json.loads(done.stdout)


LOUD = """
import asyncio, uuid
from datetime import timedelta
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from workshop_lib.temporal.connect import connect

@activity.defn
async def too_much() -> str:
    return "x" * 3_000_000

@workflow.defn(sandboxed=False)
class TooMuch:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            too_much,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )

async def main():
    client, queue = await connect(), uuid.uuid4().hex
    async with Worker(client, task_queue=queue, workflows=[TooMuch], activities=[too_much]):
        try:
            await client.execute_workflow(TooMuch.run, id=queue, task_queue=queue)
        except Exception:
            print("asked for")

asyncio.run(main())
"""


def test_the_core_of_the_sdk_writes_its_errors_on_stderr(
    temporal_server: str, tmp_path: Path
) -> None:
    done = Workshop(tmp_path).run([sys.executable, "-c", LOUD], TEMPORAL_ADDRESS=temporal_server)
    assert done.stdout == "asked for\n", done.stdout
    assert "payload" in done.stderr
