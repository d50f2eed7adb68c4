"""The tables of the order store, and how `data/` is loaded into them.

Left out: what is done with them (`store`). `data/` is only ever read.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
)

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.damage import rows_of, validated
from workshop_lib.repair.models import InventoryItem, Order
from workshop_lib.settings import PROJECT_ROOT

DATA = PROJECT_ROOT / "data"
# Raised by whoever changes a table. A store of another version is refused, and `reset` makes it anew.
SCHEMA_VERSION = 1

Model = TypeVar("Model", bound=BaseModel)

metadata = MetaData()

store_info = Table("store_info", metadata, Column("version", Integer, primary_key=True))

orders = Table(
    "orders",
    metadata,
    Column("order_id", String(40), primary_key=True),
    Column("customer_name", Text, nullable=False),
    Column("customer_id", String(40), nullable=False),
    Column("order_date", Date, nullable=False),
    Column("status", String(300), nullable=False),
    Column("shipping_address", Text, nullable=False),
    Column("subtotal", Float(53), nullable=False),
    Column("tax", Float(53), nullable=False),
    Column("shipping", Float(53), nullable=False),
    Column("total", Float(53), nullable=False),
    Column("payment_method", Text, nullable=False),
    Column("notes", Text, nullable=False),
)

order_items = Table(
    "order_items",
    metadata,
    Column("order_id", ForeignKey("orders.order_id"), primary_key=True),
    Column("line", Integer, primary_key=True),  # from 1, as on the order
    Column("item_id", String(40), nullable=False),
    Column("item_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price", Float(53), nullable=False),
    Column("total_price", Float(53), nullable=False),
)

inventory = Table(
    "inventory",
    metadata,
    Column("item_id", String(40), primary_key=True),
    Column("item_name", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("current_stock", Integer, nullable=False),
    Column("reserved_stock", Integer, nullable=False),
    Column("available_stock", Integer, nullable=False),
    Column("reorder_point", Integer, nullable=False),
    Column("reorder_quantity", Integer, nullable=False),
    Column("max_stock_level", Integer, nullable=False),
    Column("unit_cost", Float(53), nullable=False),
    Column("unit_price", Float(53), nullable=False),
    Column("supplier", Text, nullable=False),
    Column("lead_time_days", Integer, nullable=False),
    Column("storage_location", Text, nullable=False),
    Column("last_restocked", Date, nullable=False),
    Column("expiry_date", Date),
    Column("status", String(300), nullable=False),
    Column("dangerous_goods", Boolean, nullable=False),
    Column("special_requirements", Text),
    Column("restrictions", Text),
)

# Every repair that was ever carried out. It is written in the transaction that carries the repair out,
# so there is never one without the other.
ledger = Table(
    "ledger",
    metadata,
    Column("idempotency_key", String(300), primary_key=True),
    Column("tool", String(40), nullable=False),
    Column("order_id", ForeignKey("orders.order_id"), nullable=False),
    Column("item_id", String(40), nullable=False),  # "" where the tool is about no article
    Column("arguments", Text, nullable=False),  # canonical JSON
    Column("outcome", Text, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    # Whoever asks: the same thing is requested once for an order.
    UniqueConstraint("tool", "order_id", "item_id", name="one_request"),
)


def refuse_foreign(connection: Connection) -> None:
    """Keep away from a database where another program has tables of these names.

    Raises:
        WorkshopError: it has.
    """
    there = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
    # All of ours but the one with the version, in a file: damaged, and nobody else's.
    ours = connection.dialect.name == "sqlite" and len(there) == len(metadata.tables) - 1
    if there and store_info.name not in there and not ours:
        raise WorkshopError(
            f"The database of the order store holds tables of another program: {', '.join(there)}.",
            expected="a database of its own. Nothing was changed there.",
            fix="correct ORDERS_DATABASE_URL, or unset it to use the file in the state folder.",
        )


def write_order(connection: Connection, order: Order) -> None:
    """Add an order with its lines."""
    connection.execute(insert(orders).values(order.model_dump(exclude={"items"})))
    connection.execute(
        insert(order_items),
        [
            {"order_id": order.order_id, "line": line, **item.model_dump()}
            for line, item in enumerate(order.items, 1)
        ],
    )


def load_data(connection: Connection, folder: Path) -> None:
    """Fill empty tables from `orders.json` and `inventory.json` of a folder.

    Raises:
        WorkshopError: a file is missing, is no JSON, holds what is no order or article, or one twice.
    """
    found_orders = _read(folder / "orders.json", "orders", Order)
    found_items = _read(folder / "inventory.json", "items", InventoryItem)
    _refuse_twice(folder / "orders.json", [order.order_id for order in found_orders])
    _refuse_twice(folder / "inventory.json", [item.item_id for item in found_items])
    connection.execute(insert(store_info).values(version=SCHEMA_VERSION))
    for order in found_orders:
        write_order(connection, order)
    for item in found_items:
        connection.execute(insert(inventory).values(item.model_dump()))


def read_orders(connection: Connection) -> list[Order]:
    """All orders, by id, with their lines.

    Raises:
        StoreDamaged: a row is no order.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    found = connection.execute(
        rows_of(order_items).order_by(order_items.c.order_id, order_items.c.line)
    )
    for row in found.mappings():
        line = dict(row)
        del line["line"]
        lines.setdefault(line.pop("order_id"), []).append(line)
    return [
        validated(Order, {**row, "items": lines.get(row["order_id"], [])}, orders)
        for row in connection.execute(rows_of(orders).order_by(orders.c.order_id)).mappings()
    ]


def _read(path: Path, name: str, kind: type[Model]) -> list[Model]:
    """The list of that name in a JSON file."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))[name]
        return TypeAdapter(list[kind]).validate_python(written)  # type: ignore[valid-type]
    except OSError as error:
        why = error.strerror or "it cannot be read"
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (ValueError, LookupError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    raise WorkshopError(
        f"{path} cannot be used: {why}.",
        expected=f'a JSON object with a list "{name}", whose entries have the fields of {kind.__name__}.',
        fix=f"correct it; `git checkout {path.name}` in its folder brings the original back.",
    )


def _refuse_twice(path: Path, ids: list[str]) -> None:
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise WorkshopError(
            f"{path} cannot be used: it has {', '.join(twice[:5])} more than once.",
            fix="give each entry an id of its own.",
        )
