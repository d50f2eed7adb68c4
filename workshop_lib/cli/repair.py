"""`workshop repair …`: run a repair, look at it, decide its plan, read its report, reset the data.

Each command brings a worker of its own, so nothing else has to run; `workshop up` runs one that stays. A
decision is bound to the digest of the plan that the person has seen: at a terminal the plan is shown and
asked about, a script gives the digest. Left out: agents and schedules that repeat repairs
(`cli.recurring`), and how a repair is told (`cli.repair_terminal`).
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from workshop_lib import harmless
from workshop_lib.auth.outbound import keyboard_user
from workshop_lib.cli.recurring import Day, proactive_app, schedule_app
from workshop_lib.cli.repair_terminal import (
    Tell,
    latest_repair,
    narrate,
    plan_document,
    read_line,
    repair_answers,
    repair_worker,
    tell_end,
    waiting_repair,
    whole_digest,
)
from workshop_lib.cli.support import Answer, Json, command, connected, name_of, show
from workshop_lib.edge import say
from workshop_lib.errors import WorkshopError
from workshop_lib.repair.approval import waiting_for
from workshop_lib.repair.client import RepairClient, list_repairs
from workshop_lib.repair.documents import plan_in_text, status_in_text
from workshop_lib.repair.models import Plan
from workshop_lib.repair.states import ENDS, RecordedDecision, State
from workshop_lib.repair.store import open_store
from workshop_lib.settings import get_settings

app = typer.Typer(no_args_is_help=True)
app.add_typer(proactive_app, name="proactive")
app.add_typer(schedule_app, name="schedule")

_KNOWN = name_of("repair", known=True)
Repair = Annotated[
    str | None, typer.Argument(help="Id of the repair; the latest when left out.", callback=_KNOWN)
]
Waiting = Annotated[
    str | None,
    typer.Argument(
        help="Id of the repair; the only one that waits when left out.", callback=_KNOWN
    ),
]
Digest = Annotated[
    str | None,
    typer.Option(
        help="Of the plan that you have seen, or its first 12 characters. Asked at a terminal."
    ),
]
By = Annotated[str | None, typer.Option(help="Who decides; USER_NAME when left out.")]


@app.callback()
def repair() -> None:
    """The agent that repairs orders."""


@command(app)
async def run(
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="Carry the whole plan out without asking.")
    ] = False,
    today: Day = None,
    name: Annotated[
        str | None,
        typer.Option("--id", help="Id of the new repair.", callback=name_of("repair")),
    ] = None,
    as_json: Json = False,
) -> Answer:
    """Run a repair: detect, analyse, plan, ask, repair, report.

    Without a terminal and without --auto-approve it is left waiting for a decision.
    """
    async with repair_worker() as client:
        repair = await RepairClient.start(
            client, today=today, auto_approve=auto_approve, workflow_id=name
        )
        say(f"Repair {repair.workflow_id}, model {get_settings().model.name}")
        ask = not auto_approve and not as_json and sys.stdin.isatty()
        return await _see_to_its_end(repair, say if as_json else show, ask=ask)


@command(app)
async def status(repair_id: Repair = None, as_json: Json = False) -> Answer:
    """Say where a repair is."""
    async with repair_answers() as client:
        repair = await latest_repair(client, repair_id)
        now = await repair.status()
    document = {"workflow_id": repair.workflow_id, **now.model_dump()}
    return Answer(document, status_in_text(repair.workflow_id, now))


@command(app)
async def plan(repair_id: Repair = None, as_json: Json = False) -> Answer:
    """Show a plan, with the digest that decisions are bound to."""
    async with repair_answers() as client:
        repair = await latest_repair(client, repair_id)
        plan, now = await repair.plan(), await repair.status()
    if plan is None:
        raise WorkshopError(f"{repair.workflow_id} has no plan; it is {now.state}. {now.reason}")
    return Answer(plan_document(plan), plan_in_text(plan))


@command(app)
async def approve(
    repair_id: Waiting = None,
    digest: Digest = None,
    proposals: Annotated[
        str | None, typer.Option(help="Names of the proposals, as in p1,p3; all when left out.")
    ] = None,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    by: By = None,
    as_json: Json = False,
) -> Answer:
    """Approve a plan or a part of it, and see the repair to its end."""
    names = None if proposals is None else proposals.replace(",", " ").split()
    what = "this plan" if names is None else f"{', '.join(names)} of this plan"

    def approving(repair: RepairClient, seen: str) -> Awaitable[RecordedDecision]:
        return repair.approve(seen, decided_by=by, proposals=names, comment=comment)

    return await _decide(repair_id, digest, approving, f"Approve {what}?", as_json)


@command(app)
async def reject(
    repair_id: Waiting = None,
    digest: Digest = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    by: By = None,
    as_json: Json = False,
) -> Answer:
    """Reject a plan: nothing of it is carried out."""

    def rejecting(repair: RepairClient, seen: str) -> Awaitable[RecordedDecision]:
        return repair.reject(seen, decided_by=by, comment=reason)

    return await _decide(repair_id, digest, rejecting, "Reject this plan?", as_json)


@command(app)
async def report(
    repair_id: Repair = None,
    planning: Annotated[
        bool, typer.Option("--planning", help="The report on the plan, not on what was done.")
    ] = False,
    as_json: Json = False,
) -> Answer:
    """Print a report as Markdown, and say where its files are."""
    async with repair_answers() as client:
        repair = await latest_repair(client, repair_id)
        now, report = await repair.status(), await repair.report()
    text = report.planning if planning else report.execution
    if text is None and not as_json:
        what = f"{repair.workflow_id} has no such report yet; it is {now.state}. {now.reason}"
        raise WorkshopError(what.rstrip())
    for path in [] if as_json else report.files:
        say(f"file: {path}")
    document = {"workflow_id": repair.workflow_id, **report.model_dump()}
    return Answer(document, text and text.rstrip())


@command(app, name="list")
async def list_all(
    waiting: Annotated[
        bool, typer.Option("--waiting-for-me", help="Those whose plan you may approve of now.")
    ] = False,
    as_json: Json = False,
) -> Answer:
    """List the repairs and proactive agents that the server knows."""
    async with connected() as client, asyncio.timeout(20):
        where = waiting_for(keyboard_user()) if waiting else ""
        infos = [info async for info in list_repairs(client, where)]
    if not infos:
        none = "No repairs yet. Start one with `workshop repair run`."
        return Answer([], "No plan waits for you." if waiting else none)
    names = [harmless.line(info.workflow_id) for info in infos]
    width = max(map(len, names))
    lines = [f"{'name':<{width}}  {'kind':<9}  {'workflow':<16}  started (UTC)"]
    for name, info in zip(names, infos, strict=True):
        started = f"{info.started:%Y-%m-%d %H:%M}" if info.started else ""
        lines.append(f"{name:<{width}}  {info.kind:<9}  {info.status:<16}  {started}")
    return Answer(infos, "\n".join(lines))


@command(app)
def orders(as_json: Json = False) -> Answer:
    """Show the orders, the stock and every repair that was made."""
    store = open_store()
    snapshot, ledger = store.snapshot(get_settings().today), store.ledger()
    document = snapshot.model_dump(include={"orders", "inventory"}) | {"repairs": ledger}
    lines = [
        f"{order.order_id:<14} {harmless.line(order.status):<25} {harmless.line(order.customer_name)}"
        for order in snapshot.orders
    ]
    lines.append("\nStock:")
    lines += [
        f"{item.item_id:<14} {item.current_stock:>6} in stock, {item.available_stock:>6} available"
        f"  {harmless.line(item.item_name)}"
        for item in snapshot.inventory
    ]
    lines.append("\nRepairs:" if ledger else "\nNo repairs were made.")
    lines += [f"{row.order_id:<14} {row.tool:<23} {harmless.line(row.outcome)}" for row in ledger]
    return Answer(document, "\n".join(lines))


@command(app)
def reset() -> None:
    """Load orders and stock from data/ again, and forget every repair that was made."""
    if kept := open_store().reset():
        say(f"The order store was damaged; it is kept as {kept}.")
    say("Orders and stock are as in data/ again; the repairs are forgotten.")


async def _decide(
    repair_id: str | None,
    digest: str | None,
    decide: Callable[[RepairClient, str], Awaitable[RecordedDecision]],
    question: str,
    as_json: bool,
) -> Answer:
    """Decide a plan that the person has seen, and see the repair to its end."""
    if digest is None and (as_json or not sys.stdin.isatty()):
        raise typer.BadParameter(
            "a decision is bound to the plan that you have seen; `workshop repair plan` prints its digest.",
            param_hint="--digest",
        )
    tell = say if as_json else show
    # A decision needs no model, so whoever is refused does not wait for one to be loaded.
    async with repair_answers() as client:
        repair = await waiting_repair(client, repair_id)
        plan = await repair.plan()
        seen = whole_digest(plan, digest) if digest else await _confirmed(plan, question)
        recorded = await decide(repair, seen)
        made = "approved" if recorded.approve else "rejected"
        which = ", ".join(recorded.approved or recorded.declined)
        who = harmless.line(recorded.decided_by)
        say(f"{harmless.line(repair.workflow_id)}: {made} by {who}: {which}")
        if (await repair.status()).state in ENDS:
            return await _see_to_its_end(repair, tell)
    async with repair_worker() as client:
        return await _see_to_its_end(RepairClient(client, repair.workflow_id), tell)


async def _confirmed(plan: Plan | None, question: str) -> str:
    """The digest of the plan, once it has been shown and agreed to."""
    if plan is None:
        raise WorkshopError("There is no plan to decide about yet.")
    say(f"{plan_in_text(plan)}\n\n{question} [y/N]")
    if ((await read_line()) or "").strip().lower() not in ("y", "yes"):
        say("Nothing was decided.")
        raise typer.Exit(1)
    return plan.digest


async def _see_to_its_end(repair: RepairClient, tell: Tell, *, ask: bool = False) -> Answer:
    """Tell a repair until it rests or has ended; all of it is one document."""
    status = await narrate(repair, tell, ask=ask)
    await tell_end(repair, status, tell)
    plan, report = await repair.plan(), await repair.report()
    document: dict[str, Any] = {
        "workflow_id": repair.workflow_id,
        **status.model_dump(),
        "plan": plan and plan_document(plan),
        "results": await repair.results(),
        "report": report.execution,
        "files": report.files,
    }
    return Answer(document, failed=status.state == State.FAILED)
