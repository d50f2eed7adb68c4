"""Things named in a text: places, tickers, codes, amounts … each with where it stands.

`find` looks for the kind of thing that a tool's argument wants. What is found is a piece of the text, at
most respelled (a company's ticker, a currency's code): nothing is made up. Left out: deciding which tool
gets it.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from workshop_lib.llm.rules import lexicon
from workshop_lib.llm.rules.arithmetic import plain_number
from workshop_lib.llm.rules.lexicon import CITY_BY_LOWER, NOT_PLACES
from workshop_lib.llm.rules.tool_schema import Slot
from workshop_lib.llm.rules.wording import plain


class Entity(NamedTuple):
    """A thing in a text.

    Attributes:
        value: as a tool wants it.
        known: it is recognised for what it is, and not only from where it stands.
    """

    value: str
    start: int
    end: int
    known: bool = True


class Amount(NamedTuple):
    """A number in a text.

    Attributes:
        unit: percent, money, years, months, days, quantity, another lower-case word after it, or empty.
    """

    value: str
    unit: str
    start: int
    end: int
    before: str  # the word in front of it


_CAPITALISED = re.compile(
    r"\b[A-Z][a-zA-Z'.-]*[a-z](?:(?:\s+(?:de|of|del|la|am|upon)\s+|\s+|-)[A-Z][a-zA-Z'-]*[a-z])*"
)
_PLACE_AHEAD = re.compile(
    r"\b(?:in|for|at|of|near|around|to|from|about|on|like|than|over|visiting)\s+", re.IGNORECASE
)
_LOWER_WORDS = re.compile(r"[^\W\d_][^\W\d_.'-]*(?:[ -][^\W\d_][^\W\d_'-]*){0,5}")
_CITY = re.compile(
    r"\b(?:"
    + "|".join(re.escape(city) for city in sorted(CITY_BY_LOWER, key=len, reverse=True))
    + r")(?:'s)?\b",
    re.IGNORECASE,
)
_NICKNAME = re.compile(r"\b(?:NYC|nyc|SF)\b")
_TICKER = re.compile(r"(?<![\w$-])\$?([A-Z]{1,5}(?:\.[A-Z])?)(?:'s)?(?![\w-])")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_CODE = re.compile(
    r"\b(?=[\w-]*\d)[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)+\b|\b[A-Z]{1,6}\d{2,}\b|#?\b\d{3,}\b"
)
_AMOUNT = re.compile(
    r"(?P<sign>[$€£¥]\s?)?(?P<number>-?(?:\d{1,3}(?:,\d{3})+(?!\d)|"
    r"\d+)(?:\.\d+)?)(?P<scale>k\b|\s?(?:thousand|million|billion)\b)?"
    r"(?P<percent>\s?(?:%|percent\b|per cent\b))?(?:\s*-?(?P<unit>[A-Za-z]+))?",
)
_NUMBER_WORD = re.compile(
    r"\b(" + "|".join([*lexicon.NUMBER_WORDS, *lexicon.TENS]) + r")\b", re.IGNORECASE
)
_UNIT_NAMES = {
    "year": "years", "years": "years", "yr": "years", "yrs": "years", "month": "months", "months": "months",
    "day": "days", "days": "days", "dollars": "money", "dollar": "money", "usd": "money", "bucks": "money",
    "eur": "money", "euros": "money", "euro": "money", "gbp": "money", "pounds": "money", "yen": "money",
    "shares": "quantity", "share": "quantity", "stocks": "quantity", "units": "quantity",
    "pieces": "quantity",
    "items": "quantity", "copies": "quantity", "x": "quantity",
}  # fmt: skip
_DATE = re.compile(
    r"\b\d{4}-\d{2}-\d{2}\b|\b(?:today|tomorrow|yesterday|tonight)\b"
    r"|\b(?:next|last|this)\s+(?:week(?:end)?|month|year|" + "|".join(lexicon.WEEKDAYS) + r")\b"
    r"|\b(?:" + "|".join(lexicon.WEEKDAYS) + r")\b"
    r"|\b(?:"
    + "|".join(m for m in lexicon.MONTHS if m != "may")
    + r"|May)\s+\d{1,2}(?:st|nd|rd|th)?(?:,?\s+\d{4})?\b",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_URL = re.compile(
    r"\bhttps?://[^\s<>\"']+|\bwww\.[^\s<>\"']+|\b[a-z0-9-]+\.(?:com|org|net|io|dev)\b"
)
_IP = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_QUOTED = re.compile(r"\"([^\"]+)\"|(?<!\w)'([^']+)'(?!\w)|`([^`]+)`|«([^»]+)»")


@lru_cache(maxsize=512)
def find(slot: Slot, text: str) -> tuple[Entity, ...]:
    """What in a text may fill a slot, from left to right, each once."""
    finder = _FINDERS.get(slot.kind)
    found = list(finder(text)) if finder else []
    if slot.kind == "code":
        found = list(_codes(slot, text))
    elif slot.kind == "enum":
        found = list(_choices(slot, text))
    elif slot.kind == "name":
        found = list(_names(slot, text))
    elif slot.kind == "language" and re.search(
        r"\bISO|code\b|['\"][a-z]{2}['\"]", slot.description
    ):
        found = [e._replace(value=lexicon.LANGUAGES.get(e.value.lower(), e.value)) for e in found]
    if slot.kind == "date" and "YYYY" in slot.description.upper():
        found = [e for e in found if e.value[:1].isdigit()]
    unique: dict[str, Entity] = {}
    for entity in found:
        unique.setdefault(entity.value, entity)
    return tuple(unique.values())


@lru_cache(maxsize=512)
def amounts(text: str) -> tuple[Amount, ...]:
    """The numbers of a text with their units, codes and dates left out."""
    hidden = text
    for pattern in (_DATE, _IP, _URL, _EMAIL):
        hidden = pattern.sub(lambda m: "¤" * len(m.group()), hidden)
    hidden = _NUMBER_WORD.sub(_digits, hidden)
    found: list[Amount] = []
    for match in _AMOUNT.finditer(hidden):
        start, end = match.span()
        end -= len(match["unit"] or "")
        if re.search(
            r"\b(in|since|during|year)\s+$", hidden[:start], re.IGNORECASE
        ) and re.fullmatch(r"(19|20)\d\d", match.group().strip()):
            continue  # a year
        behind = hidden[match.end("number") :]
        if re.search(r"[\w.¤-]$", hidden[:start]):
            continue  # a part of DEMO-456 or of a version
        if re.match(r"[-_]\w|\d|\.\d", behind) and not re.match(r"-[a-z]+\b", behind):
            continue  # the same; but "10-year" holds a number
        value = plain_number(match["number"])
        scale = (match["scale"] or "").strip().lower()
        if scale:
            factor = 1000 if scale == "k" else lexicon.SCALES[scale]
            scaled = float(value) * factor
            value = str(int(scaled)) if scaled == int(scaled) else str(scaled)
        word = (match["unit"] or "").lower()
        word = "" if word in lexicon.FUNCTION_WORDS else word
        unit = "percent" if match["percent"] else "money" if match["sign"] else _unit_of(word)
        before = re.findall(r"[A-Za-z]+", text[:start])
        found.append(Amount(value, unit, start, end, before[-1].lower() if before else ""))
    return tuple(found)


def _unit_of(word: str) -> str:
    return "money" if word in lexicon.CURRENCIES else _UNIT_NAMES.get(word, word)


def quoted(text: str) -> list[Entity]:
    """What stands in quotation marks."""
    return [
        Entity(next(group for group in match.groups() if group), *match.span())
        for match in _QUOTED.finditer(text)
    ]


def places(text: str) -> list[Entity]:
    """Places: known cities, names after "in" or "for", and what a list goes on with."""
    found = [_city(match) for match in _CITY.finditer(text) if _is_city(match, text)]
    found += [
        Entity(lexicon.NICKNAMES[match.group().lower()], *match.span())
        for match in _NICKNAME.finditer(text)
    ]
    capitalised = list(_capitalised_places(text, found))
    anchored = [entity for entity, anchor in capitalised if anchor]
    # A capital alone may be anybody's name: it counts only where no place is better founded.
    found += anchored or ([] if found else [entity for entity, _ in capitalised])
    found += _lower_places(text, found)
    found = [
        e
        for e in found
        if not re.search(r"\b(capital|mayor|middle|centre|center) of (the )?$", text[: e.start])
    ]
    return sorted(found, key=lambda entity: entity.start)


def _city(match: re.Match[str]) -> Entity:
    name = re.sub(r"'s$", "", match.group())
    return Entity(CITY_BY_LOWER[name.lower()], match.start(), match.start() + len(name))


def _is_city(match: re.Match[str], text: str) -> bool:
    """False for a region that only says where the city before it lies, and for common words."""
    lower = match.group().lower()
    if lower in ("nice", "mobile", "reading", "washington") and not match.group()[0].isupper():
        return False
    before = re.search(r"([A-Za-z]+),\s*$", text[: match.start()])
    return not (
        lower in lexicon.REGIONS and before is not None and before[1].lower() in CITY_BY_LOWER
    )


def _capitalised_places(text: str, known: list[Entity]) -> Iterator[tuple[Entity, bool]]:
    """Names in capitals, each with whether a word or a list around it makes it a place."""
    previous_end = -1
    for match in _CAPITALISED.finditer(text):
        name = re.sub(r"'s$", "", match.group()).rstrip(".")
        start, end = match.start(), match.start() + len(name)
        if _overlaps(start, end, known):
            previous_end = end
            continue
        words = name.split()
        while words and plain(words[0]) in NOT_PLACES:
            start += len(words[0]) + 1
            words.pop(0)
        while words and plain(words[-1]) in NOT_PLACES:
            words.pop()
        name = " ".join(words)
        end = start + len(name)
        lower = name.lower()
        if not name or lower in lexicon.COMPANIES or _means_something(lower):
            continue
        if (
            lower in lexicon.REGIONS
            and re.search(r"[a-z],?\s*$", text[:start])
            and _ends_place(text[:start], known)
        ):
            continue
        ahead = _PLACE_AHEAD.search(text[max(0, start - 12) : start])
        anchored = bool(ahead and ahead.end() == len(text[max(0, start - 12) : start]))
        listed = previous_end >= 0 and bool(
            re.fullmatch(
                r"('s)?\s*(,|,?\s*(and|or|vs\.?|versus|than|to)(\s+in)?|&)\s*",
                text[previous_end:start],
            )
        )
        heads = re.match(r"('s)?\s+([a-z]+)", text[end:])
        topic = bool(heads and _means_something(heads[2]))
        if anchored or listed or topic or not _begins_sentence(text, start):
            previous_end = end
            yield Entity(name, start, end, known=False), anchored or listed or topic


def _lower_places(text: str, known: list[Entity]) -> Iterator[Entity]:
    """'in zorbville and quux': words behind a preposition that mean nothing else."""
    for match in re.finditer(r"\b(?:in|for|at|near)\s+", text):
        stretch = re.match(
            r"[a-z][a-z' -]*(?:(?:,|\band\b|&)\s*[a-z][a-z' -]*)*", text[match.end() :]
        )
        if not stretch:
            continue
        offset = match.end()
        at = 0
        for part in re.split(r"(,|\band\b|\bor\b|&)", stretch.group()):
            words: list[str] = []
            for word in part.split():
                if plain(word) in NOT_PLACES or _means_something(plain(word)):
                    break
                words.append(word)
            name = " ".join(words)
            start = offset + at + part.find(words[0]) if words else 0
            at += len(part)
            if name and len(words) <= 3 and not _overlaps(start, start + len(name), known):
                if name not in (",", "and", "or", "&"):
                    yield Entity(name.title(), start, start + len(name), known=False)
            elif not words and at == len(part):
                break  # "in general, …": what follows is no list of places


def _means_something(word: str) -> bool:
    """True for a word with a meaning of its own to the rules, which a place's name has not."""
    return word in lexicon.CONCEPTS or word in lexicon.LANGUAGES or word in lexicon.MONTHS


