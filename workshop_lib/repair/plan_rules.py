"""The hard rules for plans: which proposals a human may be shown at all. A pure function, no model in it.

A model proposes, these rules dispose: a proposal that breaks one is refused with the reason, however sure the
model is of itself, and what the model wrote is kept so that people can read it. Everything is judged by the
snapshot alone; notes of orders are never looked at. Left out: whether a proposal that may be made should be
made, which is the approver's decision.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from workshop_lib.harmless import faults
from workshop_lib.repair.models import (
    ARGUMENTS,
    SKIP_THRESHOLD,
    Order,
    OrderInventory,
    Plan,
    Proposal,
    Rejected,
    RequestApproval,
    RequestPaymentUpdate,
    Snapshot,
)

# A pending order is left alone for this long; a denied payment is a problem at once.
PATIENCE_DAYS = 3


class Checked(NamedTuple):
    """Proposals after the rules: what a human may be shown as a plan, and what was thrown out."""

    accepted: list[Proposal]
    refused: list[Rejected]


def check_plan(proposals: Sequence[Proposal | Mapping[str, Any]], snapshot: Snapshot) -> Checked:
    """Sort proposals into accepted and refused.

    Args:
        proposals: in the order of the plan; the first of two that do the same counts. A mapping that is no
            valid `Proposal` is refused like any other.
        snapshot: the orders, the stock and the open requests that they are judged by.
    """
    accepted: list[Proposal] = []
    refused: list[Rejected] = []
    for written in proposals:
        reason: str | None
        try:
            # Read anew even where it is a Proposal: one made without validation is no exception.
            raw = written.model_dump() if isinstance(written, Proposal) else dict(written)
            proposal = Proposal.model_validate(raw)
            reason = _broken_rule(proposal, snapshot, accepted)
        except ValidationError as error:
            reason = _unreadable(raw, error)
        if reason is None:
            accepted.append(proposal)
        else:
            refused.append(Rejected(proposal=raw, reason=reason))
    return Checked(accepted, refused)


def why_healthy(order: Order, snapshot: Snapshot) -> str | None:
    """Why there is nothing to repair about an order, in words, or None where it is in trouble.

    In trouble are orders whose payment was denied, and orders that have been pending for more than
    `PATIENCE_DAYS`. One with an open request is being looked after.
    """
    open_tools = sorted(
        request.tool for request in snapshot.open_requests if request.order_id == order.order_id
    )
    if open_tools:
        return f"{order.order_id} has an open request already: {', '.join(open_tools)}"
    words = status_words(order.status)
    if words & {"denied", "declined", "failed"}:
        return None
    if "pending" not in words:
        return f"{order.order_id} is healthy: its status is {order.status}"
    days = (snapshot.today - order.order_date).days
    if days <= PATIENCE_DAYS:
        return (
            f"{order.order_id} is healthy: it is {order.status} and {days} days old, and an order may wait"
            f" {PATIENCE_DAYS} days"
        )
    return None


def shortage(order: Order, item_id: str, snapshot: Snapshot) -> int:
    """How many of an article an order lacks: what it wants less what is there and not reserved.

    Zero or negative where the stock is enough; an article that the inventory does not list is enough too,
    since nobody could order more of it.
    """
    item = snapshot.item(item_id)
    if item is None:
        return 0
    wanted = sum(line.quantity for line in order.items if line.item_id == item_id)
    return wanted - (item.current_stock - item.reserved_stock)


def status_words(status: str) -> set[str]:
    """The words of a status: "pending-payment" is pending, and about a payment."""
    return set(re.findall(r"[a-z]+", status.lower()))


def _broken_rule(proposal: Proposal, snapshot: Snapshot, accepted: list[Proposal]) -> str | None:
    """The first rule that a proposal breaks, in words."""
    order = snapshot.order(proposal.order_id)
    if order is None:
        return f"there is no order {proposal.order_id}"
    if any(_does(other) == _does(proposal) for other in accepted):
        return "another proposal of the plan does the same"
    if any(other.proposal_id == proposal.proposal_id for other in accepted):
        return f"another proposal of the plan is called {proposal.proposal_id}"
    healthy = why_healthy(order, snapshot)
    if healthy is not None:
        return healthy
    match proposal.arguments:
        case OrderInventory() as purchase:
            return _problem_with_purchase(purchase, order, snapshot, accepted)
        case RequestApproval():
            articles = (snapshot.item(line.item_id) for line in order.items)
            restricted = any(item is not None and item.needs_approval for item in articles)
            if not restricted and "approval" not in status_words(order.status):
                return f"nothing on {order.order_id} needs an approval"
        case RequestPaymentUpdate() if "payment" not in status_words(order.status):
            return f"{order.order_id} has no trouble with its payment: its status is {order.status}"
    return None


def _problem_with_purchase(
    wish: OrderInventory, order: Order, snapshot: Snapshot, accepted: list[Proposal]
) -> str | None:
    item = snapshot.item(wish.item_id)
    if item is None:
        return f"there is no article {wish.item_id} in the inventory"
    if all(line.item_id != wish.item_id for line in order.items):
        return f"{wish.item_id} is not on {order.order_id}"
    if item.needs_approval:
        return f"{wish.item_id} is restricted: it is never ordered, only a request for approval is possible"
    missing = shortage(order, wish.item_id, snapshot)
    if missing <= 0:
        return f"the stock of {wish.item_id} is enough for {order.order_id}"
    if wish.quantity < missing:
        return f"{wish.quantity} of {wish.item_id} are too few: {missing} are missing"
    others = sum(
        other.arguments.quantity
        for other in accepted
        if isinstance(other.arguments, OrderInventory) and other.arguments.item_id == wish.item_id
    )
    room = item.max_stock_level - item.current_stock - others
    if wish.quantity > room:
        return (
            f"{wish.quantity} of {wish.item_id} are too many: the shelf holds {item.max_stock_level}, so"
            f" {max(room, 0)} fit beside the {item.current_stock + others} that are there"
            + (" or proposed already" if others else "")
        )
    return None


def _does(proposal: Proposal) -> tuple[str, str, str | None]:
    """What a proposal does, whatever its quantity, reason or name."""
    return proposal.tool, proposal.order_id, proposal.item_id


def _unreadable(raw: Mapping[str, Any], error: ValidationError) -> str:
    """Why something is no proposal."""
    tool = raw.get("tool")
    if not isinstance(tool, str) or tool not in ARGUMENTS:
        return f"there is no tool {str(tool)[:60]!r}; there are {', '.join(ARGUMENTS)}"
    return faults(error)


def within_limits(
    proposals: Sequence[Proposal | Mapping[str, Any]],
    snapshot: Snapshot,
    plan: Plan | None = None,
    scope: str = "",
) -> Plan:
    """A plan of proposals, after the hard rules.

    The planner applies them, and every pass does once more: what is shown and carried out must not depend on
    which planner a worker happens to run.

    Args:
        plan: that they are of; what it has skipped and refused stays so.
        scope: the pass that it is for.
    """
    accepted, refused = check_plan(proposals, snapshot)
    before = plan or Plan()
    return before.model_copy(
        update={
            "scope": scope,
            "snapshot_digest": snapshot.digest,
            "proposals": [p for p in accepted if p.confidence >= SKIP_THRESHOLD],
            "skipped": [*before.skipped, *(p for p in accepted if p.confidence < SKIP_THRESHOLD)],
            "refused": [*before.refused, *refused],
        }
    )
