"""Checks of notebook 06: a decision that expires, the line above which an agent acts alone, a schedule."""

import asyncio
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from workshop_lib.lab.checks.framework import NotYet, check, plain
from workshop_lib.lab.checks.trial import running
from workshop_lib.lab.classroom import seconds
from workshop_lib.lab.lessons.clock import pass_time
from workshop_lib.lab.timeline.labels import duration
from workshop_lib.lab.watching.waiting import NoAnswer, WorkflowFailed, result
from workshop_lib.repair.models import OrderInventory, Plan, Proposal
from workshop_lib.repair.schedule import RepairSchedules


@check(
    expects="APPROVED where somebody decides, EXPIRED after twelve hours where nobody does.",
    hint="`wait_condition(…, timeout=timedelta(hours=12))` raises TimeoutError; catch it and return EXPIRED.",
    timeout=60,
)
async def expires(client: Client, workflow: type) -> str:
    """Twelve hours pass for one run and none for the other."""
    async with running(client, workflow) as decided, running(client, workflow) as undecided:
        try:
            await decided.signal("approve", rpc_timeout=seconds(10))
        except RPCError:
            await _see_it_waits(decided)  # it is over already
            raise
        answer = await _result(decided, "a run that goes on after somebody has approved")
        if answer != "APPROVED":
            raise NotYet(saw=f"{answer!r} after a decision")
        await _see_it_waits(undecided)
        await pass_time(undecided, hours=11)
        await _see_it_waits(undecided)
        await pass_time(undecided, hours=1.1)
        answer = await _result(undecided, "a run that still waits after twelve hours")
        if answer != "EXPIRED":
            raise NotYet(saw=f"{answer!r} after twelve hours")
        taken = await _duration(undecided)
        hours = taken / timedelta(hours=1) if taken else 0.0
        if abs(hours - 12) > 0.02:  # a run's own clock is exact, but for the work it does
            raise NotYet(
                saw=f"EXPIRED after {duration(hours * 3600)}", hint="the limit is twelve hours."
            )
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
        (1.0, 0.95): False,
        (0.99, 0.90): False,
        (0.90, 0.99): False,
        (0.99, 0.99, 0.94): False,  # also where the average is above
        (): False,
    }
    for confidences, truth in cases.items():
        decision = plain(decide(_plan(confidences)))
        if bool(decision) is not truth:
            raise NotYet(saw=f"{decision!r} for confidences {list(confidences)}")
    return f"{len(cases)} plans decided as the agent does"


@check(
    expects="a schedule that fires at seven, and one repair that a trigger has started.",
    hint="`upsert(name, hour=7)` makes or changes it, `trigger(name)` starts a repair now.",
    timeout=40,
)
async def scheduled(client: Client, schedule_id: str) -> str:
    """The server itself knows when the next repairs are due."""
    schedules = RepairSchedules(client)
    described = await schedules.describe(schedule_id)
    hours = {moment.hour for moment in described.next_times}
    if hours != {7}:
        raise NotYet(saw=f"next times at {', '.join(map(str, sorted(hours))) or 'no'} o'clock")
    for _ in range(50):
        if described.runs:
            break
        await asyncio.sleep(0.1)  # the schedule starts its run a moment after the trigger
        described = await schedules.describe(schedule_id)
    if not described.runs:
        raise NotYet(saw="a schedule that has not started anything yet")
    first: datetime = described.next_times[0]
    return f"next at {first:%Y-%m-%d %H:%M} UTC; started: {described.runs[-1]}"


async def _duration(run: WorkflowHandle[Any, Any]) -> timedelta | None:
    """How long a run has taken by its own clock; None while it goes on."""
    described = await run.describe(rpc_timeout=seconds(10))
    return described.close_time - described.start_time if described.close_time else None


async def _see_it_waits(run: WorkflowHandle[Any, Any]) -> None:
    """See that a run has not ended yet."""
    after = await _duration(run)
    if after is None:
        return
    if after > timedelta(hours=1):
        raise NotYet(saw=f"a run that ended after {after}", hint="the limit is twelve hours.")
    if after > timedelta(seconds=5):
        raise NotYet(
            saw=f"a run that ended after {duration(after.total_seconds())}",
            hint="a plain number means seconds: `timeout=timedelta(hours=12)`.",
        )
    raise NotYet(
        saw="a run that ended at once, before anybody had decided",
        hint="does it `await workflow.wait_condition(…)`?",
    )


async def _result(run: WorkflowHandle[Any, Any], otherwise: str) -> Any:
    """What a run returns within some seconds."""
    try:
        return await result(run, timeout=8)
    except NoAnswer:
        raise NotYet(saw=otherwise, hint="it waits for the condition, or for the limit.") from None
    except WorkflowFailed as failed:
        if "TimeoutError" not in failed.what:
            raise
        raise NotYet(
            saw=f"a run that failed ({failed.what})",
            hint="catch `TimeoutError`: Python's own, which needs no import.",
        ) from None


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
