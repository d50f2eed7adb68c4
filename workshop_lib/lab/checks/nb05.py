"""Checks of notebook 05: a plan validator, a repair that happens once, and a decision on a part of a plan."""

from collections.abc import Callable
from typing import Any

from temporalio.client import Client

from workshop_lib.lab.checks.framework import NotYet, check, plain
from workshop_lib.lab.checks.trial import activities_beside, trial
from workshop_lib.lab.history import history_of
from workshop_lib.lab.lessons.check_runs import Twice
from workshop_lib.lab.lessons.shelf import FIRST, keys_seen, reset_shelf, shelf_stock
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.models import Proposal, Snapshot
from workshop_lib.repair.states import State

BADGES, EGG, KIBBLE = "STP-ORG-001", "DRG-EGG-007", "CRT-FD-101"
QUANTITY = 113


def _buy(order_id: str, item_id: str, quantity: int) -> dict[str, Any]:
    arguments = {"order_id": order_id, "item_id": item_id, "quantity": quantity}
    return {"tool": "order_inventory", "arguments": arguments}


# What a plan may hold, and what it may not, with what is wrong about it.
GOOD = [
    _buy("ORD-002-HJG", BADGES, 113),
    _buy("ORD-002-HJG", BADGES, 253),
    _buy("ORD-004-RHG", KIBBLE, 365),
]
BAD = [
    (_buy("ORD-999-XXX", BADGES, 113), "an order that does not exist"),
    (_buy("ORD-002-HJG", "XXX-XXX-999", 113), "an article that does not exist"),
    (_buy("ORD-002-HJG", BADGES, 254), "more than the shelf holds"),
    (_buy("ORD-002-HJG", BADGES, 112), "fewer than are missing"),
    (_buy("ORD-004-RHG", EGG, 1), "a restricted article"),
    (_buy("ORD-002-HJG", KIBBLE, 400), "an article that is not on the order"),
]


@check(
    expects="None for what may be bought, and a reason for what may not.",
    hint="each rule is one `if` that returns a sentence; at the end `return None`.",
    timeout=10,
)
async def validator(why_not: Callable[[Proposal, Snapshot], str | None], snapshot: Snapshot) -> str:
    """Right purchases pass, and each kind of wrong one is refused with a reason."""
    for written in GOOD:
        if (reason := plain(why_not(_proposal(written), snapshot))) is not None:
            raise NotYet(saw=f"{reason!r} for {_words(written)}, which is right")
    for written, what in BAD:
        reason = plain(why_not(_proposal(written), snapshot))
        if not (isinstance(reason, str) and reason.strip()):
            raise NotYet(saw=f"{reason!r} for {_words(written)}: {what}")
    return f"{len(GOOD)} purchases may be made, {len(BAD)} may not"


@check(
    expects=f"{QUANTITY} badge sets ordered once, although the step was tried three times.",
    hint="a key that every attempt of this step shares: `activity.info()` knows workflow and step.",
    timeout=70,
    takes="some twelve seconds: four steps, each of which is tried three times",
)
async def once(client: Client, workflow: type, activity: Callable[..., Any]) -> str:
    """Attempts that are repeated change nothing; another run's order counts, and so does another step's."""
    reset_shelf()
    handle, _ = await trial(client, workflow, QUANTITY, [activity], timeout=20)
    attempts = sum(run.attempts for run in (await history_of(handle)).activities)
    added = _added(0)
    if attempts < 3:
        raise NotYet(
            saw=f"a step that was tried {attempts} times; leave the lost answers as they are"
        )
    if added != QUANTITY:
        keys = ", ".join(keys_seen()) or "none"
        raise NotYet(saw=f"{added} badge sets ordered in {attempts} attempts; their keys: {keys}")
    key = keys_seen()[-1] if keys_seen() else "none"
    await trial(client, workflow, QUANTITY, [activity], timeout=20)
    if (again := _added(added)) != QUANTITY:
        raise NotYet(
            saw=f"{again} badge sets ordered by a second run. The first one's key was {key}",
            expected=f"{QUANTITY} badge sets more from a second run.",
            hint="the key must name the run, too (`workflow_run_id`): what is constant is the same in all "
            "runs, and the ids of activities begin again at 1 in each.",
        )
    call = workflow.__module__, workflow.__qualname__, QUANTITY
    await trial(client, Twice, call, [activity, *activities_beside(workflow)], timeout=25)
    if (twice := _added(added + again)) != 2 * QUANTITY:
        raise NotYet(
            saw=f"{twice} badge sets ordered by a run with two such steps",
            expected=f"{2 * QUANTITY} badge sets from a run that orders twice.",
            hint="the steps of a run share its id: the key must name the step, too (`activity_id`; or "
            "`workflow.uuid4()`, where the workflow makes the key).",
        )
    return f"{attempts} attempts, {added} badge sets; another run and another step order their own"


def _added(before: int) -> int:
    """How many badge sets were ordered, those before left out."""
    return shelf_stock()[BADGES] - FIRST[BADGES] - before


@check(
    expects="the badges and the payment approved, all for order 004 declined, and the report written.",
    hint="`panel.approve([…])` takes the ids of what you approve; what is left out is declined.",
    timeout=30,
)
async def part_approved(repair: RepairClient) -> str:
    """Only what was approved is in the results, and the rest is on record as declined."""
    status = await repair.status()
    if status.state == State.PENDING_APPROVAL and status.decision is None:
        raise NotYet(saw="a plan that nobody has decided about yet (was `approve` awaited?)")
    outcome = await repair.outcome()
    again = "a decision is final. Run `store.reset()`, then the cells that make `run` and `panel`."
    if outcome.state is not State.COMPLETED:
        raise NotYet(saw=f"the repair ended as {outcome.state}: {outcome.reason}", hint=again)
    done = sorted(result.order_id for result in outcome.results if result.done)
    if done != ["ORD-002-HJG", "ORD-003-RBW"] or len(outcome.declined) != 2:
        declined = ", ".join(outcome.declined) or "nothing"
        raise NotYet(
            saw=f"repairs of {', '.join(done) or 'no order'}; declined: {declined}",
            hint=again,
        )
    return f"repaired: {', '.join(done)}; declined: {', '.join(outcome.declined)}"


def _proposal(written: dict[str, Any]) -> Proposal:
    return Proposal.model_validate({"proposal_id": "p1", "confidence": 0.9, **written})


def _words(written: dict[str, Any]) -> str:
    arguments = written["arguments"]
    return f"{arguments['quantity']} of {arguments['item_id']} for {arguments['order_id']}"
