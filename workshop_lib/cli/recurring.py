"""`workshop repair proactive …` and `workshop repair schedule …`: repairs that repeat.

Both need a worker that stays: `workshop up`. The proactive agent's plans are decided like any other, with
`workshop repair approve ID`. Left out: what they do (`repair.proactive`, `repair.schedule`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from workshop_lib import harmless
from workshop_lib.cli.repair_terminal import (
    narrate,
    repair_answers,
    repair_worker,
    rests,
    tell_end,
)
from workshop_lib.cli.support import Answer, Json, command, connected, name_of, show
from workshop_lib.edge import say
from workshop_lib.lab.services.background import running_services
from workshop_lib.repair.documents import status_in_text
from workshop_lib.repair.proactive_client import DEFAULT_ID as AGENT
from workshop_lib.repair.proactive_client import ProactiveClient
from workshop_lib.repair.schedule import DEFAULT_ID as SCHEDULE
from workshop_lib.repair.schedule import RepairSchedules, ScheduleInfo
from workshop_lib.repair.states import RepairStatus, State

proactive_app = typer.Typer(
    help="An agent that looks every day and acts alone only where it is very sure.",
    no_args_is_help=True,
)
schedule_app = typer.Typer(help="A repair a day, started by the server.", no_args_is_help=True)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{harmless.line(text, 40)} is no day; 2025-06-28 is.") from None


NewAgent = Annotated[str, typer.Argument(help="Id of the agent.", callback=name_of("agent"))]
Agent = Annotated[
    str, typer.Argument(help="Id of the agent.", callback=name_of("agent", known=True))
]
NewName = Annotated[str, typer.Argument(help="Name of the schedule.", callback=name_of("schedule"))]
Name = Annotated[
    str, typer.Argument(help="Name of the schedule.", callback=name_of("schedule", known=True))
]
Day = Annotated[
    date | None,
    typer.Option(
        parser=_day,
        metavar="YYYY-MM-DD",
        help="The day to count from; WORKSHOP_TODAY when left out.",
    ),
]
Hour = Annotated[int, typer.Option(help="Of the day, UTC.", min=0, max=23)]
Alone = Annotated[
    bool, typer.Option("--auto-approve", help="Carry whole plans out without asking.")
]
Moment = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="A time, UTC.")
]


@command(proactive_app)
async def start(agent: NewAgent = AGENT, today: Day = None) -> None:
    """Start the agent and see its first cycle to where it rests."""
    async with repair_worker() as client:
        started = await ProactiveClient.start_agent(client, workflow_id=agent, today=today)
        say(f"Agent {agent}")
        await tell_end(started, await narrate(started, show), show)
    _say_who_goes_on()


@command(proactive_app)
async def status(agent: Agent = AGENT, as_json: Json = False) -> Answer:
    """Say where the agent is, and what its past cycles came to."""
    async with repair_answers() as client:
        asked = ProactiveClient(client, agent)
        now, cycles = await asked.status(), await asked.cycles()
    lines = [status_in_text(agent, now)]
    lines += [
        f"cycle {past.cycle}: {past.state}, {past.done} repairs. {harmless.line(past.reason)}"
        for past in cycles
    ]
    document = {"workflow_id": agent, **now.model_dump(), "cycles": cycles}
    return Answer(document, "\n".join(lines))


@command(proactive_app)
async def wake(agent: Agent = AGENT) -> None:
    """Have the agent begin its next cycle now, and see that to where it rests."""
    async with repair_worker() as client:
        woken = ProactiveClient(client, agent)
        before = (await woken.status()).cycle
        await woken.stop_waiting()

        def again_at_rest(status: RepairStatus) -> bool:
            # One that waits for a decision begins the next cycle when it has it.
            later = status.cycle > before or status.state == State.PENDING_APPROVAL
            return later and rests(status)

        status = await narrate(woken, show, until=again_at_rest)
        await tell_end(woken, status, show)
        if status.cycle == before and status.state == State.PENDING_APPROVAL:
            say("It waits for a decision first. The next cycle begins when that is made.")
    _say_who_goes_on()


@command(proactive_app)
async def stop(agent: Agent = AGENT) -> Answer:
    """Ask the agent to leave. Repairs under way are made first; a plan that waits expires."""
    async with repair_worker(calls_models=False) as client:
        leaving = ProactiveClient(client, agent)
        await leaving.request_exit()
        stopped = await leaving.stopped()
    return Answer(text=f"{agent} has stopped after {stopped.count} cycles.")


def _saving(verb: str, what: str) -> None:
    """A command that makes a schedule: `create` or `upsert`."""

    async def save(
        name: NewName = SCHEDULE,
        hour: Hour = 6,
        today: Day = None,
        auto_approve: Alone = False,
        as_json: Json = False,
    ) -> Answer:
        async with _schedules() as schedules:
            make = getattr(schedules, verb)
            return _told(await make(name, hour=hour, today=today, auto_approve=auto_approve))

    save.__doc__ = what
    command(schedule_app, verb)(save)


_saving("create", "Create a schedule.")
_saving("upsert", "Create a schedule, or make the one of this name be like this.")


@command(schedule_app, name="list")
async def list_schedules(as_json: Json = False) -> Answer:
    """List the schedules."""
    async with _schedules() as schedules, asyncio.timeout(20):
        names = [name async for name in schedules.list()]
    return Answer(names, "\n".join(map(harmless.line, names)) or "No schedules.")


@command(schedule_app)
async def describe(name: Name = SCHEDULE, as_json: Json = False) -> Answer:
    """Say when a schedule fires next, and what it has started."""
    async with _schedules() as schedules:
        return _told(await schedules.describe(name))


@command(schedule_app)
async def trigger(name: Name = SCHEDULE) -> None:
    """Start one of its repairs now."""
    async with _schedules() as schedules:
        await schedules.trigger(name)
    say(f"{name} starts a repair now; `workshop repair status` shows it.")
    _say_who_goes_on()


@command(schedule_app)
async def backfill(start: Moment, end: Moment, name: Name = SCHEDULE) -> None:
    """Start the repairs that would have been due between two times."""
    async with _schedules() as schedules:
        await schedules.backfill(start.replace(tzinfo=UTC), end.replace(tzinfo=UTC), name)
    say(f"{name} makes up for what was due; `workshop repair list` shows it.")
    _say_who_goes_on()


@command(schedule_app)
async def delete(name: Name = SCHEDULE) -> None:
    """Delete a schedule. Repairs that it has started go on."""
    async with _schedules() as schedules:
        await schedules.delete(name)
    say(f"The schedule {name} is gone.")


@asynccontextmanager
async def _schedules() -> AsyncIterator[RepairSchedules]:
    async with connected() as client:
        yield RepairSchedules(client)


def _told(info: ScheduleInfo) -> Answer:
    alone = "carries whole plans out without asking" if info.auto_approve else "asks before it acts"
    lines = [
        f"{info.schedule_id}: every day at {info.hour:02}:00 UTC, {alone}, today is {info.today}"
    ]
    if info.paused:
        lines.append("paused")
    lines += [f"next: {moment:%Y-%m-%d %H:%M} UTC" for moment in info.next_times[:5]]
    lines += [f"run: {harmless.line(workflow_id)}" for workflow_id in info.runs]
    return Answer(info, "\n".join(lines))


def _say_who_goes_on() -> None:
    """Say what keeps it going when this command has ended."""
    if not any(service.name == "repair" for service in running_services()):
        say("It goes on while a worker runs: `workshop up` starts one that stays.")
