"""The crash lattice: at every event of recorded runs a worker, or the server, is killed; nothing is lost or
done twice.

    uv run pytest -m long tests/test_crash_lattice.py

Of each agent (the three loops, the repair, the proactive agent) and of a team's side of a call every place
is tried (`lattice_points`). Many runs come to their places at once, each to another (`standing_worker`);
then the process that serves them gets SIGKILL, or the server does. Another worker takes over, or the server
comes back with its database, and each run must end as the recorded one did (`crash_stories`): replies and
outcomes are equal, effects were made once, no model call is made again whose answer was in the history, and
the one under way at most once a kill. A run that does not come to its place fails. The number of places hit
is printed, and stands in the README.
"""

import asyncio
import itertools
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio
from crash_stories import LIMIT, Chat, Proactive, Repair, Story, not_repeated
from lab_environment import free_port, fresh, lab, set_env
from lattice_points import POINTS_HIT, Place, places_of, recorded_events
from standing_worker import GO_ON, StandingSpec
from teams_environment import Teams, calls_of, new_names, runs_on
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from workshop_lib.agents.loops.mcp_clients import mcp_plugin
from workshop_lib.agents.loops.sdk_model import agents_plugin
from workshop_lib.agents.worker import orchestrator
from workshop_lib.lab.history import decode
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.server.lifecycle import run_sync
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.services.mcp_servers import start_mcp_server
from workshop_lib.lab.workers.kill_points import KillPoint, Where
from workshop_lib.lab.workers.process import start_process
from workshop_lib.llm.gateway import load
from workshop_lib.llm.journal import read_journal
from workshop_lib.repair import tools
from workshop_lib.repair.worker import repair
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.worker import it
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.service import client_for
from workshop_lib.temporal.worker import WorkerSpec

SCHEDULED = EventType.EVENT_TYPE_NEXUS_OPERATION_SCHEDULED
MODELS = {"plan_next_action", "invoke_model_activity"}
MODELS |= {"detect_problems", "analyze_problems", "plan_repair", "write_report"}
CROWD = 20  # runs that are served by one process and hit at once
SLOW_MODEL_MS = 1500  # how long a call lasts in whose midst the worker is to die
STORIES: dict[str, type[Story]] = {
    **{"manual": Chat, "sdk": Chat, "mcp": Chat},
    **{"repair": Repair, "proactive": Proactive},
}
LATTICE = {name: [*filter(not_repeated, places_of(recorded_events(name)))] for name in STORIES}


# What the finance team's worker passes for one call; through MCP it has no operation.
def _of_a_call(kind: str, name: str, *steps: str) -> list[Place]:
    wheres = [where for where in Where if where.startswith(kind)]
    return [Place(KillPoint(where, name, step=step)) for step in steps for where in wheres]


RUN = [
    *_of_a_call("workflow-task", "StockPriceWorkflow", "start", "activity 1"),
    *_of_a_call("activity", "look_up_price", "1"),
]
CALL = [*_of_a_call("operation", "stock_price", ""), *RUN]
TEAM = {"manual": CALL, "sdk": CALL, "mcp": RUN}


def written(places: Iterable[Place]) -> list[Place]:
    """Those at which an event is about to be written or just was: there it matters to a server, too."""
    return [place for place in places if place.events]


# --- the ground ----------------------------------------------------------------------------------------


@dataclass
class Ground:
    """Where the runs of this module live.

    Attributes:
        folder: of the server's database, the journal of model calls and the shops of repairs.
        address: of the server, which stays where it is.
        seen: the runs of the teams so far.
    """

    folder: Path
    address: str
    seen: set[str] = field(default_factory=set)

    @property
    def journal(self) -> Path:
        return self.folder / "model_calls.jsonl"

    async def kill_the_server(self) -> None:
        """SIGKILL, and a new process with the same database at the same address."""
        found = server.status()
        assert found and found.pid
        os.kill(found.pid, signal.SIGKILL)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("TEMPORAL_ADDRESS")  # else it would be somebody else's
            again = await asyncio.to_thread(server.ensure_server)
        assert again.started and again.address == self.address


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A server with a database."""
    folder = tmp_path_factory.mktemp("lattice")
    with lab(folder) as patch:
        found = server.ensure_server()
        run_sync(ensure_namespaces(found))
        ground = Ground(folder, found.address)
        # Each repair has a shop of its own; a worker that is built says so in this process.
        patch.setattr(tools, "open_store", tools.open_store)
        ports = {"IT_MCP_PORT": free_port(), "FINANCE_MCP_PORT": free_port()}
        set_env(patch, TEMPORAL_ADDRESS=found.address, **new_names(), **ports)
        set_env(patch, WORKSHOP_MODEL_JOURNAL=ground.journal)
        yield ground


@pytest.fixture(scope="module")
def mcp_servers(ground: Ground) -> Iterator[None]:
    """The teams' MCP servers."""
    servers = [asyncio.run(start_mcp_server(team)) for team in ("it", "finance")]
    yield
    for one in servers:
        one.kill()


