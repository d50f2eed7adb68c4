"""Chats and repairs of yesterday go on with today's code: their recorded histories replay.

If one does not, runs that are under way at the moment of an update would hang. `tools/record_histories.py`
says what to do then. The histories hold the conversation of that script, ended in good order, a repair that
is approved in part, and two days of a proactive agent.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import record_histories
from record_histories import (
    CHANGED,
    CHATS,
    CONVERSATION,
    FOLDER,
    IDENTITY,
    PROJECT_ROOT,
    RECORDINGS,
    STATE,
)
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from workshop_lib.agents.worker import orchestrator
from workshop_lib.lab.lessons.replay_matrix import replay_matrix
from workshop_lib.repair.worker import repair
from workshop_lib.temporal.failures import DATA_CONVERTER
from workshop_lib.temporal.worker import WorkerSpec

WORKERS = (orchestrator(), repair())
ADVICE = "See what tools/record_histories.py says, and record anew: " + record_histories.COMMAND
EVENT = "EVENT_TYPE_"


def recorded(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text(encoding="utf-8")


def events_of(name: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(recorded(name))["events"]
    return events


def started(name: str) -> dict[str, Any]:
    """What a recorded run was started with."""
    attributes: dict[str, Any] = events_of(name)[0]["workflowExecutionStartedEventAttributes"]
    return attributes


def type_of(name: str) -> str:
    """The workflow type of a recording."""
    return str(started(name)["workflowType"]["name"])


def worker_of(kind: str) -> WorkerSpec:
    """The worker that serves a workflow type."""
    [spec] = [spec for spec in WORKERS if kind in spec.workflow_names]
    return spec


async def replay(name: str, workflow: type | None = None) -> None:
    """Replay a recording as its worker would, or with another workflow. Raises what the replay raises."""
    kind = type_of(name)
    spec = worker_of(kind)
    workflow = workflow or spec.workflows[spec.workflow_names.index(kind)]
    # Plugins bring their converter along. In debug mode nothing is held against a machine that is slow: a
    # worker would be given its task again.
    options: dict[str, Any] = (
        {"plugins": [make() for make in spec.client_plugins]}
        if spec.client_plugins
        else {"data_converter": DATA_CONVERTER}
    )
    replayer = Replayer(workflows=[workflow], debug_mode=True, **options)
    # Under the id that it had: a plan's digest counts for one run.
    history = WorkflowHistory.from_json(started(name)["workflowId"], recorded(name))
    async with asyncio.timeout(30):
        await replayer.replay_workflow(history)


def test_every_workflow_is_recorded() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RECORDINGS)
    served = {kind for spec in WORKERS for kind in spec.workflow_names}
    assert {type_of(name) for name in RECORDINGS} == served


@pytest.mark.parametrize("name", [name for name in RECORDINGS if name not in CHANGED])
async def test_a_recorded_run_replays(name: str) -> None:
    try:
        await replay(name)
    except NondeterminismError as error:
        pytest.fail(f"{error}\n{ADVICE}")


@pytest.mark.parametrize("name", ["manual", "sdk"])
async def test_a_session_from_before_it_could_go_on_replays(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it holds more than after which a run of today is left."""
    history = json.loads(recorded(name))
    [payload] = history["events"][0]["workflowExecutionStartedEventAttributes"]["input"]["payloads"]
    start = json.loads(base64.b64decode(payload["data"]))
    start["limits"] = {"updates": 1}
    payload["data"] = base64.b64encode(json.dumps(start).encode()).decode()
    monkeypatch.setitem(globals(), "recorded", lambda _: json.dumps(history))
    await replay(name)


async def test_recorded_runs_under_changed_code_are_green_or_red_for_a_stated_reason() -> None:
    """Every run under every change: the table of notebook 09, and more of it."""
    matrix = await replay_matrix(list(RECORDINGS))
    print(matrix)
    chats = [name for name in RECORDINGS if type_of(name) not in repair().workflow_names]
    found = {
        state.title: {run for run in matrix.runs if not matrix.fields[run, state.title].green}
        for state in matrix.states
    }
    before = {*RECORDINGS} - {*CHANGED}
    # A change is harmless to runs that never come to its place. Names and order count, arguments do not.
    forked = {name for name in before if name.startswith("forked")}
    assert found == {
        "today": {*CHANGED},
        "step added": before | {"patched_manual"},
        "patched": {"added_manual"},
        "deprecated": before,
        "order changed": forked | {*CHANGED},
        "step removed": {*chats},
        "activity renamed": {name for name in chats if '"name":"execute_tool"' in recorded(name)}
        | {*CHANGED},
        "argument added": {*CHANGED},
    }
    assert len(matrix.runs) >= 8 and len(matrix.states) >= 4
    assert 3 * len(matrix.red) >= len(matrix.fields)
    for place, field in matrix.red.items():
        assert "Nondeterminism" not in field.problem, f"{place}: why is not said"


