"""Chats of yesterday go on with today's code: their recorded histories replay.

If one does not, chats that run at the moment of an update would hang. `tools/record_histories.py` says what
to do then. The histories hold the conversation of that script, ended in good order.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import record_histories
from changed_loops import ChangedManualChat, ChangedSdkChat
from record_histories import CONVERSATION, FOLDER, IDENTITY, PROJECT_ROOT, RECORDINGS
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from workshop_lib.agents.sdk_model import agents_plugin
from workshop_lib.agents.sessions import LOOPS
from workshop_lib.agents.worker import orchestrator

WORKFLOWS = {cls.__name__: cls for cls in orchestrator().workflows}
CHANGED = {"manual": ChangedManualChat, "sdk": ChangedSdkChat}
ADVICE = "See what tools/record_histories.py says, and record anew: " + record_histories.COMMAND


def recorded(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text(encoding="utf-8")


async def replay(name: str, workflow: type) -> None:
    """Replay a recording. Raises what the replay raises."""
    replayer = Replayer(workflows=[workflow], plugins=[agents_plugin()])
    async with asyncio.timeout(30):
        await replayer.replay_workflow(WorkflowHistory.from_json(name, recorded(name)))


def test_every_loop_is_recorded() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RECORDINGS)
    # The MCP loop is the SDK's with other tools; what its servers say is recorded nowhere.
    assert {loop for loop, _ in RECORDINGS.values()} == set(LOOPS) - {"mcp"}


@pytest.mark.parametrize("name", RECORDINGS)
async def test_a_recorded_chat_replays(name: str) -> None:
    try:
        await replay(name, WORKFLOWS[LOOPS[RECORDINGS[name][0]]])
    except NondeterminismError as error:
        pytest.fail(f"{error}\n{ADVICE}")


@pytest.mark.parametrize("name", RECORDINGS)
async def test_another_order_of_commands_is_noticed(name: str) -> None:
    with pytest.raises(NondeterminismError):
        await replay(name, CHANGED[RECORDINGS[name][0]])


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_holds_tools_of_every_kind_and_errors(name: str) -> None:
    kinds = [event["eventType"] for event in json.loads(recorded(name))["events"]]
    prefix = "EVENT_TYPE_"
    asked = kinds.count(f"{prefix}WORKFLOW_EXECUTION_UPDATE_ACCEPTED")
    assert asked == kinds.count(f"{prefix}WORKFLOW_EXECUTION_UPDATE_COMPLETED") == len(CONVERSATION)
    # Two teams in one turn, a project and the one after it; and the ticker that is unknown.
    assert kinds.count(f"{prefix}NEXUS_OPERATION_COMPLETED") == 4
    assert kinds.count(f"{prefix}NEXUS_OPERATION_FAILED") == 1
    assert kinds[-1] == f"{prefix}WORKFLOW_EXECUTION_COMPLETED"
    assert '"name":"execute_tool"' in recorded(name)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_tells_nothing_of_the_machine_it_was_made_on(name: str) -> None:
    history = json.loads(recorded(name))
    identities = {value for key, value in members(history) if key == "identity"}
    assert identities == {IDENTITY}
    texts = [value for _, value in members(history) if isinstance(value, str)]
    texts += [base64.b64decode(value).decode() for key, value in members(history) if key == "data"]
    assert not [text for text in texts if str(PROJECT_ROOT) in text or "site-packages" in text]


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at every depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from members(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner)
