"""Orders and stock in a request: a JSON object somewhere in the message, read with forgiveness.

A request carries order data when an object in it has a list `orders` whose entries have an id and a status,
or a list of executed repairs. Fields that are missing are taken as unknown, and an entry that cannot be read
is left out. Left out: what the figures mean, which is `order_findings`' business.
"""

import json
import re
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_TRIES = 40  # opening braces looked at; a message that has more before its data is no data message
_RESULTS = ("results", "repairs", "executed")


class _Seen(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Line(_Seen):
    """One line of an order."""

    item_id: str
    item_name: str = ""
    quantity: int = 0
    unit_price: float | None = None


class Stock(_Seen):
    """What the inventory says of an item."""

    item_id: str
    current_stock: int
    reserved_stock: int = 0
    available_stock: int | None = None
    max_stock_level: int | None = None
    unit_price: float | None = None
    restrictions: Any = None
    special_requirements: Any = None

    @property
    def restricted(self) -> bool:
        """True where somebody has to approve the sale."""
        return bool(self.restrictions or self.special_requirements)

    @property
    def free(self) -> int:
        """What is there and promised to nobody. Negative where more is promised than there is."""
        return self.current_stock - self.reserved_stock


class Order(_Seen):
    """An order, or the little that a digest tells of one.

    Attributes:
        age_days: where the data say it; else it follows from `order_date`.
        stock: what a digest says of the comparison with the stock ("short").
    """

    order_id: str
    status: str
    order_date: str = ""
    age_days: int | None = None
    items: list[Line] = []
    stock: str = ""
    open_request: bool = False
    notes: str | None = ""

    def age(self, today: date | None) -> int | None:
        """Days since it was placed, or None where the data do not say."""
        if self.age_days is not None:
            return self.age_days
        try:
            placed = date.fromisoformat(self.order_date[:10])
        except ValueError:
            return None
        return (today - placed).days if today else None


class Executed(_Seen):
    """A repair that was made."""

    order_id: str
    tool: str
    outcome: str = ""
    done: bool = True
    repeated: bool = False


class OrderData(_Seen):
    """All that a request shows of orders.

    Attributes:
        under_repair: ids of orders that have an open request.
        named: ids of the orders whose problems the request lists; None where it lists none.
        executed: repairs that were made, where the request is about these; None where it is not.
        whole: the object as it stands in the message.
    """

    today: date | None = None
    orders: list[Order] = []
    inventory: dict[str, Stock] = {}
    under_repair: frozenset[str] = frozenset()
    named: frozenset[str] | None = None
    executed: list[Executed] | None = None
    whole: dict[str, Any] = Field(default={}, repr=False)


class Found(NamedTuple):
    """Order data, and which part of the text they are."""

    data: OrderData
    start: int
    end: int


def find_order_data(text: str) -> Found | None:
    """The order data in a text, or None where there are none."""
    decoder = json.JSONDecoder()
    position = -1
    for _ in range(_TRIES):
        position = text.find("{", position + 1)
        if position < 0:
            return None
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            continue
        data = _read(value)
        if data is not None:
            return Found(data, position, end)
        position = end - 1
    return None


def _read(value: dict[str, Any]) -> OrderData | None:
    orders = _each(Order, value.get("orders"))
    listed = next((value[name] for name in _RESULTS if isinstance(value.get(name), list)), None)
    executed = None if listed is None else _each(Executed, listed)
    if not executed and (listed or "problems" not in value):
        executed = None  # a list of something else, or an empty one that nothing says more about
    if not orders and executed is None:
        return None
    return OrderData(
        today=_day(value.get("today")),
        orders=orders,
        inventory={stock.item_id: stock for stock in _each(Stock, value.get("inventory"))},
        under_repair=(_ids(value.get("open_requests")) or frozenset())
        | {order.order_id for order in orders if order.open_request},
        named=_ids(value.get("problems")),
        executed=executed,
        whole=value,
    )


def _each(model: type[Any], entries: Any) -> list[Any]:
    """The entries of a list that can be read."""
    read: list[Any] = []
    for entry in entries if isinstance(entries, Sequence) and not isinstance(entries, str) else ():
        try:
            read.append(model.model_validate(entry))
        except ValidationError:
            continue
    return read


def _ids(entries: Any) -> frozenset[str] | None:
    """The orders that the entries of a list are about; None where there is no list."""
    if not isinstance(entries, list):
        return None
    return frozenset(str(entry.get("order_id")) for entry in entries if isinstance(entry, dict))


def _day(value: Any) -> date | None:
    match = re.match(r"\d{4}-\d\d-\d\d", value) if isinstance(value, str) else None
    try:
        return date.fromisoformat(match.group()) if match else None
    except ValueError:
        return None
