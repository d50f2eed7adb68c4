"""A repair as a terminal tells it: states as they come, the plan, the question, what was done, the report.

Also: which repair a command means when it names none. Left out: the commands (`cli.repair`) and the wording
of a plan or a status (`repair.report`).
"""

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from temporalio.client import Client

from workshop_lib import harmless
from workshop_lib.cli.support import serving
from workshop_lib.edge import say
from workshop_lib.errors import WorkshopError
from workshop_lib.repair.client import DecisionRefused, RepairClient, list_repairs
from workshop_lib.repair.documents import SHORT, plan_in_text, result_in_text
from workshop_lib.repair.models import Plan, RepairResult
from workshop_lib.repair.states import RepairStatus, State

WORK_LIMIT = timedelta(minutes=15)  # for a repair that waits for nobody
HUMAN_LIMIT = timedelta(hours=13)  # a plan expires after twelve
MAX_RUNNING = 50  # repairs that are looked at to find the one that waits

Tell = Callable[[str], None]
HOW_TO_DECIDE = (
    "Type `approve` for all of it, names such as `p1 p3` for a part, `reject` or `reject REASON`,"
    " or `later`."
)


# A worker that carries repairs on while the block runs; and one that answers queries and makes no step.
repair_worker = partial(serving, ["repair"])
repair_answers = partial(serving, ["repair"], calls_models=False, activities=False)


async def latest_repair(client: Client, given: str | None) -> RepairClient:
    """The repair of this name, or the one that was started last.

    Raises:
        WorkshopError: none is named and there is none.
    """
    if given is not None:
        return RepairClient(client, given)
    async with asyncio.timeout(20):
        found = [info async for info in list_repairs(client) if info.kind == "repair"]
    if not found:
        raise WorkshopError("There is no repair yet.", fix="`workshop repair run`")
    last = max(found, key=lambda info: info.started.timestamp() if info.started else 0)
    return RepairClient(client, last.workflow_id)


async def waiting_repair(client: Client, given: str | None) -> RepairClient:
    """The repair of this name, or the only one that waits for a decision.

    Raises:
        WorkshopError: none is named, and none waits or several do.
    """
    if given is not None:
        return RepairClient(client, given)
    async with asyncio.timeout(20):
        found = [info async for info in list_repairs(client) if info.status == "running"]
    running = [RepairClient(client, info.workflow_id) for info in found[:MAX_RUNNING]]
    waiting = [r for r in running if (await r.status()).state == State.PENDING_APPROVAL]
    if len(waiting) == 1:
        return waiting[0]
    if not waiting:
        raise WorkshopError(
            "No repair waits for a decision.",
            fix="`workshop repair list` shows them all; `workshop repair run` starts one.",
        )
    names = ", ".join(harmless.line(repair.workflow_id) for repair in waiting)
    raise WorkshopError(
        f"{len(waiting)} repairs wait for a decision: {names}.", fix="name the one that you mean."
    )


def whole_digest(plan: Plan | None, given: str) -> str:
    """The plan's digest, where its beginning is given; otherwise what is given, which is then refused."""
    if plan is not None and len(given) >= SHORT and plan.digest.startswith(given.lower()):
        return plan.digest
    return given


def rests(status: RepairStatus) -> bool:
    """Whether nothing happens before somebody decides, or before the next day."""
    undecided = status.state == State.PENDING_APPROVAL and status.decision is None
    return undecided or status.state == State.WAITING


async def narrate(
    repair: RepairClient,
    tell: Tell,
    *,
    ask: bool = False,
    until: Callable[[RepairStatus], bool] = rests,
) -> RepairStatus:
    """Tell what happens, as it happens, until the repair rests or has ended. Returns its last status.

    Args:
        tell: prints for the person.
        ask: ask the person at the terminal for a decision.
        until: where to stop, if not where the repair rests.
    """
    cycle, shown, done, last = 0, 0, 0, ""
    status: RepairStatus | None = None
    async with contextlib.aclosing(repair.follow(HUMAN_LIMIT if ask else WORK_LIMIT)) as news:
        async for status in news:
            if status.cycle != cycle:
                cycle, shown, done = status.cycle, 0, 0
            approved = status.decision is not None and status.decision.approve
            results = (await repair.results())[done:] if approved else []
            for change in status.states[shown:]:
                if change.state == State.PENDING_REPORT:  # what was done comes before it
                    done += _tell_results(results, tell)
                    results = []
                tell(f"state: {change.state}")
                last = change.state
                if change.state == State.PENDING_APPROVAL and (plan := await repair.plan()):
                    tell(f"\n{plan_in_text(plan)}\n")
            shown = len(status.states)
            done += _tell_results(results, tell)
            if status.state != last:
                tell(f"state: {status.state}")
                last = status.state
            if ask and status.state == State.PENDING_APPROVAL and status.decision is None:
                if not await _ask(repair):
                    break
            elif until(status):
                break
    assert status is not None  # the first one comes at once
    return status


