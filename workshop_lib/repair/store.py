"""The order store: orders, stock, and a ledger of every repair that was carried out.

A repair is one transaction: the change and its ledger row are written together or not at all. So it may be
asked for again (a retry, a worker that died after the commit) and is answered with the first outcome, and
of two repairs at once neither overwrites the other. SQLite in the state folder; PostgreSQL where
`ORDERS_DATABASE_URL` says so.

All of it is synchronous and safe to call from threads; async code calls it through `asyncio.to_thread`.
Left out: whether a repair is a good idea (`plan_rules`). What is checked here is what must hold at the very
moment of the change: the order and the article exist, the shelf is large enough, restricted goods are not
ordered. Ordered stock counts as delivered at once, since the workshop has no supplier.
"""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    Connection,
    Engine,
    inspect,
    select,
    text,
)
from sqlalchemy import insert as sql_insert
from sqlalchemy import update as sql_update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.machine import state_folder
from workshop_lib.repair import tables
from workshop_lib.repair.damage import StoreDamaged, damage_of, put_aside, rows_of, validated
from workshop_lib.repair.database import engine_of, place_of, url_of
from workshop_lib.repair.models import (
    ARGUMENTS,
    Arguments,
    Id,
    InventoryItem,
    OpenRequest,
    Order,
    OrderInventory,
    RequestApproval,
    Snapshot,
    ToolName,
)
from workshop_lib.settings import get_settings

_LOAD_LOCK = 5_077_001  # PostgreSQL's name for "somebody is creating the tables"

# What an order's status becomes. Where several requests are open, the earliest here is shown, so that
# the status does not depend on which repair came last.
STATUS_AFTER: dict[ToolName, str] = {
    "request_approval": "approval-requested",
    "request_payment_update": "payment-update-requested",
    "order_inventory": "inventory-ordered",
}


class RepairRefused(WorkshopError):
    """The repair cannot be carried out, now or later; nothing was changed."""


class StoreUnavailable(WorkshopError):
    """The database does not answer, or not in time; asking again may help. Nothing was changed."""


class Applied(BaseModel):
    """What became of a repair.

    Attributes:
        outcome: what was done, in words. The same words every time it is asked for.
        repeated: it had been done before, and nothing was changed this time.
    """

    model_config = ConfigDict(frozen=True)

    outcome: str
    repeated: bool = False


class LedgerRow(BaseModel):
    """A repair that was carried out."""

    model_config = ConfigDict(frozen=True)

    idempotency_key: str
    tool: ToolName
    order_id: Id
    item_id: Id | Literal[""]
    arguments: str
    outcome: str
    recorded_at: datetime


