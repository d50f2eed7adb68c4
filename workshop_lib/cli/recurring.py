"""`workshop repair proactive …` and `workshop repair schedule …`: repairs that repeat.

Both need a worker that stays: `workshop up`. The proactive agent's plans are decided like any other, with
`workshop repair approve ID`. Left out: what they do (`repair.proactive`, `repair.schedule`).
"""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workshop_lib import harmless
from workshop_lib.cli.repair_terminal import (
    narrate,
    repair_answers,
    repair_worker,
    rests,
    tell_end,
)
from workshop_lib.cli.support import Json, connected, name_of, run, show, show_json
from workshop_lib.edge import say

if TYPE_CHECKING:
    from workshop_lib.repair.schedule import ScheduleInfo
    from workshop_lib.repair.states import CycleRecord, RepairStatus

proactive_app = typer.Typer(
    help="An agent that looks every day and acts alone only where it is very sure.",
    no_args_is_help=True,
)
schedule_app = typer.Typer(help="A repair a day, started by the server.", no_args_is_help=True)

# Written down here too, because importing them would import Temporal for `--help`; a test compares.
AGENT = "proactive-order-repair"
SCHEDULE = "daily-order-repair"

NewAgent = Annotated[str, typer.Argument(help="Id of the agent.", callback=name_of("agent"))]
Agent = Annotated[
    str, typer.Argument(help="Id of the agent.", callback=name_of("agent", known=True))
]
NewName = Annotated[str, typer.Argument(help="Name of the schedule.", callback=name_of("schedule"))]
Name = Annotated[
    str, typer.Argument(help="Name of the schedule.", callback=name_of("schedule", known=True))
]
Day = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="The day to count from; WORKSHOP_TODAY when left out."),
]
Hour = Annotated[int, typer.Option(help="Of the day, UTC.", min=0, max=23)]
Alone = Annotated[
    bool, typer.Option("--auto-approve", help="Carry whole plans out without asking.")
]
Moment = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="A time, UTC.")
]


@proactive_app.command()
def start(agent: NewAgent = AGENT, today: Day = None) -> None:
    """Start the agent and see its first cycle to where it rests."""

    async def work() -> "RepairStatus":
        from workshop_lib.repair.proactive_client import ProactiveClient

        async with repair_worker() as client:
            started = await ProactiveClient.start_agent(
                client, workflow_id=agent, today=today.date() if today else None
            )
            say(f"Agent {agent}")
            status = await narrate(started, show)
            await tell_end(started, status, show)
            return status

    run(work())
    _say_who_goes_on()


@proactive_app.command(name="status")
def agent_status(agent: Agent = AGENT, as_json: Json = False) -> None:
    """Say where the agent is, and what its past cycles came to."""

    async def look() -> "tuple[RepairStatus, list[CycleRecord]]":
        from workshop_lib.repair.proactive_client import ProactiveClient

        async with repair_answers() as client:
            found = ProactiveClient(client, agent)
            return await found.status(), await found.cycles()

    from workshop_lib.repair.report import status_in_text

    found, cycles = run(look())
    if as_json:
        past = [record.model_dump(mode="json") for record in cycles]
        show_json({"workflow_id": agent, **found.model_dump(mode="json"), "cycles": past})
        return
    show(status_in_text(agent, found))
    for record in cycles:
        reason = harmless.line(record.reason)
        show(f"cycle {record.cycle}: {record.state}, {record.done} repairs. {reason}")


@proactive_app.command()
def wake(agent: Agent = AGENT) -> None:
    """Have the agent begin its next cycle now, and see that to where it rests."""

    async def work() -> None:
        from workshop_lib.repair.proactive_client import ProactiveClient
        from workshop_lib.repair.states import State

        async with repair_worker() as client:
            woken = ProactiveClient(client, agent)
            before = (await woken.status()).cycle
            await woken.stop_waiting()

            def again_at_rest(status: "RepairStatus") -> bool:
                # One that waits for a decision begins the next cycle when it has it.
                later = status.cycle > before or status.state == State.PENDING_APPROVAL
                return later and rests(status)

            status = await narrate(woken, show, until=again_at_rest)
            await tell_end(woken, status, show)
            if status.cycle == before and status.state == State.PENDING_APPROVAL:
                say("It waits for a decision first. The next cycle begins when that is made.")

    run(work())
    _say_who_goes_on()


