"""A tool as the offline rules see it: what it is for, and which kind of value each argument wants.

Everything is read from the tool's name, description and JSON schema. An argument's kind (a number, a place,
a ticker, a code shaped like DEMO-456 …) decides which words of a question may fill it. Left out: schemas
nested deeper than one level, whose tools are never called.
"""

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from workshop_lib.llm.rules.lexicon import DESCRIPTION_NOISE, words_in
from workshop_lib.llm.rules.wording import plain_signs, terms_of, words_of


class Slot(NamedTuple):
    """One argument.

    Attributes:
        path: where its value goes, ("city",) or ("input", "city").
        kind: number, integer, boolean, enum, expression, place, ticker, code, currency, language, date,
            email, url, ip, name or text.
        many: the value is a list of such.
        unit: for numbers: percent, fraction, money, years, months, days, quantity or empty.
        choices: for enums.
        shape: for codes: a regular expression, learned from an example or the schema's pattern.
        words: lower-case words of its own name.
    """

    path: tuple[str, ...]
    kind: str
    required: bool
    many: bool
    unit: str
    choices: tuple[Any, ...]
    shape: str
    words: tuple[str, ...]
    description: str

    @property
    def name(self) -> str:
        """The argument's own name."""
        return self.path[-1]


class Tool(NamedTuple):
    """A tool, read.

    Attributes:
        name_terms, description_terms: what questions are compared with.
        callable: False where a required argument cannot be described by a `Slot`.
        required: the slots without which it cannot be called.
    """

    name: str
    description: str
    slots: tuple[Slot, ...]
    name_terms: frozenset[str]
    description_terms: frozenset[str]
    callable: bool
    required: tuple[Slot, ...]

    @property
    def entity(self) -> Slot | None:
        """The one thing it is about (a city, a ticker …), if it is about one."""
        entities = [slot for slot in self.required if slot.kind in ENTITY_KINDS]
        return entities[0] if len(entities) == 1 else None

    @property
    def calculates(self) -> bool:
        """True for a tool that takes an arithmetic expression and needs nothing else."""
        return [slot.kind for slot in self.required] == ["expression"]

    @property
    def takes_date(self) -> bool:
        """True if it can be told which day is meant."""
        return any(slot.kind == "date" for slot in self.slots)


ENTITY_KINDS = frozenset(
    {"place", "ticker", "code", "name", "email", "url", "ip", "currency", "language", "enum"}
)
_NAME_NOISE = words_in(
    """
        calculate compute calc get fetch lookup find show read check query retrieve tool the a
        of for by to my current latest info data information details service list run do compute
        it in and
        """
)
_KINDS_BY_WORD = {
    "expression": "expression", "formula": "expression", "equation": "expression",
    "city": "place", "cities": "place", "location": "place", "locations": "place", "place": "place",
    "places": "place", "town": "place", "destination": "place", "origin": "place",
    "departure": "place", "arrival": "place", "country": "place", "region": "place", "where": "place",
    "ticker": "ticker", "tickers": "ticker", "symbol": "ticker", "symbols": "ticker", "stock": "ticker",
    "currency": "currency", "currencies": "currency", "language": "language", "lang": "language",
    "languages": "language", "date": "date", "day": "date", "when": "date", "email": "email",
    "recipient": "email", "url": "url", "link": "url", "website": "url", "ip": "ip", "ip_address": "ip",
    "project": "code", "projects": "code", "order": "code", "orders": "code", "ticket": "code",
    "issue": "code", "key": "code", "id": "code", "ids": "code", "code": "code", "sku": "code",
    "item": "code", "invoice": "code", "account": "code", "tracking": "code", "reference": "code",
    "number": "code", "incident": "code", "flight": "code", "serial": "code", "shipment": "code",
    "person": "name", "name": "name", "customer": "name", "employee": "name", "user": "name",
    "username": "name", "owner": "name", "team": "name", "company": "name", "product": "name",
    "patient": "name", "contact": "name", "assignee": "name", "host": "name", "hostname": "name",
    "service": "name",
}  # fmt: skip
_UNITS_BY_WORD = {
    "percent": "percent", "percentage": "percent", "pct": "percent", "rate": "percent",
    "interest": "percent", "apr": "percent", "years": "years", "year": "years", "term": "years",
    "months": "months", "days": "days", "principal": "money", "amount": "money", "money": "money",
    "dollars": "money", "investment": "money", "deposit": "money", "price": "money", "budget": "money",
    "salary": "money", "loan": "money", "bill": "money", "quantity": "quantity", "count": "quantity",
    "shares": "quantity", "units": "quantity", "qty": "quantity",
}  # fmt: skip
_EXAMPLE = re.compile(
    r"(?:e\.?g\.?|such as|like|for example|example|for instance|ex\.)[,:]?\s+[\"'`(]?([\w$][\w.-]*\w)",
    re.IGNORECASE,
)
_CODE_IN_TEXT = re.compile(r"\b[A-Z]{1,10}[A-Z0-9]*(?:[-_][A-Z0-9]+)+\b|\b[A-Z]{1,6}\d{2,}\b")


