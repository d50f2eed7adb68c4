"""What a user's message asks for: a list of wants, each a piece of the message with the calls that serve it.

A message is cut where its parts ask for different things; a part without a subject of its own takes it from
its neighbours, or, where it points back ("there", "and in Portland?"), from earlier turns. Left out: what the
tools answered, and the words of the reply.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workshop_lib.llm.arithmetic import Expression, find_expressions
from workshop_lib.llm.chains import Chain, find_chain
from workshop_lib.llm.conversation import Conversation
from workshop_lib.llm.entities import find, quoted
from workshop_lib.llm.lexicon import TIME_WORDS
from workshop_lib.llm.facts import stated_facts
from workshop_lib.llm.results import number_in, read_result
from workshop_lib.llm.tool_choice import (
    ENOUGH,
    NAME_MATCH,
    Filled,
    call_with,
    content_words,
    evidence,
    fill,
    is_blocked,
    operation_call,
)
from workshop_lib.llm.tool_schema import ENTITY_KINDS, Slot, Tool
from workshop_lib.llm.wording import terms_of, words_of

LONGEST = 2000  # characters of a message that rules can be expected to understand
_LOOK_BACK = 8  # turns that a follow-up may lean on

_CUT = re.compile(
    r"[?!;\n]+|\.(?=\s|$)|,(?=\s)|\b(?:and|then|also|as well as|plus|but)\b|&", re.IGNORECASE
)
_LEAD = re.compile(
    r"^\W*(?:(?:and|or|ok|okay|so|now|then|also|what|how|about|same|for|in|at|of|on|with|the|thanks|great|cool|please|"
    r"again|is|it|if|i|do|that|instead|over|to|from|a|just|only|but|change|make|try|use|there|too)\b\W*)+",
    re.IGNORECASE,
)
_OWN = re.compile(r"\bmy\b|\bi live\b|\bi am from\b|\bat home\b", re.IGNORECASE)
_AGAIN = re.compile(r"^\W*(and|what about|how about|what if|same for|now)\b", re.IGNORECASE)
_COMPARED = re.compile(r"\b(than|compare[ds]?|comparison|versus|vs)\b", re.IGNORECASE)
_POINTS_BACK = re.compile(
    r"\b(there|it|its|it's|that|this|same|they|them|their|those|these|he|she|his|her|here|both|again)\b",
    re.IGNORECASE,
)
_PLURAL = re.compile(r"\b(they|them|their|those|these|both|all)\b", re.IGNORECASE)
_REQUEST = re.compile(
    r"^\W*(who|what|whats|what's|which|where|when|why|how|is|are|was|were|do|does|did|can|could|will|would|should|tell|give|"
    r"show|find|write|make|play|open|book|buy|sell|order|send|call|set|create|explain|translate|search|the|its|his|her|"
    r"draw|sing|say|list|help|recommend|a|an|my|your)\b",
    re.IGNORECASE,
)
_STATEMENT = re.compile(
    r"^\W*(my [\w ]{1,30} (is|are)\b|i'm\b|i am\b|it's\b|this is\b|the [\w ]{1,30} (is|are) (nice|great|good|bad)\b)",
    re.IGNORECASE,
)
DENIAL = re.compile(
    r"^\W*(please\s+)?(do not|don't|dont|never|stop|no need to|you need not)\b", re.IGNORECASE
)


@dataclass
class Want:
    """One thing that is asked.

    Attributes:
        tool: the tool that serves it.
        calls: arguments of the calls to make first.
        chain: what is then computed from their results.
        fills: a further tool that needs a result as an argument, with what is known for it already.
        text: the piece of the message.
    """

    tool: Tool
    calls: list[dict[str, Any]]
    text: str
    chain: Chain | None = None
    fills: tuple[Tool, Filled] | None = None


@dataclass
class Understanding:
    """A message, understood as far as the rules can.

    Attributes:
        unanswered: pieces that ask for something no tool does.
        missing: a tool that fits and lacks required arguments, with these.
        problem: a sentence that says why nothing can be done.
    """

    wants: list[Want] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    missing: list[tuple[Tool, list[Slot]]] = field(default_factory=list)
    problem: str | None = None


@dataclass
class _Piece:
    """A part of the message between two cuts."""

    text: str
    start: int
    end: int
    tool: Tool | None = None
    score: float = 0.0
    keyword: str | None = None


def understand(conversation: Conversation, tools: Sequence[Tool]) -> Understanding:
    """What the current turn of a conversation asks for."""
    return _understand(conversation, len(conversation.turns) - 1, tools, _LOOK_BACK)


def _understand(
    conversation: Conversation, turn: int, tools: Sequence[Tool], depth: int
) -> Understanding:
    text = _with_facts((conversation.turns[turn].question or "").strip(), conversation, turn)
    found = Understanding()
    if not text or len(text) > LONGEST:
        return found
    masked = text
    for mark in quoted(text):
        masked = (
            masked[: mark.start]
            + '"'
            + "q" * (mark.end - mark.start - 2)
            + '"'
            + masked[mark.end :]
        )
    expressions = find_expressions(masked)
    pieces = _pieces(masked, text, expressions, tools)
    leans = any(expression.refers_back for expression in expressions)
    spans = {id(e) for e in expressions if e.refers_back and any(p.tool for p in pieces)}
    if not expressions and (_AGAIN.match(text) or all(p.keyword is None for p in pieces)):
        # "How about TSLA?" repeats what was asked before, with all that followed from it.
        follow_up = _follow_up(conversation, turn, text, tools, depth, strictly=True)
        if follow_up:
            return Understanding(wants=follow_up)
    rest = _without(text, [e for e in expressions if not e.refers_back])
    _add_tool_wants(found, pieces, rest, conversation, turn, tools)
    _join_compared(found, rest)
    # "the price of AAPL and multiply it by 12" is a chain of that want; `find_chain` has read it.
    chained = any(want.chain for want in found.wants)
    own = [e for e in expressions if not (id(e) in spans and chained)]
    _add_arithmetic(found, own, text, conversation, turn, tools)
    if not found.wants and not found.problem and not leans:
        follow_up = _follow_up(conversation, turn, text, tools, depth)
        if follow_up:
            return Understanding(wants=follow_up)
    found.wants.sort(key=lambda want: text.find(want.text))
    return found


def _with_facts(text: str, conversation: Conversation, turn: int) -> str:
    """A message with "my city" and "where I live" replaced by what the person said earlier."""
    if not _OWN.search(text):
        return text
    facts: dict[str, str] = {}
    for earlier in conversation.turns[:turn]:
        facts |= stated_facts(earlier.question or "")
    for what, value in facts.items():
        if what == "home":
            text = re.sub(
                r"\b(where i live|where i am from|at home|my (?:home ?town|city|place))\b",
                f"in {value}",
                text,
                flags=re.IGNORECASE,
            )
        elif what != "note":
            spelled = re.escape(what).replace("favourite", "favou?rite")
            text = re.sub(rf"\bmy {spelled}\b(?! is\b)", value, text, flags=re.IGNORECASE)
    return text


def _without(text: str, expressions: Sequence[Expression]) -> str:
    """A text with its arithmetic blanked out; every other character keeps its place."""
    for expression in expressions:
        width = expression.end - expression.start
        text = text[: expression.start] + " " * width + text[expression.end :]
    return text


# arithmetic


def _add_arithmetic(
    found: Understanding,
    expressions: Sequence[Expression],
    text: str,
    conversation: Conversation,
    turn: int,
    tools: Sequence[Tool],
) -> None:
    before: str | None = None
    for expression in expressions:
        written = expression.text
        if expression.refers_back:
            base = f"({before})" if before else _earlier_number(conversation, turn)
            if base is None:
                found.problem = found.problem or (
                    "There is no earlier number in this conversation that I could go on with."
                )
                continue
            written = written.replace("{}", base)
        before = written
        piece = text[expression.start : expression.end]
        want = _calculation(written, piece, tools)
        if want is not None:
            found.wants.append(want)
            continue
        computer = calculator(tools)
        found.problem = found.problem or (
            f"I do not calculate myself, and the tool {computer.name} does not say that it can do “{piece}”."
            if computer
            else f"I do not calculate myself, and I have no tool that does “{piece}”."
        )


def _calculation(expression: str, piece: str, tools: Sequence[Tool]) -> Want | None:
    """A want for an expression, in the spelling that the calculating tool understands."""
    for tool in tools:
        if not tool.calculates:
            continue
        spelled = spell(expression, tool)
        if spelled is not None:
            return Want(tool, [call_with(tool, {tool.required[0].path: spelled})], piece)
    operation = operation_call(tools, expression)
    return Want(operation[0], [operation[1]], piece) if operation else None


def spell(expression: str, tool: Tool) -> str | None:
    """An expression as a tool's description wants it; None where it cannot do what is asked."""
    said = f"{tool.description} {tool.required[0].description}"
    if "sqrt(" in expression and not re.search(r"sqrt|square root", said, re.IGNORECASE):
        return None
    if "^" in said and "**" not in said:
        return expression.replace("**", "^")
    return expression


