"""A plan for a message: the tool calls that it asks for, and those that wait for what others bring.

A message is cut into the clauses that tools fit best. A value that a clause lacks is looked for in the
message, in an earlier step and in an earlier call, in this order; after that it is asked for. The plan is
made anew in every round, and calls that were made count as done: results are never read for wishes.
"""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from workshop_lib.llm.offline.match import LINE, OPTIONAL, Fit, fit, pair
from workshop_lib.llm.offline.schema import Slot, Tool
from workshop_lib.llm.offline.spans import Span, find_spans
from workshop_lib.llm.offline.sums import BACK, find_sum, refer_back
from workshop_lib.llm.offline.talk import Talk, leaves
from workshop_lib.llm.offline.words import all_senses, content_words, senses

CUT = 1.5  # what a cut between two clauses costs
MOST_JOINTS, MOST_BACK = 7, 6  # places to cut at, and earlier calls that a follow-up goes on with
_SENTENCE = r"(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bSt)(?<!\b[A-Z])[.?!]+(?=\s)"
_JOINT = re.compile(rf"{_SENTENCE}|[;:](?=\s)|,?\s+(?:and|then|but|also|und)\s+|,\s+")
_ASKS = re.compile(
    r"(?:what|who|how|where|when|which|is|are|do|does)(?:'s)?\b(?! \w+ (?:also|too))", re.I
)
_POINTS = re.compile(
    r"\b(?:it|its|that|this|there|them|they|him|her|his|same|ones?|those|these|their|first)\b", re.I
)
_PRICED = all_senses(("price", "cost", "fee", "rate", "fare"))
_TOTAL = re.compile(r"\b(?:how much|costs?|pay|price|worth|total|altogether|value|charge)\b", re.I)
_TOGETHER = (  # what is to be done with several results of one tool
    (re.compile(r"\bdifference\b|\bhow (?:many|much)\b.*\bthan\b", re.I), " - "),
    (re.compile(r"\b(?:average|mean)\b", re.I), " / "),
    (re.compile(r"\b(?:total|sum|together|altogether|combined|add|in all)\b", re.I), " + "),
)
_A, _B = r"(?P<a>[^,.:;?]+?)", r"(?P<b>[^,.:;?]+)"
_OPERANDS = tuple((re.compile(pattern, re.I), made) for pattern, made in (
    (rf"\bmultiply {_A} (?:by|with) {_B}", "{a} * {b}"), (rf"\bdivide {_A} by {_B}", "{a} / {b}"),
    (rf"\bsubtract {_A} from {_B}", "{b} - {a}"), (rf"\badd {_A} to {_B}", "{a} + {b}"),
    (rf"{_A} (?:times|multiplied by) {_B}", "{a} * {b}"), (rf"{_A} divided by {_B}", "{a} / {b}"),
    (rf"{_A} plus {_B}", "{a} + {b}"), (rf"{_A} minus {_B}", "{a} - {b}"),
    (rf"(?P<a>\d[\d.]*) ?(?:%|percent) of {_B}", "{b} * {a} / 100"),
    (rf"\bhalf (?:of )?{_B}", "{b} / 2"), (rf"\b(?:double|twice) {_B}", "{b} * 2"),
))  # fmt: skip


@dataclass(frozen=True)
class Later:
    """A value that a step of the plan will bring; `hint` are the words that ask for it."""

    step: int
    hint: str


@dataclass
class Step:
    """A call to be made.

    Attributes:
        values: what goes into the slots: a value, a `Later`, or an expression with `§0`, `§1` … in it.
        hint: the words of the message that ask for it.
        factor: how many times its result is wanted.
    """

    tool: Tool
    values: dict[Slot, Any]
    hint: str = ""
    factor: str = ""


@dataclass
class Plan:
    """What a message comes to: calls, tools that fit and lack values, and parts that no tool serves."""

    steps: list[Step] = field(default_factory=list)
    asks: list[Fit] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)


Worth = tuple[float, Fit | str | None]
# A stretch of the message, and the tool or the sum that it is.
Clause = tuple[str, Fit | str | None]