@pytest_asyncio.fixture
async def client(ground: Ground) -> Client:
    return await connect(plugins=[agents_plugin(), mcp_plugin()])


# --- one disaster --------------------------------------------------------------------------------------


@dataclass
class Crowd:
    """Runs that one worker serves, each of which will stand at a place of its own.

    Attributes:
        doomed: what that worker serves.
        agents: where the agents' worker polls, where that is another one.
    """

    doomed: StandingSpec
    stories: list[Story]
    agents: WorkerSpec
    env: dict[str, str]

    @property
    def all_stand(self) -> bool:
        return all(self.doomed.arrival(story.stands_as).exists() for story in self.stories)


def crowd(
    agents: WorkerSpec,
    doomed: WorkerSpec,
    stories: Sequence[Story],
    folder: Path,
    env: dict[str, str],
) -> Crowd:
    stands = {story.stands_as: story.place.point for story in stories}
    spec = StandingSpec.of(
        replace(doomed, name=fresh(doomed.name), warm_ups=[load]), folder, stands
    )
    return Crowd(spec, list(stories), spec if agents is doomed else agents, env)


async def disaster(killer: str, crowds: Sequence[Crowd], ground: Ground, client: Client) -> int:
    """Let all runs come to their places, kill, and see what comes of each. Returns how many stood there."""
    stories = [story for one in crowds for story in one.stories]
    folder = crowds[0].doomed.folder
    async with asyncio.timeout(2 * LIMIT.total_seconds()), AsyncExitStack() as workers:

        async def serve(spec: WorkerSpec) -> None:
            await workers.enter_async_context(spec.build(await client_for(spec)))

        processes = []
        for one in crowds:
            if killer == "worker":
                processes.append(await start_process(one.doomed, env=one.env))
            else:
                await serve(one.doomed)
            if one.agents is not one.doomed:
                await serve(one.agents)
        lives = {
            story.run: asyncio.create_task(story.live(client, one.agents.task_queue))
            for one in crowds
            for story in one.stories
        }
        try:
            await _until_all_stand(crowds, lives)
            before = {s.run: await _events(s, client) for s in stories}
            asked = paid_for(ground.journal)
            if killer == "worker":
                for one, process in zip(crowds, processes, strict=True):
                    process.kill()
                    assert await process.exited(10) == -signal.SIGKILL
                    await serve(replace(one.doomed, stands={}))
            else:
                await ground.kill_the_server()
                (folder / GO_ON).touch()
            ends = await asyncio.gather(*lives.values(), return_exceptions=True)
        finally:
            for life in lives.values():
                life.cancel()
            for process in processes:
                process.kill()
        wrong = []
        for story, end in zip(stories, ends, strict=True):
            try:
                if isinstance(end, BaseException):
                    raise end
                story.check_effects(folder)
                after = await _events(story, client)
                check_paid(story, before[story.run], after, asked, paid_for(ground.journal), killer)
            except Exception as error:
                error.add_note(f"{story.agent}, {killer} killed at {story.place}, run {story.run}")
                wrong.append(error)
        if wrong:
            raise ExceptionGroup(f"{len(wrong)} of {len(stories)} runs", wrong)
    return len(stories)