def _ends_place(before: str, known: list[Entity]) -> bool:
    stripped = len(before.rstrip(", "))
    return any(entity.end == stripped for entity in known)


def _begins_sentence(text: str, start: int) -> bool:
    return not text[:start].strip() or bool(re.search(r"[.!?:;\n]\s*$", text[:start]))


def _overlaps(start: int, end: int, known: list[Entity]) -> bool:
    return any(start < entity.end and entity.start < end for entity in known)


def tickers(text: str) -> list[Entity]:
    """Tickers in capitals, companies by name, and a short word right beside "stock" or "shares"."""
    shouting = not re.search(r"[a-z]", text)
    found: list[Entity] = []
    symbols = set(lexicon.COMPANIES.values())
    for match in _TICKER.finditer(text):
        symbol = match[1]
        dollar = match.group().startswith("$")
        if symbol in symbols and len(symbol) > 1:
            found.append(Entity(symbol, match.start(), match.end(1)))
        elif dollar or (symbol not in lexicon.NOT_TICKERS and not shouting):
            found.append(Entity(symbol, match.start(), match.end(1), known=dollar))
        elif symbol not in lexicon.NOT_TICKERS and not _means_something(symbol.lower()):
            found.append(Entity(symbol, match.start(), match.end(1), known=False))
    for match in _WORD.finditer(text):
        word = plain(match.group())
        if _overlaps(match.start(), match.end(), found):
            continue
        if word in lexicon.COMPANIES and (
            word not in ("meta", "ford", "visa", "oracle") or match.group()[0].isupper()
        ):
            found.append(Entity(lexicon.COMPANIES[word], match.start(), match.end()))
        elif len(word) > 2 and word.upper() in symbols and word != "dis":
            found.append(Entity(word.upper(), match.start(), match.end()))
    for match in re.finditer(
        r"\b(?:ticker|symbol)(?:\s+(?:is|of|for))?\s+([A-Za-z]{1,5})\b", text, re.IGNORECASE
    ):
        word = match[1]
        if plain(word) not in NOT_PLACES and not _overlaps(match.start(1), match.end(1), found):
            found.append(Entity(word.upper(), match.start(1), match.end(1), known=False))
    return sorted(found, key=lambda entity: entity.start)


