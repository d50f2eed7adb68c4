"""What the tests of the repair agent share: a store and a worker of their own, and waiting for a state."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from order_samples import TODAY
from sqlalchemy import select
from temporalio import activity
from temporalio.exceptions import ApplicationError

from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.models import (
    OrderInventory,
    Plan,
    PlanRequest,
    Proposal,
    RequestApproval,
    RequestPaymentUpdate,
)
from workshop_lib.repair.states import RepairStatus, State
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.tables import metadata
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = 60  # seconds for each thing that is waited for
# Tests of the repair agent that look at time share one server; the others run anywhere.
RIGHT = {
    ("order_inventory", "ORD-002-HJG", "STP-ORG-001"),
    ("order_inventory", "ORD-004-RHG", "CRT-FD-101"),
    ("request_approval", "ORD-004-RHG", ""),
    ("request_payment_update", "ORD-003-RBW", ""),
}
FULL_WAY = [
    State.INITIALIZING,
    State.DETECTING,
    State.ANALYZING,
    State.PLANNING,
    State.PENDING_APPROVAL,
    State.APPROVED,
    State.PENDING_REPAIR,
    State.PENDING_REPORT,
    State.COMPLETED,
]


def dump_of(store: OrderStore) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, in an order that depends on nothing but the rows."""
    store.ledger()  # the first reader loads them
    with store.engine.connect() as connection:
        return {
            table.name: [
                dict(row)
                for row in connection.execute(
                    select(table).order_by(*table.primary_key.columns)
                ).mappings()
            ]
            for table in metadata.sorted_tables
        }


def ledger_of(store: OrderStore) -> list[tuple[str, str, str]]:
    """What was repaired, with every row that there is."""
    return sorted((row.tool, row.order_id, row.item_id) for row in store.ledger())


def stock_of(store: OrderStore, item_id: str) -> int:
    found = store.snapshot(TODAY).item(item_id)
    assert found is not None
    return found.current_stock


def assert_repaired_once(store: OrderStore) -> None:
    """The ledger holds what the gold labels call for and nothing twice, and stock is right."""
    assert ledger_of(store) == sorted(RIGHT), ledger_of(store)
    assert stock_of(store, "STP-ORG-001") == 247 + 113
    assert stock_of(store, "CRT-FD-101") == 145 + 365
    assert stock_of(store, "DRG-EGG-007") == 2


async def reached(
    repair: RepairClient, *states: State, when: Callable[[RepairStatus], bool] = lambda _: True
) -> RepairStatus:
    """Wait until the repair is in one of these states."""
    status = await repair.wait_until(
        lambda now: now.state in states and when(now), timedelta(seconds=LIMIT)
    )
    assert status.state in states and when(status), status
    return status


def with_activities(spec: WorkerSpec, *others: Callable[..., Any]) -> WorkerSpec:
    """The spec with some activities replaced by others of the same name."""
    names = {fn.__temporal_activity_definition.name for fn in others}  # type: ignore[attr-defined]
    kept = [
        fn
        for fn, name in zip(spec.activities, spec.activity_names, strict=True)
        if name not in names
    ]
    return replace(spec, activities=[*kept, *others])


def planning(*proposals: Proposal) -> Callable[..., Any]:
    """A planner that proposes these, whatever it is asked."""

    @activity.defn(name="plan_repair")
    async def planned(request: PlanRequest) -> Plan:
        return a_plan(proposals)

    return planned


def failing(name: str, message: str, kind: str) -> Callable[..., Any]:
    """An activity that fails for good."""

    @activity.defn(name=name)
    async def failed(request: Any) -> None:
        raise ApplicationError(message, type=kind, non_retryable=True)

    return failed


def a_name(kind: str = "repair") -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


def badges(confidence: float = 0.97, name: str = "p1", quantity: int = 113) -> Proposal:
    arguments = OrderInventory(order_id="ORD-002-HJG", item_id="STP-ORG-001", quantity=quantity)
    return Proposal(
        proposal_id=name, tool="order_inventory", arguments=arguments, confidence=confidence
    )


def payment(confidence: float = 0.97, name: str = "p2") -> Proposal:
    return Proposal(
        proposal_id=name,
        tool="request_payment_update",
        arguments=RequestPaymentUpdate(order_id="ORD-003-RBW", reason="The payment was denied."),
        confidence=confidence,
    )


def approval(confidence: float = 0.97, name: str = "p3") -> Proposal:
    return Proposal(
        proposal_id=name,
        tool="request_approval",
        arguments=RequestApproval(order_id="ORD-004-RHG", reason="A dragon egg."),
        confidence=confidence,
    )


def a_plan(proposals: Sequence[Proposal], scope: str = "repair-1") -> Plan:
    return Plan(scope=scope, snapshot_digest="s", proposals=list(proposals))
