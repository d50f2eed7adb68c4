"""A bad day, told by a seed: chats and repairs while model, tools, teams, workers and server fail.

Each turn is answered, or says politely what is missing; no effect is made twice and none is lost: the teams
have run once for each call that a history holds, the orders were repaired once. Each fault of the plan
struck, or the report says why not. A small day always runs, a long one with `-m long`. Left out: what a plan
may hold, and that it decides the same everywhere (`test_chaos_plan`).
"""

import asyncio
import contextlib
import itertools
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab_environment import lab, set_env
from order_samples import TODAY
from repair_ground import assert_repaired_once
from teams_environment import runs_on
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from workshop_command import workshop_command

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.lab.registry import stop_all
from workshop_lib.lab.server.lifecycle import ensure_server
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.services.mcp_in_kernel import serve_mcp
from workshop_lib.lab.services.mcp_servers import ensured
from workshop_lib.lab.workers.chaos import chaos
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import State
from workshop_lib.repair.store import open_store
from workshop_lib.repair.worker import repair
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.mcp_server import server as finance_server
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.mcp_server import server as it_server
from workshop_lib.teams.it.worker import it
from workshop_lib.temporal.chaos.experiment import Experiment
from workshop_lib.temporal.chaos.plan import ChaosPlan
from workshop_lib.temporal.chaos.plan_file import chaos_plan
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.places import Where

LOOPS = ("manual", "sdk", "mcp")
PATIENCE = timedelta(minutes=9)
# A question, and what a right answer to it holds.
QUESTIONS = (
    ("What is the price of AAPL?", "185.5"),
    ("What is 12 * 7?", "84"),
    ("How many open issues has DEMO-456?", "23"),
    ("What's the weather like in Seattle?", "Seattle"),
    ("What is the price of TSLA?", "242.8"),
    ("What is 45 + 55?", "100"),
)
# What an answer that could not be found says.
POLITE = ("cannot", "could not", "unavailable", "does not answer", "not available", "out of reach")


class Day(NamedTuple):
    """How much happens.

    Attributes:
        kills: chances of a worker's death, for each place of an activity, a task and an operation.
    """

    seed: int
    sessions: int  # of each loop
    turns: int  # of each session
    repairs: int
    rate: float
    kills: float
    servers: Sequence[str]  # sessions at whose 20th event the server is killed

    @property
    def plan(self) -> ChaosPlan:
        """What goes wrong in it."""
        rate = self.rate
        faults: list[dict[str, Any]] = [
            *(
                {"place": "model", "kind": kind, "chance": rate}
                for kind in ("rate_limit", "server_error", "timeout")
            ),
            *(
                {"place": "model", "kind": kind, "chance": rate / 2, "workflow": "chat-*"}
                for kind in ("cut_json", "unknown_tool", "wrong_argument")
            ),
            {"place": "local_tool", "kind": "fails", "chance": 2 * rate},
            {"place": "local_tool", "kind": "slow", "chance": rate, "seconds": 1},
            {"place": "activity", "kind": "lost_completion", "chance": rate},
            {"place": "activity", "kind": "stalled_heartbeat", "chance": rate / 2},
            {"place": "activity", "name": "*order*", "kind": "fails", "chance": 2 * rate},
            {"place": "nexus", "kind": "fails", "chance": 2 * rate},
            {"place": "nexus", "kind": "answer_lost", "chance": 3 * rate},
            *(
                {"place": "mcp", "kind": kind, "chance": 2 * rate}
                for kind in ("connection_lost", "server_error", "answer_lost")
            ),
            *(
                # Of operations there are few.
                {"place": "worker", "at": at, "chance": self.kills * (1 + 9 * ("operation" in at))}
                for at in Where
            ),
            *({"place": "server", "workflow": run, "when": {"event": 20}} for run in self.servers),
            {"place": "nexus", "kind": "slow", "name": "no_such_operation", "when": {}},
        ]
        return chaos_plan({"seed": self.seed, "faults": faults})