def _codes(slot: Slot, text: str) -> Iterator[Entity]:
    """Codes of the slot's shape; without any, codes of another shape and words beside the slot's name."""
    seen = False
    if slot.shape:
        try:
            shape = re.compile(rf"(?<![\w-])(?:{slot.shape.strip('^$')})(?![\w-])", re.IGNORECASE)
        except re.error:
            shape = _CODE
        for match in shape.finditer(text):
            seen = True
            value = match.group()
            yield Entity(
                value.upper() if re.search(r"[a-z]", value) and "-" in value else value,
                *match.span(),
            )
    if seen:
        return
    nouns = [
        word for word in slot.words if word not in ("id", "key", "code", "number", "name")
    ] or list(slot.words)
    for match in _CODE.finditer(text):
        value = match.group().lstrip("#")
        if value.isdigit():
            # A bare number is a code only right behind what it numbers: "order 12345", "ticket #77".
            ahead = re.search(
                r"([A-Za-z]+)\W{0,3}(?:number\W{0,3}|no\.?\W{0,2}|id\W{0,3})?$",
                text[: match.start()],
            )
            if not (
                ahead and plain(ahead[1]).rstrip("s") in nouns
            ) and not match.group().startswith("#"):
                continue
            if re.match(r"\s*(%|percent|years?|dollars)", text[match.end() :]):
                continue
        elif re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            continue
        seen = True
        yield Entity(value.upper() if "-" in value else value, *match.span(), known=not slot.shape)
    if seen:
        return
    for noun in nouns:
        for match in re.finditer(
            rf"\b{re.escape(noun)}s?\s+(?:called\s+|named\s+)?([A-Z][\w-]*)|"
            rf"\b([A-Z][\w-]*)\s+{re.escape(noun)}\b",
            text,
        ):
            value = match[1] or match[2]
            if (
                plain(value) not in NOT_PLACES
                and not _means_something(value.lower())
                and value != "Jira"
            ):
                group = 1 if match[1] else 2
                yield Entity(value, match.start(group), match.end(group), known=False)


