"""A large shop in pages: what crosses the border between workflow and activity has a largest size.

The workflow looks at a page and has it examined, then at the next. The orders of all pages that may have a
problem then go on together, as one snapshot. A shop that fits into one page is one snapshot throughout.
Pure functions. Left out: reading the orders (`store`), and the order of the steps (`cycle`).
"""

from collections.abc import Iterable, Sequence

from workshop_lib.repair.models import DETECTION_THRESHOLD, Detection, Order, Snapshot
from workshop_lib.temporal.bounded import cut

PAGE_BYTES = 400_000  # of a page's orders, as JSON; the server takes 2 MB, and a prompt less
PAGE_ORDERS = 500
MAX_PAGES = 20  # a pass; all of them are in its history, which has an end too
MAX_SUSPECTS = 100  # orders that one plan is made for; the next pass takes more
MAX_ARTICLES = 500  # in stock; where there are more, those that the orders want


def page_of(snapshot: Snapshot, after: str | None) -> Snapshot:
    """The orders after one, as many as fit, with the stock and the open requests that they are about.

    Args:
        snapshot: the whole shop, orders by id.
        after: the last order of the page before; None for the first page.
    """
    rest = [order for order in snapshot.orders if after is None or order.order_id > after]
    kept = _fitting(sorted(rest, key=lambda order: order.order_id))
    more = kept[-1].order_id if len(kept) < len(rest) else None
    few = len(snapshot.inventory) <= MAX_ARTICLES and len(snapshot.open_requests) <= MAX_ARTICLES
    if after is None and more is None and few:
        return snapshot
    return _about(kept, [snapshot]).model_copy(update={"more_after": more})


def suspects(examined: Sequence[tuple[Snapshot, Detection]]) -> tuple[Snapshot, Detection]:
    """The orders of all pages that may have a problem, as one page, and what was found of them."""
    if len(examined) == 1:
        return examined[0]
    found = [(s, d) for s, d in examined if d.confidence >= DETECTION_THRESHOLD]
    if not found:
        return max(examined, key=lambda one: one[1].confidence)
    named = [order for s, d in found for i in d.order_ids if (order := s.order(i)) is not None]
    kept = _fitting(named[:MAX_SUSPECTS])
    reasons = [d.reason for _, d in found if d.reason]
    if len(kept) < len(named):
        reasons.insert(0, f"The first {len(kept)} of {len(named)} suspected orders.")
    detection = Detection(
        confidence=max(d.confidence for _, d in found),
        order_ids=[order.order_id for order in kept],
        reason=cut(" ".join(dict.fromkeys(reasons)), 1_900),
    )
    return _about(kept, [s for s, _ in found]), detection


def _fitting(orders: Sequence[Order]) -> list[Order]:
    """As many of the orders as make a page, and at least one of them."""
    kept: list[Order] = []
    size = 0
    for order in orders[:PAGE_ORDERS]:
        size += len(order.model_dump_json().encode())
        if kept and size > PAGE_BYTES:
            break
        kept.append(order)
    return kept


def _about(orders: list[Order], snapshots: Iterable[Snapshot]) -> Snapshot:
    """These orders, with the stock and the open requests of the snapshots that they are about."""
    shops = list(snapshots)
    wanted = {line.item_id for order in orders for line in order.items}
    ids = {order.order_id for order in orders}
    stock = {i.item_id: i for shop in shops for i in shop.inventory if i.item_id in wanted}
    requests = [r for shop in shops for r in shop.open_requests if r.order_id in ids]
    return Snapshot(
        today=shops[0].today,
        orders=orders,
        inventory=[stock[name] for name in sorted(stock)],
        open_requests=requests,
    )