async def _until_all_stand(crowds: Sequence[Crowd], lives: dict[str, asyncio.Task[None]]) -> None:
    async with asyncio.timeout(LIMIT.total_seconds()) as limit:
        try:
            while not all(one.all_stand for one in crowds):
                for one in crowds:
                    for story in one.stories:
                        if (
                            lives[story.run].done()
                            and not one.doomed.arrival(story.stands_as).exists()
                        ):
                            lives[story.run].result()
                            raise AssertionError(f"{story.agent} has not come to {story.place}")
                await asyncio.sleep(0.02)  # other processes say so by files
        except asyncio.CancelledError:
            if limit.expired():
                missing = [
                    f"{s.agent} {s.place}"
                    for one in crowds
                    for s in one.stories
                    if not one.doomed.arrival(s.stands_as).exists()
                ]
                raise AssertionError(f"not there: {missing}") from None
            raise


async def _events(story: Story, client: Client) -> Sequence[HistoryEvent]:
    return (await story.handle(client).fetch_history()).events


# --- what may be paid ----------------------------------------------------------------------------------

Paid = dict[str, dict[str, set[int]]]


def paid_for(journal: Path) -> Paid:
    """The attempts in which a model was asked, by workflow and activity."""
    paid: Paid = defaultdict(lambda: defaultdict(set))
    for entry in read_journal(journal):
        paid[entry.workflow_id][entry.activity_id].add(entry.attempt)
    return paid


@dataclass
class Asked:
    """A model activity of a run: how often it was handed out, and whether its answer is in the history."""

    attempts: int = 0
    answered: bool = False


def model_activities(events: Sequence[HistoryEvent]) -> dict[str, Asked]:
    """The activities of a run that ask a model, by id."""
    found: dict[str, Asked] = {}
    ids: dict[int, str] = {}
    for event in events:
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name in MODELS:
            ids[event.event_id] = scheduled.activity_id
            found[scheduled.activity_id] = Asked()
        started = event.activity_task_started_event_attributes
        if started.scheduled_event_id in ids:
            found[ids[started.scheduled_event_id]].attempts = started.attempt
        done = event.activity_task_completed_event_attributes
        if done.scheduled_event_id in ids:
            found[ids[done.scheduled_event_id]].answered = True
    return found


def check_paid(
    story: Story,
    before: Sequence[HistoryEvent],
    after: Sequence[HistoryEvent],
    asked: Paid,
    paid: Paid,
    killer: str,
) -> None:
    """No call is made again whose answer was in the history, and the one under way once more at most."""
    mine, then, now = paid[story.run], model_activities(before), model_activities(after)
    assert set(mine) == {name for name, call in now.items() if call.answered}
    for name, call in then.items():
        if call.answered:
            assert mine[name] == asked[story.run][name], f"activity {name} was asked again"
    again = sum(len(attempts) - 1 for attempts in mine.values())
    under_way = {name for name, call in then.items() if not call.answered}
    # Tries that no kill has cost but a heartbeat that came late on a busy machine: the history counts them.
    late = sum(max(0, call.attempts - 1 - (name in under_way)) for name, call in now.items())
    assert again <= len(under_way) + late and len(under_way) <= 1
    point = story.place.point
    if killer == "worker" and point.name in MODELS:
        attempts = mine[point.step]
        if point.where is Where.ACTIVITY_BEFORE:
            assert 1 not in attempts  # it died before it could ask
        elif point.where is not Where.ACTIVITY_INSIDE:
            assert len(attempts) >= 2  # the answer was there, and nobody had heard


# --- the calls of the teams -----------------------------------------------------------------------------


async def check_calls(stories: Sequence[Story], client: Client, seen: set[str]) -> None:
    """Each call has led to one run of its team, and there are no others.

    Args:
        seen: the runs of earlier disasters; those of this one are added.
    """
    wanted: set[str] = set()
    keys: Counter[str] = Counter()
    for story in stories:
        calls = await calls_of(story.handle(client))
        events = await _events(story, client)
        asked = [e for e in events if e.event_type == SCHEDULED]
        assert len(asked) == len(calls), f"{story.run} has a call that has led nowhere"
        wanted |= {call.run.workflow_id for call in calls}
        keys.update(_mcp_keys(events))
    settings = get_settings()
    async with asyncio.timeout(LIMIT.total_seconds()):
        while True:
            runs = await runs_on(settings.finance_queue, settings.finance_namespace)
            runs += await runs_on(settings.it_queue, settings.it_namespace)
            if wanted <= {run.id for run in runs}:
                break
            await asyncio.sleep(0.1)  # lists follow a moment later, without an event
    new = [run for run in runs if run.id not in seen]
    seen |= {run.id for run in new}
    through_mcp = Counter([(await run.memo()).get("idempotency_key") for run in new])
    nexus = through_mcp.pop(None, 0)
    assert nexus == len(wanted) and set(through_mcp) <= set(keys)
    assert not [key for key, runs_of_it in through_mcp.items() if runs_of_it > 1]