def _choices(slot: Slot, text: str) -> Iterator[Entity]:
    for choice in slot.choices:
        written = re.escape(str(choice)).replace("_", "[ _-]")
        match = re.search(rf"(?<!\w){written}s?(?!\w)", text, re.IGNORECASE)
        if match:
            yield Entity(str(choice), *match.span())
            continue
        for word, code in lexicon.CURRENCIES.items():
            if code == choice and (
                found := re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
            ):
                yield Entity(str(choice), *found.span())
                break


def _names(slot: Slot, text: str) -> Iterator[Entity]:
    """Names of people and things: in quotes, behind the slot's own word, or in capitals."""
    if marks := quoted(text):
        yield from marks
        return
    nouns = "|".join(
        [*(re.escape(word) for word in slot.words), *(["user"] if "username" in slot.words else [])]
    )
    behind = re.search(
        rf"\b(?:{nouns or 'name'})s?\s+(?:called\s+|named\s+|is\s+)?([A-Za-z][\w.-]*)", text
    )
    if behind and plain(behind[1]) not in NOT_PLACES and not _means_something(plain(behind[1])):
        yield Entity(behind[1], behind.start(1), behind.end(1), known=False)
        return
    for match in _CAPITALISED.finditer(text):
        name = re.sub(r"'s$", "", match.group())
        words = name.split()
        start = match.start()
        while words and (plain(words[0]) in NOT_PLACES or _means_something(plain(words[0]))):
            start += len(words[0]) + 1
            words.pop(0)
        if words and not _begins_sentence(text, start):
            value = " ".join(words)
            yield Entity(value, start, start + len(value), known=False)