async def test_the_table_of_replays_says_in_words_what_it_shows_in_colours() -> None:
    matrix = await replay_matrix(["manual", "repair"])
    page, text = matrix._repr_html_(), repr(matrix)
    assert page.count('<td class="g"') + page.count('<td class="r"') == 2 * len(matrix.states)
    assert page.count(">green</td>") == page.count('<td class="g"')
    for told in page, text:
        assert "where the history holds execute_tool, the code calls call_tool" in told


@pytest.mark.parametrize("name", CHATS)
def test_a_recorded_chat_holds_tools_of_every_kind_and_errors(name: str) -> None:
    kinds = [event["eventType"].removeprefix(EVENT) for event in events_of(name)]
    asked = kinds.count("WORKFLOW_EXECUTION_UPDATE_ACCEPTED")
    assert asked == kinds.count("WORKFLOW_EXECUTION_UPDATE_COMPLETED") == len(CONVERSATION)
    # Two teams in one turn, a project and the one after it; and the ticker that is unknown.
    if name == "mcp":
        assert recorded(name).count('"name":"temporalio.mcp.finance-http.call-tool"') == 3
        assert recorded(name).count('"name":"temporalio.mcp.it-http.call-tool"') == 3
    else:
        assert kinds.count("NEXUS_OPERATION_COMPLETED") == 4
        assert kinds.count("NEXUS_OPERATION_FAILED") == 1
    assert kinds[-1] == "WORKFLOW_EXECUTION_COMPLETED"
    assert '"name":"execute_tool"' in recorded(name)


@pytest.mark.parametrize("loop", ["manual", "sdk"])
def test_the_recorded_chats_hold_a_summary_and_a_wait_for_a_budget(loop: str) -> None:
    """And those from before there was either replay without."""
    summarised, waited = recorded(f"summarised_{loop}"), events_of(f"waited_{loop}")
    assert '"name":"summarise"' in summarised and '"activityId":"summary-in-turn-' in summarised
    assert '"name":"summarise"' not in recorded(loop)
    noted = [e for e in waited if e["eventType"] == f"{EVENT}WORKFLOW_PROPERTIES_MODIFIED"]
    assert len(noted) == 4  # twice that it waits, and that it does not any more
    assert recorded(f"waited_{loop}").count('"name":"set_budget"') >= 3


@pytest.mark.parametrize("loop", ["manual", "sdk"])
def test_the_recorded_chats_hold_a_large_result_that_was_kept_and_read_on(loop: str) -> None:
    """A team's: what a local tool has brought is kept by the activity that brings it."""
    kept = recorded(f"kept_{loop}")
    assert kept.count('"name":"keep_result"') == kept.count('"name":"execute_tool"') == 1
    assert '"name":"keep_result"' not in recorded(loop)


def test_the_recorded_repairs_hold_every_step_and_every_kind_of_decision() -> None:
    """Approved in part, with a decision that did not count before; rejected; approved; left."""
    repair, proactive = recorded("repair"), recorded("proactive")
    for step in (
        "look_at_orders",
        "detect_problems",
        "analyze_problems",
        "plan_repair",
        "save_report",
    ):
        assert f'"name":"{step}"' in repair and f'"name":"{step}"' in proactive
    for tool in ("order_inventory", "request_approval", "request_payment_update", "write_report"):
        assert f'"name":"{tool}"' in repair and f'"name":"{tool}"' in proactive
    assert '"name":"notify"' in proactive
    told = [event["eventType"].removeprefix(EVENT) for event in events_of("proactive")]
    assert told.count("WORKFLOW_EXECUTION_UPDATE_COMPLETED") == 2
    assert told.count("WORKFLOW_EXECUTION_SIGNALED") == 2  # `stop_waiting` and `request_exit`


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_tells_nothing_of_the_machine_it_was_made_on(name: str) -> None:
    history = json.loads(recorded(name))
    identities = {value for key, value in members(history) if key == "identity"}
    assert identities == {IDENTITY}
    texts = [value for _, value in members(history) if isinstance(value, str)]
    texts += [base64.b64decode(value).decode() for key, value in members(history) if key == "data"]
    places = str(PROJECT_ROOT), "site-packages", "/tmp/"
    assert not [text for text in texts if any(place in text for place in places)]
    if type_of(name) in repair().workflow_names:
        assert any(f"{STATE}/reports/" in text for text in texts)


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at every depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from members(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner)