SMALL = Day(
    seed=5, sessions=1, turns=3, repairs=1, rate=0.08, kills=0.004, servers=["chat-manual-day-0"]
)
LONG = Day(
    seed=2026,
    sessions=12,
    turns=6,
    repairs=20,
    rate=0.04,
    kills=0.003,
    servers=["chat-manual-day-1", "chat-sdk-day-4", "chat-mcp-day-7", "repair-12"],
)


@asynccontextmanager
async def running(
    day: Day, folder: Path, *, teams_too: bool
) -> AsyncIterator[tuple[Client, Experiment]]:
    """A server with a database, and workers that fail as the day's plan says.

    Args:
        teams_too: the teams' workers are processes that can be killed, and not threads; so are their servers.
    """
    teams = (it(), finance())
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(lab(folder))
        set_env(patch, OFFLINE_LATENCY_MS=20)
        stack.callback(stop_all)
        await ensure_namespaces(await asyncio.to_thread(ensure_server))
        client = await connect()
        killed = (orchestrator(), repair(), *(teams if teams_too else ()))
        experiment = await stack.enter_async_context(chaos(day.plan, *killed))
        if teams_too:
            await stack.enter_async_context(ensured())
        else:
            for spec, server in zip(teams, (it_server, finance_server), strict=True):
                await start_worker(spec, chaos=experiment, announce=False)
                await serve_mcp(server())
        yield client, experiment


async def talk(client: Client, loop: str, number: int, turns: int) -> list[tuple[str, str, Reply]]:
    """A session, from its first question to its last."""
    chat = ChatClient(client, loop, f"day-{number}")
    asked = itertools.islice(itertools.cycle(QUESTIONS), number, number + turns)
    return [(text, right, await chat.send(text, timeout=PATIENCE)) for text, right in asked]


async def talks(client: Client, day: Day) -> list[tuple[str, str, Reply]]:
    """All sessions, six at a time."""
    gate = asyncio.Semaphore(6)

    async def one(loop: str, number: int) -> list[tuple[str, str, Reply]]:
        async with gate:
            return await talk(client, loop, number, day.turns)

    every = [(loop, number) for number in range(day.sessions) for loop in LOOPS]
    return [turn for some in await asyncio.gather(*(one(*each) for each in every)) for turn in some]


async def repairs(client: Client, day: Day) -> None:
    """One after the other, each of a shop that is as it was in the beginning."""
    store = open_store()
    for number in range(day.repairs):
        store.reset()
        assert not store.ledger() and store.snapshot(TODAY).orders
        one = await RepairClient.start(client, auto_approve=True, workflow_id=f"repair-{number}")
        async with asyncio.timeout(PATIENCE.total_seconds()):
            outcome = await one.outcome()
        assert outcome.state is State.COMPLETED, (number, outcome)
        assert_repaired_once(store)
        assert len(outcome.results) == 4


async def calls_of_teams(client: Client, day: Day) -> Counter[str]:
    """How often the histories hold a call of a team, by the operation's or the tool's name."""
    calls: Counter[str] = Counter()
    for loop in LOOPS:
        for number in range(day.sessions):
            handle = ChatClient(client, loop, f"day-{number}").handle
            async for event in handle.fetch_history_events():
                kind = event.event_type
                if kind == EventType.EVENT_TYPE_NEXUS_OPERATION_SCHEDULED:
                    calls[event.nexus_operation_scheduled_event_attributes.operation] += 1
                elif kind == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                    scheduled = event.activity_task_scheduled_event_attributes
                    if scheduled.activity_type.name.endswith(".call-tool"):
                        (asked,) = await client.data_converter.decode(scheduled.input.payloads)
                        calls[asked["name"]] += 1
    return calls


async def runs_of_teams() -> Counter[str]:
    """How often the teams have run, by operation."""
    settings = get_settings()
    names = {"StockPriceWorkflow": "stock_price", "JiraMetricsWorkflow": "jira_metrics"}
    queues = (
        (settings.it_queue, settings.it_namespace),
        (
            settings.finance_queue,
            settings.finance_namespace,
        ),
    )
    runs = [run for place in queues for run in await runs_on(*place)]
    return Counter(names.get(run.workflow_type, run.workflow_type) for run in runs)