def currencies(text: str) -> list[Entity]:
    """Currencies by code, name or sign."""
    found = [
        Entity(lexicon.CURRENCIES[match.group()], *match.span())
        for match in re.finditer(r"[$€£¥]", text)
    ]
    for match in re.finditer(r"[A-Za-z]+", text):
        word = match.group()
        code = lexicon.CURRENCIES.get(word.lower())
        if (
            word.lower() in lexicon.AMBIGUOUS_CURRENCY_WORDS
            and not word.isupper()
            and word.lower() != "pound"
        ):
            continue
        if code:
            found.append(Entity(code, *match.span()))
        elif re.fullmatch(r"[A-Z]{3}", word) and re.search(
            r"\d\s*$|\b(to|in|into|from)\s*$", text[: match.start()]
        ):
            found.append(Entity(word, *match.span(), known=False))
    return sorted(found, key=lambda entity: entity.start)


def languages(text: str) -> list[Entity]:
    """Languages by their English names."""
    return [
        Entity(match.group().capitalize(), *match.span())
        for match in re.finditer(r"[A-Za-z]+", text)
        if match.group().lower() in lexicon.LANGUAGES
    ]


def _by_pattern(pattern: re.Pattern[str]) -> Callable[[str], list[Entity]]:
    def finder(text: str) -> list[Entity]:
        return [Entity(match.group(), *match.span()) for match in pattern.finditer(text)]

    return finder


def _digits(match: re.Match[str]) -> str:
    """A number word as digits, in as many characters; "one" only where it counts something."""
    word = match.group().lower()
    if word in ("one", "zero"):
        return match.group()
    digits = str(lexicon.NUMBER_WORDS.get(word, lexicon.TENS.get(word)))
    return digits.ljust(len(word))


_FINDERS: dict[str, Callable[[str], list[Entity]]] = {
    "place": places,
    "ticker": tickers,
    "currency": currencies,
    "language": languages,
    "date": _by_pattern(_DATE),
    "email": _by_pattern(_EMAIL),
    "url": _by_pattern(_URL),
    "ip": _by_pattern(_IP),
}
