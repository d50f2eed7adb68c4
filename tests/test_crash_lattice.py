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
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
import pytest_asyncio
from crash_disaster import Ground, hit
from crash_stories import LIMIT, STORIES, Call, not_repeated
from lab_environment import free_port, fresh, lab, set_env
from lattice_points import POINTS_HIT, Place, places_of, recorded_events
from record_histories import RECORDINGS
from teams_environment import new_names
from temporalio.client import Client

from workshop_lib.agents.loops.mcp_clients import mcp_plugin
from workshop_lib.agents.loops.sdk_model import agents_plugin
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.server.lifecycle import run_sync
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.services.mcp_servers import start_mcp_server
from workshop_lib.lab.workers.kill_points import KillPoint, Where
from workshop_lib.machine.environment import PROJECT_ROOT
from workshop_lib.repair import tools
from workshop_lib.teams.finance.contract import StockPriceInput
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.finance.workflows import StockPriceWorkflow
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.service import client_for

CROWD = 20  # runs that are served by one process and hit at once
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
    servers = [run_sync(start_mcp_server(team)) for team in ("it", "finance")]
    yield
    for one in servers:
        one.kill()


@pytest_asyncio.fixture
async def client(ground: Ground) -> Client:
    return await connect(plugins=[agents_plugin(), mcp_plugin()])


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


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("killer", ["worker", "server"])
@pytest.mark.parametrize("loop", TEAM)
async def test_a_kill_at_every_event_of_a_teams_side(
    loop: str,
    killer: str,
    ground: Ground,
    client: Client,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    if loop == "mcp":
        request.getfixturevalue("mcp_servers")
    stood = await hit(killer, [(loop, place) for place in TEAM[loop]], ground, client, Call)
    record_property(POINTS_HIT, stood)


@pytest.mark.parametrize("killer", ["worker", "server"])
async def test_a_kill_at_some_events_of_all_agents(
    killer: str, ground: Ground, client: Client, record_property: Callable[[str, object], None]
) -> None:
    """A sample that every run tries: of each agent some places, a task and an activity among them."""
    chance = random.Random(killer)
    places = []
    # Without MCP, whose servers take their time to start.
    for agent in [one for one in STORIES if one != "mcp"]:
        of_it = [p for p in chosen(killer, agent) if p.point.where is not Where.ACTIVITY_INSIDE]
        for where in (Where.TASK_AFTER, Where.ACTIVITY_REPORT, None):
            like = [p for p in of_it if where in (p.point.where, None)]
            places += [(agent, chance.choice(like))]
    record_property(POINTS_HIT, await hit(killer, places, ground, client))


async def test_a_kill_at_some_events_of_a_teams_side(
    ground: Ground, client: Client, record_property: Callable[[str, object], None]
) -> None:
    wanted = (Where.OPERATION_AFTER, Where.TASK_AFTER, Where.ACTIVITY_REPORT)
    some = [(loop, p) for loop in ("manual", "sdk") for p in CALL if p.point.where in wanted]
    record_property(POINTS_HIT, await hit("worker", some, ground, client, Call))


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_event_of_a_recorded_run_has_one_place(name: str) -> None:
    events = recorded_events(name)
    places = places_of(events)
    written_at = [event for place in places for event in place.events]
    assert sorted(written_at) == [event.event_id for event in events]
    assert len({place.point for place in places}) == len(places)


async def test_a_call_passes_the_places_of_its_team(ground: Ground) -> None:
    team = finance()
    client = await client_for(team)
    async with team.build(client):
        run = await client.start_workflow(
            StockPriceWorkflow.run,
            StockPriceInput(ticker="IBM"),
            id=fresh("call"),
            task_queue=team.task_queue,
        )
        async with asyncio.timeout(LIMIT.total_seconds()):
            await run.result()
            passed = places_of((await run.fetch_history()).events)
    ground.seen.add(run.id)
    assert {place.point for place in passed} == {place.point for place in RUN}


def test_the_readme_says_how_many_places_there_are() -> None:
    points = sum(len(chosen(killer, agent)) for killer in ("worker", "server") for agent in STORIES)
    points += sum(2 * len(places) for places in TEAM.values())
    assert points >= 300
    assert f"{points} places" in (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
