"""A worker is killed at every place of a turn, and the turn ends as if nothing had been.

Each case is a real process that kills itself with SIGKILL at the named place, and a second one that
finishes what the first began. The journal of model calls, written by the processes, says what was paid for;
the history says what is known to have been answered.
"""

import asyncio
import contextlib
import itertools
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lab_environment import LIMIT, fresh, set_env
from sampled import sampled
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client
from temporalio.openai_agents._invoke_model_activity import ActivityModelInput, ModelActivity
from temporalio.openai_agents._temporal_openai_agents import OpenAIPayloadConverter
from temporalio.testing import ActivityEnvironment

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.loops.sdk_model import SettingsProvider
from workshop_lib.agents.model_call import PlanRequest
from workshop_lib.agents.sessions import LOOPS, ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import history_of
from workshop_lib.lab.workers.kill_points import Executioner, KillPoint, Where, kill_points
from workshop_lib.lab.workers.process import WorkerProcess, start_process
from workshop_lib.llm import gateway
from workshop_lib.llm.journal import read_journal
from workshop_lib.settings import reload_settings
from workshop_lib.temporal.places import Step
from workshop_lib.temporal.worker import WorkerSpec

SPEC = orchestrator()
MODEL, TOOL = "plan_next_action", "execute_tool"
SDK_MODEL = "invoke_model_activity"  # the plugin's, so the spec does not name it
MODELS = {"manual": MODEL, "sdk": SDK_MODEL}
QUESTION = "What is 15 * 23?"  # one call of the model, one of a tool, one of the model
ANSWER = "15 * 23 = 345."
# The MCP loop is killed where its servers are: in the tests of these.
WORKFLOWS = [name for name in SPEC.workflow_names if name != LOOPS["mcp"]]
FIRST = kill_points(WORKFLOWS, [*SPEC.activity_names, SDK_MODEL])
# The second call is the same code; of the slower loop the place where most is lost stands for all.
SECOND = [
    replace(point, occurrence=2)
    for point in FIRST
    if point.name == MODEL or point == KillPoint(Where.ACTIVITY_REPORT, SDK_MODEL)
]
# Of each loop one workflow task and one activity, where the answer is lost: the others with `-m long`.
ALWAYS = {
    *(KillPoint(Where.TASK_AFTER, LOOPS[loop]) for loop in MODELS),
    *(KillPoint(Where.ACTIVITY_REPORT, model) for model in MODELS.values()),
}


class Kills:
    """Worker processes of one test, the journal that they share, and who is to be ended afterwards."""

    def __init__(self, spec: WorkerSpec, journal: Path) -> None:
        self.spec = replace(spec, name=fresh("kills"), warm_ups=[gateway.load])
        self.journal = journal
        self.known = journal.with_name("known_calls.jsonl")
        self.workers: list[WorkerProcess] = []

    async def start(
        self, kill_at: KillPoint | None = None, latency_ms: int = 100, second: bool = False
    ) -> WorkerProcess:
        """A worker process; `second` lets the first one live."""
        spec = replace(self.spec, name=f"{self.spec.name}-b") if second else self.spec
        env = {
            "WORKSHOP_MODEL_JOURNAL": str(self.journal),
            "OFFLINE_LATENCY_MS": str(latency_ms),
        }
        worker = await start_process(spec, kill_at=kill_at, env=env)
        self.workers.append(worker)
        return worker

    def calls(self) -> Counter[str]:
        """How often each request was made of the model."""
        return Counter(entry.request for entry in read_journal(self.journal))


@pytest_asyncio.fixture
async def kills(client: Client, spec: WorkerSpec, tmp_path: Path) -> AsyncIterator[Kills]:
    started = Kills(spec, tmp_path / "model_calls.jsonl")
    yield started
    for worker in started.workers:
        if worker.alive:
            worker.kill()


async def answered_requests(chat: ChatClient, loop: str, journal: Path) -> Counter[str]:
    """The requests whose answers are in the history, by their hash: the one they have when made here.

    Args:
        journal: a file for the requests made here, apart from the ones that are counted.
    """
    plans = [run for run in (await history_of(chat.handle)).named(MODELS[loop]) if run.completed]
    with pytest.MonkeyPatch.context() as patch:
        set_env(patch, WORKSHOP_MODEL_JOURNAL=journal)
        known = len(read_journal(journal))
        for plan in plans:
            await (ask_with_sdk if loop == "sdk" else ask)(plan.input)
    reload_settings()
    return Counter(entry.request for entry in read_journal(journal)[known:])