def read_tool(tool: dict[str, Any]) -> Tool:
    """A tool in the shape of the chat completions API, read."""
    return _read_tool(json.dumps(tool.get("function") or tool, default=str))


@lru_cache(maxsize=256)
def _read_tool(text: str) -> Tool:
    function = json.loads(text)
    name, description = str(function.get("name", "")), str(function.get("description") or "")
    schema = function.get("parameters") or {}
    slots, usable = _slots(schema, schema, (), True, description)
    descriptive = [word for word in words_of(description) if word not in DESCRIPTION_NOISE]
    for slot in slots:
        descriptive += [
            word
            for word in (*slot.words, *words_of(slot.description))
            if word not in DESCRIPTION_NOISE
        ]
        if slot.kind != "number":
            descriptive += [
                word for choice in slot.choices for word in words_of(str(choice)) if len(word) > 2
            ]
    return Tool(
        name,
        description,
        tuple(slots),
        frozenset(t for word in words_of(name) if word not in _NAME_NOISE for t in terms_of(word)),
        frozenset(t for word in descriptive for t in terms_of(word)),
        usable,
        tuple(slot for slot in slots if slot.required),
    )


def _slots(
    schema: dict[str, Any],
    root: dict[str, Any],
    path: tuple[str, ...],
    required: bool,
    about: str,
) -> tuple[list[Slot], bool]:
    """The slots of an object schema, and whether its required ones are all understood."""
    slots: list[Slot] = []
    usable = True
    needed = schema.get("required") or ()
    for name, raw in (schema.get("properties") or {}).items():
        part, optional = resolved(raw, root)
        # A strict schema lists every argument as required; one that may be null or has a default is not.
        must = required and name in needed and not optional and "default" not in part
        kind = part.get("type")
        if kind == "object" or "properties" in part:
            if path or not part.get("properties"):
                usable = usable and not must
                continue
            inner, inner_usable = _slots(part, root, (*path, name), must, about)
            slots += inner
            usable = usable and (inner_usable or not must)
            continue
        many = kind == "array"
        item = resolved(part.get("items") or {"type": "string"}, root)[0] if many else part
        if many and (item.get("type") == "object" or "properties" in item):
            usable = usable and not must
            continue
        description = " ".join(
            str(text) for text in (part.get("description"), item.get("description")) if text
        )
        slots.append(_slot((*path, name), item, must, many, description, about))
    return slots, usable


def _slot(
    path: tuple[str, ...],
    schema: dict[str, Any],
    required: bool,
    many: bool,
    description: str,
    about: str,
) -> Slot:
    own = tuple(words_of(path[-1]))
    description = plain_signs(description)
    examples = [
        str(value) for value in (*(schema.get("examples") or ()), schema.get("example") or "")
    ]
    examples = [value for value in examples if value] or _EXAMPLE.findall(description)
    examples += _CODE_IN_TEXT.findall(description)
    kind = _kind(own, schema, description, about, examples)
    shape = ""
    if kind == "code":
        shaped = [value for value in examples if re.search(r"\d", value)]
        shape = schema.get("pattern") or next((_shape(value) for value in shaped), "")
    listed = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    choices = tuple(choice for choice in listed if isinstance(choice, str | int | float))
    return Slot(
        path, kind, required, many, _unit(own, description), choices, shape, own, description
    )


