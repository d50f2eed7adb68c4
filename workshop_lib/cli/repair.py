"""`workshop repair …`: run a repair, look at it, decide its plan, read its report, reset the data.

Each command brings a worker of its own, so nothing else has to run; `workshop up` runs one that stays. A
decision is bound to the digest of the plan that the person has seen: at a terminal the plan is shown and
asked about, a script gives the digest. Left out: agents and schedules that repeat repairs
(`repair_recurring_cli`), and how a repair is told (`repair_terminal`).
"""

import asyncio
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workshop_lib import harmless
from workshop_lib.cli.recurring import proactive_app, schedule_app
from workshop_lib.cli.repair_terminal import (
    document,
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
from workshop_lib.cli.support import Json, connected, name_of, run, show, show_json
from workshop_lib.edge import say
from workshop_lib.errors import WorkshopError

if TYPE_CHECKING:
    from workshop_lib.repair.client import RepairClient
    from workshop_lib.repair.models import Plan
    from workshop_lib.repair.states import RecordedDecision, RepairStatus

repair_app = typer.Typer(help="The agent that repairs orders.", no_args_is_help=True)
repair_app.add_typer(proactive_app, name="proactive")
repair_app.add_typer(schedule_app, name="schedule")

Repair = Annotated[
    str | None,
    typer.Argument(
        help="Id of the repair; the latest when left out.", callback=name_of("repair", known=True)
    ),
]
Waiting = Annotated[
    str | None,
    typer.Argument(
        help="Id of the repair; the only one that waits when left out.",
        callback=name_of("repair", known=True),
    ),
]
Digest = Annotated[
    str | None,
    typer.Option(
        help="Of the plan that you have seen, or its first 12 characters. Asked at a terminal."
    ),
]
By = Annotated[str | None, typer.Option(help="Who decides; USER_NAME when left out.")]
Day = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="The day to count from; WORKSHOP_TODAY when left out."),
]


