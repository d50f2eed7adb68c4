"""Workers that are killed at named places: of two, several times in a turn; and what a kill point is called.

Each place of each agent is tried in `test_crash_lattice`. Here a real process kills itself with SIGKILL at
the named place, and another goes on; the journal of model calls, which they write, says what was paid for.
"""

import asyncio
import contextlib
import itertools
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from lab_environment import LIMIT, fresh
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import history_of
from workshop_lib.lab.workers.kill_points import Executioner, KillPoint, Where
from workshop_lib.lab.workers.process import WorkerProcess, start_process
from workshop_lib.llm import gateway
from workshop_lib.llm.journal import read_journal
from workshop_lib.temporal.places import Step
from workshop_lib.temporal.worker import WorkerSpec

MODEL, TOOL = "plan_next_action", "execute_tool"
QUESTION = "What is 15 * 23?"  # one call of the model, one of a tool, one of the model
ANSWER = "15 * 23 = 345."


class Kills:
    """Worker processes of one test, the journal that they share, and who is to be ended afterwards."""

    def __init__(self, spec: WorkerSpec, journal: Path) -> None:
        self.spec = replace(spec, name=fresh("kills"), warm_ups=[gateway.load])
        self.journal = journal
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


async def reply_of(sending: "asyncio.Task[Reply]") -> Reply:
    async with asyncio.timeout(LIMIT):
        return await sending


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
    history = await history_of(chat.handle)
    assert history.lost
    assert kills.calls().total() <= len(history.named(MODEL)) + 1


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
    for where, name, number in itertools.product(Where, ("*", MODEL), (1, 2)):
        point = KillPoint(where, name, number)
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
