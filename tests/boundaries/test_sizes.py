"""Whatever enters is bounded where it enters: results of tools, of teams and of MCP servers, whole shops."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastmcp.tools import Tool
from fastmcp.tools.base import ToolResult
from foreign_servers import called, foreign, servers
from mcp.types import EmbeddedResource, ImageContent, TextContent, TextResourceContents
from openai_server import OpenAIServer, Raw, calling, says, scripted_model
from pydantic import BaseModel
from repair_ground import RIGHT, TODAY, ledger_of
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import ActivityEnvironment

from workshop_lib.agents import local_tools
from workshop_lib.agents.chat import ChatStart, Reply
from workshop_lib.agents.conversation.policy import ContextPolicy
from workshop_lib.agents.local_tools import LocalTool
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.streaming import stream_reply
from workshop_lib.agents.toolbox import Toolbox
from workshop_lib.llm.messages import Message, ToolCall, ToolSpec
from workshop_lib.llm.tools import readable_schema
from workshop_lib.repair import pages
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.models import Snapshot
from workshop_lib.repair.states import State
from workshop_lib.repair.store import open_store
from workshop_lib.repair.tools import LookRequest, look_at_orders
from workshop_lib.repair.worker import repair as repair_spec
from workshop_lib.temporal.bounded import MAX_PAYLOAD, MAX_RESULT, as_text
from workshop_lib.temporal.worker import WorkerSpec

MB = 1_000_000
LIMIT = timedelta(seconds=90)
SettingsEnv = Callable[..., None]


DONE = says("Done.")


@pytest.fixture
def model(settings_env: SettingsEnv) -> Iterator[OpenAIServer]:
    with scripted_model(settings_env, DONE) as server:
        yield server


# --- local tools -------------------------------------------------------------------------------------


class Shape(BaseModel):
    """What a tool returns."""

    kind: str


LARGE: dict[str, Any] = {
    "text": "x" * 3 * MB,
    "list": [{"type": "text", "text": "x" * MB}] * 3,
    "object": {str(n): "ü" * 1000 for n in range(3000)},
    "model": Shape(kind="x" * 3 * MB),
    "bytes": b"\xff" * 3 * MB,
    "half": "\ud800" * 10,
    "none": None,
    "endless": (lambda found: found.append(found) or found)([]),  # type: ignore[func-returns-value]
}
made: list[str] = []


def large(args: Shape) -> Any:
    """Return something large."""
    made.append(args.kind)
    return LARGE[args.kind]


@pytest.mark.parametrize("loop", ["manual", "sdk"])
async def test_a_large_result_of_any_shape_is_made_once_and_cut(
    client: Client,
    worker: WorkerSpec,
    model: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    loop: str,
) -> None:
    monkeypatch.setitem(local_tools.LOCAL_TOOLS, "large", LocalTool(large, Shape))
    chat = ChatClient(client, loop, task_queue=worker.task_queue)
    made.clear()
    for kind in LARGE:
        model.script = [calling(("large", {"kind": kind})), DONE]
        reply = await chat.send(f"Give me {kind}", timeout=LIMIT)
        assert reply.text == "Done." and reply.tool_calls == ["large"], kind
        assert len(model.requests[-1]["messages"][-1]["content"]) < 2_100
    # Two in one answer, and still the chat goes on.
    model.script = [calling(("large", {"kind": "text"}), ("large", {"kind": "list"})), DONE]
    assert (await chat.send("Give me both", timeout=LIMIT)).text == "Done."
    assert sorted(made) == sorted([*LARGE, "text", "list"])


@activity.defn
async def too_large() -> str:
    """Return more than the server takes."""
    made.append("too large")
    return "x" * (MAX_PAYLOAD + 1)


@workflow.defn(sandboxed=False)
class AsksForTooMuch:
    """Runs an activity whose result cannot be recorded."""

    @workflow.run
    async def run(self) -> str:
        """Run it without a bound of attempts."""
        return await workflow.execute_activity(
            too_large, start_to_close_timeout=timedelta(seconds=30)
        )


async def test_what_the_server_would_refuse_is_not_tried_again(client: Client, queue: str) -> None:
    spec = WorkerSpec(
        name="large",
        namespace="default",
        task_queue=queue,
        workflows=[AsksForTooMuch],
        activities=[too_large],
    )
    made.clear()
    async with asyncio.timeout(60), spec.build(client):
        with pytest.raises(WorkflowFailureError) as failed:
            await client.execute_workflow(AsksForTooMuch.run, id=f"large-{queue}", task_queue=queue)
    cause = failed.value.cause
    assert isinstance(cause, ActivityError) and isinstance(cause.cause, ApplicationError)
    assert "2,000,000 is the most" in str(cause.cause) and cause.cause.type == "ResultTooLarge"
    assert made == ["too large"]


async def test_a_long_reply_streams_to_its_end(
    client: Client, worker: WorkerSpec, model: OpenAIServer
) -> None:
    words = [f"w{n} " for n in range(9_000)]
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    model.script = [Raw(None, [*chunks, end])]
    chat = ChatClient(client, "sdk", task_queue=worker.task_queue, start=ChatStart(stream=True))
    *texts, reply = [p async for p in stream_reply(client, chat, "Hello", timeout=LIMIT)]
    assert isinstance(reply, Reply) and reply.text == "".join(words)
    assert "".join(map(str, texts)).endswith(reply.text)
    # A word without end is said as such, and not paid for again and again.
    model.script = [Raw(None, [chunks[0]] * 500)]
    asked = len(model.questions)
    assert "repeats one word" in (await chat.send("And now?", timeout=LIMIT)).text
    assert len(model.questions) == asked + 1


def test_a_window_fits_whatever_stands_in_it() -> None:
    policy = ContextPolicy()
    wide = [ToolCall(id=f"c{n}", name="t", arguments="x" * 50_000) for n in range(30)]
    said: list[Message] = [Message.user("ü" * 20_000), Message.assistant("\0" * 100_000)] * 8
    turn = [
        Message.user("Hello"),
        Message(role="assistant", tool_calls=wide, extras={"t": "y" * MB}),
    ]
    results = [Message.tool_result(one, "r" * MB) for one in wide]
    _, sent = policy.select("Be brief.", [*said, *turn, *results])
    assert len(json.dumps([m.model_dump() for m in sent], ensure_ascii=False).encode()) < 600_000
    assert [c.id for m in sent for c in m.tool_calls] == [c.id for c in wide]

    items: list[Any] = [{"role": "user", "content": "Hello"}]
    parts = [{"type": "text", "text": "x" * MB}, {"type": "image", "image_url": "y" * MB}]
    for n in range(20):
        items.append({"type": "function_call", "call_id": f"c{n}", "arguments": "z" * 50_000})
        items.append({"type": "function_call_output", "call_id": f"c{n}", "output": parts})
    _, kept = policy.select("Be brief.", items)
    assert len(json.dumps(kept)) < 600_000
    assert all(len(item["output"]) < 2_100 for item in kept if "output" in item)


def test_a_small_window_is_left_as_it_is() -> None:
    said = [Message.user("Hello"), Message.assistant("x" * 50_000), Message.user("Bye")]
    assert ContextPolicy().select("Be brief.", said) == ("Be brief.", said)


# --- MCP ---------------------------------------------------------------------------------------------


async def test_a_large_result_over_mcp_is_made_once_and_cut(
    client: Client, worker: WorkerSpec, model: OpenAIServer, settings_env: SettingsEnv
) -> None:
    text = TextContent(type="text", text="x" * 1_500_000)
    resource = TextResourceContents(uri="file:///x", text="y" * 3 * MB)
    shapes = {
        "text": text,
        "list": [text, text],
        "structured": ToolResult(structured_content={str(n): "z" * 100 for n in range(30_000)}),
        "image": ImageContent(type="image", data="A" * 2 * MB, mimeType="image/png"),
        "small_image": [ImageContent(type="image", data="AAAA", mimeType="image/png"), text],
        "file": EmbeddedResource(type="resource", resource=resource),
    }
    tools: list[Tool] = [foreign(name, answer) for name, answer in shapes.items()]
    chat = ChatClient(client, "mcp", task_queue=worker.task_queue)
    called.clear()
    async with servers(settings_env, tools, []):
        for name in shapes:
            model.script = [calling((name, {})), DONE]
            reply = await chat.send(f"Give me {name}", timeout=LIMIT)
            assert reply.text == "Done." and reply.tool_calls == [name], reply
            told = model.requests[-1]["messages"][-1]["content"]
            assert isinstance(told, str) and 10 < len(told) < 2_100
        model.script = [calling(("text", {}), ("list", {})), DONE]
        assert (await chat.send("Give me both", timeout=LIMIT)).text == "Done."
    assert called == [*shapes, "text", "list"]
    size = sum(event.ByteSize() for event in (await chat.handle.fetch_history()).events)
    assert size < MB


async def test_one_name_on_two_servers_and_schemas_that_cannot_be_read(
    client: Client, worker: WorkerSpec, model: OpenAIServer, settings_env: SettingsEnv
) -> None:
    odd: list[Tool] = [
        foreign("anything", schema={"type": "object", "properties": {"x": True}}),
        foreign("dotted.name", schema={"type": "object", "properties": {"x": {}}}),
        foreign(
            "huge", schema={"type": "object", "properties": {f"p{n}": {} for n in range(9999)}}
        ),
    ]
    chat = ChatClient(client, "mcp", task_queue=worker.task_queue)
    called.clear()
    async with servers(
        settings_env,
        [foreign("price", "from it"), foreign("weather", "theirs"), *odd],
        [foreign("price", "from finance")],
    ):
        model.script = [calling(("finance_price", {})), DONE]
        reply = await chat.send("What does it cost?", timeout=LIMIT)
    assert reply.text == "Done." and not reply.failed
    assert "from finance" in model.requests[-1]["messages"][-1]["content"]
    names = sorted(tool["function"]["name"] for tool in model.requests[0]["tools"])
    assert names == sorted(
        ["price", "finance_price", "it_weather", "weather", "calculator", "anything", "dotted_name"]
    )


def test_of_two_tools_with_one_name_the_second_gets_its_owner_s_in_front() -> None:
    def tool(name: str, owner: str = "", schema: Any = None) -> Any:
        made = LocalTool(large, Shape)
        spec = ToolSpec(name=name, description="", parameters=schema or {"type": "object"})
        return type("Made", (), {"spec": spec, "owner": owner, "call": made.run})()

    box = Toolbox(
        [
            tool("price"),
            tool("price", "it"),
            tool("price", "it"),
            tool("odd", schema={"required": 5}),
        ]
    )
    assert [spec.name for spec in box.specs] == ["price", "it_price", "it_price_2"]
    for odd in (True, None, [], {"type": "array"}, {"properties": ["x"]}, {"properties": {"x": 5}}):
        assert not readable_schema(odd)
    assert readable_schema({}) and readable_schema({"type": "object", "properties": {"x": True}})


# --- a large shop ------------------------------------------------------------------------------------


def a_large_shop(count: int) -> Snapshot:
    snapshot = open_store().snapshot(TODAY)
    healthy = snapshot.orders[0]
    more = [healthy.model_copy(update={"order_id": f"ORD-X{n:05}"}) for n in range(count)]
    return snapshot.model_copy(update={"orders": [*snapshot.orders, *more]})


@pytest.fixture
def state(settings_env: SettingsEnv, tmp_path: Path) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)


async def test_four_thousand_orders_are_looked_at_in_pages(
    state: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = a_large_shop(4_200)
    monkeypatch.setattr(type(open_store()), "snapshot", lambda self, today: shop)
    seen: list[str] = []
    after: str | None = None
    while not seen or after:
        page = await ActivityEnvironment().run(
            look_at_orders, LookRequest(today=TODAY, after=after)
        )
        assert len(page.model_dump_json()) < MAX_PAYLOAD / 2
        seen += [order.order_id for order in page.orders]
        after = page.more_after
    assert seen == sorted(order.order_id for order in shop.orders)


async def test_a_shop_in_pages_is_repaired_like_one_that_fits(
    client: Client, queue: str, state: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_ORDERS", 4)
    store = open_store()
    spec = repair_spec().with_queue(queue)
    async with asyncio.timeout(120), spec.build(client):
        repair = await RepairClient.start(client, task_queue=queue, auto_approve=True)
        assert (await repair.outcome()).state is State.COMPLETED
        again = await RepairClient.start(client, task_queue=queue, auto_approve=True)
        assert (await again.outcome()).state is State.NO_REPAIR_NEEDED
    assert ledger_of(store) == sorted(RIGHT)


def test_a_small_shop_is_one_snapshot_with_the_digest_that_it_had(state: None) -> None:
    snapshot = open_store().snapshot(TODAY)
    assert pages.page_of(snapshot, None) is snapshot
    assert "more_after" not in repr(snapshot.digest)
    assert snapshot.model_copy(update={"more_after": "x"}).digest == snapshot.digest


def test_text_of_anything_is_bounded_text() -> None:
    for value in [*LARGE.values(), 5, float("nan"), object(), {1: {2}}, "😀" * MAX_RESULT]:
        text = as_text(value)
        text.encode()
        assert len(text) < MAX_RESULT + 100
