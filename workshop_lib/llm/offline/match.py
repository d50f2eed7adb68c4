"""Spans and slots as one assignment: what a text puts into a tool's slots, and what speaks for that tool.

Words decide which tool is meant; a word that neither the tool nor a value explains speaks against it. The
assignment fills the slots: each span goes to one slot, each slot takes one span, the best pair first.
What finds no span is missing, and is never taken from where it does not belong.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from workshop_lib.llm.offline.schema import Slot, Tool, is_choice
from workshop_lib.llm.offline.spans import Span
from workshop_lib.llm.offline.words import (
    DEEDS,
    all_senses,
    asked,
    content,
    content_words,
    is_stop,
    senses,
    split_name,
    stem,
    word_set,
)

LINE = 1.0  # evidence that a tool needs
STRANGE = 0.8  # what an unexplained word takes away from it
NEEDED, OPTIONAL = 0.5, 1.9  # what a pair must be worth
REQUIRED_FIRST = 1.5  # what a required slot is ahead of an optional one
MISSING = 2.2  # what a missing value costs

# How well each kind of span suits each want. A kind that is not named cannot be.
_SUITS = {
    "date": {"date": 4.0, "day": 2.0},
    "time": {"time": 3.0},
    "email": {"email": 5.0},
    "id": {"code": 2.8, "number": 1.0, "name": 0.9, "quoted": 1.5, "phrase": 0.4},
    "text": {"quoted": 4.0, "phrase": 1.2, "name": 1.0, "code": 0.8},
    "name": {"name": 2.4, "quoted": 2.4, "phrase": 1.3, "code": 1.0},
    "list": {"list": 4.0, "name": 1.8, "quoted": 1.8, "code": 1.6},
}
_FROM = word_set("from source origin start departure begin since sender base check")
_TO = word_set("to target destination into end until recipient receiver wanted arrival")
_PLACE = word_set(
    "city place location country town airport postcode near where address station depot region"
)
_PERSON = word_set(
    "name patient attendees people person guest author member customer recipient user driver pupil student"
    " teacher employee owner player passenger doctor assignee"
)
_BY = word_set("author artist writer by director creator composer")
# The preposition in front of a span, the names of slots that it points to, and what that is worth.
_CUES: tuple[tuple[str, Collection[str], float], ...] = (
    ("in at near", _PLACE, 1.5), ("by", _BY, 2.0), ("for with", _PERSON, 0.8),
    ("to into until in", _TO, 1.5), ("from since", _FROM, 1.5),
    ("to into until", _FROM, -2.0), ("from", _TO, -2.0),
)  # fmt: skip
_PREPOSITIONS = {word for words, _, _ in _CUES for word in words.split()}
_COUNT = re.compile(
    r"\b(?:quantity|count|amount|limit|pieces|copies|max\w*|results|at most|how many)\b"
)
_MONEY = re.compile(r"dollar|amount|money|price|cost|euro|budget|pounds?\b|principal")
_NUMBERED = re.compile(r"\b(?:phone|number)\b")
_JOINS = r"^\s*,|\b(?:and|or|than|vs|versus)\b"
_POLITE = r"\W*(?:(?:please|kindly|now|and|then|can|could|would|you|hey|i|want|need|to|let's)\b\W*)*([a-z]+)"


@dataclass
class Fit:
    """A tool with spans in its slots.

    Attributes:
        evidence: what speaks for the tool, less what speaks against it.
        score: evidence, and how well the slots are filled.
        strange: words of the text that nothing explains. unused: spans that found no slot.
    """

    tool: Tool
    pairs: dict[Slot, Span] = field(default_factory=dict)
    evidence: float = 0.0
    score: float = 0.0
    strange: list[str] = field(default_factory=list)
    unused: list[Span] = field(default_factory=list)

    @property
    def missing(self) -> list[Slot]:
        """Required slots without a span."""
        return [slot for slot in self.tool.slots if slot.required and slot not in self.pairs]


def fit(text: str, tool: Tool, tools: Sequence[Tool], spans: Sequence[Span]) -> Fit:
    """The best assignment of a text's spans to a tool's slots, and what it says about the tool."""
    own = {slot: own_spans(text, slot, tool) for slot in tool.slots}
    units = {span.start for found in own.values() for _, span in found}
    # The unit behind a number is no noun that is counted.
    spans = [replace(s, after="") if {s.end, s.end + 1} & units else s for s in spans]
    options: list[tuple[float, int, int, float, Span, Slot]] = []
    for place, slot in enumerate(tool.slots):
        line, ahead = (NEEDED, REQUIRED_FIRST) if slot.required else (OPTIONAL, 0.0)
        for worth, span in [*((pair(span, slot), span) for span in spans), *own[slot]]:
            if worth is not None and worth >= line:
                options.append((-worth - ahead, place, span.start, worth, span, slot))
    found = Fit(tool)
    for _, _, _, worth, span, slot in sorted(options, key=lambda option: option[:3]):
        if slot not in found.pairs and not any(map(span.overlaps, found.pairs.values())):
            found.pairs[slot] = span
            found.score += 0.6 * min(worth, 5.0)
    found.pairs = {slot: found.pairs[slot] for slot in tool.slots if slot in found.pairs}
    _judge(found, text, tools, spans)
    return found


def _judge(found: Fit, text: str, tools: Sequence[Tool], spans: Sequence[Span]) -> None:
    """Weigh the words for and against the tool."""
    tool, used, rest, left = found.tool, list(found.pairs.values()), text, text
    for span in used:
        blank = " " * (span.end - span.start)
        left = left[: span.start] + blank + left[span.end :]
        if span.kind in ("quoted", "name", "list"):
            rest = rest[: span.start] + blank + rest[span.end :]
    said = content(rest) | asked(rest)
    for word in said & set(tool.weights):
        found.evidence += tool.weights[word] / sum(word in other.weights for other in tools) ** 0.5
    found.unused = [s for s in spans if s.kind != "list" and not any(map(s.overlaps, used))]
    found.strange = [word for word in content_words(left) if not senses(word) & tool.said]
    for slot, span in found.pairs.items():
        formed = any(re.fullmatch(shape, span.text) for shape in slot.shapes)
        cue = min(max(0.0, _cue(span, slot)), 2.0)
        found.evidence += 1.4 * formed + 0.6 * (slot.want in ("choice", "flag")) + 0.5 * cue
    # What takes no value can be asked for in few ways: a strange word weighs more.
    found.evidence -= STRANGE * len(found.strange) * (1 if tool.slots else 2)
    verbs = re.findall(r"[a-z]+", rest.lower())
    done = any(senses(w) & (tool.said if w in DEEDS else tool.deeds) for w in verbs)
    found.evidence -= 2.5 * bool(tool.deeds and not done)
    # Who directed something is asked of no tool that has to be told a director.
    wanted = all_senses(re.findall(r"\bwho (\w+)", text.lower()))
    found.evidence -= 1.5 * any(slot.name_words & wanted for slot in found.pairs)
    # A text that opens with a deed (cancel, send …) is for no tool that does not do that.
    opening = re.match(_POLITE, rest.strip().lower())
    deed = opening[1] if opening and opening[1] in DEEDS else ""
    found.evidence -= 10 * bool(deed and not senses(deed) & tool.acts)
    found.score += 1.2 * found.evidence - MISSING * len(found.missing)


def pair(span: Span, slot: Slot) -> float | None:
    """How well a span suits a slot; None if it cannot be."""
    if slot.want == "number":
        worth = _number(span, slot)
    elif span.kind == "list" and slot.want != "list":
        parts = [_text(part, slot) for part in span.parts]
        worth = None if None in parts else min(part or 0 for part in parts) + 0.6 * len(parts)
    else:
        worth = _text(span, slot)
    return None if worth is None else worth + _cue(span, slot)


def _text(span: Span, slot: Slot) -> float | None:
    """How well a span suits a slot for a string."""
    if any(re.fullmatch(shape, span.text) for shape in slot.shapes):
        return 4.5
    worth = _SUITS.get(slot.want, {}).get(span.kind)
    # Which day "tomorrow" is, only a calendar knows.
    if worth is None or (slot.schema.get("format") and span.kind == "day"):
        return None
    if {word.lower() for word in split_name(slot.name)} & _PERSON and slot.name != "name":
        worth += {"name": 0.8, "phrase": -0.5}.get(span.kind, 0.0)
    numbered = any("d" in shape for shape in slot.shapes) or _NUMBERED.search(slot.label)
    if slot.want == "id" and numbered and not re.search(r"\d", span.text):
        return None
    if slot.shapes and span.kind == "number" and not numbered:
        return None
    return worth


def _number(span: Span, slot: Slot) -> float | None:
    """How well a number suits: a percentage to a rate, money to an amount, a noun to the slot it names."""
    number, rate = span.number, bool(re.search(r"percent|\brate\b|interest|%", slot.label))
    if number is None or (slot.kind == "integer" and not isinstance(number, int)):
        return None
    if span.kind == "percent" or rate:
        return {("percent", True): 4.0, ("number", True): 0.6}.get((span.kind, rate))
    if span.kind == "amount":
        return 3.0 if _MONEY.search(slot.label) else 0.2
    worth = 1.5 + 0.6 * bool(_COUNT.search(slot.label))
    if span.after and senses(span.after) & slot.words:
        return worth + 2.5
    # `2 guests` are no nights.
    return worth - 1.6 * bool(span.after and not is_stop(span.after) and worth < 2)


def _cue(span: Span, slot: Slot) -> float:
    """What the words beside a span say about a slot."""
    names, worth = {word.lower() for word in split_name(slot.name)}, 0.0
    for distance, word in enumerate(span.before[:2]):
        if span.kind == "number" and "".join(span.before[distance + 1 : distance + 2]).isdigit():
            break  # the noun behind another number
        near = slot.name_words if is_stop(word) else slot.words
        if len(word) > 2 and senses(word) & near:
            worth += (2.0 if senses(word) & slot.name_words else 1.2) / (1 + 0.5 * distance)
    before = next((word for word in span.before[:2] if word in _PREPOSITIONS), "-")
    gains = [gain for words, slots, gain in _CUES if before in words.split() and names & set(slots)]
    return worth + sum(gains)


def own_spans(text: str, slot: Slot, tool: Tool) -> list[tuple[float, Span]]:
    """Spans that only this slot knows: its choices, its flag, the form of its examples of several words."""
    if slot.want == "choice":
        return _choices(text, slot)
    if slot.want == "flag":
        return _flags(text, slot, tool)
    shapes = [shape for shape in slot.shapes if "\\ " in shape]
    matches = [match for shape in shapes for match in re.finditer(shape, text)]
    found = [Span(match[0], "own", *match.span()).beside(text) for match in matches]
    return [(5.0 + _cue(span, slot), span) for span in found]


def _choices(text: str, slot: Slot) -> list[tuple[float, Span]]:
    """Where a text names one of the values that are allowed."""
    found = []
    names = {word.lower() for word in split_name(slot.name)}
    words = list(re.finditer(r"[^\W_]+(?:-[^\W_]+)*|[$€£]", text))
    for form, value in slot.choices.items():
        parts = form.split()
        for first in range(len(words) - len(parts) + 1):
            window = words[first : first + len(parts)]
            if all(is_choice(match[0], part) for match, part in zip(window, parts, strict=True)):
                start, end = window[0].start(), window[-1].end()
                span = Span(text[start:end], "own", start, end, value=value).beside(text)
                # The unit behind a number is what one converts from.
                counted = bool(re.search(r"\d\s*$", text[:start])) or span.text in "$€£"
                turn = 1.5 if counted == bool(names & _FROM) else -1.5
                found.append((4.5 + _cue(span, slot) + turn * bool(names & (_TO | _FROM)), span))
    spans = sorted((span for _, span in found), key=lambda span: span.start)
    between = [text[a.end : b.start] for a, b in pairwise(spans)]
    if between and not names & (_TO | _FROM) and all(re.search(_JOINS, words) for words in between):
        start, end = spans[0].start, spans[-1].end
        whole = Span(text[start:end], "list", start, end, parts=tuple(spans))
        found.append((max(worth for worth, _ in found) + 0.6 * len(spans), whole))
    return found


def _flags(text: str, slot: Slot, tool: Tool) -> list[tuple[float, Span]]:
    """The words of a yes-or-no slot in a text, denied or not."""
    names = {stem(word) for word in split_name(slot.name) if not is_stop(word)}
    names -= {stem(word) for word in split_name(tool.name)}
    hits = [match for match in re.finditer(r"[^\W\d_]+", text) if stem(match[0]) in names]
    if not names or {stem(match[0]) for match in hits} != names:
        return []
    start, end = hits[0].start(), hits[-1].end()
    no = re.search(r"\b(?:no|not|without|don't|isn't)\s+(?:an?\s+|be\s+)?$", text[:start], re.I)
    return [(2.5, Span(text[start:end], "own", start, end, value=not no))]