@proactive_app.command()
def stop(agent: Agent = AGENT) -> None:
    """Ask the agent to leave. Repairs under way are made first; a plan that waits expires."""

    async def work() -> int:
        from workshop_lib.repair.proactive_client import ProactiveClient

        async with repair_worker(calls_models=False) as client:
            leaving = ProactiveClient(client, agent)
            await leaving.request_exit()
            return (await leaving.stopped()).count

    show(f"{agent} has stopped after {run(work())} cycles.")


@schedule_app.command()
def create(
    name: NewName = SCHEDULE,
    hour: Hour = 6,
    today: Day = None,
    auto_approve: Alone = False,
    as_json: Json = False,
) -> None:
    """Create a schedule."""
    _make("create", name, hour, today, auto_approve, as_json)


@schedule_app.command()
def upsert(
    name: NewName = SCHEDULE,
    hour: Hour = 6,
    today: Day = None,
    auto_approve: Alone = False,
    as_json: Json = False,
) -> None:
    """Create a schedule, or make the one of this name be like this."""
    _make("upsert", name, hour, today, auto_approve, as_json)


@schedule_app.command(name="list")
def list_schedules(as_json: Json = False) -> None:
    """List the schedules."""

    async def look() -> list[str]:
        from workshop_lib.repair.schedule import RepairSchedules

        async with connected() as client, asyncio.timeout(20):
            return [name async for name in RepairSchedules(client).list()]

    found = run(look())
    if as_json:
        show_json(found)
    else:
        show("\n".join(map(harmless.line, found)) or "No schedules.")


@schedule_app.command()
def describe(name: Name = SCHEDULE, as_json: Json = False) -> None:
    """Say when a schedule fires next, and what it has started."""

    async def look() -> "ScheduleInfo":
        from workshop_lib.repair.schedule import RepairSchedules

        async with connected() as client:
            return await RepairSchedules(client).describe(name)

    _show(run(look()), as_json)


@schedule_app.command()
def trigger(name: Name = SCHEDULE) -> None:
    """Start one of its repairs now."""
    _do("trigger", name)
    say(f"{name} starts a repair now; `workshop repair status` shows it.")
    _say_who_goes_on()


@schedule_app.command()
def backfill(start: Moment, end: Moment, name: Name = SCHEDULE) -> None:
    """Start the repairs that would have been due between two times."""
    _do("backfill", start.replace(tzinfo=UTC), end.replace(tzinfo=UTC), name)
    say(f"{name} makes up for what was due; `workshop repair list` shows it.")
    _say_who_goes_on()


@schedule_app.command()
def delete(name: Name = SCHEDULE) -> None:
    """Delete a schedule. Repairs that it has started go on."""
    _do("delete", name)
    say(f"The schedule {name} is gone.")


def _make(
    how: str, name: str, hour: int, today: datetime | None, auto_approve: bool, as_json: bool
) -> None:
    async def work() -> "ScheduleInfo":
        from workshop_lib.repair.schedule import RepairSchedules

        async with connected() as client:
            schedules = RepairSchedules(client)
            make = schedules.create if how == "create" else schedules.upsert
            return await make(
                name, hour=hour, today=today.date() if today else None, auto_approve=auto_approve
            )

    _show(run(work()), as_json)


def _do(what: str, *arguments: Any) -> None:
    async def work() -> None:
        from workshop_lib.repair.schedule import RepairSchedules

        async with connected() as client:
            await getattr(RepairSchedules(client), what)(*arguments)

    run(work())


def _show(info: "ScheduleInfo", as_json: bool) -> None:
    if as_json:
        show_json(info.model_dump(mode="json"))
        return
    alone = "carries whole plans out without asking" if info.auto_approve else "asks before it acts"
    show(f"{info.schedule_id}: every day at {info.hour:02}:00 UTC, {alone}, today is {info.today}")
    if info.paused:
        show("paused")
    for moment in info.next_times[:5]:
        show(f"next: {moment:%Y-%m-%d %H:%M} UTC")
    for workflow_id in info.runs:
        show(f"run: {harmless.line(workflow_id)}")


def _say_who_goes_on() -> None:
    """Say what keeps it going when this command has ended."""
    from workshop_lib.lab.services.background import running_services

    if not any(service.name == "repair" for service in running_services()):
        say("It goes on while a worker runs: `workshop up` starts one that stays.")
