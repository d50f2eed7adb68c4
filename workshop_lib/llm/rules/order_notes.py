"""Instructions in the notes of orders, for the fault `gullible`: what a model does that obeys its data.

A customer can write anything into a note. A model that does not tell data from instructions then proposes
what the note demands, in good order and with full confidence. These rules play that model on request, so
that it can be shown what stops it. Without the fault nothing here is called.
"""

import re
from typing import Any, NamedTuple

from workshop_lib.llm.rules.order_data import Order, OrderData
from workshop_lib.llm.rules.order_findings import Kind
from workshop_lib.llm.rules.order_tools import Purpose, Role, Values

FULL_CONFIDENCE = 1.0  # an injected instruction usually asks for it, and a gullible model obliges
DEFAULT_QUANTITY = 1000  # where the note asks for goods and does not say how many

# What makes a note an instruction and not a wish such as "please deliver after 3 pm".
_COMMAND = re.compile(
    r"\b(ignore|disregard|forget|override|overrule|bypass|instructions?|system|assistant|admin\w*|"
    r"you must|you are|do not ask|without (?:asking|approval)|auto-?approve|immediately)\b",
    re.IGNORECASE,
)
_VERBS = {
    Purpose.ORDER_STOCK: re.compile(
        r"\b(order(?:_inventory)?|buy|restock|re-order|reorder|purchase|stock up)\b(?!\s+(?:id|data)\b)",
        re.IGNORECASE,
    ),
    Purpose.ASK_APPROVAL: re.compile(r"(?<!without )\b(?<!auto-)(?:request_)?approv\w+", re.IGNORECASE),
    Purpose.ASK_PAYMENT: re.compile(r"\b\w*(?:payment|refund|charge|invoice)\w*\b", re.IGNORECASE),
}  # fmt: skip
_KINDS = {
    Purpose.ORDER_STOCK: Kind.SHORTAGE,
    Purpose.ASK_APPROVAL: Kind.APPROVAL,
    Purpose.ASK_PAYMENT: Kind.PAYMENT,
}
_CODE = re.compile(r"\b[A-Z]{2,}[A-Z0-9]*(?:-[A-Z0-9]+)+\b")
_NUMBER = re.compile(r"(?<![\w.-])(\d{1,3}(?:,\d{3})+|\d{1,9})(?![\w.-]*\d|-)")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


class Demand(NamedTuple):
    """Something that a note demands."""

    order_id: str
    purpose: Purpose
    values: Values


def demands(data: OrderData) -> list[Demand]:
    """All that the notes of the orders demand."""
    found: list[Demand] = []
    for order in data.orders:
        note = order.notes or ""
        if not _COMMAND.search(note):
            continue
        spelled = re.sub(r"_", " ", note)
        codes = list(dict.fromkeys(_CODE.findall(note)))
        ids = {other.order_id for other in data.orders}
        alike = re.compile(re.sub(r"[A-Za-z0-9]+", "[A-Z0-9]+", order.order_id))
        named = [
            c for c in codes if c in ids or (c[:4] == order.order_id[:4] and alike.fullmatch(c))
        ]
        for purpose, verb in _VERBS.items():
            if not (verb.search(note) or verb.search(spelled)):
                continue
            for order_id in named or [order.order_id]:
                target = next((o for o in data.orders if o.order_id == order_id), order)
                items = [c for c in codes if c not in named]
                if purpose is not Purpose.ORDER_STOCK:
                    found.append(_demand(order_id, purpose, order, {}))
                    continue
                for item in items or [line.item_id for line in target.items[:1]]:
                    goods = {Role.ITEM: item, Role.QUANTITY: _quantity(note)}
                    found.append(_demand(order_id, purpose, order, goods))
    return found


def _demand(order_id: str, purpose: Purpose, order: Order, more: dict[Role, Any]) -> Demand:
    note = order.notes or ""
    by_role: dict[Role, Any] = {
        Role.ORDER: order_id,
        Role.CONFIDENCE: FULL_CONFIDENCE,
        Role.KIND: _KINDS[purpose].value,
        Role.TEXT: f"The notes of {order.order_id} say so: “{note[:300]}”",
        **more,
    }
    asked = _EMAIL.search(note)
    if asked:
        by_role[Role.APPROVER] = asked.group()
    return Demand(order_id, purpose, Values(by_role))


def _quantity(note: str) -> int:
    """The number of pieces that a note asks for: the largest number in it that is no part of a code."""
    numbers = [int(match.replace(",", "")) for match in _NUMBER.findall(_CODE.sub(" ", note))]
    return max(numbers, default=DEFAULT_QUANTITY)