class OrderStore:
    """The store behind one database URL.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL.
        data: the folder that it is loaded from, and that `reset` goes back to.
    """

    def __init__(self, url: str, data: Path = tables.DATA) -> None:
        self._data = data
        self._url = url_of(url)
        self._engine = engine_of(self._url)

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, for whoever must look closer."""
        return self._engine

    def snapshot(self, today: date) -> Snapshot:
        """All orders, stock and open requests at one moment.

        Raises:
            StoreDamaged: a row is not what it must be; it is named.
            StoreUnavailable: the database does not answer.
        """
        with self._reading() as connection:
            rows = connection.execute(
                rows_of(tables.inventory).order_by(tables.inventory.c.item_id)
            ).mappings()
            return Snapshot(
                today=today,
                orders=tables.read_orders(connection),
                inventory=[validated(InventoryItem, row, tables.inventory) for row in rows],
                open_requests=[
                    OpenRequest(order_id=row.order_id, tool=row.tool, item_id=row.item_id or None)
                    for row in _ledger_rows(connection)
                ],
            )

    def ledger(self) -> list[LedgerRow]:
        """Every repair that was carried out, by key."""
        with self._reading() as connection:
            return _ledger_rows(connection)

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of all tables, in an order that depends on nothing but the rows."""
        with self._reading() as connection:
            return {
                table.name: [
                    dict(row)
                    for row in connection.execute(
                        select(table).order_by(*table.primary_key.columns)
                    ).mappings()
                ]
                for table in tables.metadata.sorted_tables
            }

    def apply(self, key: str, tool: ToolName, arguments: Arguments) -> Applied:
        """Carry a repair out, once.

        May be called again with the same key, at any time and from anywhere: the first outcome is
        returned and nothing is changed. The same holds where another key has requested the same thing
        for the order.

        Raises:
            RepairRefused: there is no such order or article, the article is not on the order or is
                restricted, the shelf is too small, or the key belongs to another repair.
            StoreDamaged, StoreUnavailable: as in `snapshot`.
        """
        if not isinstance(arguments, ARGUMENTS[tool]):
            raise RepairRefused(
                f"{tool} was given the arguments of another tool.",
                expected=f"{ARGUMENTS[tool].__name__}.",
            )
        with contextlib.suppress(_Duplicate), self._writing() as connection:
            return _apply(connection, key, tool, arguments)
        # Another transaction has committed the same key a moment ago; now its row is visible.
        with self._writing() as connection:
            return _apply(connection, key, tool, arguments)

    def add_order(self, order: Order) -> None:
        """Add an order, as a shop would.

        Raises:
            RepairRefused: there is one with this id.
        """
        try:
            with self._writing() as connection:
                tables.write_order(connection, order)
        except _Duplicate:
            raise RepairRefused(f"There is an order {order.order_id} already.") from None

    def reset(self) -> Path | None:
        """Forget every change and load `data/` again, in one transaction.

        Returns:
            Where a damaged file is kept, which was in the way; else None.
        """
        try:
            self._begin_anew()
            return None
        except StoreDamaged:
            path = Path(self._url.database or "")
            if self._url.get_backend_name() != "sqlite" or not path.exists():
                raise
        kept = put_aside(path)
        self._begin_anew()
        return kept

    def _begin_anew(self) -> None:
        with self._transaction(writing=True) as connection:
            if connection.dialect.name == "postgresql":
                # After the repairs that are under way, and before the ones to come. Everyone else reads
                # this table first, so nobody can hold another one that we need while waiting for us.
                _lock_creation(connection)
                if inspect(connection).has_table(tables.store_info.name):
                    connection.execute(text("LOCK TABLE store_info IN ACCESS EXCLUSIVE MODE"))
            elif (found := connection.execute(text("PRAGMA quick_check(1)")).scalar()) != "ok":
                raise StoreDamaged(f"{place_of(self._url)} is damaged: {harmless.line(found)}.")
            tables.refuse_foreign(connection)
            # Dropped and not emptied: the tables may be those of an older version.
            tables.metadata.drop_all(connection)
            tables.metadata.create_all(connection)
            tables.load_data(connection, self._data)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._transaction(writing=False) as connection:
            if _is_ready(connection):
                yield connection
                return
        with self._writing() as connection:  # the first one to come loads it
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._transaction(writing=True) as connection:
            if not _is_ready(connection):
                _lock_creation(connection)
                if not _is_ready(connection):  # else another process did it while we waited
                    tables.refuse_foreign(connection)
                    tables.metadata.create_all(connection)
                    tables.load_data(connection, self._data)
            yield connection

    @contextlib.contextmanager
    def _transaction(self, *, writing: bool) -> Iterator[Connection]:
        """A transaction; trouble with the database is said without the URL's password."""
        try:
            options: dict[str, Any] = {"workshop_writing": writing}
            if not writing and self._engine.dialect.name == "postgresql":
                options["isolation_level"] = "REPEATABLE READ"  # all that is read is of one moment
            with (
                self._engine.connect().execution_options(**options) as connection,
                connection.begin(),
            ):
                yield connection
        except IntegrityError:
            raise _Duplicate from None
        except SQLAlchemyError as error:
            if damage := damage_of(error, self._url):
                raise StoreDamaged(
                    f"The order store at {place_of(self._url)} is damaged: {damage}."
                ) from None
            # PostgreSQL's text may quote the statement and the address; its kind is enough.
            original = getattr(error, "orig", None) or error
            plain = type(original).__module__ == "sqlite3"  # by its name: some Pythons lack it
            reason = harmless.line(original) if plain else type(original).__name__
            raise StoreUnavailable(
                f"The order store at {place_of(self._url)} does not answer: {reason}.",
                expected="a database that can be written, and no other program that holds it for long.",
                fix="check ORDERS_DATABASE_URL, or unset it to use the file in the state folder.",
            ) from None


class _Duplicate(StoreDamaged):
    """A row of the same key is there already. Where no key is given, tables hold rows that are not ours."""

    def __init__(self) -> None:
        super().__init__("The order store holds rows where there must be none.")


def open_store() -> OrderStore:
    """The store that the settings name."""
    secret = get_settings().orders_database_url
    url = secret.get_secret_value().strip() if secret else ""
    if not url:
        folder = get_settings().state_dir
        try:
            state_folder.made(folder)
        except OSError as error:
            raise StoreUnavailable(
                f"The folder {folder} of the order store cannot be made: {error.strerror}.",
                fix="free the space or mend the permission, or set WORKSHOP_STATE_DIR.",
            ) from None
        url = f"sqlite:///{folder / 'orders.db'}"
    return _store(url)


@lru_cache(maxsize=8)
def _store(url: str) -> OrderStore:
    return OrderStore(url)