@repair_app.command(name="run")
def run_repair(
    auto_approve: Annotated[
        bool, typer.Option("--auto-approve", help="Carry the whole plan out without asking.")
    ] = False,
    today: Day = None,
    name: Annotated[
        str | None,
        typer.Option("--id", help="Id of the new repair.", callback=name_of("repair")),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a repair: detect, analyse, plan, ask, repair, report.

    Without a terminal and without --auto-approve it is left waiting for a decision.
    """
    tell = say if as_json else show
    ask = not auto_approve and not as_json and sys.stdin.isatty()

    async def work() -> tuple[dict[str, Any], bool]:
        from workshop_lib.repair.client import RepairClient
        from workshop_lib.settings import get_settings

        async with repair_worker() as client:
            repair = await RepairClient.start(
                client,
                today=today.date() if today else None,
                auto_approve=auto_approve,
                workflow_id=name,
            )
            say(f"Repair {repair.workflow_id}, model {get_settings().model.name}")
            status = await narrate(repair, tell, ask=ask)
            await tell_end(repair, status, tell)
            return await document(repair, status), _went_well(status)

    _finish(*run(work()), as_json)


@repair_app.command()
def status(repair_id: Repair = None, as_json: Json = False) -> None:
    """Say where a repair is."""

    async def look() -> tuple[str, "RepairStatus"]:
        async with repair_answers() as client:
            repair = await latest_repair(client, repair_id)
            return repair.workflow_id, await repair.status()

    from workshop_lib.repair.report import status_in_text

    workflow_id, found = run(look())
    if as_json:
        show_json({"workflow_id": workflow_id, **found.model_dump(mode="json")})
    else:
        show(status_in_text(workflow_id, found))


@repair_app.command()
def plan(repair_id: Repair = None, as_json: Json = False) -> None:
    """Show a plan, with the digest that decisions are bound to."""

    async def look() -> tuple[str, "Plan | None", "RepairStatus"]:
        async with repair_answers() as client:
            repair = await latest_repair(client, repair_id)
            return repair.workflow_id, await repair.plan(), await repair.status()

    from workshop_lib.repair.report import plan_in_text

    workflow_id, found, where = run(look())
    if found is None:
        raise WorkshopError(f"{workflow_id} has no plan; it is {where.state}. {where.reason}")
    if as_json:
        show_json(plan_document(found))
    else:
        show(plan_in_text(found))


@repair_app.command()
def approve(
    repair_id: Waiting = None,
    digest: Digest = None,
    proposals: Annotated[
        str | None, typer.Option(help="Names of the proposals, as in p1,p3; all when left out.")
    ] = None,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    by: By = None,
    as_json: Json = False,
) -> None:
    """Approve a plan or a part of it, and see the repair to its end."""
    names = None if proposals is None else proposals.replace(",", " ").split()

    async def approving(repair: "RepairClient", seen: str) -> "RecordedDecision":
        return await repair.approve(seen, decided_by=by, proposals=names, comment=comment)

    what = "this plan" if names is None else f"{', '.join(names)} of this plan"
    _decide(repair_id, digest, approving, f"Approve {what}?", as_json)


@repair_app.command()
def reject(
    repair_id: Waiting = None,
    digest: Digest = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    by: By = None,
    as_json: Json = False,
) -> None:
    """Reject a plan: nothing of it is carried out."""

    async def rejecting(repair: "RepairClient", seen: str) -> "RecordedDecision":
        return await repair.reject(seen, decided_by=by, comment=reason)

    _decide(repair_id, digest, rejecting, "Reject this plan?", as_json)


@repair_app.command()
def report(
    repair_id: Repair = None,
    planning: Annotated[
        bool, typer.Option("--planning", help="The report on the plan, not on what was done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a report as Markdown, and say where its files are."""

    async def look() -> "tuple[RepairClient, RepairStatus, Any]":
        async with repair_answers() as client:
            repair = await latest_repair(client, repair_id)
            return repair, await repair.status(), await repair.report()

    repair, where, found = run(look())
    text = found.planning if planning else found.execution
    if as_json:
        show_json({"workflow_id": repair.workflow_id, **found.model_dump(mode="json")})
    elif text is None:
        raise WorkshopError(
            f"{repair.workflow_id} has no such report yet; it is {where.state}. {where.reason}".rstrip()
        )
    else:
        show(text.rstrip())
        for path in found.files:
            say(f"file: {path}")


@repair_app.command(name="list")
def list_all(as_json: Json = False) -> None:
    """List the repairs and proactive agents that the server knows."""

    async def look() -> list[dict[str, Any]]:
        from workshop_lib.repair.client import list_repairs

        async with connected() as client, asyncio.timeout(20):
            return [info.model_dump(mode="json") async for info in list_repairs(client)]

    found = run(look())
    if as_json:
        show_json(found)
        return
    if not found:
        show("No repairs yet. Start one with `workshop repair run`.")
        return
    names = [harmless.line(info["workflow_id"]) for info in found]
    width = max(map(len, names))
    show(f"{'name':<{width}}  {'kind':<9}  {'workflow':<16}  started (UTC)")
    for name, info in zip(names, found, strict=True):
        started = (info["started"] or "")[:16].replace("T", " ")
        show(f"{name:<{width}}  {info['kind']:<9}  {info['status']:<16}  {started}")


@repair_app.command()
def orders(as_json: Json = False) -> None:
    """Show the orders, the stock and every repair that was made."""
    from workshop_lib.repair.store import open_store
    from workshop_lib.settings import get_settings

    store = open_store()
    snapshot, ledger = store.snapshot(get_settings().today), store.ledger()
    if as_json:
        found = snapshot.model_dump(mode="json", include={"orders", "inventory"})
        show_json({**found, "repairs": [row.model_dump(mode="json") for row in ledger]})
        return
    for order in snapshot.orders:
        customer = harmless.line(order.customer_name)
        show(f"{order.order_id:<14} {harmless.line(order.status):<25} {customer}")
    show("\nStock:")
    for item in snapshot.inventory:
        show(
            f"{item.item_id:<14} {item.current_stock:>6} in stock, {item.available_stock:>6} available"
            f"  {harmless.line(item.item_name)}"
        )
    show("\nRepairs:" if ledger else "\nNo repairs were made.")
    for row in ledger:
        show(f"{row.order_id:<14} {row.tool:<23} {harmless.line(row.outcome)}")


@repair_app.command()
def reset() -> None:
    """Load orders and stock from data/ again, and forget every repair that was made."""
    from workshop_lib.repair.store import open_store

    if kept := open_store().reset():
        say(f"The order store was damaged; it is kept as {kept}.")
    say("Orders and stock are as in data/ again; the repairs are forgotten.")


def _decide(
    repair_id: str | None, digest: str | None, decide: Any, question: str, as_json: bool
) -> None:
    """Decide a plan that the person has seen, and see the repair to its end."""
    tell = say if as_json else show
    if digest is None and (as_json or not sys.stdin.isatty()):
        raise typer.BadParameter(
            "a decision is bound to the plan that you have seen; `workshop repair plan` prints its digest.",
            param_hint="--digest",
        )

    async def follow(repair: "RepairClient") -> tuple[dict[str, Any], bool]:
        status = await narrate(repair, tell)
        await tell_end(repair, status, tell)
        return await document(repair, status), _went_well(status)

    async def work() -> tuple[dict[str, Any], bool]:
        from workshop_lib.repair.client import RepairClient
        from workshop_lib.repair.states import ENDS

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
                return await follow(repair)
        async with repair_worker() as client:
            return await follow(RepairClient(client, repair.workflow_id))

    _finish(*run(work()), as_json)


async def _confirmed(plan: "Plan | None", question: str) -> str:
    """The digest of the plan, once it has been shown and agreed to."""
    from workshop_lib.repair.report import plan_in_text

    if plan is None:
        raise WorkshopError("There is no plan to decide about yet.")
    say(f"{plan_in_text(plan)}\n\n{question} [y/N]")
    if ((await read_line()) or "").strip().lower() not in ("y", "yes"):
        say("Nothing was decided.")
        raise typer.Exit(1)
    return plan.digest


def _went_well(status: "RepairStatus") -> bool:
    from workshop_lib.repair.states import State

    return status.state != State.FAILED


def _finish(result: dict[str, Any], went_well: bool, as_json: bool) -> None:
    if as_json:
        show_json(result)
    raise typer.Exit(0 if went_well else 1)
