"""Spans: the pieces of a text that may become a value, each with its kind and the words beside it.

What has a form (a date, a code, an amount) is found by its form. A free value is what stands in quotes,
in capitals, or is left when stop words and the tools' own words are gone. No list of names is needed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from workshop_lib.llm.offline.words import is_stop, senses

MOST = 60  # spans of a text
_SCAN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in {
    "quoted": r"\"(?P<q>[^\"]+)\"|(?<!\w)'(?P<q2>[^']{2,})'(?!\w)",
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "date": r"\b\d{4}-\d\d-\d\d\b",
    "time": r"\b\d{1,2}:\d\d\b",
    "percent": r"(?<![\w.])(?P<p>-?\d+(?:\.\d+)?)\s?(?:%|percent\b|per cent\b)",
    "amount": r"[$€£]\s?(?P<a>\d+(?:\.\d+)?)|(?<![\w.])(?P<b>\d+(?:\.\d+)?)\s?[€£$]",
    "code": r"\b(?:[A-Za-z]+[-_]?\d[\w-]*|[A-Za-z]+-(?=[\w-]*\d)[\w-]+|\d+[A-Za-z][\w-]*|0\d+"
    r"|\w+(?:-\w+)*-\d+|\d+(?:\.\d+){2,})\b",
    "number": r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)",
    "word": r"[^\W\d_]+(?:[-'.][^\W\d_]+)*\.?",
}.items()))  # fmt: skip
_DAY = re.compile(r"(?:today|tomorrow|tonight|(?:mon|tues|wednes|thurs|fri|satur|sun)days?)", re.I)
_TITLES, _PARTICLES = (
    {"dr", "mr", "mrs", "ms", "prof", "st"},
    {"of", "de", "da", "van", "von", "der", "the"},
)
_SAID = re.compile(
    r"\b(?:that|saying|says?)\s+((?:I|we|the|he|she|it|they|my|our)\b[^?\"]+?)[.!]?$"
)
_AND = re.compile(r"\s*(?:,|,?\s*(?:and|or|und|vs\.?|versus|&)\s)\s*(?:the\s+|in\s+|for\s+|of\s+)?")


@dataclass(frozen=True)
class Span:
    """A piece of a text.

    Attributes:
        kind: quoted, email, date, time, day, percent, amount, code, number, name, phrase or list; "own" for
            what only one slot knows (a choice, a flag, the form of its example), whose `value` counts.
        before: the words in front, nearest first. after: the word behind.
        parts: the members of a list.
    """

    text: str
    kind: str
    start: int
    end: int
    before: tuple[str, ...] = ()
    after: str = ""
    parts: tuple["Span", ...] = ()
    value: Any = None

    @property
    def number(self) -> int | float | None:
        """The span as a number, if it is one."""
        if not re.fullmatch(r"-?\d+(\.\d+)?", self.text):
            return None
        return float(self.text) if "." in self.text else int(self.text)

    def overlaps(self, other: "Span") -> bool:
        """Do both take a character?"""
        return self.start < other.end and other.start < self.end

    def beside(self, text: str) -> "Span":
        """The span with the words beside it."""
        words = re.findall(r"[^\W_][\w'-]*", re.split(r"[.?!;]\s", text[: self.start])[-1])[-3:]
        after = re.match(r"\s*-?([^\W\d_][\w'-]*)", text[self.end :])
        before = tuple(word.lower() for word in reversed(words))
        return replace(self, before=before, after=after[1].lower() if after else "")


def find_spans(text: str, known: frozenset[str] = frozenset()) -> list[Span]:
    """All spans of a text, from left to right, lists last.

    Args:
        known: senses of the words that the tools use of themselves: no values, unless written as names.
    """
    formed = list(_formed(text, known))
    free = [span for span in _free(text, known) if not any(map(span.overlaps, formed))]
    spans = sorted([*formed, *free], key=lambda span: span.start)[:MOST]
    spans = [span.beside(text) for span in spans]
    listable = [s for s in spans if s.kind in ("name", "phrase", "code", "quoted", "number")]
    lists = [span.beside(text) for span in _lists(text, listable)]
    for pair in [s for s in lists if re.fullmatch(r"[^\W\d]+, [^\W\d]+", s.text)]:
        # `Portland, Oregon` is one place.
        lists = [replace(s, kind="name", parts=()) if s is pair else s for s in lists]
        spans = [s for s in spans if not s.overlaps(pair)]
    return spans + lists


def _formed(text: str, known: frozenset[str]) -> Iterator[Span]:
    """What is recognised by its form."""
    for match in _SCAN.finditer(text):
        kind = next(kind for kind, found in match.groupdict().items() if found is not None)
        inner = next(
            (match[group] for group in ("q", "q2", "p", "a", "b") if match[group]), match[0]
        )
        upper = re.fullmatch(r"[A-Z]{2,6}", inner)
        if kind != "word":
            yield Span(inner, kind, *match.span())
        elif upper and not is_stop(inner) and not senses(inner) & known:
            yield Span(inner, "code", *match.span())
    if (said := _SAID.search(text)) and "?" not in text:
        yield Span(said[1], "quoted", *said.span(1))


def _free(text: str, known: frozenset[str]) -> list[Span]:
    """Names (runs of capitalised words) and phrases (runs of words that are left)."""
    runs: list[Span] = []
    for match in _SCAN.finditer(text):
        if not match["word"]:
            continue
        start, word = match.start(), match[0]
        word = word if word[:-1].lower() in _TITLES or len(word) < 3 else word.rstrip(".")
        bare = re.sub(r"'s?$", "", word)
        last = runs[-1] if runs and not text[runs[-1].end : start].strip() else None
        if last and last.kind == "name" and _goes_on(word, text[match.end() :]):
            runs[-1] = replace(last, text=text[last.start : match.end()], end=match.end())
            continue
        kind = _kind_of_word(text, start, bare, known)
        if last and last.kind == kind:
            end = start + len(bare)
            runs[-1] = replace(last, text=text[last.start : end], end=end)
        elif kind:
            # `The Beatles`: a capitalised article in the middle of a sentence belongs to the name.
            start -= 4 if kind == "name" and re.search(r"\w.*\sThe $", text[:start]) else 0
            end = match.start() + len(bare)
            runs.append(Span(text[start:end], kind, start, end))
    return runs


def _goes_on(word: str, rest: str) -> bool:
    """Is a word in the middle of a name, as in `Bank of Spain` and `John F. Doe`?"""
    particle = word.lower() in _PARTICLES or re.fullmatch(r"[A-Z][a-z]?\.?", word)
    return bool(particle and re.match(r"\s+[A-Z]", rest))


def _kind_of_word(text: str, start: int, word: str, known: frozenset[str]) -> str:
    """Name, phrase, day, or nothing where a word cannot be a value."""
    before, own = text[:start].rstrip(), bool(senses(word) & known)
    opens = not before or before[-1] in ".?!:"
    if is_stop(word) or len(word) < 2:
        return ""
    if _DAY.fullmatch(word):
        return "day"
    if word[:1].isupper() and not (own and opens):
        return "name"
    return "" if own else "phrase"


def _lists(text: str, spans: list[Span]) -> list[Span]:
    """Runs of one kind that are joined by commas, `and` or `or`: `Priya, Tom and Lena`."""
    found: dict[int, Span] = {}
    run: list[Span] = []
    for span in spans:
        alike = run and {span.kind, run[-1].kind} in ({span.kind}, {"name", "phrase"})
        joined = alike and _AND.fullmatch(text[run[-1].end : span.start])
        run = [*run, span] if joined else [span]
        if len(run) > 1:
            start = run[0].start
            found[start] = Span(text[start : span.end], "list", start, span.end, parts=tuple(run))
    return list(found.values())
