"""One disaster: many runs come to their places, then the process that serves them gets SIGKILL, or the server
does, and each run must come to its end all the same.

Left out: which runs, and where (`test_crash_lattice`); how they stand still (`standing_worker`).
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from crash_accounts import check_calls, check_paid, events_of_run, paid_for
from crash_stories import LIMIT, STORIES, Call, Chat, Story
from lab_environment import fresh
from lattice_points import Place
from standing_worker import GO_ON, StandingSpec
from teams_environment import Teams
from temporalio.client import Client

from workshop_lib.agents.worker import orchestrator
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.workers.kill_points import Where
from workshop_lib.lab.workers.process import start_process
from workshop_lib.llm.gateway import load
from workshop_lib.repair.worker import repair
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.worker import it
from workshop_lib.temporal.service import client_for
from workshop_lib.temporal.worker import WorkerSpec

SLOW_MODEL_MS = 1500  # how long a call lasts in whose midst the worker is to die


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
        process = psutil.Process(found.pid)
        process.kill()
        await asyncio.to_thread(process.wait, 30)  # until then it holds its port
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("TEMPORAL_ADDRESS")  # else it would be somebody else's
            again = await asyncio.to_thread(server.ensure_server)
        assert again.started and again.address == self.address


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
            before = {s.run: await events_of_run(s, client) for s in stories}
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
            (folder / GO_ON).touch()  # a thread that stands still would keep this process
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
                after = await events_of_run(story, client)
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


async def hit(
    killer: str,
    places: Sequence[tuple[str, Place]],
    ground: Ground,
    client: Client,
    kind: type[Story] | None = None,
) -> int:
    """Let one disaster strike agents, or the team that they call, at these places.

    Args:
        kind: `Call` for the team.

    Returns:
        How many runs stood there.
    """
    abreast = asyncio.Barrier(len(places))
    folder = ground.folder / fresh("disaster")
    folder.mkdir()
    stories = [(kind or STORIES[agent])(agent, place, abreast) for agent, place in places]
    midst = all(place.point.where is Where.ACTIVITY_INSIDE for _, place in places)
    env = {"OFFLINE_LATENCY_MS": str(SLOW_MODEL_MS)} if midst else {}
    crowds = []
    for worker in (orchestrator(), repair()):
        own = worker.with_queue(fresh(worker.name))
        doomed = finance() if kind is Call else own
        served = [s for s in stories if isinstance(s, Chat) == (worker.name == "orchestrator")]
        crowds += [crowd(own, doomed, served, folder, env)] if served else []
    teams = [it()] if kind is Call else [it(), finance()]
    async with in_service(client, teams):
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