async def tell_end(repair: RepairClient, status: RepairStatus, tell: Tell) -> None:
    """Tell how it ended, with the report; or how to decide, where it waits."""
    if status.state == State.PENDING_APPROVAL:
        say(how_to_decide(repair.workflow_id, status))
        return
    for warning in status.warnings:
        say(f"warning: {harmless.line(warning)}")
    report = await repair.report()
    if report.execution:
        tell(f"\n{report.execution.rstrip()}")
    for path in report.files:
        tell(f"file: {path}")
    if status.reason:
        tell(harmless.line(status.reason))


def how_to_decide(workflow_id: str, status: RepairStatus) -> str:
    """The commands that decide a plan that waits."""
    digest = (status.plan_digest or "")[:SHORT]
    until = f" until {status.decide_until:%Y-%m-%d %H:%M} UTC" if status.decide_until else ""
    name = shlex.quote(harmless.line(workflow_id))  # others' names are pasted, too
    return (
        f"{name} waits for a decision{until}; no worker has to run for that.\n"
        f"  workshop repair approve {name} --digest {digest}\n"
        f"  workshop repair approve {name} --digest {digest} --proposals p1,p2\n"
        f"  workshop repair reject {name} --digest {digest} --reason WHY"
    )


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan, with the digest that decisions are bound to."""
    return {"digest": plan.digest, **plan.model_dump()}


async def read_line() -> str | None:
    """A line from the terminal, or None at its end. Unlike `input` it can be given up."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()

    def ready() -> None:
        if not line.done():
            line.set_result(sys.stdin.readline() or None)

    loop.add_reader(sys.stdin.fileno(), ready)
    try:
        return await line
    finally:
        loop.remove_reader(sys.stdin.fileno())


def _tell_results(results: list[RepairResult], tell: Tell) -> int:
    """Tell what became of proposals. Returns of how many."""
    for result in results:
        tell(result_in_text(result))
    return len(results)


async def _ask(repair: RepairClient) -> bool:
    """Ask until the plan is decided, here or elsewhere. Returns False where the person leaves it open."""
    plan = await repair.plan()
    assert plan is not None  # it is pending
    elsewhere = asyncio.ensure_future(
        repair.wait_until(lambda status: status.state != State.PENDING_APPROVAL, HUMAN_LIMIT)
    )
    try:
        while True:
            say(HOW_TO_DECIDE)
            typed = asyncio.ensure_future(read_line())
            try:
                await asyncio.wait({typed, elsewhere}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                typed.cancel()
            if elsewhere.done():
                await elsewhere
                say("It was decided elsewhere, or has expired.")
                return True
            answer = typed.result()
            words = (answer or "later").replace(",", " ").split()
            if not words:
                continue
            if words[0].lower() in ("later", "l"):
                return False
            try:
                await _decide(repair, plan, words, answer or "")
                return True
            except DecisionRefused as refusal:
                say(str(refusal))
                if refusal.kind != "UnknownProposal":
                    return True
    finally:
        elsewhere.cancel()


async def _decide(repair: RepairClient, plan: Plan, words: list[str], answer: str) -> None:
    match words[0].lower():
        case "approve" | "a" | "yes" | "y" if len(words) == 1:
            await repair.approve(plan.digest)
        case "approve" | "a":
            await repair.approve(plan.digest, proposals=words[1:])
        case "reject" | "r":  # and not "n": a rejection is final, and nobody was asked yes or no
            reason = answer.strip().partition(" ")[2].strip()
            await repair.reject(plan.digest, comment=reason[:1000])
        case _:
            await repair.approve(plan.digest, proposals=words)
