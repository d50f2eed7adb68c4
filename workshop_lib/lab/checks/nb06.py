"""Checks of notebook 06: a decision that expires, the line above which an agent acts alone, a schedule."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from workshop_lib.lab.checks.framework import NotYet, check
from workshop_lib.lab.classroom import new_id, seconds, spec
from workshop_lib.lab.clock import pass_time
from workshop_lib.lab.timeline_view import duration
from workshop_lib.lab.waiting import NoAnswer, result
from workshop_lib.lab.workers import start_worker
from workshop_lib.repair.models import OrderInventory, Plan, Proposal
from workshop_lib.repair.schedule import RepairSchedules


@check(
    expects="APPROVED where somebody decides, EXPIRED after twelve hours where nobody does.",
    hint="`wait_condition(…, timeout=timedelta(hours=12))` raises TimeoutError; catch it and return EXPIRED.",
    timeout=60,
)
async def expires(client: Client, workflow: type) -> str:
    """Thirteen hours pass for one run and none for the other."""
    name = new_id("check-waiting")
    checked = spec(name, workflows=[workflow])
    worker = await start_worker(checked, announce=False)
    runs: list[WorkflowHandle[Any, Any]] = []
    try:
        for which in ("decided", "undecided"):
            started = client.start_workflow(
                workflow.__name__, id=f"{name}-{which}", task_queue=checked.task_queue
            )
            runs += [await started]
        await runs[0].signal("approve", rpc_timeout=seconds(10))
        decided = await result(runs[0], timeout=15)
        if decided != "APPROVED":
            raise NotYet(saw=f"{decided!r} after a decision")
        await pass_time(runs[1], hours=11)
        if early := await _hours_to_its_end(runs[1]):
            raise NotYet(
                saw=f"a run that ended after {duration(early * 3600)}",
                hint="a plain number means seconds: `timeout=timedelta(hours=12)`.",
            )
        await pass_time(runs[1], hours=2)
        try:
            undecided = await result(runs[1], timeout=5)
        except NoAnswer:
            raise NotYet(saw="a run that still waits after thirteen hours") from None
        if undecided != "EXPIRED":
            raise NotYet(saw=f"{undecided!r} after thirteen hours")
        hours = await _hours_to_its_end(runs[1])
    finally:
        for run in runs:
            with contextlib.suppress(RPCError):
                await run.terminate("the check is over", rpc_timeout=seconds(5))
        await asyncio.to_thread(worker.stop)
    return f"expired after {hours:.0f} hours of its own clock"


@check(
    expects="True only where there is something to do and every confidence is above 0.95.",
    hint="above, not at; all of them, not most; and an empty plan is nothing to act on.",
    timeout=5,
)
async def acts_alone(decide: Callable[[Plan], bool]) -> str:
    """The line is drawn where the proactive agent draws it."""
    cases = {
        (0.96, 0.99): True,
        (0.951,): True,
        (0.95,): False,
        (0.99, 0.90): False,
        (): False,
    }
    for confidences, truth in cases.items():
        said = decide(_plan(confidences))
        if bool(said) is not truth:
            raise NotYet(saw=f"{said!r} for confidences {list(confidences)}")
    return f"{len(cases)} plans decided as the agent does"


@check(
    expects="a schedule that fires at seven, and one repair that a trigger has started.",
    hint="`create(schedule_id, hour=7)` makes it, `trigger(schedule_id)` starts a repair now.",
    timeout=40,
)
async def scheduled(client: Client, schedule_id: str) -> str:
    """The server itself knows when the next repairs are due."""
    schedules = RepairSchedules(client)
    for _ in range(50):
        described = await schedules.describe(schedule_id)
        if described.runs:
            break
        await asyncio.sleep(0.1)  # the schedule starts its run a moment after the trigger
    hours = {moment.hour for moment in described.next_times}
    if hours != {7}:
        raise NotYet(saw=f"next times at {', '.join(map(str, sorted(hours))) or 'no'} o'clock")
    if not described.runs:
        raise NotYet(saw="a schedule that has not started anything yet")
    first: datetime = described.next_times[0]
    return f"next at {first:%Y-%m-%d %H:%M} UTC; started: {described.runs[-1]}"


async def _hours_to_its_end(run: WorkflowHandle[Any, Any]) -> float:
    """How long a run has taken by its own clock; 0 while it is under way."""
    described = await run.describe(rpc_timeout=seconds(10))
    if described.close_time is None:
        return 0
    return (described.close_time - described.start_time).total_seconds() / 3600


def _plan(confidences: tuple[float, ...]) -> Plan:
    return Plan(
        snapshot_digest=str(date(2025, 6, 28)),
        proposals=[
            Proposal(
                proposal_id=f"p{number}",
                tool="order_inventory",
                arguments=OrderInventory(
                    order_id="ORD-002-HJG", item_id=f"STP-ORG-{number:03}", quantity=113
                ),
                confidence=confidence,
            )
            for number, confidence in enumerate(confidences, 1)
        ],
    )