class Planner:
    """Makes the plan of one message, in plain signs, from the tools and the calls made before."""

    def __init__(self, text: str, tools: tuple[Tool, ...], talk: Talk) -> None:
        self.text, self.talk, self.plan = text, talk, Plan()
        self.sums = next((tool for tool in tools if tool.expression), None)
        self.tools = [tool for tool in tools if not tool.expression]
        self._all_tools = tools
        self._seen: dict[str, Worth] = {}
        self._spans = _spans(text, tools)

    def make(self) -> Plan:
        """The plan of the whole message."""
        if self.sums and not find_sum(self.text) and (made := self._of_phrases()):
            self._calculate(made)
            return self.plan
        for text, what in self._clauses():
            if isinstance(what, str):
                last = len(self.plan.steps) - 1
                self._calculate(what.replace(BACK, f"{BACK}{last}") if last >= 0 else what)
            elif what:
                self._complete(what, text)
            elif content_words(text):
                self.plan.unserved.append(text)
        self._combine()
        return self.plan

    def _fits(self, text: str) -> list[Fit]:
        # What is found is filled up here, and the next request asks for the same text.
        return [replace(one, pairs=dict(one.pairs)) for one in _fits(text, self._all_tools)]

    # --- clauses ----------------------------------------------------------------------------------

    def _worth(self, text: str) -> Worth:
        """What a stretch of the message is: a tool, an expression or nothing; and its worth."""
        if text not in self._seen:
            fits = [found for found in self._fits(text) if found.evidence >= LINE]
            options: list[Worth] = [(max(found.score, 0.3), found) for found in fits]
            if self.sums and (made := find_sum(refer_back(text))):
                numbers = re.findall(rf"\d+(?:\.\d+)?|{BACK}", made)
                options.append((1.2 * len(numbers) + 2.5 * (BACK not in made), made))
            self._seen[text] = max(options, key=lambda option: option[0], default=(0.0, None))
        return self._seen[text]

    def _clauses(self) -> list[Clause]:
        """The cut of the message into stretches that is worth most, by dynamic programming."""
        quotes = [span for span in self._spans if span.kind == "quoted"]
        joints = [
            match.span()
            for match in _JOINT.finditer(self.text)
            if not any(quote.start < match.end() < quote.end for quote in quotes)
        ][:MOST_JOINTS]
        starts = [0, *(end for _, end in joints)]
        best: list[tuple[float, list[Clause]]] = [(0.0, [])]
        for end in [*(start for start, _ in joints), len(self.text)]:
            rows = []
            for first, start in enumerate(starts[: len(best)]):
                worth, what = self._worth(self.text[start:end])
                cost = (0.5 if _ASKS.match(self.text, start) else CUT) if first else 0.0
                clauses = [*best[first][1], (self.text[start:end], what)]
                rows.append((best[first][0] + worth - cost, clauses))
            best.append(max(rows, key=lambda row: row[0]))
        found = best[-1][1]
        if all(isinstance(what, Fit) for _, what in found):  # one that lacks something comes last
            found.sort(key=lambda clause: isinstance(clause[1], Fit) and bool(clause[1].missing))
        return found

    # --- values that a clause lacks ---------------------------------------------------------------

    def _complete(self, found: Fit, text: str) -> None:
        """Put a fit into the plan, with what it lacks from wherever that is."""
        if found.missing and text != self.text:
            self._widen(found)
        last = len(self.plan.steps) - 1
        points = _POINTS.search(self.text)
        ahead = last >= 0 and self.plan.steps[last].tool is not found.tool
        if ahead and (points or not found.tool.deeds):
            for slot in found.missing:
                found.pairs[slot] = _given(Later(last, text))
        if found.missing and points:
            self._from_calls(found)
        if not found.missing:
            self._add(found, text)
        elif not any(step.tool is found.tool for step in self.plan.steps):
            self.plan.asks.append(found)

    def _widen(self, found: Fit) -> None:
        """Look in the rest of the message."""
        taken = [span.text for span in found.pairs.values()]
        spans = [span for span in self._spans if span.text not in taken]
        wide = fit(self.text, found.tool, self.tools, spans)
        found.pairs = {s: p for s, p in wide.pairs.items() if s.required} | found.pairs

    def _from_calls(self, found: Fit) -> None:
        """What `there`, `it` and `that order` stand for: arguments of earlier calls, latest first."""
        for called in self.talk.calls_before():
            texts = [text for text in leaves(called.arguments) if isinstance(text, str)]
            spans = [span for text in texts for span in find_spans(text) if span.text == text]
            for slot in found.missing:
                same = value_at(called.arguments, slot.path)
                suited = [_given(same)] if same is not None else []
                suited += [span for span in spans if (pair(span, slot) or 0) >= OPTIONAL]
                if suited:
                    found.pairs[slot] = suited[0]

    # --- steps ------------------------------------------------------------------------------------

    def _add(self, found: Fit, text: str) -> int:
        """The steps of a fit: one, or one for each member of a list. The index of the last."""
        lists = [slot for slot, span in found.pairs.items() if span.kind == "list"]
        fan = next((slot for slot in lists if slot.want != "list"), None)
        for part in found.pairs[fan].parts if fan else (None,):
            pairs = found.pairs | ({fan: part} if fan and part else {})
            values = {slot: value_of(span, slot) for slot, span in pairs.items()}
            self.plan.steps.append(Step(found.tool, values, text, _factor(found, part, text)))
        return len(self.plan.steps) - 1

    def _calculate(self, expression: str) -> None:
        if self.sums and self.sums.expression:
            self.plan.steps.append(Step(self.sums, {self.sums.expression: expression}, self.text))

    def _combine(self) -> None:
        """`12 shares of …`, `the total of … and …`: a calculation with what the steps bring."""
        steps = tuple(self.plan.steps)
        if not steps or steps[0].tool is self.sums or len({step.tool for step in steps}) > 1:
            return
        times = [f"{step.factor} * " if step.factor else "" for step in steps]
        terms = [f"{many}{BACK}{i}" for i, many in enumerate(times)]
        sign = next((sign for pattern, sign in _TOGETHER if pattern.search(self.text)), "")
        if len(steps) > 1 and sign:
            joined = sign.replace("/", "+").join(terms)
            self._calculate(f"({joined}) / {len(terms)}" if sign == " / " else joined)
            return
        for term in [term for term in terms if "*" in term]:
            self._calculate(term)

    def _of_phrases(self) -> str | None:
        """`multiply the A by the B`, `20% of the A`: its operands are calls of their own."""
        for pattern, made in _OPERANDS:
            if match := pattern.search(self.text):
                found = {name: self._operand(phrase) for name, phrase in match.groupdict().items()}
                if all(found.values()) and self.plan.steps:
                    return made.format(**found)
                self.plan = Plan()
        return None

    def _operand(self, phrase: str) -> str | None:
        """A number as it stands; else the place of the call that a phrase asks for."""
        phrase = phrase.strip()
        if re.fullmatch(r"-?\d+(?:\.\d+)?", phrase):
            return phrase
        fits = self._fits(phrase)
        codes = [f for f in fits if "code" in {span.kind for span in f.pairs.values()}]
        fits = [found for found in fits if found.evidence >= LINE or found in codes]
        for found in [found for found in fits if found.missing]:
            self._widen(found)
        best = max((f for f in fits if not f.missing), key=lambda f: f.evidence, default=None)
        return f"{BACK}{self._add(best, phrase)}" if best else None

    # --- once more --------------------------------------------------------------------------------

    def again(self) -> Plan | None:
        """The last calls once more, with what this message says in their slots; None if it says more."""
        by_name = {tool.name: tool for tool in self.tools}
        calls = [call for call in self.talk.calls_before()[:MOST_BACK] if call.name in by_name]
        fits = [(fit(self.text, by_name[c.name], self.tools, self._spans), c) for c in calls]
        fits = [(found, call) for found, call in fits if found.pairs and not found.strange]
        if not fits:
            return None
        found, called = max(fits, key=lambda pair: pair[0].score)
        turn = next(turn for turn in self.talk.earlier if called in turn.calls)
        slots = found.tool.slots
        before = {s: v for s in slots if (v := value_at(called.arguments, s.path)) is not None}
        self._add(found, f"{turn.text} {self.text}")
        for step in self.plan.steps:
            step.values = before | step.values
        return self.plan