async def ask(recorded: Any) -> None:
    """Make a model call of the manual loop, as its history has it."""
    request = PlanRequest.model_validate(recorded)
    await gateway.complete(request.messages, request.tools)


async def ask_with_sdk(recorded: Any) -> None:
    """The same for a call of the Agents SDK."""
    converter = OpenAIPayloadConverter()
    request = converter.from_payload(converter.to_payload(recorded), ActivityModelInput)
    calling = ModelActivity(SettingsProvider()).invoke_model_activity
    await ActivityEnvironment().run(calling, request)


async def reply_of(sending: "asyncio.Task[Reply]") -> Reply:
    async with asyncio.timeout(LIMIT):
        return await sending


def loop_of(point: KillPoint) -> str:
    """The loop whose turns pass a place."""
    loops = (loop for loop in MODELS if point.name in (LOOPS[loop], MODELS[loop]))
    return next(loops, "manual")


def test_every_step_of_the_worker_has_every_kill_point() -> None:
    tasks = {"workflow-task-before", "workflow-task-after"}
    steps = {"activity-before", "activity-inside", "activity-result", "activity-report"}
    assert set(Where) == tasks | steps | {"operation-before", "operation-after"}
    assert SPEC.workflows and SPEC.activities and {*FIRST} > ALWAYS
    wanted = {*itertools.product(tasks, WORKFLOWS)}
    wanted |= {*itertools.product(steps, [*SPEC.activity_names, SDK_MODEL])}
    assert {(str(point.where), point.name) for point in FIRST} == wanted
    assert len(FIRST) == len(wanted)
    assert {(str(point.where), point.name) for point in SECOND} == {
        *itertools.product(steps, [MODEL]),
        ("activity-report", SDK_MODEL),
    }


@pytest.mark.parametrize(
    "point", sampled([*FIRST, *SECOND], 0, ids=str, always=ALWAYS.__contains__)
)
async def test_a_turn_survives_a_kill_anywhere(
    point: KillPoint, client: Client, kills: Kills
) -> None:
    doomed = await kills.start(kill_at=point)
    loop = loop_of(point)
    chat = ChatClient(client, loop, task_queue=kills.spec.task_queue)
    sending = asyncio.create_task(chat.send(QUESTION))
    assert await doomed.exited(LIMIT) == -signal.SIGKILL
    assert not sending.done()
    before = await answered_requests(chat, loop, kills.known)
    await kills.start()

    reply = await reply_of(sending)
    assert reply == Reply(
        text=ANSWER, turn=1, model_calls=2, tool_calls=["calculator"], tokens=reply.tokens
    )
    # One call of the model for each answer in the history, and none twice but the one that was lost.
    answered, paid = await answered_requests(chat, loop, kills.known), kills.calls()
    assert len(answered) == answered.total() == 2
    assert set(paid) == set(answered)
    again = {request for request, times in paid.items() if times > 1}
    assert not again & set(before)
    lost = paid.total() - answered.total()
    # Tries that no kill has cost but a heartbeat that came late on a busy machine: the history counts them.
    tries = (await history_of(chat.handle)).named(MODELS[loop])
    late = sum(run.attempts - 1 for run in tries) - (point.name in MODELS.values())
    if point.name not in MODELS.values() or point.where is Where.ACTIVITY_BEFORE:
        assert lost <= late
    elif point.where is Where.ACTIVITY_INSIDE:
        assert lost <= 1 + late  # killed before or after the request went out
    else:
        assert 1 <= lost <= 1 + late  # the answer was there, and not yet in the history
    transcript = await chat.transcript()
    assert [line.text for line in transcript] == [QUESTION, ANSWER]
    # The session goes on in the worker that took over.
    assert (await chat.send("What did I ask first?")).text.endswith(f"“{QUESTION}”")


async def test_of_two_workers_the_one_at_work_is_killed_and_the_other_finishes(
    client: Client, kills: Kills
) -> None:
    both = [await kills.start(latency_ms=800), await kills.start(latency_ms=800, second=True)]
    chat = ChatClient(client, task_queue=kills.spec.task_queue)
    sending = asyncio.create_task(chat.send(QUESTION))
    at_work = await who_is_calling_the_model(chat)
    victim = next(worker for worker in both if at_work.startswith(f"{worker.name}@"))
    victim.kill()
    assert (await reply_of(sending)).text == ANSWER
    assert [worker.alive for worker in both].count(True) == 1
    assert (await history_of(chat.handle)).lost
    answered, paid = await answered_requests(chat, "manual", kills.known), kills.calls()
    assert paid.total() <= answered.total() + 1