def _kind(
    own: tuple[str, ...],
    schema: dict[str, Any],
    description: str,
    about: str,
    examples: list[str],
) -> str:
    if schema.get("enum") or "const" in schema:
        return "enum"
    kind = schema.get("type")
    if kind in ("number", "integer", "boolean"):
        return str(kind)
    by_format = {"date": "date", "email": "email", "uri": "url", "ipv4": "ip", "date-time": "date"}
    if schema.get("format") in by_format:
        return by_format[schema["format"]]
    said = words_of(description)
    if {"arithmetic", "expression"} & set(said) or "expression" in own:
        return "expression"
    for words in (tuple(reversed(own)), said[:12]):
        for word in words:
            found = _KINDS_BY_WORD.get(word)
            if found == "code" and word in ("key", "id", "code", "number") and words is not said:
                # "currency code" and "language code" are what their first word says
                found = next(
                    (_KINDS_BY_WORD[w] for w in own if _KINDS_BY_WORD.get(w) not in (None, "code")),
                    found,
                )
                if found in ("name", "ticker"):
                    found = "code"
            if found == "ticker" and word == "stock" and words is said:
                continue
            if found is not None and not (
                words is said and word in ("name", "number", "user", "key", "day")
            ):
                return found
    if schema.get("pattern") or any(re.search(r"[A-Z].*\d", value) for value in examples):
        return "code"
    if own[-1:] in (("from",), ("to",), ("source",), ("target",), ("base",)):
        return "currency" if "currency" in words_of(about) + said else "place"
    return "text"


def _unit(own: tuple[str, ...], description: str) -> str:
    said = description.lower()
    for words in (own, words_of(description)):
        for word in words:
            unit = _UNITS_BY_WORD.get(word)
            if unit == "percent" and re.search(r"\b(fraction|decimal)\b|\b0\.0\d", said):
                return "fraction"
            if unit:
                return unit
    return ""


def _shape(example: str) -> str:
    """A regular expression for values that look like an example: DEMO-456 stands for letters-digits."""
    parts = []
    for part in re.split(r"([-_./])", example):
        if re.fullmatch(r"[-_./]", part):
            parts.append(re.escape(part))
        elif part.isdigit():
            parts.append(r"\d+")
        elif part.isalpha():
            parts.append(r"[A-Za-z]+")
        else:
            runs = re.findall(r"\d+|[^\d]+", part)
            parts.append("".join(r"\d+" if run.isdigit() else r"[A-Za-z]+" for run in runs))
    return "".join(parts)


def resolved(schema: dict[str, Any], root: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A schema with its reference followed and its `null` alternative taken away; was there one?"""
    optional = False
    for _ in range(5):
        if "$ref" in schema:
            target: Any = root
            for step in str(schema["$ref"]).removeprefix("#/").split("/"):
                target = target.get(step, {}) if isinstance(target, dict) else {}
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        elif len(schema.get("allOf") or ()) == 1:
            schema = {**schema["allOf"][0], **{k: v for k, v in schema.items() if k != "allOf"}}
        elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
            rest = [part for part in alternatives if part.get("type") != "null"]
            optional = optional or len(rest) < len(alternatives)
            others = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
            # "a number or a numeric string", as pydantic writes decimals: the first will do
            schema = {**(rest[0] if rest else {}), **others}
        else:
            break
    if isinstance(schema.get("type"), list):
        rest = [kind for kind in schema["type"] if kind != "null"]
        optional = optional or len(rest) < len(schema["type"])
        schema = {**schema, "type": rest[0] if rest else "string"}
    return schema, optional
