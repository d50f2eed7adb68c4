"""What a tool does about orders, and its arguments: read from its schema and its words.

A tool that takes a list of objects about orders reports problems; one that takes a list of order ids reports
a detection; one that takes a single order repairs it, and what it is about (payment, approval, stock) says
which problem it is for. A tool is only called when every argument it requires has a value.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from workshop_lib.llm.rules.order_findings import Finding, Kind
from workshop_lib.llm.rules.tool_schema import resolved
from workshop_lib.llm.rules.wording import words_of

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


class Role(Enum):
    """What an argument wants to hear."""

    CONFIDENCE = auto()
    QUANTITY = auto()
    ORDERS = auto()  # ids of several orders
    PROBLEMS = auto()  # one object a problem
    APPROVER = auto()
    ITEM = auto()
    ORDER = auto()
    KIND = auto()
    TEXT = auto()


class Purpose(Enum):
    """What a tool is for."""

    DETECTION = auto()
    ANALYSIS = auto()
    ORDER_STOCK = auto()
    ASK_APPROVAL = auto()
    ASK_PAYMENT = auto()


REPAIRS = {
    Kind.SHORTAGE: Purpose.ORDER_STOCK,
    Kind.APPROVAL: Purpose.ASK_APPROVAL,
    Kind.PAYMENT: Purpose.ASK_PAYMENT,
}
_WORDS = {
    Role.CONFIDENCE: {"confidence", "certainty", "probability", "likelihood", "score", "sure"},
    Role.QUANTITY: {"quantity", "qty", "amount", "units", "pieces", "count", "many"},
    Role.APPROVER: {"approver", "recipient", "authority", "addressee", "email"},
    Role.KIND: {"kind", "type", "category", "class"},
    Role.TEXT: {
        "reason", "reasoning", "why", "explanation", "summary", "description", "text", "comment",
        "message", "note", "justification", "contents", "evidence", "rationale",
    },
    Role.ITEM: {"item", "article", "sku", "product", "goods", "inventory"},
    Role.ORDER: {"order", "orders"},
}  # fmt: skip
_BY_TYPE = {
    "number": (Role.CONFIDENCE, Role.QUANTITY),
    "integer": (Role.QUANTITY, Role.CONFIDENCE),
    "string": (Role.APPROVER, Role.KIND, Role.TEXT, Role.ITEM, Role.ORDER),
}


class Field(NamedTuple):
    """One argument of a tool."""

    name: str
    schema: dict[str, Any]
    required: bool
    role: Role | None
    inner: tuple["Field", ...] = ()  # of the objects in a list


class OrderTool(NamedTuple):
    """A tool that can be called about orders."""

    name: str
    description: str
    purpose: Purpose
    fields: tuple[Field, ...]


def order_tools(tools: Sequence[dict[str, Any]]) -> list[OrderTool]:
    """Those of the offered tools that are about orders, in their order."""
    found = []
    for tool in tools:
        function = tool.get("function") or tool
        name, description = str(function.get("name")), str(function.get("description") or "")
        fields = _fields(function.get("parameters") or {})
        purpose = _purpose(name, description, fields)
        if purpose is not None:
            found.append(OrderTool(name, description, purpose, fields))
    return found


class Values(NamedTuple):
    """What arguments are filled from: by role first, then by the name of a field in the data."""

    by_role: Mapping[Role, Any]
    by_name: Mapping[str, Any] = {}
    problems: Sequence["Values"] = ()


def arguments_for(fields: Sequence[Field], values: Values) -> dict[str, Any] | None:
    """The arguments of a call, or None where one that is required has no value."""
    arguments: dict[str, Any] = {}
    for field in fields:
        value = _value(field, values)
        if value is not None:
            arguments[field.name] = value
        elif field.required:
            return None
    return arguments


def values_of(finding: Finding, approver: str | None = None) -> Values:
    """What a finding has to say to a tool."""
    by_role: dict[Role, Any] = {
        Role.ORDER: finding.order.order_id,
        Role.CONFIDENCE: round(finding.confidence, 4),
        Role.KIND: finding.kind.value,
        Role.TEXT: finding.evidence,
        Role.APPROVER: approver,
    }
    known: dict[str, Any] = finding.order.model_dump(mode="json")
    if finding.line is not None:
        by_role |= {Role.ITEM: finding.line.item_id, Role.QUANTITY: finding.quantity}
        known = finding.line.model_dump(mode="json") | known
    return Values({role: value for role, value in by_role.items() if value is not None}, known)


def approver_in(tool: OrderTool, instructions: Sequence[str]) -> str | None:
    """The address that approvals go to: from the tool or the instructions, never from an order."""
    schemas = [field.schema for field in tool.fields if field.role is Role.APPROVER]
    for text in [*map(str, schemas), tool.description, *instructions]:
        match = _EMAIL.search(text)
        if match:
            return match.group()
    return None


def _fields(schema: dict[str, Any], root: dict[str, Any] | None = None) -> tuple[Field, ...]:
    root = schema if root is None else root
    needed = schema.get("required") or ()
    fields = []
    for name, raw in (schema.get("properties") or {}).items():
        part, optional = resolved(raw, root)
        required = name in needed and not optional and "default" not in part
        fields.append(_field(name, part, required, root))
    return tuple(fields)


def _field(name: str, schema: dict[str, Any], required: bool, root: dict[str, Any]) -> Field:
    said = (words_of(name), words_of(str(schema.get("description") or "")))
    kind = schema.get("type")
    if kind == "array":
        item, _ = resolved(schema.get("items") or {}, root)
        about_orders = any(_WORDS[Role.ORDER] & set(words) for words in said)
        if item.get("properties"):
            inner = _fields(item, root)
            listed = Role.PROBLEMS if any(f.role is Role.ORDER for f in inner) else None
            return Field(name, schema, required, listed, inner)
        ids = item.get("type", "string") == "string" and about_orders
        return Field(name, schema, required, Role.ORDERS if ids else None)
    for words in said:
        for role in _BY_TYPE.get(str(kind), ()):
            if _WORDS[role] & set(words):
                return Field(name, schema, required, role)
    if kind is None and schema.get("enum"):
        return Field(name, schema, required, Role.KIND)
    return Field(name, schema, required, None)


def _purpose(name: str, description: str, fields: Sequence[Field]) -> Purpose | None:
    roles = {field.role for field in fields}
    if Role.PROBLEMS in roles:
        return Purpose.ANALYSIS
    if Role.ORDERS in roles and Role.CONFIDENCE in roles:
        return Purpose.DETECTION
    if Role.ORDER not in roles:
        return None
    if {Role.ITEM, Role.QUANTITY} <= roles:
        return Purpose.ORDER_STOCK
    # The name says it best: the description of one repair may mention another.
    for words in (set(words_of(name)), set(words_of(description))):
        if words & {"payment", "pay", "pays", "paid", "billing"}:
            return Purpose.ASK_PAYMENT
        if words & {"approval", "approve", "approved", "approver", "permit", "permission"}:
            return Purpose.ASK_APPROVAL
    return None


def _value(field: Field, values: Values) -> Any:
    if field.role is Role.PROBLEMS:
        entries = [arguments_for(field.inner, problem) for problem in values.problems]
        return [entry for entry in entries if entry is not None]
    found = values.by_role.get(field.role) if field.role else None
    if found is None:
        found = values.by_name.get(field.name)
        if not isinstance(found, str | int | float):
            return None
    choices = field.schema.get("enum")
    if choices and found not in choices and field.role is Role.KIND:
        # The choice that has most words in common: "inventory-shortage" is what "inventory" means.
        shared = {choice: len(_words(found) & _words(choice)) for choice in map(str, choices)}
        best = max(shared, key=lambda choice: shared[choice])
        return best if shared[best] else None
    longest = field.schema.get("maxLength")
    if isinstance(found, str) and isinstance(longest, int) and len(found) > longest:
        return found[: max(longest - 2, 0)] + " …"
    return found


def _words(value: Any) -> set[str]:
    return set(words_of(re.sub(r"[-_]", " ", str(value))))
