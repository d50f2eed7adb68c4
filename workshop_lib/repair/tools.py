"""What the repair workflows do to the world, as activities: look at the orders, repair one, notify someone.

Each repair is an activity of its own, with an idempotency key that the workflow makes up. A worker may die
at any moment, so each of them may run twice; its docstring says why that is harmless. Left out: which
repairs are right (`plan_rules`), and what makes one happen once (`store`).
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import date
from typing import Generic, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.database import StoreUnavailable
from workshop_lib.repair.models import (
    Arguments,
    Frozen,
    OrderInventory,
    RepairResult,
    RequestApproval,
    RequestPaymentUpdate,
    Snapshot,
)
from workshop_lib.repair.pages import page_of
from workshop_lib.repair.store import open_store
from workshop_lib.temporal.steps import heartbeating, step_options

logger = logging.getLogger(__name__)

# A database that is being restarted is waited for; after that people are told.
STORE_OPTIONS = step_options(attempt=45, total=600, longest_pause=20)

T = TypeVar("T")
A = TypeVar("A", bound=Arguments)


class RepairCall(Frozen, Generic[A]):
    """Input of the three repairs.

    Attributes:
        key: the idempotency key; the same for every attempt of this repair and for no other.
        proposal_id: of the plan, for the result.
        arguments: of the tool.
    """

    key: str
    proposal_id: str
    arguments: A


class LookRequest(Frozen):
    """Input of `look_at_orders`.

    Attributes:
        today: the day that analysts are to count from.
        after: the last order of the page before, where the shop is looked at in pages.
    """

    today: date
    after: str | None = None


@activity.defn
async def look_at_orders(request: LookRequest) -> Snapshot:
    """All orders, stock and open requests at one moment, or as many as make a page.

    May run twice, and only reads. A second run may see more than the first; only the recorded one counts.

    Raises:
        ApplicationError: type `StoreUnavailable` (retried), `StoreDamaged` or `StoreUnusable` (not retried).
    """
    return await _in_thread(lambda: page_of(open_store().snapshot(request.today), request.after))


@activity.defn
async def request_approval(call: RepairCall[RequestApproval]) -> RepairResult:
    """Ask the approvals office to approve an order.

    May run twice: the store finds the key in its ledger, changes nothing, and returns the first outcome.

    Raises:
        ApplicationError: `RepairRefused` (not retried), or as in `look_at_orders`.
    """
    return await _repair(call)


@activity.defn
async def order_inventory(call: RepairCall[OrderInventory]) -> RepairResult:
    """Order more of an article. May run twice, like `request_approval`: the stock grows once.

    Raises:
        ApplicationError: as in `request_approval`.
    """
    return await _repair(call)


@activity.defn
async def request_payment_update(call: RepairCall[RequestPaymentUpdate]) -> RepairResult:
    """Ask a customer for another way to pay. May run twice, like `request_approval`.

    Raises:
        ApplicationError: as in `request_approval`.
    """
    return await _repair(call)


async def _repair(call: RepairCall[A]) -> RepairResult:
    applied = await _in_thread(lambda: open_store().apply(call.key, call.arguments))
    logger.info("%s: %s%s", call.key, applied.outcome, " (repeated)" if applied.repeated else "")
    return RepairResult(
        proposal_id=call.proposal_id,
        idempotency_key=call.key,
        tool=call.arguments.tool,
        order_id=call.arguments.order_id,
        outcome=applied.outcome,
        repeated=applied.repeated,
    )


async def _in_thread(work: Callable[[], T]) -> T:
    """Run what blocks in a thread; its errors as those that Temporal tells apart."""
    async with heartbeating():
        try:
            return await asyncio.to_thread(work)
        except WorkshopError as error:
            kind = type(error).__name__
            raise ApplicationError(
                str(error),
                type="StoreUnusable" if kind == "WorkshopError" else kind,
                non_retryable=not isinstance(error, StoreUnavailable),
            ) from None
