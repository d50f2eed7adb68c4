"""What is to be computed from a tool's result: "12 shares of AAPL" needs a price first, then a product.

A chain is an expression with holes for the results of a want's calls. It is computed by a tool, not here.
Left out: chains of more than one computation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workshop_lib.llm.rules.entities import Amount
from workshop_lib.llm.rules.tool_choice import Filled
from workshop_lib.llm.rules.tool_schema import Tool

_SUM = re.compile(
    r"\b(total|sum|combined|together|altogether|portfolio|in all|add(ed)? up|both)\b", re.IGNORECASE
)
_AVERAGE = re.compile(r"\b(average|mean)\b", re.IGNORECASE)
_DIFFERENCE = re.compile(
    r"\b(difference|differ|how (much|many) \w*\s*\w*(er|more|less|higher|lower)?\b.*\bthan)\b",
    re.IGNORECASE,
)
_WORTH = re.compile(
    r"\b(worth|cost|costs|value|valued|price|pay|total|how much|sell|buy|portfolio|come to)\b",
    re.IGNORECASE,
)
_HOW_MANY_FOR = re.compile(r"\bhow many\b.*\b(buy|get|afford|purchase|for|with)\b", re.IGNORECASE)
_FAHRENHEIT = re.compile(r"\b(fahrenheit|°F)\b", re.IGNORECASE)
_SHARE = re.compile(
    r"\b(?:what|which)?\s*(percent|percentage|proportion|share|fraction|%)\s*(?:of|are|is)\b",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"\b(?P<word>times|multiplied by|multiply (?:it|that|this|the result)? ?by|plus|minus|"
    r"divided by|divide (?:it|that) by)\s+(?P<number>[\d.,]+)\b"
    r"|(?P<sign>[*+/])\s*(?P<number2>[\d.,]+)\s*\W*$",
    re.IGNORECASE,
)
_HEAD = re.compile(
    r"(?P<number>[\d.,]+)\s*(?P<word>times|x|\*|plus|\+)\s*(?:the|of)\b"
    r"|(?P<percent>[\d.]+)\s*(?:%|percent)\s+of\s+(?:the|my|its)?\b|"
    r"\b(?P<half>half)\s+(?:of\s+)?(?:the|a)\b|\b(?P<factor>double|twice|triple)\s+(?:the|a)\b",
    re.IGNORECASE,
)
_MORE_THAN = re.compile(
    r"\bhow many (?:more|fewer)\b.*?\b(?P<first>\w+)\s+than\s+(?:are\s+)?(?P<second>\w+)",
    re.IGNORECASE,
)
_COMMAND = re.compile(
    r"\b(?P<verb>multiply|divide)\s+(?:the|its)\b.+\bby\s+(?P<by>[\d.,]+)"
    r"|\badd\s+(?P<add>[\d.,]+)\s+to\s+(?:the|its)\b|"
    r"\bsubtract\s+(?P<less>[\d.,]+)\s+from\s+(?:the|its)\b",
    re.IGNORECASE,
)
_BACK = re.compile(
    r"\b(?:multiply|multiplied|divide|divided)\s+(?:it|that|this|the result|the price|"
    r"by)?\s*(?:by\s*)?(?P<number>[\d.,]+)"
    r"|\badd\s+(?P<add>[\d.,]+)\s+to\s+(?:it|that)|\b(?P<double>double|triple)\s+(?:it|that)",
    re.IGNORECASE,
)
_OPERATORS = {
    "times": "*",
    "x": "*",
    "*": "*",
    "plus": "+",
    "+": "+",
    "minus": "-",
    "/": "/",
}


@dataclass(frozen=True)
class Chain:
    """Expressions over results.

    Attributes:
        templates: `{0}` stands for the number in the first call's result, and so on;
            `{name}` for the field of that name.
        each: the first template is meant for every call.
        amount: the number of the question that it multiplies with, as written.
    """

    templates: tuple[str, ...]
    each: bool = False
    amount: str | None = None

    def for_calls(self, count: int, spare: Sequence[Amount]) -> "Chain | None":
        """The chain for another number of calls, and with another amount where one is given."""
        chain = self.with_amount(spare[0].value) if spare and self.amount else self
        chain = chain or self
        if chain.each or (len(chain.templates) == 1 and "{1}" not in chain.templates[0]):
            first = chain.templates[0]
            return replace(
                chain,
                templates=tuple(first.replace("{0}", f"{{{n}}}") for n in range(count)),
                each=True,
            )
        return chain if f"{{{count - 1}}}" in "".join(chain.templates) else None

    def with_amount(self, amount: str) -> "Chain | None":
        """The chain with another amount; None where it has none."""
        if not self.amount:
            return None
        pattern = rf"(?<![\d.]){re.escape(self.amount)}(?![\d.])"
        return replace(
            self, templates=tuple(re.sub(pattern, amount, t) for t in self.templates), amount=amount
        )


def find_chain(text: str, tool: Tool, filled: Filled) -> Chain | None:
    """What a question wants computed from the results of its calls."""
    count = len(filled.calls)
    holes = [f"{{{n}}}" for n in range(count)]
    if count > 1:
        together = _of_several(text, holes)
        if together is not None and not filled.spare:
            return together
    if _FAHRENHEIT.search(text) and not any("unit" in slot.name for slot in tool.slots):
        return Chain(tuple(f"{hole} * 9 / 5 + 32" for hole in holes), each=True)
    arithmetic = _written(text)
    if arithmetic is not None:
        template, amount = arithmetic
        return Chain(tuple(template.replace("{0}", hole) for hole in holes), True, amount)
    if _SHARE.search(text) and count == 1:
        words = frozenset(re.findall(r"[a-z]+", text.lower())) & {
            "open",
            "closed",
            "resolved",
            "done",
            "unresolved",
        }
        if len(words) == 1:
            return Chain((f"{{{next(iter(words))}}} / {{total}} * 100",))
    if (more := _MORE_THAN.search(text)) and count == 1:
        return Chain((f"{{{more['first'].lower()}}} - {{{more['second'].lower()}}}",))
    return _quantities(text, tool, filled, holes)


def _of_several(text: str, holes: list[str]) -> Chain | None:
    if _AVERAGE.search(text):
        return Chain((f"({' + '.join(holes)}) / {len(holes)}",))
    if _DIFFERENCE.search(text) and len(holes) == 2:
        return Chain((" - ".join(holes),))
    if _SUM.search(text) and not re.search(r"\bboth\b", text):
        return Chain((" + ".join(holes),))
    return None


def _written(text: str) -> tuple[str, str] | None:
    """Arithmetic around or behind the thing that the tool is asked for."""
    if command := _COMMAND.search(text):
        if command["add"] or command["less"]:
            number = _plain(command["add"] or command["less"])
            return f"{{0}} {'+' if command['add'] else '-'} {number}", number
        number = _plain(command["by"])
        return f"{{0}} {'*' if command['verb'].lower() == 'multiply' else '/'} {number}", number
    if back := _BACK.search(text):
        if back["double"]:
            return ("{0} * 2" if back["double"].lower() == "double" else "{0} * 3"), ""
        if back["add"]:
            return f"{{0}} + {_plain(back['add'])}", _plain(back["add"])
        operator = "/" if back.group().lower().startswith("div") else "*"
        return f"{{0}} {operator} {_plain(back['number'])}", _plain(back["number"])
    if head := _HEAD.search(text):
        if head["percent"]:
            return f"{{0}} * {head['percent']} / 100", head["percent"]
        if head["half"]:
            return "{0} / 2", ""
        if head["factor"]:
            return ("{0} * 3" if head["factor"].lower() == "triple" else "{0} * 2"), ""
        number = _plain(head["number"])
        return f"{number} {_OPERATORS[head['word'].lower()]} {{0}}", number
    if tail := _TAIL.search(text):
        number = _plain(tail["number"] or tail["number2"])
        word = (tail["word"] or tail["sign"]).lower()
        operator = (
            "*"
            if word.startswith("multipl")
            else "/"
            if word.startswith("divid")
            else _OPERATORS.get(word, "*")
        )
        if re.match(
            r"\s*%|\s*percent",
            text[tail.end("number") if tail["number"] else tail.end("number2") :],
        ):
            return f"{{0}} * (1 {operator} {number} / 100)", number
        return f"{{0}} {operator} {number}", number
    return None


def _quantities(text: str, tool: Tool, filled: Filled, holes: list[str]) -> Chain | None:
    """'12 shares of AAPL and 5 of TSLA': what they are worth; or how many a sum buys."""
    if tool.entity is None or not filled.spare:
        return None
    money = [amount for amount in filled.spare if amount.unit == "money"]
    if _HOW_MANY_FOR.search(text) and money:
        return Chain(tuple(f"{money[0].value} / {hole}" for hole in holes), True, money[0].value)
    counts = [
        a for a in filled.spare if a.unit not in ("percent", "years", "months", "days", "money")
    ]
    if not counts or not _WORTH.search(text):
        return None
    entities = sorted(filled.used, key=lambda entity: entity.start)[: len(holes)]
    products: list[str] = []
    for place, hole in enumerate(holes):
        ahead = [a for a in counts if place < len(entities) and a.start < entities[place].start]
        behind = entities[place - 1].end if 0 < place < len(entities) else 0
        near = [a for a in ahead if a.start >= behind]
        if len(holes) == 1 or len(counts) == 1:
            near = near or counts
        products.append(f"{near[-1].value} * {hole}" if near else hole)
    if len(products) > 1 and _SUM.search(text):
        return Chain((" + ".join(products),))
    return Chain(
        tuple(products), each=len(counts) == 1, amount=counts[0].value if len(counts) == 1 else None
    )


def _plain(number: str) -> str:
    return number.replace(",", "").rstrip(".")
