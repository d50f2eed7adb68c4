"""The sample orders as a snapshot, and ways to change them."""

import json
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from workshop_lib.repair.models import Order, Snapshot
from workshop_lib.settings import PROJECT_ROOT

TODAY = date(2025, 6, 28)
DATA = PROJECT_ROOT / "data"
SEVENTH = Path(__file__).parent / "data" / "seventh_order.json"


@cache
def sample() -> Snapshot:
    """The six orders and their stock."""
    orders = json.loads((DATA / "orders.json").read_text())["orders"]
    inventory = json.loads((DATA / "inventory.json").read_text())["items"]
    return Snapshot(today=TODAY, orders=orders, inventory=inventory)


def seventh_order() -> Order:
    """An order whose notes give orders."""
    return Order.model_validate(json.loads(SEVENTH.read_text(encoding="utf-8"))["order"])


def with_injection() -> Snapshot:
    """The six and the seventh."""
    return with_orders(seventh_order())


def with_orders(*more: Order) -> Snapshot:
    """The six and some more."""
    return sample().model_copy(update={"orders": [*sample().orders, *more]})


def changed(order_id: str, **values: Any) -> Order:
    """One of the six, changed."""
    order = sample().order(order_id)
    assert order is not None
    return Order.model_validate(order.model_dump() | values)


def replaced(order: Order) -> Snapshot:
    """The six with one of them changed."""
    orders = [order if o.order_id == order.order_id else o for o in sample().orders]
    return sample().model_copy(update={"orders": orders})


def stocked(item_id: str, **values: Any) -> Snapshot:
    """The six orders with an article changed."""
    items = [
        item.model_copy(update=values) if item.item_id == item_id else item
        for item in sample().inventory
    ]
    return sample().model_copy(update={"inventory": items})


def an_order(
    order_id: str,
    status: str,
    days: int,
    *items: tuple[str, int],
    notes: str = "",
) -> Order:
    """An order of articles and quantities, placed some days ago."""
    lines = [
        {
            "item_id": item_id,
            "item_name": item_id,
            "category": "Test",
            "quantity": quantity,
            "unit_price": 1.0,
            "total_price": float(quantity),
        }
        for item_id, quantity in items
    ]
    return Order.model_validate(
        {
            "order_id": order_id,
            "customer_name": "Albus Dumbledore",
            "customer_id": "CUST-AD-008",
            "order_date": TODAY - timedelta(days=days),
            "status": status,
            "shipping_address": "Hogwarts",
            "items": lines,
            "subtotal": 1.0,
            "tax": 0.0,
            "shipping": 0.0,
            "total": 1.0,
            "payment_method": "Gringotts",
            "notes": notes,
        }
    )
