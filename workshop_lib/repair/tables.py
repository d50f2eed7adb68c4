"""The tables of the order store: made from the models, loaded from `data/`, and read back into models.

Left out: what is done with them (`store`). `data/` is only ever read.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, TypeAdapter, ValidationError

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.repair.database import Database, StoreDamaged
from workshop_lib.repair.models import Frozen, Id, InventoryItem, Order, OrderItem, ToolName
from workshop_lib.settings import PROJECT_ROOT

DATA = PROJECT_ROOT / "data"
# Raised by whoever changes a table. A store of another version is refused, and `reset` makes it anew.
SCHEMA_VERSION = 1

Model = TypeVar("Model", bound=BaseModel)


class LedgerRow(Frozen):
    """A repair that was carried out.

    Attributes:
        item_id: the article; "" where the tool is about none.
        arguments: of the tool, as canonical JSON.
    """

    idempotency_key: str
    tool: ToolName
    order_id: Id
    item_id: Id | Literal[""]
    arguments: str
    outcome: str
    recorded_at: datetime


# A field's type in JSON Schema, or its format, and what a database calls it.
_TYPES: dict[str, Any] = {
    "string": sa.Text(),
    "integer": sa.Integer(),
    "number": sa.Float(53),
    "boolean": sa.Boolean(),
    "date": sa.Date(),
    "date-time": sa.DateTime(timezone=True),
}


def _columns(model: type[BaseModel], key: str = "") -> Iterable[sa.Column[Any]]:
    """A column a field. A list has none: it is a table of its own."""
    for name, schema in model.model_json_schema()["properties"].items():
        kinds = [kind.get("format") or kind["type"] for kind in schema.get("anyOf", [schema])]
        if kinds[0] != "array":
            yield sa.Column(
                name, _TYPES[kinds[0]], primary_key=name == key, nullable="null" in kinds
            )


metadata = sa.MetaData()
store_info = sa.Table("store_info", metadata, sa.Column("version", sa.Integer, primary_key=True))
orders = sa.Table("orders", metadata, *_columns(Order, "order_id"))
order_items = sa.Table(
    "order_items",
    metadata,
    sa.Column("order_id", sa.ForeignKey("orders.order_id"), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True),  # from 1, as on the order
    *_columns(OrderItem),
)
inventory = sa.Table("inventory", metadata, *_columns(InventoryItem, "item_id"))
# Every repair that was ever carried out. It is written in the transaction that carries the repair out,
# so there is never one without the other.
ledger = sa.Table(
    "ledger",
    metadata,
    *_columns(LedgerRow, "idempotency_key"),
    sa.ForeignKeyConstraint(["order_id"], ["orders.order_id"]),
    # Whoever asks: the same thing is requested once for an order.
    sa.UniqueConstraint("tool", "order_id", "item_id", name="one_request"),
)


class Tables:
    """The tables in a database: made and loaded by the first one who uses them.

    Args:
        folder: where they are loaded from.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees all of one moment."""
        with self._database.transaction(writing=False) as connection:
            if _is_ready(connection):
                yield connection
                return
        with self.writing() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that changes something."""
        with self._database.transaction(writing=True) as connection:
            if not _is_ready(connection):
                self._database.lock_creation(connection)
                if not _is_ready(connection):  # else another process did it while we waited
                    self._create(connection)
            yield connection

    def begin_anew(self) -> None:
        """Forget everything, and load it again."""
        with self._database.transaction(writing=True) as connection:
            self._database.lock_all(connection)
            _refuse_foreign(connection)
            # Dropped and not emptied: the tables may be those of an older version.
            metadata.drop_all(connection)
            self._create(connection)

    def _create(self, connection: sa.Connection) -> None:
        """Make the tables, and fill them from `orders.json` and `inventory.json`.

        Raises:
            WorkshopError: a file is missing, is no JSON, holds what is no order or article, or one twice; or
                the tables of another program are there.
        """
        _refuse_foreign(connection)
        metadata.create_all(connection)
        every_order = _read(self._folder / "orders.json", "orders", Order, "order_id")
        articles = _read(self._folder / "inventory.json", "items", InventoryItem, "item_id")
        connection.execute(sa.insert(store_info).values(version=SCHEMA_VERSION))
        for order in every_order:
            write_order(connection, order)
        for item in articles:
            connection.execute(sa.insert(inventory).values(item.model_dump()))