def calculator(tools: Sequence[Tool]) -> Tool | None:
    """The tool that computes an expression, if there is one."""
    return next((tool for tool in tools if tool.calculates), None)


def _earlier_number(conversation: Conversation, turn: int) -> str | None:
    """The last number that a tool returned before a turn."""
    for earlier in reversed(conversation.turns[:turn]):
        for record in reversed(earlier.records):
            if record.result is not None:
                return number_in(read_result(record.result))
        if earlier.answer and not earlier.records and earlier.question is None:
            numbers = re.findall(r"-?\d+(?:\.\d+)?", earlier.answer)
            return numbers[-1] if numbers else None
    return None


# tools


def _pieces(
    masked: str, text: str, expressions: Sequence[Expression], tools: Sequence[Tool]
) -> list[_Piece]:
    """The parts of a message, each with the tool that most speaks for it."""
    for expression in expressions:
        width = expression.end - expression.start
        masked = masked[: expression.start] + "\0" * width + masked[expression.end :]
    pieces: list[_Piece] = []
    start = 0
    for match in [*_CUT.finditer(masked), None]:
        end = match.start() if match else len(masked)
        body = masked[start:end]
        if body.strip(" \0,.?!"):
            plain = "".join(
                " " if hole == "\0" else kept
                for hole, kept in zip(body, text[start:end], strict=True)
            )
            pieces.append(_Piece(plain, start, end))
        start = match.end() if match else end
    for piece in pieces:
        _choose(piece, tools)
    return pieces


