"""The data files say what the story says, and the models refuse what a model gets wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from workshop_lib.repair.models import (
    APPROVER,
    Detection,
    InventoryItem,
    Order,
    OrderInventory,
    Plan,
    Proposal,
    RequestApproval,
    RequestPaymentUpdate,
)
from workshop_lib.settings import PROJECT_ROOT
from workshop_lib.teams.finance.contract import RoiInput

DATA = PROJECT_ROOT / "data"


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


ORDERS = [Order.model_validate(order) for order in read(DATA / "orders.json")["orders"]]
STOCK = {
    item["item_id"]: InventoryItem.model_validate(item)
    for item in read(DATA / "inventory.json")["items"]
}
GOLD = read(DATA / "gold.json")


def proposal(**changes: Any) -> dict[str, Any]:
    written: dict[str, Any] = {
        "proposal_id": "p1",
        "tool": "order_inventory",
        "arguments": {"order_id": "ORD-002-HJG", "item_id": "STP-ORG-001", "quantity": 113},
        "confidence": 0.97,
        "reasoning": "short",
    }
    return written | changes


def test_sums_of_orders_and_stock_are_right() -> None:
    seventh = Order.model_validate(read(Path(__file__).parent / "data/seventh_order.json")["order"])
    for order in [*ORDERS, seventh]:
        for item in order.items:
            assert item.total_price == pytest.approx(item.quantity * item.unit_price)
            assert item.item_id in STOCK
        assert order.subtotal == pytest.approx(sum(item.total_price for item in order.items))
        assert order.total == pytest.approx(order.subtotal + order.tax + order.shipping)
    for stock in STOCK.values():
        assert stock.available_stock == stock.current_stock - stock.reserved_stock
    assert {item.item_id for item in STOCK.values() if item.needs_approval} == {"DRG-EGG-007"}


def test_the_gold_quantities_follow_from_the_data() -> None:
    orders = {order.order_id: order for order in ORDERS}
    named = {entry["order_id"] for entry in GOLD["problems"] + GOLD["healthy"]}
    assert named == set(orders)
    bounds = {}
    for action in GOLD["right"]:
        if action["tool"] == "order_inventory":
            (line,) = [
                i for i in orders[action["order_id"]].items if i.item_id == action["item_id"]
            ]
            stock = STOCK[action["item_id"]]
            assert action["min_quantity"] == line.quantity - stock.available_stock
            assert action["max_quantity"] == stock.max_stock_level - stock.current_stock
            bounds[action["item_id"]] = (action["min_quantity"], action["max_quantity"])
    assert bounds == {"STP-ORG-001": (113, 253), "CRT-FD-101": (365, 1855)}


@pytest.mark.parametrize(
    ("tool", "arguments", "model"),
    [
        ("order_inventory", proposal()["arguments"], OrderInventory),
        ("request_approval", {"order_id": "ORD-004-RHG", "reason": "egg"}, RequestApproval),
        (
            "request_payment_update",
            {"order_id": "ORD-003-RBW", "reason": "denied"},
            RequestPaymentUpdate,
        ),
    ],
)
def test_arguments_are_read_as_those_of_the_tool(
    tool: str, arguments: dict[str, Any], model: type
) -> None:
    read_back = Proposal.model_validate(proposal(tool=tool, arguments=arguments))
    assert type(read_back.arguments) is model
    assert read_back.order_id == arguments["order_id"]
    again = Proposal.model_validate_json(read_back.model_dump_json())
    assert again == read_back and type(again.arguments) is model
    assert Proposal.model_validate(read_back.model_dump()) == read_back


@pytest.mark.parametrize(
    "changes",
    [
        {"tool": "burn_everything"},
        {"tool": ["order_inventory"]},
        {"tool": "request_approval"},  # another tool's arguments
        {"arguments": {"order_id": "ORD-002-HJG", "item_id": "STP-ORG-001", "quantity": 0}},
        {"arguments": {"order_id": "ORD-002-HJG", "item_id": "STP-ORG-001", "quantity": "many"}},
        {"arguments": {"order_id": "ORD-002-HJG", "item_id": "STP-ORG-001", "quantity": 1.5}},
        {"arguments": {"order_id": "ORD 2; drop", "item_id": "STP-ORG-001", "quantity": 1}},
        {"arguments": None},
        {"confidence": 1.2},
        {"confidence": float("nan")},
        {"surprise": True},
        {
            "tool": "request_approval",
            "arguments": {"order_id": "ORD-004-RHG", "approver": "me@example.org", "reason": "x"},
        },
    ],
    ids=str,
)
def test_what_is_no_proposal_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Proposal.model_validate(proposal(**changes))


def test_the_approver_is_fixed() -> None:
    assert RequestApproval(order_id="ORD-004-RHG", reason="egg").approver == APPROVER


def test_the_digest_is_of_what_would_be_done_and_of_nothing_else() -> None:
    plan = Plan(proposals=[Proposal.model_validate(proposal())], summary="a")
    reworded = plan.model_copy(update={"summary": "b"})
    assert plan.digest == reworded.digest == Plan.model_validate_json(plan.model_dump_json()).digest
    more = proposal(arguments=proposal()["arguments"] | {"quantity": 114})
    for other in (
        Plan(proposals=[Proposal.model_validate(more)]),
        plan.model_copy(update={"scope": "another-run"}),
        plan.model_copy(update={"snapshot_digest": "0"}),
        Plan(),
    ):
        assert other.digest != plan.digest


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (5, 5),
        (5.0, 5),
        (1e6, 1_000_000),
        (5.5, None),
        ("5", None),
        (True, None),
        (0.0, None),
        (1e300, None),
        (float("inf"), None),
        (None, None),
    ],
)
def test_an_integer_is_what_json_schema_calls_one(written: object, read: int | None) -> None:
    given = {"order_id": "ORD-1", "item_id": "A", "quantity": written}
    if read is None:
        with pytest.raises(ValidationError, match="quantity"):
            OrderInventory.model_validate(given)
    else:
        order = OrderInventory.model_validate(given)
        assert order.quantity == read and type(order.quantity) is int


def test_true_is_no_number() -> None:
    with pytest.raises(ValidationError, match="not true or false"):
        Detection.model_validate({"confidence": True})
    with pytest.raises(ValidationError, match="not true or false"):
        RoiInput.model_validate({"principal": True, "rate": 5, "years": 10})
    assert RoiInput(principal=10_000, rate=5, years=10).years == 10
