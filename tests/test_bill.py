"""The bill: the same conversation, killed at the same call, without durability and with it."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from temporalio.client import Client

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.lessons.bill import run_durable, show_bill
from workshop_lib.lab.lessons.naked import run_naked

TALK = [
    "What is 125 * 8?",
    "And the weather in Seattle?",
    "And in Portland?",
    "What did I ask first?",
]
ANSWERS = ["125 * 8 = 1000.", "Seattle: 14 °C", "Portland: 17 °C", "What is 125 * 8?"]
CALLS = 7  # two for each question that needs a tool, one for the last


def assert_answered(replies: list[str], count: int = len(TALK)) -> None:
    assert len(replies) == count
    for answer, reply in zip(ANSWERS, replies, strict=False):
        assert answer in reply


def rows_of(table: Table) -> dict[str, list[str]]:
    """The table as a terminal shows it: what stands before a row, and its cells."""
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(table)
    lines = [line.strip("│┃ ").split("│") for line in console.export_text().splitlines()]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines if cells}


async def test_what_a_kill_costs_with_and_without_durability(client: Client) -> None:
    died = await run_naked(TALK, kill_at_call=6)
    assert died.killed
    assert_answered(died.replies, 2)
    assert (died.model_calls, died.tool_runs) == (6, 3)

    again = await run_naked(TALK)
    assert not again.killed
    assert_answered(again.replies)
    assert (again.model_calls, again.tool_runs) == (CALLS, 3)

    durable = await run_durable(client, TALK, kill_at_call=6)
    assert_answered(durable.replies)
    assert durable.kills == 1
    # The call that was under way is paid for again, unless the kill came before it went out.
    assert CALLS <= durable.model_calls <= CALLS + 1
    assert durable.model_calls < died.model_calls + again.model_calls
    assert durable.tool_runs == 3 < died.tool_runs + again.tool_runs
    assert durable.replies == again.replies

    rows = rows_of(show_bill([died, again], durable))
    assert rows["model calls paid"] == ["13", str(durable.model_calls)]
    assert rows["tools run"] == ["6", "3"]
    assert rows["replies in the end"] == ["4", "4"]
    assert rows["starts from the first message"] == ["2", "1"]


async def test_a_durable_conversation_without_a_kill_pays_for_every_call_once(
    client: Client,
) -> None:
    durable = await run_durable(client, TALK[:1], kill_at_call=5)  # it has two calls only
    assert_answered(durable.replies, 1)
    assert (durable.kills, durable.model_calls, durable.tool_runs) == (0, 2, 1)


async def test_a_bill_of_a_conversation_that_only_died_has_no_replies(client: Client) -> None:
    died = await run_naked(TALK[:1], kill_at_call=1)
    assert died.killed and died.replies == []
    durable = await run_durable(client, TALK[:1])
    assert rows_of(show_bill([died], durable))["replies in the end"] == ["0", "1"]


async def test_a_message_may_begin_with_a_dash() -> None:
    run = await run_naked(["-5 + 8", "--help"])
    assert not run.killed
    assert len(run.replies) == 2 and "= 3" in run.replies[0]


async def test_a_conversation_that_fails_by_itself_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OFFLINE_FAULTS", "sequence=server_error")
    with pytest.raises(WorkshopError, match="ended with status 1"):
        await run_naked(["What is 125 * 8?"])
    with pytest.raises(WorkshopError, match="needs a message"):
        await run_naked([])


async def test_a_conversation_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE_LATENCY_MS", "60000")
    with pytest.raises(WorkshopError, match="not over after 1 s"):
        await run_naked(["What is 125 * 8?"], timeout=1)