def _choose(piece: _Piece, tools: Sequence[Tool]) -> None:
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
        if score >= NAME_MATCH and filled.missing and _feeder(tool, filled, piece, tools):
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


def _add_tool_wants(
    found: Understanding,
    pieces: list[_Piece],
    text: str,
    conversation: Conversation,
    turn: int,
    tools: Sequence[Tool],
) -> None:
    groups = _grouped(pieces, text)
    for group in groups:
        tool = group.tool
        if tool is None:
            if _asks(group.text):
                found.unanswered.append(group.text.strip())
            continue
        spare = " , ".join(
            piece.text for piece in pieces if not group.start <= piece.start < group.end
        )
        filled = fill(tool, group.text, keyword=group.keyword)
        if filled.missing:
            filled = _completed(tool, filled, group, spare, conversation, turn)
        feeder = _feeder(tool, filled, group, tools) if filled.missing else None
        if feeder is not None:
            found.wants.append(feeder)
        elif filled.missing or not filled.calls:
            found.missing.append((tool, filled.missing))
        else:
            filled.calls = _compared(tool, filled.calls, group.text, conversation, turn)
            chain = find_chain(group.text, tool, filled)
            found.wants.append(Want(tool, filled.calls, group.text.strip(), chain))
            found.wants += _second_tool(group, tool, filled, tools)
    if found.wants:
        # "how many shares can I buy, and what is the price of AAPL": what one part lacks, another asks for.
        served = {want.tool.name for want in found.wants}
        found.missing = [entry for entry in found.missing if entry[0].name not in served]


def _join_compared(found: Understanding, text: str) -> None:
    """ "AAPL costs what, and TSLA, and what is the difference": wants of one tool that one sum is about."""
    alike = [want for want in found.wants if want.tool is found.wants[0].tool and not want.fills]
    if len(alike) < 2 or len(alike) != len(found.wants):
        return
    filled = fill(alike[0].tool, text)
    if [call for want in alike for call in want.calls] != filled.calls:
        return
    chain = find_chain(text, alike[0].tool, filled)
    if chain is not None and len(chain.templates) == 1:
        found.wants = [replace(alike[0], calls=filled.calls, chain=chain, text=text)]
        found.unanswered = [
            piece
            for piece in found.unanswered
            if not _REQUEST.match(piece) or len(content_words(piece)) > 1
        ]


def _grouped(pieces: list[_Piece], text: str) -> list[_Piece]:
    """Pieces that belong together, as one: a subject without a verb goes to its neighbour."""
    groups: list[_Piece] = []
    waiting: _Piece | None = None
    for piece in pieces:
        last = groups[-1] if groups else None
        if piece.tool is None:
            if (
                last is not None
                and last.tool is not None
                and not _stands_alone(piece.text, last.tool)
            ):
                _extend(last, piece, text)
            elif _stands_alone(piece.text, None):
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