async def who_is_calling_the_model(chat: ChatClient) -> str:
    """Identity of the worker that has a model call under way."""
    started = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
    async with asyncio.timeout(LIMIT):
        while True:
            with contextlib.suppress(Exception):  # the session may not have begun yet
                description = await chat.handle.describe()
                for pending in description.raw_description.pending_activities:
                    if pending.state == started and pending.activity_type.name == MODEL:
                        return pending.last_worker_identity
            await asyncio.sleep(0.02)


async def test_three_kills_in_one_turn(client: Client, kills: Kills) -> None:
    chat = ChatClient(client, task_queue=kills.spec.task_queue)
    points = [
        KillPoint(Where.ACTIVITY_REPORT, MODEL),
        KillPoint(Where.ACTIVITY_RESULT, TOOL),
        KillPoint(Where.ACTIVITY_REPORT, MODEL),
    ]
    sending = None
    for number, point in enumerate(points):
        # The second one serves the first model call again before it comes to the tool.
        doomed = await kills.start(kill_at=point)
        sending = sending or asyncio.create_task(chat.send(QUESTION))
        assert await doomed.exited(LIMIT) == -signal.SIGKILL, number
    await kills.start()
    assert sending and (await reply_of(sending)).text == ANSWER
    # Each of the two model calls was lost once, and none was made again once it was in the history.
    assert sorted(kills.calls().values()) == [2, 2]


def test_a_kill_point_is_read_as_it_is_written() -> None:
    for point in [*FIRST, *SECOND]:
        assert KillPoint.parse(str(point)) == point


def test_short_forms_of_a_kill_point() -> None:
    inside = KillPoint(Where.ACTIVITY_INSIDE)
    assert KillPoint.parse(" activity-inside ") == KillPoint.parse("activity-inside@") == inside
    assert KillPoint.parse("activity-inside#3") == replace(inside, occurrence=3)
    decided = KillPoint(Where.TASK_AFTER, "ManualChat", step="activity 3")
    assert KillPoint.parse("workflow-task-after@ManualChat/activity 3") == decided
    assert KillPoint.parse(str(decided)) == decided


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "#1",
        "nowhere",
        "activity-inside@x#0",
        "activity-inside@x#-1",
        "activity-inside#two",
    ],
)
def test_what_is_no_kill_point_is_refused_with_the_places(text: str) -> None:
    with pytest.raises(WorkshopError) as refused:
        KillPoint.parse(text)
    assert all(where in str(refused.value) for where in Where)


def passes(point: KillPoint, steps: Sequence[tuple[Where, str]]) -> list[int]:
    """After which of these steps the executioner strikes."""
    struck: list[int] = []
    step = 0
    executioner = Executioner(point, kill=lambda: struck.append(step))
    for step, (where, name) in enumerate(steps, 1):  # noqa: B007 - the kill reads it
        executioner.pass_by(where, Step(name))
    return struck


def test_the_executioner_strikes_once_at_its_place_and_occurrence() -> None:
    here, elsewhere = (Where.ACTIVITY_INSIDE, "a"), (Where.ACTIVITY_INSIDE, "b")
    other = (Where.ACTIVITY_RESULT, "a")
    walk = [other, here, elsewhere, here, other, here]
    assert passes(KillPoint(Where.ACTIVITY_INSIDE, "a"), walk) == [2]
    assert passes(KillPoint(Where.ACTIVITY_INSIDE, "a", 2), walk) == [4]
    assert passes(KillPoint(Where.ACTIVITY_INSIDE, "*", 2), walk) == [3]
    assert passes(KillPoint(Where.ACTIVITY_INSIDE, "c"), walk) == []


def test_a_step_is_an_activitys_id_or_any_of_what_a_task_is_told() -> None:
    here = Step("a", step="2")
    assert KillPoint(Where.ACTIVITY_INSIDE, "a", step="2").is_at(Where.ACTIVITY_INSIDE, here)
    assert not KillPoint(Where.ACTIVITY_INSIDE, "a", step="1").is_at(Where.ACTIVITY_INSIDE, here)
    told = Step("Chat", step="start", told=("start", "update 1"))
    for step in ("", "start", "update 1"):
        assert KillPoint(Where.TASK_AFTER, "Chat", step=step).is_at(Where.TASK_AFTER, told)
    assert not KillPoint(Where.TASK_AFTER, "Chat", step="update 2").is_at(Where.TASK_AFTER, told)
