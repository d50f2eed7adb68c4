"""The offline model's planned failures: repeatable, raised as a provider's own, and survivable."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamed import stream

from workshop_lib.errors import WorkshopError
from workshop_lib.llm.gateway import ModelRefused, ModelUnavailable, complete
from workshop_lib.llm.messages import Message, ToolCall, ToolSpec
from workshop_lib.llm.offline import faults
from workshop_lib.llm.offline.faults import KINDS, next_fault, parse_plan
from workshop_lib.settings import reload_settings

CALCULATOR = ToolSpec(
    name="calculator",
    description="Evaluate an arithmetic expression.",
    parameters={
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
)
QUESTION = [Message.user("What is 6 * 7?")]

Plan = Callable[[str], None]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Plan]:
    """Puts a plan in force, counted from nothing."""
    monkeypatch.setenv("WORKSHOP_ENV_FILE", str(tmp_path / "no.env"))
    monkeypatch.setenv("WORKSHOP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LLM_MODEL", "offline")
    monkeypatch.delenv("OFFLINE_LATENCY_MS", raising=False)

    def put(text: str) -> None:
        monkeypatch.setenv("OFFLINE_FAULTS", text)
        reload_settings()
        faults.restart()

    yield put
    monkeypatch.undo()
    reload_settings()
    faults.restart()


async def outcome() -> str:
    """What one request comes to."""
    try:
        await complete(QUESTION, [CALCULATOR])
    except ModelUnavailable as error:
        return "rate_limit" if error.retry_after else "unavailable"
    return "ok"


async def test_three_failures_then_an_answer(plan: Plan) -> None:
    plan("sequence=server_error*3,ok")
    assert [await outcome() for _ in range(5)] == ["unavailable"] * 3 + ["ok", "ok"]


async def test_each_kind_arrives_as_a_provider_s_own_error(plan: Plan) -> None:
    plan("sequence=rate_limit,server_error,timeout")
    with pytest.raises(ModelUnavailable, match="429") as caught:
        await complete(QUESTION)
    assert caught.value.retry_after == 1.0
    with pytest.raises(ModelUnavailable, match="500"):
        [piece async for piece in stream(QUESTION)]
    with pytest.raises(ModelUnavailable, match="in time"):
        await complete(QUESTION)


async def test_shares_are_repeatable_and_do_not_depend_on_order(plan: Plan) -> None:
    text = "seed=7,rate_limit=0.2,server_error=0.1,timeout=0.05,cut_json=0.1,unknown_tool=0.05"
    requests = [f"request {n}" for n in range(400)]
    plan(text)
    first = {request: [next_fault(request), next_fault(request)] for request in requests}
    faults.restart()
    again = {request: [next_fault(request), next_fault(request)] for request in reversed(requests)}
    assert again == first
    shares = Counter(kinds[0] for kinds in first.values())
    assert 50 <= shares["rate_limit"] <= 110 and 20 <= shares["server_error"] <= 65
    assert shares[None] > 150
    assert any(kinds[0] != kinds[1] for kinds in first.values())  # a retry draws anew
    plan(text.replace("seed=7", "seed=8"))
    assert {request: next_fault(request) for request in requests} != {
        request: kinds[0] for request, kinds in first.items()
    }


@pytest.mark.parametrize("fault", ["cut_json", "unknown_tool", "wrong_argument"])
async def test_a_spoiled_tool_call_is_mended_when_the_loop_says_what_is_wrong(
    plan: Plan, fault: str
) -> None:
    plan(f"sequence={fault}")
    first = await complete(QUESTION, [CALCULATOR])
    (call,) = first.message.tool_calls
    assert is_spoiled(call)
    messages = [*QUESTION, first.message, Message.tool_result(call, "Error: that call was wrong")]
    second = await complete(messages, [CALCULATOR])
    (mended,) = second.message.tool_calls
    assert not is_spoiled(mended) and mended.id != call.id
    messages += [second.message, Message.tool_result(mended, "42")]
    assert (await complete(messages, [CALCULATOR])).message.content == "6 * 7 = 42."


async def test_gullible_changes_nothing_where_no_order_gives_orders(plan: Plan) -> None:
    plan("")
    honest = await complete(QUESTION, [CALCULATOR])
    plan("gullible=1")
    assert await complete(QUESTION, [CALCULATOR]) == honest


async def test_a_model_that_always_writes_nonsense_gives_up_politely(plan: Plan) -> None:
    plan("unknown_tool=1.0")
    messages = list(QUESTION)
    for _ in range(10):
        completion = await complete(messages, [CALCULATOR])
        if not completion.message.tool_calls:
            break
        messages.append(completion.message)
        messages += [
            Message.tool_result(call, f"Error: there is no tool {call.name}")
            for call in completion.message.tool_calls
        ]
    assert "gave up" in (completion.message.content or "")
    assert "there is no tool" in (completion.message.content or "")


def is_spoiled(call: ToolCall) -> bool:
    """True unless the call is the right one."""
    try:
        return (call.name, json.loads(call.arguments)) != ("calculator", {"expression": "6 * 7"})
    except ValueError:
        return True


async def test_text_answers_are_not_spoiled(plan: Plan) -> None:
    plan("cut_json=1.0")
    assert "rules" in ((await complete([Message.user("who are you?")])).message.content or "")


def test_a_counter_file_counts_across_processes(plan: Plan) -> None:
    plan("sequence=server_error*3,ok,counter=demo")
    code = "from workshop_lib.llm.offline.faults import next_fault; print(next_fault('x'))"
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [done.stdout.strip() for done in said] == ["server_error"] * 2
    assert [next_fault("x"), next_fault("x")] == ["server_error", None]
    faults.restart()
    assert next_fault("x") == "server_error"


@pytest.mark.parametrize(
    "text",
    [
        "bad",
        "seed=many",
        "rate_limit=2",
        "rate_limit=-0.1",
        "rate_limit=lots",
        "rate_limit=0.6,timeout=0.6",
        "sequence=explode",
        "sequence=ok*x",
        "sequence=ok*9999",
        "sequence=ok,rate_limit=0.1",
        "ok,sequence=ok",
        "rate_limit=0.1,ok",
        "counter=demo,rate_limit=0.1",
        "sequence=ok,counter=../etc/passwd",
        "frequency=1",
    ],
)
async def test_a_bad_plan_is_an_error_a_person_can_act_on(plan: Plan, text: str) -> None:
    with pytest.raises(WorkshopError, match="OFFLINE_FAULTS") as caught:
        parse_plan(text)
    assert caught.value.fix and all(kind in str(caught.value.expected) for kind in KINDS)


async def test_a_bad_plan_refuses_the_call(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE_FAULTS", "rate_limit=lots")
    reload_settings()
    with pytest.raises(ModelRefused, match="the share of rate_limit is 'lots'"):
        await complete(QUESTION)
    monkeypatch.delenv("OFFLINE_FAULTS")
    reload_settings()


@pytest.mark.parametrize("text", ["", " ", "seed=3", "rate_limit=0"])
def test_plans_in_which_nothing_fails(plan: Plan, text: str) -> None:
    plan(text)
    assert [next_fault(str(n)) for n in range(20)] == [None] * 20


async def test_a_slow_model_is_slow_and_runs_into_the_time_limit(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFLINE_LATENCY_MS", "60000")
    plan("")
    with pytest.raises(ModelUnavailable, match="in time"):
        await complete(QUESTION, timeout=0.1)
    with pytest.raises(TimeoutError):  # many words: pieces are spread over the time
        async with asyncio.timeout(0.2):
            [piece async for piece in stream([Message.user("who are you?")])]