def _mcp_keys(events: Sequence[HistoryEvent]) -> Iterator[str]:
    for event in events:
        a = event.activity_task_scheduled_event_attributes
        if a.activity_type.name.endswith(".call-tool"):
            yield decode(a.input.payloads[0])["meta"]["idempotency_key"]


# --- the lattice ---------------------------------------------------------------------------------------


def chosen(killer: str, agent: str) -> list[Place]:
    """The places of an agent where somebody dies."""
    places = LATTICE[agent]
    return places if killer == "worker" else written(places)


def in_crowds(places: Sequence[tuple[str, Place]]) -> list[list[tuple[str, Place]]]:
    """Such as can be hit at once: of like turns, and those in the midst of an activity by themselves."""

    def inside(one: tuple[str, Place]) -> bool:
        return one[1].point.where is Where.ACTIVITY_INSIDE

    crowds = []
    for _, like in itertools.groupby(
        sorted(places, key=lambda one: (inside(one), one[1].turn)), inside
    ):
        alike = list(like)
        number = -(-len(alike) // CROWD)
        size = -(-len(alike) // number)
        crowds += [alike[at : at + size] for at in range(0, len(alike), size)]
    return crowds


async def hit(
    killer: str, places: Sequence[tuple[str, Place]], ground: Ground, client: Client
) -> int:
    """Let one disaster strike agents at these places. Returns how many runs stood there."""
    abreast = asyncio.Barrier(len(places))
    folder = ground.folder / fresh("disaster")
    folder.mkdir()
    stories = [STORIES[agent](agent, place, abreast) for agent, place in places]
    midst = all(place.point.where is Where.ACTIVITY_INSIDE for _, place in places)
    env = {"OFFLINE_LATENCY_MS": str(SLOW_MODEL_MS)} if midst else {}
    crowds = []
    for worker in (orchestrator(), repair()):
        spec = worker.with_queue(fresh(worker.name))
        of_it = [s for s in stories if isinstance(s, Chat) == (worker.name == "orchestrator")]
        crowds += [crowd(spec, spec, of_it, folder, env)] if of_it else []
    async with in_service(client, [it(), finance()]):
        stood = await disaster(killer, crowds, ground, client)
        await check_calls([s for s in stories if isinstance(s, Chat)], client, ground.seen)
    return stood


@asynccontextmanager
async def in_service(client: Client, workers: Sequence[WorkerSpec]) -> AsyncIterator[None]:
    """The teams' endpoints, and these of their workers."""
    teams = Teams(client)
    await teams.open()
    async with teams.serving(*(replace(spec, name=fresh(spec.name)) for spec in workers)):
        yield


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("killer", ["worker", "server"])
@pytest.mark.parametrize("agent", STORIES)
async def test_a_kill_at_every_event_of_an_agent(
    agent: str,
    killer: str,
    ground: Ground,
    client: Client,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    if agent == "mcp":
        request.getfixturevalue("mcp_servers")
    stood = 0
    for places in in_crowds([(agent, place) for place in chosen(killer, agent)]):
        stood += await hit(killer, places, ground, client)
    record_property(POINTS_HIT, stood)


@pytest.mark.parametrize("killer", ["worker", "server"])
async def test_a_kill_at_some_events_of_all_agents(
    killer: str, ground: Ground, client: Client, record_property: Callable[[str, object], None]
) -> None:
    """A sample that every run tries: of each agent some places, a task and an activity among them."""
    chance = random.Random(killer)
    places = []
    for agent in [
        one for one in STORIES if one != "mcp"
    ]:  # the servers of MCP take their time to start
        of_it = [p for p in chosen(killer, agent) if p.point.where is not Where.ACTIVITY_INSIDE]
        for where in (Where.TASK_AFTER, Where.ACTIVITY_REPORT, None):
            like = [p for p in of_it if where in (p.point.where, None)]
            places += [(agent, chance.choice(like))]
    record_property(POINTS_HIT, await hit(killer, sorted(places, key=str), ground, client))
