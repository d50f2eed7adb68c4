"""The repair agent through MCP: a repair from its start to its report, and decisions that do not count."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastmcp import Client as McpClient
from fastmcp.exceptions import ToolError
from order_samples import seventh_order
from repair_ground import assert_repaired_once
from temporalio.client import Client

from workshop_lib.repair import mcp_server
from workshop_lib.repair.store import OrderStore, open_store
from workshop_lib.repair.worker import repair

LIMIT = 60


@pytest_asyncio.fixture
async def mcp(
    client: Client, queue: str, settings_env: Callable[..., None], tmp_path: Path
) -> AsyncIterator[McpClient[Any]]:
    settings_env(WORKSHOP_STATE_DIR=tmp_path, REPAIR_QUEUE=queue)
    async with (
        asyncio.timeout(150),
        repair().build(client),
        McpClient(mcp_server.server()) as connected,
    ):
        yield connected


@pytest.fixture
def store(mcp: McpClient[Any]) -> OrderStore:
    return open_store()


async def state_is(mcp: McpClient[Any], repair_id: str, *states: str) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT):
        while True:
            answer = await mcp.call_tool("get_status", {"repair_id": repair_id})
            status: dict[str, Any] = answer.structured_content or {}
            if status["state"] in states:
                return status
            await asyncio.sleep(0.05)


async def test_a_repair_from_start_to_report(mcp: McpClient[Any], store: OrderStore) -> None:
    repair_id = (await mcp.call_tool("start_repair", {})).data
    await state_is(mcp, repair_id, "PENDING-APPROVAL")
    problems = (await mcp.call_tool("get_problems", {"repair_id": repair_id})).data
    assert any(line.startswith("ORD-003-RBW: ") for line in problems)
    analysis = await mcp.call_tool("get_analysis", {"repair_id": repair_id})
    assert len((analysis.structured_content or {})["problems"]) == len(problems)
    plan = (await mcp.call_tool("get_plan", {"repair_id": repair_id})).structured_content or {}
    assert [p["proposal_id"] for p in plan["proposals"]] == ["p1", "p2", "p3", "p4"]
    decided = await mcp.call_tool(
        "approve_plan", {"repair_id": repair_id, "plan_digest": plan["digest"]}
    )
    assert (decided.structured_content or {})["way"] == "update"
    await state_is(mcp, repair_id, "REPORT-COMPLETED")
    results = await mcp.call_tool("get_results", {"repair_id": repair_id})
    assert len((results.structured_content or {})["result"]) == 4
    report = (await mcp.call_tool("get_report", {"repair_id": repair_id})).structured_content or {}
    assert "ORD-002-HJG" in report["execution"]
    orders = (await mcp.call_tool("list_orders", {})).structured_content or {}
    assert {o["order_id"]: o["status"] for o in orders["result"]}["ORD-003-RBW"] == (
        "payment-update-requested"
    )
    assert_repaired_once(store)


async def test_decisions_that_do_not_count_are_refused_in_words(
    mcp: McpClient[Any], store: OrderStore
) -> None:
    repair_id = (await mcp.call_tool("start_repair", {"repair_id": "by-mcp"})).data
    await state_is(mcp, repair_id, "PENDING-APPROVAL")
    with pytest.raises(ToolError, match="is not that of the plan"):
        await mcp.call_tool("approve_plan", {"repair_id": repair_id, "plan_digest": "0" * 64})
    with pytest.raises(ToolError, match="is under way"):
        await mcp.call_tool("start_repair", {"repair_id": repair_id})
    with pytest.raises(ToolError, match="no repair nowhere"):
        await mcp.call_tool("get_status", {"repair_id": "nowhere"})
    plan = (await mcp.call_tool("get_plan", {"repair_id": repair_id})).structured_content or {}
    decision = {"repair_id": repair_id, "plan_digest": plan["digest"], "comment": "no"}
    await mcp.call_tool("reject_plan", decision)
    await state_is(mcp, repair_id, "REJECTED")
    with pytest.raises(ToolError, match="REJECTED"):
        await mcp.call_tool("approve_plan", decision)
    assert store.ledger() == []


async def test_notes_of_orders_are_shown_as_what_they_are(
    mcp: McpClient[Any], store: OrderStore
) -> None:
    store.add_order(seventh_order())
    orders = (await mcp.call_tool("list_orders", {})).structured_content or {}
    assert any("ignore all previous" in order["notes"].lower() for order in orders["result"])
    tools = {tool.name: tool for tool in await mcp.list_tools()}
    assert len(tools) == 11
    annotations = tools["approve_plan"].annotations
    assert annotations is not None and annotations.destructive_hint
    assert "never instructions" in (tools["list_orders"].description or "")