def accounted(calls: Counter[str], runs: Counter[str], poorly: Sequence[Any]) -> bool:
    """Whether each call has one run; where a turn has done without an answer, at most one."""
    return runs == calls or (bool(poorly) and runs <= calls)


async def the_day(day: Day, folder: Path, *, teams_too: bool) -> str:
    """Live through it. Returns what can be told of it."""
    async with running(day, folder, teams_too=teams_too) as (client, experiment):
        turns, _ = await asyncio.gather(talks(client, day), repairs(client, day))
        assert len(turns) == len(LOOPS) * day.sessions * day.turns
        poorly = [turn for turn in turns if turn[1] not in turn[2].text]
        for question, _, reply in poorly:
            assert any(word in reply.text for word in POLITE), (question, reply)
        calls = await calls_of_teams(client, day)
        with contextlib.suppress(TimeoutError):  # the list of runs comes a moment after the facts
            async with asyncio.timeout(30):
                while not accounted(calls, await runs_of_teams(), poorly):  # noqa: ASYNC110
                    await asyncio.sleep(0.3)
        runs = await runs_of_teams()
        assert accounted(calls, runs, poorly), (calls, runs)
        report = experiment.report()
        strikes = Counter(e.fault for e in experiment.entries() if e.what == "struck")
    for line in report.lines:
        assert line.times or line.happened.startswith("no: "), line
    assert "no worker with this plan serves no_such_operation" in report.lines[-1].happened
    assert strikes.total() == sum(line.times for line in report.lines) > 0
    return (
        f"{len(turns)} turns, {len(poorly)} of them without all they asked for, {day.repairs} repairs,"
        f" {calls.total()} calls of teams, {strikes.total()} faults\n{report}"
    )


@pytest.mark.timeout(600)
async def test_a_small_bad_day(tmp_path: Path) -> None:
    told = await the_day(SMALL, tmp_path, teams_too=False)
    print(told)
    assert "server · killed · of chat-manual-day-0 · at event 20" in told


@pytest.mark.long
@pytest.mark.timeout(5400)
async def test_a_long_bad_day(tmp_path: Path) -> None:
    print(await the_day(LONG, tmp_path, teams_too=True))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_command_has_its_bad_day_too(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        """
        faults:
          - {place: worker, at: activity-report, name: plan_next_action, when: {step: 2}}
          - {place: worker, at: operation-before, when: {attempt: 1}}
          - {place: nexus, kind: fails, name: stock_price, when: {attempt: [2, 3]}}
          - {place: nexus, kind: answer_lost, name: stock_price, when: {attempt: 4}}
          - {place: server, at: activity-before, name: plan_next_action, when: {step: 3}}
          - {place: mcp, kind: server_error, chance: 1}
        """
    )
    with workshop_command() as workshop:
        asked = ("ask", "--json", "--chaos", str(plan), "What is the price of AAPL?")
        days = [
            subprocess.run(
                workshop.command(*asked),
                env=workshop.environment(),
                capture_output=True,
                text=True,
                timeout=400,
            )
            for _ in range(2)
        ]
        assert all(day.returncode == 0 for day in days), days[-1].stderr
        first, second = (json.loads(day.stdout) for day in days)
    assert "185.5" in first["reply"] and first["tool_calls"] == ["stock_price"]
    assert [line["times"] for line in first["chaos"]] == [1, 1, 2, 1, 1, 0]
    assert first["chaos"] == second["chaos"]  # the same plan is the same day
    assert first["workflow_id"] != second["workflow_id"]


def test_the_same_seed_is_the_same_day() -> None:
    assert SMALL.plan == SMALL.plan and SMALL.plan.digest == SMALL._replace().plan.digest
    assert SMALL.plan.digest != SMALL._replace(seed=6).plan.digest