def _extend(piece: _Piece, by: _Piece, text: str) -> None:
    piece.end = by.end
    piece.text = text[piece.start : by.end]


def _lacks(piece: _Piece) -> bool:
    return piece.tool is not None and bool(
        fill(piece.tool, piece.text, keyword=piece.keyword).missing
    )


def _stands_alone(text: str, neighbour: Tool | None) -> bool:
    """True for a piece that asks for something of its own, and does not just name another subject."""
    rest = text
    if neighbour is not None:
        for slot in neighbour.required:
            for entity in find(slot, text):
                rest = rest.replace(text[entity.start : entity.end], " ")
    words = [word for word in content_words(rest) if word not in TIME_WORDS]
    if not words:
        return False
    if neighbour is not None and any(slot.kind == "place" for slot in neighbour.required):
        if len(words) == 1 and not _REQUEST.match(text):
            return False  # a place that nobody knows, at the end of a list
    return bool(_REQUEST.match(rest.strip() + " "))


def _asks(text: str) -> bool:
    """True for a piece that wants something, and is no greeting or remark."""
    words = content_words(text)
    if _STATEMENT.match(text) or DENIAL.match(text):
        return False
    return bool(words) and bool(_REQUEST.match(text))


def _completed(
    tool: Tool,
    filled: Filled,
    piece: _Piece,
    spare: str,
    conversation: Conversation,
    turn: int,
) -> Filled:
    """The arguments with the rest of the message and, where it points back, earlier turns looked at."""
    wider = fill(tool, piece.text, spare, keyword=piece.keyword)
    if not wider.missing:
        return wider
    if not (_POINTS_BACK.search(piece.text) or re.match(r"\W*and\b", piece.text, re.IGNORECASE)):
        lead = (conversation.turns[turn].question or "")[: piece.start]
        if not re.fullmatch(
            r"\W*(and|ok|okay|so|now|then|what about|how about)\W*", lead, re.IGNORECASE
        ):
            return wider
    values = dict(wider.partial)
    calls: list[dict[str, Any]] | None = None
    for slot in wider.missing:
        earlier = _earlier_things(slot, conversation, turn, plural=bool(_PLURAL.search(piece.text)))
        if not earlier:
            return wider
        values[slot.path] = earlier[0]
        if len(earlier) > 1 and slot is tool.entity:
            calls = [call_with(tool, {**values, slot.path: value}) for value in earlier]
    return Filled(calls=calls or [call_with(tool, values)], partial=values, spare=wider.spare)


def _compared(
    tool: Tool, calls: list[dict[str, Any]], text: str, conversation: Conversation, turn: int
) -> list[dict[str, Any]]:
    """The calls, with the earlier subject first where "there" or "it" is compared with a new one."""
    slot = tool.entity
    if (
        slot is None
        or len(calls) != 1
        or not (_COMPARED.search(text) and _POINTS_BACK.search(text))
    ):
        return calls
    earlier = _earlier_things(slot, conversation, turn, plural=False)
    others = [_with(calls[0], slot.path, value) for value in earlier]
    return [*(call for call in others if call not in calls), *calls]


def _earlier_things(
    slot: Slot, conversation: Conversation, turn: int, *, plural: bool
) -> list[Any]:
    """What earlier turns were about, of the kind that a slot wants; the last one first."""
    if slot.kind not in ENTITY_KINDS:
        return []
    for earlier in reversed(conversation.turns[max(0, turn - 20) : turn]):
        things: list[Any] = []
        for record in reversed(earlier.records):
            for value in _leaves(record.arguments or {}):
                if find(slot, f"for {value}") and value not in things:
                    things.append(value)
        if not things:
            things = [entity.value for entity in find(slot, earlier.question or "") if entity.known]
        if things:
            return list(reversed(things)) if plural else things[:1]
    return []


def _leaves(arguments: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for value in arguments.values():
        for leaf in (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, list)
            else [value]
        ):
            if isinstance(leaf, str):
                found.append(leaf)
    return found


def _feeder(tool: Tool, filled: Filled, piece: _Piece, tools: Sequence[Tool]) -> Want | None:
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


def _second_tool(piece: _Piece, tool: Tool, filled: Filled, tools: Sequence[Tool]) -> list[Want]:
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