def _apply(connection: Connection, key: str, tool: ToolName, arguments: Arguments) -> Applied:
    # The row lock makes repairs of one order wait for each other. It comes first: what is read below
    # is then what they have left behind.
    order = connection.execute(
        select(tables.orders.c.status)
        .where(tables.orders.c.order_id == arguments.order_id)
        .with_for_update()
    ).first()
    item_id = arguments.item_id if isinstance(arguments, OrderInventory) else ""
    written = json.dumps(arguments.model_dump(), sort_keys=True, ensure_ascii=False)
    ledger = tables.ledger
    first = connection.execute(select(ledger).where(ledger.c.idempotency_key == key)).first()
    if first is not None:
        if (first.tool, first.arguments) != (tool, written):
            raise RepairRefused(
                f"The key {key!r} belongs to another repair.", expected="a key of its own a repair."
            )
        return Applied(outcome=first.outcome, repeated=True)
    if order is None:
        raise RepairRefused(f"There is no order {arguments.order_id}.")
    same = connection.execute(
        select(ledger.c.outcome).where(
            ledger.c.tool == tool,
            ledger.c.order_id == arguments.order_id,
            ledger.c.item_id == item_id,
        )
    ).scalar()
    if same is not None:
        return Applied(outcome=f"Requested before, and not again: {same}", repeated=True)

    if isinstance(arguments, OrderInventory):
        outcome = _order_stock(connection, arguments)
    elif isinstance(arguments, RequestApproval):
        outcome = f"Asked {arguments.approver} to approve {arguments.order_id}."
    else:
        outcome = f"Asked the customer of {arguments.order_id} for another way to pay."
    _set_status(connection, arguments.order_id, order.status, tool)
    connection.execute(
        sql_insert(ledger).values(
            idempotency_key=key,
            tool=tool,
            order_id=arguments.order_id,
            item_id=item_id,
            arguments=written,
            outcome=outcome,
            recorded_at=datetime.now(UTC),
        )
    )
    return Applied(outcome=outcome)


def _order_stock(connection: Connection, wanted: OrderInventory) -> str:
    """Add to the stock of an article that the order holds."""
    lines, inventory = tables.order_items, tables.inventory
    on_order = select(lines.c.line).where(
        lines.c.order_id == wanted.order_id, lines.c.item_id == wanted.item_id
    )
    row = (
        connection.execute(
            rows_of(inventory).where(inventory.c.item_id == wanted.item_id).with_for_update()
        )
        .mappings()
        .first()
    )
    if row is None:
        raise RepairRefused(f"There is no article {wanted.item_id} in the inventory.")
    if connection.execute(on_order).first() is None:
        raise RepairRefused(f"{wanted.item_id} is not on the order {wanted.order_id}.")
    item = validated(InventoryItem, row, inventory)
    if item.needs_approval:
        raise RepairRefused(
            f"{item.item_id} is restricted and is not ordered without approval.",
            expected="request_approval for its order.",
        )
    room = item.max_stock_level - item.current_stock
    if wanted.quantity > room:
        raise RepairRefused(
            f"The shelf has no room for {wanted.quantity:,} more of {item.item_id}.",
            expected=f"at most {max(room, 0):,}: it holds {item.max_stock_level:,} and has"
            f" {item.current_stock:,}.",
        )
    stock = item.current_stock + wanted.quantity
    available = stock - item.reserved_stock
    connection.execute(
        sql_update(inventory)
        .where(inventory.c.item_id == item.item_id)
        .values(
            current_stock=stock, available_stock=available, status=_stock_status(item, available)
        )
    )
    return (
        f"Ordered {wanted.quantity:,} of {item.item_id} for {wanted.order_id};"
        f" stock is now {stock:,}, of which {available:,} are available."
    )


def _stock_status(item: InventoryItem, available: int) -> str:
    if available <= 0:
        return "out-of-stock"
    return "low-stock" if available <= item.reorder_point else "in-stock"


def _set_status(connection: Connection, order_id: str, status: str, tool: ToolName) -> None:
    ranks = list(STATUS_AFTER.values())
    new = STATUS_AFTER[tool]
    if status in ranks and ranks.index(status) < ranks.index(new):
        return
    orders = tables.orders
    connection.execute(sql_update(orders).where(orders.c.order_id == order_id).values(status=new))


def _ledger_rows(connection: Connection) -> list[LedgerRow]:
    ordered = rows_of(tables.ledger).order_by(tables.ledger.c.idempotency_key)
    return [
        validated(LedgerRow, row, tables.ledger) for row in connection.execute(ordered).mappings()
    ]


def _is_ready(connection: Connection) -> bool:
    """Whether the tables are there and filled.

    Raises:
        WorkshopError: they are those of another version of the workshop.
    """
    if not inspect(connection).has_table(tables.store_info.name):
        return False
    version = connection.execute(select(tables.store_info.c.version)).scalar()
    if version not in (None, tables.SCHEMA_VERSION):
        raise WorkshopError(
            f"The order store is of version {version}; this workshop writes {tables.SCHEMA_VERSION}.",
            fix="`workshop repair reset` makes it anew from data/; its repairs are forgotten.",
        )
    return version is not None


def _lock_creation(connection: Connection) -> None:
    """One creator at a time. SQLite has locked the whole file when a writing transaction began."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _LOAD_LOCK})
