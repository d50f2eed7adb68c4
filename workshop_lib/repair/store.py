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
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from workshop_lib.errors import WorkshopError
from workshop_lib.machine import state_folder
from workshop_lib.repair import tables
from workshop_lib.repair.database import Duplicate, StoreDamaged, StoreUnavailable, database_at
from workshop_lib.repair.models import (
    Arguments,
    InventoryItem,
    OpenRequest,
    Order,
    OrderInventory,
    RequestApproval,
    Snapshot,
    ToolName,
)
from workshop_lib.settings import get_settings

# What an order's status becomes. Where several requests are open, the earliest here is shown, so that
# the status does not depend on which repair came last.
STATUS_AFTER: dict[ToolName, str] = {
    "request_approval": "approval-requested",
    "request_payment_update": "payment-update-requested",
    "order_inventory": "inventory-ordered",
}


class RepairRefused(WorkshopError):
    """The repair cannot be carried out, now or later; nothing was changed."""


class Applied(NamedTuple):
    """What became of a repair.

    Attributes:
        outcome: what was done, in words. The same words every time it is asked for.
        repeated: it had been done before, and nothing was changed this time.
    """

    outcome: str
    repeated: bool = False


class OrderStore:
    """The store behind one database URL.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL.
        data: the folder that it is loaded from, and that `reset` goes back to.
    """

    def __init__(self, url: str, data: Path = tables.DATA) -> None:
        self._database = database_at(url)
        self._tables = tables.Tables(self._database, data)
        self.engine = self._database.engine  # for whoever must look closer

    def snapshot(self, today: date) -> Snapshot:
        """All orders, stock and open requests at one moment.

        Raises:
            StoreDamaged: a row is not what it must be; it is named.
            StoreUnavailable: the database does not answer.
        """
        with self._tables.reading() as connection:
            return Snapshot(
                today=today,
                orders=tables.read_orders(connection),
                inventory=tables.read_all(connection, tables.inventory, InventoryItem),
                open_requests=[
                    OpenRequest(order_id=row.order_id, tool=row.tool, item_id=row.item_id or None)
                    for row in tables.read_all(connection, tables.ledger, tables.LedgerRow)
                ],
            )

    def ledger(self) -> list[tables.LedgerRow]:
        """Every repair that was carried out, by key."""
        with self._tables.reading() as connection:
            return tables.read_all(connection, tables.ledger, tables.LedgerRow)

    def apply(self, key: str, arguments: Arguments) -> Applied:
        """Carry a repair out, once.

        May be called again with the same key, at any time and from anywhere: the first outcome is
        returned and nothing is changed. The same holds where another key has requested the same thing
        for the order.

        Raises:
            RepairRefused: there is no such order or article, the article is not on the order or is
                restricted, the shelf is too small, or the key belongs to another repair.
            StoreDamaged, StoreUnavailable: as in `snapshot`.
        """
        with contextlib.suppress(Duplicate), self._tables.writing() as connection:
            return _apply(connection, key, arguments)
        # Another transaction has committed the same key a moment ago; now its row is visible.
        with self._tables.writing() as connection:
            return _apply(connection, key, arguments)

    def add_order(self, order: Order) -> None:
        """Add an order, as a shop would.

        Raises:
            RepairRefused: there is one with this id.
        """
        try:
            with self._tables.writing() as connection:
                tables.write_order(connection, order)
        except Duplicate:
            raise RepairRefused(f"There is an order {order.order_id} already.") from None

    def reset(self) -> Path | None:
        """Forget every change and load `data/` again, in one transaction.

        Returns:
            Where a damaged file is kept, which was in the way; else None.
        """
        try:
            self._tables.begin_anew()
            return None
        except StoreDamaged:
            if (kept := self._database.put_aside()) is None:
                raise
        self._tables.begin_anew()
        return kept


_store = lru_cache(maxsize=8)(OrderStore)


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


