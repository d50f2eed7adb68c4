"""A message cut into pieces that each ask for one thing, with the tool that most speaks for it.

"Seattle, Portland and Boston" belongs to one question, "the weather and the price" to two. Left out: the
arguments that a piece takes from elsewhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workshop_lib.llm.rules.arithmetic import Expression
from workshop_lib.llm.rules.chains import find_chain
from workshop_lib.llm.rules.entities import find
from workshop_lib.llm.rules.lexicon import TIME_WORDS, words_in
from workshop_lib.llm.rules.tool_choice import (
    ENOUGH,
    NAME_MATCH,
    Filled,
    content_words,
    evidence,
    fill,
    is_blocked,
)
from workshop_lib.llm.rules.tool_schema import Tool
from workshop_lib.llm.rules.wants import Want
from workshop_lib.llm.rules.wording import words_of

_CUT = re.compile(
    r"[?!;\n]+|\.(?=\s|$)|,(?=\s)|\b(?:and|then|also|as well as|plus|but)\b|&", re.IGNORECASE
)
REQUEST = re.compile(
    r"^\W*(who|what|whats|what's|which|where|when|why|how|is|are|was|were|do|does|did|can|"
    r"could|will|would|should|tell|give|"
    r"show|find|write|make|play|open|book|buy|sell|order|send|call|set|create|explain|"
    r"translate|search|the|its|his|her|"
    r"draw|sing|say|list|help|recommend|a|an|my|your)\b",
    re.IGNORECASE,
)
_STATEMENT = re.compile(
    r"^\W*(my [\w ]{1,30} (is|are)\b|i'm\b|i am\b|it's\b|this is\b|the [\w ]{1,30} (is|are) "
    r"(nice|great|good|bad)\b)",
    re.IGNORECASE,
)
# Left of "can you calculate 3 * 4" once the arithmetic is taken out.
_CALCULATING = words_in("calculate compute evaluate solve figure add do math")
DENIAL = re.compile(
    r"^\W*(please\s+)?(do not|don't|dont|never|stop|no need to|you need not)\b", re.IGNORECASE
)


@dataclass
class Piece:
    """A part of the message between two cuts."""

    text: str
    start: int
    end: int
    tool: Tool | None = None
    score: float = 0.0
    keyword: str | None = None


def cut(
    masked: str, text: str, expressions: Sequence[Expression], tools: Sequence[Tool]
) -> list[Piece]:
    """The parts of a message, each with the tool that most speaks for it."""
    for expression in expressions:
        width = expression.end - expression.start
        masked = masked[: expression.start] + "\0" * width + masked[expression.end :]
    pieces: list[Piece] = []
    start = 0
    for match in [*_CUT.finditer(masked), None]:
        end = match.start() if match else len(masked)
        body = masked[start:end]
        if body.strip(" \0,.?!"):
            plain = "".join(
                " " if hole == "\0" else kept
                for hole, kept in zip(body, text[start:end], strict=True)
            )
            pieces.append(Piece(plain, start, end))
        start = match.end() if match else end
    for piece in pieces:
        _choose(piece, tools)
    return pieces


def _choose(piece: Piece, tools: Sequence[Tool]) -> None:
    best: tuple[bool, float, int] | None = None
    for tool in tools:
        if tool.calculates:
            continue
        score, matched = evidence(tool, piece.text)
        if score < ENOUGH or is_blocked(tool, piece.text) or DENIAL.match(piece.text):
            continue
        keyword = next((word for word in words_of(piece.text) if word in matched), None)
        filled = fill(tool, piece.text, keyword=keyword)
        if not tool.required and _unexplained(piece.text, matched):
            continue
        share = 1 - len(filled.missing) / max(len(tool.required), 1)
        rank = (share >= 1.0, score + share, -len(tool.name_terms))
        if score >= NAME_MATCH and filled.missing and feeder(tool, filled, piece, tools):
            # "convert the price of AAPL": the tool named first takes what the other returns
            rank = (True, rank[1] + NAME_MATCH, rank[2])
        if best is None or rank > best:
            best = rank
            piece.tool, piece.score, piece.keyword = tool, score, keyword


def _unexplained(text: str, matched: set[str]) -> bool:
    """True where a question to a tool without arguments is about something in particular."""
    names = re.findall(r"(?<=\s)[A-Z][a-z]+\w*|\b\w+\.(?:com|org|net)\b|\b[A-Z]+-\d+\b", text)
    names = [name for name in names if name.lower() not in matched]
    rest = [word for word in content_words(text) if word not in matched and word not in TIME_WORDS]
    return bool(names) or len(rest) > 2


def grouped(pieces: list[Piece], text: str) -> list[Piece]:
    """Pieces that belong together, as one: a subject without a verb goes to its neighbour."""
    groups: list[Piece] = []
    waiting: Piece | None = None
    tools = [piece.tool for piece in pieces if piece.tool is not None]
    for piece in pieces:
        last = groups[-1] if groups else None
        if piece.tool is None:
            if last is not None and last.tool and not _stands_alone(piece.text, [last.tool]):
                _extend(last, piece, text)
            elif _stands_alone(piece.text, tools):
                groups.append(piece)
            elif waiting is None:
                waiting = piece
            else:
                _extend(waiting, piece, text)
            continue
        if waiting is not None:
            piece.start, piece.text = waiting.start, text[waiting.start : piece.end]
            waiting = None
        if (
            last is not None
            and last.tool is piece.tool
            and (piece.keyword is None or _lacks(last) or _lacks(piece))
        ):
            _extend(last, piece, text)
        else:
            groups.append(piece)
    if waiting is not None:
        groups.append(waiting)
    return groups


def _extend(piece: Piece, by: Piece, text: str) -> None:
    piece.end = by.end
    piece.text = text[piece.start : by.end]


def _lacks(piece: Piece) -> bool:
    return piece.tool is not None and bool(
        fill(piece.tool, piece.text, keyword=piece.keyword).missing
    )


def _stands_alone(text: str, neighbours: Sequence[Tool]) -> bool:
    """True for a piece that asks for something of its own, and does not just name another subject."""
    rest = text
    slots = [slot for tool in neighbours for slot in tool.required]
    for slot in slots:
        for entity in find(slot, text):
            rest = rest.replace(text[entity.start : entity.end], " ")
    words = [word for word in content_words(rest) if word not in TIME_WORDS]
    if not words:
        return False
    if any(slot.kind == "place" for slot in slots) and len(words) == 1 and not REQUEST.match(text):
        return False  # a place that nobody knows, at the end of a list
    return bool(REQUEST.match(rest.strip() + " "))


def asks(text: str) -> bool:
    """True for a piece that wants something, and is no greeting or remark."""
    words = set(content_words(text)) - _CALCULATING
    if _STATEMENT.match(text) or DENIAL.match(text):
        return False
    return bool(words) and bool(REQUEST.match(text))


def feeder(tool: Tool, filled: Filled, piece: Piece, tools: Sequence[Tool]) -> Want | None:
    """A want whose first call brings the number or the text that the tool still lacks."""
    lacking = [
        slot for slot in filled.missing if slot.kind in ("number", "integer", "currency", "text")
    ]
    if len(lacking) != len(filled.missing) or not any(slot.kind != "currency" for slot in lacking):
        return None
    for other in tools:
        if other is tool or other.calculates or not other.required:
            continue
        score, matched = evidence(other, piece.text)
        if score < ENOUGH:
            continue
        keyword = next((word for word in words_of(piece.text) if word in matched), None)
        inner = fill(other, piece.text, keyword=keyword)
        if not inner.missing and len(inner.calls) == 1:
            chain = find_chain(piece.text, other, inner)
            return Want(other, inner.calls, piece.text.strip(), chain, fills=(tool, filled))
    return None


def second_tool(piece: Piece, tool: Tool, filled: Filled, tools: Sequence[Tool]) -> list[Want]:
    """A further tool that the same piece asks for, by other words and about another thing."""
    _, used_words = evidence(tool, piece.text)
    rest = piece.text
    for entity in filled.used:
        rest = rest.replace(
            piece.text[entity.start : entity.end], " " * (entity.end - entity.start)
        )
    for word in used_words:
        rest = re.sub(rf"\b{re.escape(word)}\b", " ", rest, flags=re.IGNORECASE)
    for other in tools:
        if other is tool or other.calculates or other.entity is None:
            continue
        score, matched = evidence(other, rest)
        if score >= NAME_MATCH:
            inner = fill(other, rest, keyword=next(iter(sorted(matched)), None))
            if not inner.missing:
                return [Want(other, inner.calls, piece.text.strip())]
    return []
