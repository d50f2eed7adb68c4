"""Large results: kept whole, shown in part, read on by reference, and by nobody else."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from openai_server import OpenAIServer, calling, says, scripted_model
from pydantic import BaseModel
from report_chat import REPORT, ReportChat
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from workshop_lib.agents.conversation import results
from workshop_lib.agents.conversation.results import (
    PART,
    REFERENCE,
    SHOWN,
    ReadResultInput,
    delete_results,
    keep_result,
    read_result,
)
from workshop_lib.agents.local_tools import LOCAL_TOOLS, LocalTool, ToolRequest, execute_tool
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.llm.tools import ToolInputError
from workshop_lib.settings import get_settings
from workshop_lib.temporal.caller import Asker, asked_by
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
SettingsEnv = Callable[..., None]


class ReportInput(BaseModel):
    """Arguments of the report."""


def long_report(args: ReportInput) -> str:
    """Write the yearly report."""
    return REPORT


@pytest.fixture(autouse=True)
def reporting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local tool whose result is large."""
    monkeypatch.setitem(LOCAL_TOOLS, "long_report", LocalTool(long_report, ReportInput))


@pytest.fixture
def model(settings_env: SettingsEnv) -> Iterator[OpenAIServer]:
    with scripted_model(settings_env, says("ok")) as server:
        yield server


def environment(session: str = "chat-1", call: str = "1") -> ActivityEnvironment:
    env = ActivityEnvironment()
    info = ActivityEnvironment.default_info()
    env.info = type(info)(**(vars(info) | {"workflow_id": session, "activity_id": call}))
    return env


def kept_as(text: str, **where: str) -> str:
    shown = asyncio.run(environment(**where).run(keep_result, text))
    found = REFERENCE.search(shown)
    assert found and len(shown) <= SHOWN
    return found[1]


def read(reference: str, part: int, session: str = "chat-1") -> str:
    asked = ReadResultInput(ref=reference, part=part)
    text: str = environment(session).run(read_result, asked)
    return text


def test_a_result_is_kept_once_and_read_part_by_part() -> None:
    reference = kept_as(REPORT)
    assert kept_as(REPORT) == reference != kept_as(REPORT, call="2")
    parts = -(-len(REPORT) // PART)
    shown = [read(reference, part) for part in range(1, parts + 1)]
    assert all(len(text) <= SHOWN and f"of {parts} of result {reference}" in text for text in shown)
    assert "".join(text.split("\n", 1)[1] for text in shown) == REPORT
    assert (get_settings().state_dir / results.FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("part", [0, -1, 99])
def test_a_part_that_is_none_gets_a_sentence(part: int) -> None:
    reference = kept_as(REPORT)
    with pytest.raises(ToolInputError, match=rf"has the parts 1 to \d+, and no part {part}"):
        read(reference, part)


def test_a_reference_of_another_session_or_person_is_refused_like_an_unknown_one() -> None:
    mine = kept_as(REPORT)
    with asked_by(Asker("ada")):
        adas = kept_as("a" * 5_000, call="3")
        assert "aaa" in read(adas, 2)

    def refusal(reference: str, session: str = "chat-1") -> str:
        with pytest.raises(ToolInputError) as error:
            read(reference, 1, session)
        return str(error.value).replace(reference, "…")

    unknown = refusal("r-000000000000")
    assert refusal(mine, "chat-2") == refusal("r-%") == refusal(adas) == unknown
    for who in (Asker("bob"), Asker("")):
        with asked_by(who):
            assert refusal(adas) == unknown


def test_what_a_session_has_kept_is_deleted_with_it() -> None:
    here, there = kept_as(REPORT, session="chat-3"), kept_as(REPORT, session="chat-4")
    assert delete_results("chat-3") == 1 and delete_results("chat-3") == 0
    with pytest.raises(ToolInputError):
        read(here, 1, "chat-3")
    assert read(there, 1, "chat-4")


def test_a_store_that_cannot_be_written_costs_the_rest_and_not_the_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(results, "FILE", "no-folder/results.db")
    shown = asyncio.run(environment().run(keep_result, REPORT))
    assert shown.startswith("line-0 line-1") and "characters left out" in shown
    assert not REFERENCE.search(shown)


@pytest.mark.parametrize("loop", ["manual", "sdk", "mcp"])
async def test_a_model_reads_on_and_the_whole_is_in_no_history(
    client: Client, worker: WorkerSpec, model: OpenAIServer, loop: str
) -> None:
    chat = ChatClient(client, loop, task_queue=worker.task_queue)
    model.script = [calling(("long_report", {})), says("There is more.")]
    assert (await chat.send("The report, please", timeout=LIMIT)).text.startswith("There is more.")
    offered = [[tool["function"]["name"] for tool in one["tools"]] for one in model.questions]
    assert "read_result" not in offered[0] and "read_result" in offered[1]
    shown = model.questions[-1]["messages"][-1]["content"]
    found = REFERENCE.search(shown)
    assert found and "line-10 " in shown and "line-1999" not in shown
    last = -(-len(REPORT) // PART)
    model.script = [
        calling(("read_result", {"ref": found[1], "part": last})),
        calling(("read_result", {"ref": found[1], "part": 99})),
        calling(("read_result", {"ref": "r-000000000000", "part": 1})),
        says("Done."),
    ]
    assert (await chat.send("And its end?", timeout=LIMIT)).text.startswith("Done.")
    told = [m["content"] for m in model.questions[-1]["messages"] if m["role"] == "tool"][-3:]
    assert told[0].endswith("line-1999")
    assert "no part 99" in told[1] and "no result 'r-000000000000'" in told[2]
    history = (await chat.handle.fetch_history()).to_json()
    assert len(history) < 200_000
    events = (await chat.handle.fetch_history()).events
    assert not any("line-1000 " in str(event) for event in events)
    assert delete_results(chat.workflow_id) == 1


async def test_a_result_is_kept_by_the_activity_that_brings_it() -> None:
    shown = await environment("chat-5").run(
        execute_tool, ToolRequest(name="long_report", arguments={})
    )
    assert REFERENCE.search(shown) and len(shown) <= SHOWN
    assert json.dumps(shown) and re.match(r"\(Part 1 of \d+ of result", shown)


async def test_a_large_result_of_another_team_is_kept_when_it_has_come(
    client: Client, spec: WorkerSpec, model: OpenAIServer
) -> None:
    """And where it cannot be kept, the turn goes on with its beginning."""
    for served in (True, False):
        names = [one for one in spec.activities if served or one is not keep_result]
        chat = ChatClient(client, task_queue=f"{spec.task_queue}-{served}")
        there = replace(
            spec, task_queue=f"{spec.task_queue}-{served}", workflows=[ReportChat], activities=names
        )
        model.script = [calling(("team_report", {})), says("Done.")]
        async with there.build(client):
            assert (await chat.send(f"The report, {served}", timeout=LIMIT)).text == "Done."
        shown = model.questions[-1]["messages"][-1]["content"]
        assert bool(REFERENCE.search(shown)) == served and len(shown) <= SHOWN + 50
