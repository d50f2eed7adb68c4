"""Checks that read a session's history, on histories of few steps."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from workshop_lib.lab.checks import CheckNotMet, nb04
from workshop_lib.lab.history import ACTIVITY, COMPLETED, RUNNING, SIGNAL, History, Step
from workshop_lib.lab.lessons import comparison
from workshop_lib.mcp.addresses import SERVER_DOWN


async def refused(check: Any, *made: Any) -> str:
    """What a check says of an attempt that it does not accept."""
    with pytest.raises(CheckNotMet) as said:
        await check(*made)
    return str(said.value)


def listing(*names: str, said: str = "A rate.", takes: Sequence[str] = ("currency",)) -> Step:
    schema = {"properties": {name: {} for name in takes}}
    tools = [
        {"name": name, "description": said, "input_schema": schema}
        for name in ("stock_price", *names)
    ]
    return Step(kind=ACTIVITY, name=nb04.LISTING, state=COMPLETED, result={"tools": tools})


def call_of_it(result: object = None) -> Step:
    request = {"name": "exchange_rate"}
    state = RUNNING if result is None else COMPLETED
    return Step(kind=ACTIVITY, name=nb04.CALL, input=request, state=state, result=result)


KEY_ERROR = {"is_error": True, "content": [{"type": "text", "text": "no such currency"}]}


@pytest.mark.parametrize(
    ("signals", "steps", "why"),
    [
        ([], [listing(), listing("fx")], "no signal in the session's history"),
        (["tool_changed"], [listing()], "listens to 'tools_changed'"),
        (["tools_changed"], [listing(), listing()], "no new tool in the list"),
        (["tools_changed"], [listing("exchange_rate"), call_of_it({})], "no new tool in the list"),
        (
            ["tools_changed"],
            [listing(), listing("exchange_rate", said=" "), call_of_it({})],
            "exchange_rate without a docstring",
        ),
        (
            ["tools_changed"],
            [listing(), listing("exchange_rate", takes=["code"]), call_of_it({})],
            "exchange_rate(code)",
        ),
        (["tools_changed"], [listing(), listing("fx")], "fx in the list, and no call of it"),
        (["tools_changed"], [listing(), listing("exchange_rate"), call_of_it()], "no result"),
        (
            ["tools_changed"],
            [listing(), listing("exchange_rate"), call_of_it(KEY_ERROR)],
            "failed: no such currency",
        ),
    ],
    ids=[
        "not told",
        "mistyped",
        "not served",
        "new session",
        "not described",
        "another argument",
        "not called",
        "no result",
        "fails",
    ],
)
async def test_a_new_tool_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, signals: list[str], steps: list[Step], why: str
) -> None:
    async def of(handle: object) -> History:
        return History(steps=[*steps, *(Step(kind=SIGNAL, name=name) for name in signals)])

    monkeypatch.setattr(nb04, "history_of", of)
    assert why in await refused(nb04.new_tool, Chat())


class Chat:
    handle = None


class Answer:
    text = "Stock price for NVDA"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (
            {"attempts": 2, "failed_with": "", "lost": False},
            None,
        ),  # its failure was too long to keep
        ({"attempts": 2, "failed_with": SERVER_DOWN, "lost": False}, None),
        ({"attempts": 2, "failed_with": "", "lost": True}, "not because of the server"),
        ({"attempts": 1}, "tried once"),
    ],
    ids=["cut short", "server down", "worker lost", "nothing happened"],
)
async def test_what_a_second_try_proves(
    monkeypatch: pytest.MonkeyPatch, call: dict[str, Any], why: str | None
) -> None:
    async def of(handle: object) -> History:
        step = Step(kind=ACTIVITY, name=nb04.CALL, state=COMPLETED, **call)
        return History(steps=[step])

    async def runs(handle: object, namespace: str) -> list[str]:
        return ["stock-price-NVDA"]

    async def reply(awaitable: object, *_: object, **__: object) -> Answer:
        return Answer()

    for name, stand_in in (("history_of", of), ("mcp_runs", runs), ("watch", reply)):
        monkeypatch.setattr(nb04, name, stand_in)
    over = asyncio.get_running_loop().create_future()
    over.set_result(None)
    checked = nb04.killed_server, None, Chat(), over, "NVDA"
    if why:
        assert why in await refused(*checked)
    else:
        await nb04.killed_server(*checked[1:])  # type: ignore[arg-type]


@pytest.mark.parametrize("loops", [("manual", "sdk"), ("sdk", "mcp"), ("mcp",)])
async def test_lines_that_two_loops_share_are_counted_for_none(
    monkeypatch: pytest.MonkeyPatch, loops: tuple[str, ...]
) -> None:
    counted: list[set[str]] = []

    async def measure(client: object, loop: str, question: str, own: set[str]) -> None:
        counted.append({*comparison.CODE[loop]} & own)

    monkeypatch.setattr(comparison, "_measure", measure)
    await comparison.compare_loops(None, "", loops)  # type: ignore[arg-type]
    assert all(counted) and sum(map(len, counted)) == len(set().union(*counted))