# follow-ups


def _follow_up(
    conversation: Conversation,
    turn: int,
    text: str,
    tools: Sequence[Tool],
    depth: int,
    *,
    strictly: bool = False,
) -> list[Want]:
    """ "And in Portland?": what was asked before, about something else.

    Args:
        strictly: the message names another subject and nothing else.
    """
    if depth <= 0 or DENIAL.match(text):
        return []
    lead = _LEAD.match(text)
    body = text[lead.end() :] if lead else text
    for back in range(turn - 1, max(-1, turn - 4), -1):
        earlier = _earlier_wants(conversation, back, tools, depth - 1)
        changed = [
            new for want in earlier if (new := _about(want, text, body, strictly)) is not None
        ]
        for want in changed:
            want.calls = _compared(want.tool, want.calls, text, conversation, turn)
        if changed or earlier:
            return changed
        completed = _completing(conversation, back, text, body, tools, depth - 1)
        if completed or conversation.turns[back].records:
            return completed
    return []


def _completing(
    conversation: Conversation,
    turn: int,
    text: str,
    body: str,
    tools: Sequence[Tool],
    depth: int,
) -> list[Want]:
    """ "Seattle", after "the weather where?": what an earlier turn lacked, and nothing more."""
    asked = conversation.turns[turn].question or ""
    for tool, slots in _understand(conversation, turn, tools, depth).missing[:1]:
        filled = fill(tool, f"{asked} , for {body}")
        new = fill(tool, f"for {body}")
        named = " ".join(f"for {body}"[entity.start : entity.end] for entity in new.used)
        rest = [
            word
            for word in content_words(body)
            if word not in words_of(named) and word not in TIME_WORDS
        ]
        if filled.calls and not filled.missing and slots and len(rest) <= 1:
            return [Want(tool, filled.calls, text, find_chain(asked, tool, filled))]
    return []


def _earlier_wants(
    conversation: Conversation, turn: int, tools: Sequence[Tool], depth: int
) -> list[Want]:
    """What an earlier turn asked for: from its question, or else from the calls that were made."""
    wants = _understand(conversation, turn, tools, depth).wants
    if wants:
        return wants
    by_name = {tool.name: tool for tool in tools}
    return [
        Want(by_name[record.tool], [record.arguments], "")
        for record in conversation.turns[turn].records
        if record.tool in by_name and record.arguments is not None
    ]


def _about(want: Want, text: str, body: str, strictly: bool) -> Want | None:
    """An earlier want with the thing or the number that a short text names instead; None if it names none."""
    tool = want.tool
    if tool.calculates:
        return None
    inner = fill(tool, text)
    named = " ".join(text[entity.start : entity.end] for entity in inner.used)
    words = [
        word
        for word in content_words(body)
        if word not in TIME_WORDS and word not in words_of(named)
    ]
    numbers = {
        "percent",
        "years",
        "year",
        "month",
        "months",
        "days",
        "day",
        "dollars",
        "shares",
        "share",
        "units",
    }
    slot_words = {word for slot in tool.slots for word in slot.words}
    unknown = [word for word in words if word not in numbers | slot_words]
    if unknown and all(
        terms_of(word) & (tool.description_terms | tool.name_terms) for word in unknown
    ):
        return (
            None if inner.used or strictly else replace(want, text=text)
        )  # "and how many closed ones?"
    if unknown:
        return None
    base = want.calls[0]
    entity = tool.entity
    if entity is not None and entity.path in inner.partial:
        values = inner.partial[entity.path]
        new = [
            _with(base, entity.path, v)
            for v in (values if isinstance(values, list) and not entity.many else [values])
        ]
        others = {path: v for path, v in inner.partial.items() if path != entity.path}
        for path, value in others.items():
            new = [_with(call, path, value) for call in new]
        chain = want.chain.for_calls(len(new), inner.spare) if want.chain else None
        return replace(want, calls=new, chain=chain, text=text)
    changes = {path: v for path, v in inner.partial.items() if not isinstance(v, list)}
    if changes:
        call = base
        for path, value in changes.items():
            call = _with(call, path, value)
        return replace(want, calls=[call], text=text)
    if want.chain and inner.spare and (again := want.chain.with_amount(inner.spare[0].value)):
        return replace(want, chain=again, text=text)
    return None


def _with(arguments: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**arguments, path[0]: value}
    return {**arguments, path[0]: _with(arguments.get(path[0]) or {}, path[1:], value)}