def write_order(connection: sa.Connection, order: Order) -> None:
    """Add an order with its lines."""
    connection.execute(sa.insert(orders).values(order.model_dump(exclude={"items"})))
    connection.execute(
        sa.insert(order_items),
        [
            {"order_id": order.order_id, "line": line, **item.model_dump()}
            for line, item in enumerate(order.items, 1)
        ],
    )


def read_orders(connection: sa.Connection) -> list[Order]:
    """All orders, by id, with their lines.

    Raises:
        StoreDamaged: a row is no order.
    """
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in connection.execute(rows_of(order_items)).mappings():
        lines[row["order_id"]].append({name: row[name] for name in OrderItem.model_fields})
    return [
        validated(Order, {**row, "items": lines[row["order_id"]]}, orders)
        for row in connection.execute(rows_of(orders)).mappings()
    ]


def read_all(connection: sa.Connection, table: sa.Table, model: type[Model]) -> list[Model]:
    """All rows of a table, by key.

    Raises:
        StoreDamaged: one is not what it must be.
    """
    return [validated(model, row, table) for row in connection.execute(rows_of(table)).mappings()]


def rows_of(table: sa.Table) -> sa.Select[Any]:
    """A query of a whole table by key, in which dates are left as they are until they are validated."""
    return sa.select(
        *(
            sa.type_coerce(column, sa.String).label(column.name)
            if isinstance(column.type, sa.Date | sa.DateTime)
            else column
            for column in table.columns
        )
    ).order_by(*table.primary_key.columns)


def validated(kind: type[Model], row: Mapping[Any, Any], table: sa.Table) -> Model:
    """A row as what it must be.

    Raises:
        StoreDamaged: it is not; the row and what is wrong with it are named.
    """
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        key = ", ".join(str(row.get(column.name)) for column in table.primary_key)
        raise StoreDamaged(
            f"The row {harmless.line(key, 100)!r} of {table.name} cannot be used: "
            f"{harmless.line(harmless.faults(error), 200)}."
        ) from None


def _read(path: Path, name: str, kind: type[Model], key: str) -> list[Model]:
    """The list of that name in a JSON file; each entry is another one."""
    expected = (
        f'a JSON object with a list "{name}", whose entries have the fields of {kind.__name__}.'
    )
    fix = f"correct it; `git checkout {path.name}` in its folder brings the original back."
    try:
        written = json.loads(path.read_text(encoding="utf-8"))[name]
        entries = TypeAdapter(list[kind]).validate_python(written)  # type: ignore[valid-type]
        ids = [getattr(entry, key) for entry in entries]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if not twice:
            return entries
        why, fix = f"it has {', '.join(twice[:5])} more than once", "give each an id of its own."
    except OSError as error:
        why = error.strerror or "it cannot be read"
    except ValidationError as error:
        why = harmless.line(harmless.faults(error), 200)
    except (ValueError, LookupError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    raise WorkshopError(f"{path} cannot be used: {why}.", expected=expected, fix=fix)


def _is_ready(connection: sa.Connection) -> bool:
    """Whether the tables are there and filled.

    Raises:
        WorkshopError: they are those of another version of the workshop.
    """
    if not sa.inspect(connection).has_table(store_info.name):
        return False
    version = connection.execute(sa.select(store_info.c.version)).scalar()
    if version not in (None, SCHEMA_VERSION):
        raise WorkshopError(
            f"The order store is of version {version}; this workshop writes {SCHEMA_VERSION}.",
            fix="`workshop repair reset` makes it anew from data/; its repairs are forgotten.",
        )
    return version is not None


def _refuse_foreign(connection: sa.Connection) -> None:
    """Keep away from a database where another program has tables of these names.

    Raises:
        WorkshopError: it has.
    """
    there = sorted(set(sa.inspect(connection).get_table_names()) & set(metadata.tables))
    # All of ours but the one with the version, in a file: damaged, and nobody else's.
    ours = connection.dialect.name == "sqlite" and len(there) == len(metadata.tables) - 1
    if there and store_info.name not in there and not ours:
        raise WorkshopError(
            f"The database of the order store holds tables of another program: {', '.join(there)}.",
            expected="a database of its own. Nothing was changed there.",
            fix="correct ORDERS_DATABASE_URL, or unset it to use the file in the state folder.",
        )
