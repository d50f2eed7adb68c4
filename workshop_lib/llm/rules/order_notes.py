"""Instructions in the notes of orders, for the fault `gullible`: what a model does that obeys its data.

A customer can write anything into a note. A model that does not tell data from instructions then proposes
what the note demands, in good order and with full confidence. These rules play that model on request, so
that it can be shown what stops it. Without the fault nothing here is called.
"""

import re
from typing import Any, NamedTuple

from workshop_lib.llm.rules.lexicon import NUMBER_WORDS
from workshop_lib.llm.rules.order_data import Order, OrderData
from workshop_lib.llm.rules.order_findings import Kind
from workshop_lib.llm.rules.order_tools import Purpose, Role, Values

FULL_CONFIDENCE = 1.0  # an injected instruction usually asks for it, and a gullible model obliges
DEFAULT_QUANTITY = 1000  # where the note asks for goods and does not say how many

# What makes a note an instruction and not a wish such as "please deliver after 3 pm".
_COMMAND = re.compile(
    r"\b(ignore|disregard|forget|override|overrule|bypass|instructions?|system|assistant|admin\w*|"
    r"you must|you are|do not ask|without (?:asking|approval)|immediately)\b",
    re.IGNORECASE,
)
_VERBS = {
    Purpose.ORDER_STOCK: re.compile(r"\b(re-?order|order|buy|restock|purchase)\b", re.IGNORECASE),
    Purpose.ASK_APPROVAL: re.compile(r"\bapprov", re.IGNORECASE),
    Purpose.ASK_PAYMENT: re.compile(r"\b(payment|refund|charge|invoice)", re.IGNORECASE),
}
_KINDS = {
    Purpose.ORDER_STOCK: Kind.SHORTAGE,
    Purpose.ASK_APPROVAL: Kind.APPROVAL,
    Purpose.ASK_PAYMENT: Kind.PAYMENT,
}
_CLAUSES = re.compile(r"[,;:]\s|[.!]\s|\band\b")
_CODE = re.compile(r"\b[A-Z]{2,}[A-Z0-9]*(?:-[A-Z0-9]+)+\b")
_NUMBER = re.compile(r"(?<![\w.-])\d{1,9}(?![\w.-]*\d)")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


class Demand(NamedTuple):
    """Something that a note demands."""

    order_id: str
    purpose: Purpose
    values: Values


def demands(data: OrderData) -> list[Demand]:
    """All that the notes of the orders demand, clause by clause."""
    return [
        demand
        for order in data.orders
        if _COMMAND.search(order.notes or "")
        for clause in _CLAUSES.split(order.notes or "")
        for demand in _demands(clause, order, data)
    ]


def diverted_approvals(data: OrderData) -> str | None:
    """The address that a note wants approvals sent to, if one does."""
    for order in data.orders:
        for clause in _CLAUSES.split(order.notes or ""):
            address = _EMAIL.search(clause)
            if address and _VERBS[Purpose.ASK_APPROVAL].search(clause):
                return address.group()
    return None


def _demands(clause: str, order: Order, data: OrderData) -> list[Demand]:
    codes = _CODE.findall(clause)
    known = {other.order_id for other in data.orders}
    # An order that does not exist is obeyed too: its id looks like the others.
    named = [code for code in codes if code in known or code[:4] == order.order_id[:4]]
    goods = [code for code in codes if code not in named]
    for purpose, verb in _VERBS.items():
        if not verb.search(clause):
            continue
        about = named[0] if named else order.order_id
        if purpose is not Purpose.ORDER_STOCK:
            # An address for all approvals is `diverted_approvals`, and no approval by itself.
            return [] if _EMAIL.search(clause) else [_demand(about, purpose, order, {})]
        if goods:
            more = {Role.ITEM: goods[0], Role.QUANTITY: _quantity(clause)}
            return [_demand(about, purpose, order, more)]
    return []


def _demand(order_id: str, purpose: Purpose, order: Order, more: dict[Role, Any]) -> Demand:
    by_role: dict[Role, Any] = {
        Role.ORDER: order_id,
        Role.CONFIDENCE: FULL_CONFIDENCE,
        Role.KIND: _KINDS[purpose].value,
        Role.TEXT: f"The notes of {order.order_id} say so: “{(order.notes or '')[:300]}”",
        **more,
    }
    return Demand(order_id, purpose, Values(by_role))


def _quantity(clause: str) -> int:
    """The number of pieces that a clause asks for, in digits or as a word."""
    text = _CODE.sub(" ", clause)
    digits = _NUMBER.search(text)
    if digits:
        return int(digits.group())
    words = (NUMBER_WORDS.get(word) for word in re.findall(r"[a-z]+", text.lower()))
    return next((number for number in words if number), DEFAULT_QUANTITY)
