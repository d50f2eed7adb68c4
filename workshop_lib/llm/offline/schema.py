"""A tool as its JSON schema offers it: a name with words, and slots to be filled.

Nested objects are flattened into slots with a path. A schema that cannot be read costs that tool and no
other. No tool and no argument is known by its name.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from workshop_lib.llm.offline.words import DEEDS, all_senses, content, spellings, split_name

DEEPEST = 4  # objects within objects
_SUCH = re.compile(r"(?:such as|e\.g\.,?|for example|like|for instance)\s+(.+)", re.I | re.S)
_TEXT = r"text|message|body|content|query|title|sentence|note|term|subject|comment|reason|description|label"
_ID = re.compile(r"\b(?:id|key|code|reference|ticker|symbol|iata|iban|plate|number)\b", re.I)
_KINDS = {"boolean": "flag", "array": "list", "object": "object"} | dict.fromkeys(
    ("number", "integer"), "number"
)
# What a slot wants, by its name and description, where its type does not say. The first that fits.
_WANTS = tuple((want, re.compile(pattern, re.I)) for want, pattern in (
    ("date", r"\bdate\b|yyyy-mm-dd"),
    ("email", r"^[^|]*mail|email address"),
    ("time", r"\btime\b|hh:mm"),
    ("name", r"\bname\b"), ("text", rf"^[^|]*\b(?:{_TEXT})\b[^|]*\||\btext\b|\bmessage\b"),
    ("id", _ID.pattern),
))  # fmt: skip


class Slot:
    """One value that a tool takes.

    Attributes:
        path, name: where it stands in the arguments, and the innermost name. kind: the schema's type.
        label: name and description in one text, in lower case, without examples.
        name_words, words: the senses of the words of the name, and of name and description.
        shapes: patterns of the examples that have a form, such as DEMO-456.
        choices: what a text may say for each value that is allowed.
        want: what fills it: choice, flag, number, list, date, time, email, id, text or name; else object.
    """

    def __init__(
        self, path: tuple[str, ...], kind: str, required: bool, schema: dict[str, Any]
    ) -> None:
        self.path, self.name, self.kind = path, path[-1], kind
        self.required, self.schema = required, schema
        self.description = str(schema.get("description") or "")
        names, such = split_name(self.name), _SUCH.search(self.description)
        self.label = f"{' '.join(names)} | {_SUCH.sub('', self.description)}".lower()
        self.name_words = all_senses(names)
        self.words = self.name_words | content(self.label)
        listed, pattern = schema.get("examples"), schema.get("pattern")
        texts = re.split(r",\s|\s+or\s+|\s+and\s+|;", such[1].split(". ")[0]) if such else []
        texts += map(str, listed if isinstance(listed, list) else [])
        examples = [re.sub(r"^an? |[\s.'\"()]+$|^['\"(]", "", text.strip()) for text in texts]
        formed = [e for e in examples if re.search(r"\d", e) or (e.isupper() and len(e) > 1)]
        self.shapes = [*map(_shape, formed), *([re.compile(pattern).pattern] if pattern else [])]
        self.choices: dict[str, Any] = {}
        allowed = schema.get("enum")
        for value in allowed if isinstance(allowed, list) else ():
            if isinstance(value, str | int | float):
                self.choices |= dict.fromkeys((str(value), re.sub(r"[_-]", " ", str(value))), value)
        self.want = "choice" if self.choices else _KINDS.get(kind) or self._want_of_text()

    def _want_of_text(self) -> str:
        shape = str(self.schema.get("format") or "").removesuffix("-time")
        if shape in ("date", "time", "email"):
            return shape
        if self.shapes and "mail" not in self.label:
            return "id"
        return next((want for want, pattern in _WANTS if pattern.search(self.label)), "name")


@dataclass(frozen=True, eq=False)
class Tool:
    """A tool that may be called."""

    name: str
    description: str
    slots: tuple[Slot, ...]

    @cached_property
    def weights(self) -> dict[str, float]:
        """How much each sense speaks for this tool."""
        found = {word: 1.0 for slot in self.slots for word in slot.words}
        found |= dict.fromkeys(content(_SUCH.sub("", self.description)), 1.5)
        found |= dict.fromkeys(content(" ".join(split_name(self.name))), 2.0)
        return found

    @cached_property
    def deeds(self) -> set[str]:
        """The senses of the verbs by which it changes something; empty for a tool that looks things up."""
        first = re.findall(r"[a-z]+", self.description.lower())[:1]
        if first and first[0] not in DEEDS:
            return set()
        return all_senses(DEEDS & {*first, *map(str.lower, split_name(self.name))})

    @cached_property
    def acts(self) -> set[str]:
        """The senses of the words that may say what it does: its name, and how its description begins."""
        return all_senses([*split_name(self.name), *self.description.split()[:1]])

    @cached_property
    def said(self) -> set[str]:
        """The senses of all words of name and description."""
        words = [*split_name(self.name), *re.findall(r"[A-Za-z]+", self.description)]
        return all_senses(words) | set(self.weights)

    @cached_property
    def expression(self) -> Slot | None:
        """The slot for an arithmetic expression, if that is all that is required."""
        needed = [slot for slot in self.slots if slot.required and slot.kind == "string"]
        said = [s for s in needed if re.search(r"expression|formula|arithmetic", s.label)]
        return said[0] if said and len(needed) == 1 else None


def read_tools(tools: Sequence[dict[str, Any]]) -> tuple[Tool, ...]:
    """Those of the offered tools whose schemas can be read."""
    return _read_tools(json.dumps(tools, default=str))


@lru_cache(100)  # a session offers the same ones with each request
def _read_tools(written: str) -> tuple[Tool, ...]:
    found = []
    for offered in json.loads(written):
        try:
            spec = offered.get("function") or offered
            schema = spec.get("parameters") or {}
            name, description = str(spec["name"]), str(spec.get("description") or "")
            tool = Tool(name, description, tuple(_slots(schema, schema)))
            if tool.name and tool.weights is not None and all(slot.want for slot in tool.slots):
                found.append(tool)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, re.error):
            continue  # its schema is none
    return tuple(found)


def is_choice(word: str, form: str) -> bool:
    """Is a word of a message this choice, in the plural or in another spelling?"""
    return word == form or (len(form) > 1 and bool(spellings(word) & spellings(form)))


def _slots(
    schema: Any, root: Any, path: tuple[str, ...] = (), needed: bool = True
) -> Iterator[Slot]:
    required = schema.get("required") or []
    for name, raw in (schema.get("properties") or {}).items():
        part = _resolved(raw, root)
        must = needed and name in required and "default" not in part and not part.get("nullable")
        kind = part.get("type") or ("object" if part.get("properties") else "string")
        if isinstance(kind, list):
            kind = next((k for k in kind if k != "null"), "string")
        if part.get("properties") and len(path) < DEEPEST:
            yield from _slots(part, root, (*path, name), must)
        else:
            yield Slot((*path, name), str(kind), must, part)


def _resolved(schema: Any, root: Any) -> dict[str, Any]:
    """A schema with its references and alternatives taken; `nullable` where null is one of these.

    Raises:
        ValueError, KeyError: it leads nowhere, or in a circle.
    """
    for _ in range(8):
        if schema is True:
            return {}
        options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if "$ref" in schema:
            chosen = root
            for key in str(schema["$ref"]).lstrip("#/").split("/"):
                chosen = chosen[key]
        elif options:
            chosen = next((o for o in options if o.get("type") != "null"), {})
            schema = schema | {"nullable": any(o.get("type") == "null" for o in options)}
        else:
            return dict(schema)
        rest = {k: v for k, v in schema.items() if k not in ("$ref", "anyOf", "oneOf", "allOf")}
        schema = {**chosen, **rest}
    raise ValueError("a schema in a circle")


def _shape(example: str) -> str:
    """The pattern of an example: HB-1000 is letters, a dash, digits."""
    parts = re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d]+", example)
    letters = "[A-Z]" if example.upper() == example else "[A-Za-z]"
    return "".join(
        f"{letters}+" if p.isalpha() else r"\d+" if p.isdigit() else re.escape(p) for p in parts
    )