def _apply(connection: Connection, key: str, arguments: Arguments) -> Applied:
    order_id, tool, ledger = arguments.order_id, arguments.tool, tables.ledger
    item_id = arguments.item_id if isinstance(arguments, OrderInventory) else ""
    written = json.dumps(arguments.model_dump(), sort_keys=True, ensure_ascii=False)
    this_order = tables.orders.c.order_id == order_id
    # The row lock makes repairs of one order wait for each other. It comes first: what is read below
    # is then what they have left behind.
    locked = select(tables.orders.c.status).where(this_order).with_for_update()
    status = connection.execute(locked).scalar()
    first = connection.execute(select(ledger).where(ledger.c.idempotency_key == key)).first()
    if first is not None:
        if (first.tool, first.arguments) != (tool, written):
            raise RepairRefused(
                f"The key {key!r} belongs to another repair.", expected="a key of its own a repair."
            )
        return Applied(first.outcome, repeated=True)
    if status is None:
        raise RepairRefused(f"There is no order {order_id}.")
    same = connection.execute(
        select(ledger.c.outcome).filter_by(tool=tool, order_id=order_id, item_id=item_id)
    ).scalar()
    if same is not None:
        return Applied(f"Requested before, and not again: {same}", repeated=True)

    if isinstance(arguments, OrderInventory):
        outcome = _order_stock(connection, arguments)
    elif isinstance(arguments, RequestApproval):
        outcome = f"Asked {arguments.approver} to approve {order_id}."
    else:
        outcome = f"Asked the customer of {order_id} for another way to pay."
    ranks = list(STATUS_AFTER.values())
    if status not in ranks or ranks.index(STATUS_AFTER[tool]) < ranks.index(status):
        connection.execute(
            update(tables.orders).where(this_order).values(status=STATUS_AFTER[tool])
        )
    row = tables.LedgerRow(
        idempotency_key=key,
        tool=tool,
        order_id=order_id,
        item_id=item_id,
        arguments=written,
        outcome=outcome,
        recorded_at=datetime.now(UTC),
    )
    connection.execute(insert(ledger).values(row.model_dump()))
    return Applied(outcome)


def _order_stock(connection: Connection, purchase: OrderInventory) -> str:
    """Add to the stock of an article that the order holds."""
    lines, inventory = tables.order_items, tables.inventory
    this_article = inventory.c.item_id == purchase.item_id
    locked = tables.rows_of(inventory).where(this_article).with_for_update()
    row = connection.execute(locked).mappings().first()
    if row is None:
        raise RepairRefused(f"There is no article {purchase.item_id} in the inventory.")
    item = tables.validated(InventoryItem, row, inventory)
    on_order = select(lines.c.line).filter_by(order_id=purchase.order_id, item_id=item.item_id)
    if connection.execute(on_order).first() is None:
        raise RepairRefused(f"{item.item_id} is not on the order {purchase.order_id}.")
    if item.needs_approval:
        raise RepairRefused(
            f"{item.item_id} is restricted and is not ordered without approval.",
            expected="request_approval for its order.",
        )
    room = item.max_stock_level - item.current_stock
    if purchase.quantity > room:
        raise RepairRefused(
            f"The shelf has no room for {purchase.quantity:,} more of {item.item_id}.",
            expected=f"at most {max(room, 0):,}: it holds {item.max_stock_level:,} and has"
            f" {item.current_stock:,}.",
        )
    stock = item.current_stock + purchase.quantity
    available = stock - item.reserved_stock
    enough = "in-stock" if available > item.reorder_point else "low-stock"
    status = enough if available > 0 else "out-of-stock"
    connection.execute(
        update(inventory)
        .where(this_article)
        .values(current_stock=stock, available_stock=available, status=status)
    )
    return (
        f"Ordered {purchase.quantity:,} of {item.item_id} for {purchase.order_id};"
        f" stock is now {stock:,}, of which {available:,} are available."
    )