@lru_cache(200)  # each request of a turn is about the same texts
def _fits(text: str, tools: tuple[Tool, ...]) -> tuple[Fit, ...]:
    """A text as each tool that does not calculate would take it."""
    others = [tool for tool in tools if not tool.expression]
    return tuple(fit(text, tool, others, _spans(text, tools)) for tool in others)


@lru_cache(200)
def _spans(text: str, tools: tuple[Tool, ...]) -> tuple[Span, ...]:
    return tuple(find_spans(text, _known(tools)))


@lru_cache(100)
def _known(tools: tuple[Tool, ...]) -> frozenset[str]:
    """The words that the tools explain."""
    return frozenset(sense for tool in tools for sense in tool.weights)


def _factor(found: Fit, part: Span | None, text: str) -> str:
    """How many times a price is wanted: `12 shares of Apple`, `4 child tickets`."""
    if not set(found.tool.weights) & _PRICED or not _TOTAL.search(text):
        return ""
    used, nouns = {span.start for span in found.pairs.values()}, found.tool.said | {"of", "x"}
    many = [s for s in found.unused if s.kind == "number"]
    many = [s for s in many if (senses(s.after) | {s.after}) & nouns or s.end + 1 in used]
    if part:  # the number that stands in front of a member of a list
        ahead = r"(?!.*\band\b)[^,]{1,24}"
        many = [s for s in many if re.fullmatch(ahead, text[s.end : part.start])]
    return many[0].text if len(many) == 1 else ""


def _given(value: Any) -> Span:
    """A value that does not stand in the message, in the place of a span."""
    return Span("", "own", -1, -1, value=value)


def value_of(span: Span, slot: Slot) -> Any:
    """A span as the slot's type wants it."""
    if span.kind == "own" and span.value is not None:
        return span.value
    if slot.want == "list":
        numbers = "number" in str(slot.schema.get("items"))
        return [part.number if numbers else part.text for part in span.parts or (span,)]
    return span.number if slot.want == "number" else span.text


def value_at(arguments: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of nested arguments, or None."""
    for key in path:
        arguments = arguments.get(key) if isinstance(arguments, dict) else None
    return arguments
