"""What a user's message asks for: a list of wants, each a piece of the message with the calls that serve it.

A message is cut where its parts ask for different things; a part without a subject of its own takes it from
its neighbours, or, where it points back ("there", "and in Portland?"), from earlier turns. Left out: what the
tools answered, and the words of the reply.
"""

from collections.abc import Sequence
from dataclasses import replace

from workshop_lib.llm.rules.arithmetic import Expression, find_expressions
from workshop_lib.llm.rules.calculation import add_arithmetic
from workshop_lib.llm.rules.chains import find_chain
from workshop_lib.llm.rules.conversation import Conversation
from workshop_lib.llm.rules.entities import quoted
from workshop_lib.llm.rules.follow_ups import AGAIN, Reader, follow_up
from workshop_lib.llm.rules.pieces import REQUEST, Piece, asks, cut, feeder, grouped, second_tool
from workshop_lib.llm.rules.references import compared, completed, with_facts
from workshop_lib.llm.rules.tool_choice import content_words, fill
from workshop_lib.llm.rules.tool_schema import Tool
from workshop_lib.llm.rules.wants import Understanding, Want
from workshop_lib.llm.rules.wording import plain_signs

LONGEST = 2000  # characters of a message that rules can be expected to understand
_LOOK_BACK = 8  # turns that a follow-up may lean on


def understand(conversation: Conversation, tools: Sequence[Tool]) -> Understanding:
    """What the current turn of a conversation asks for."""
    known: dict[int, Understanding] = {}

    def read(turn: int, depth: int) -> Understanding:
        # Each turn is understood once: a row of follow-ups would else be read over and over.
        if turn not in known:
            known[turn] = _understand(conversation, turn, tools, depth, read)
        return known[turn]

    return read(len(conversation.turns) - 1, _LOOK_BACK)


def _understand(
    conversation: Conversation, turn: int, tools: Sequence[Tool], depth: int, read: Reader
) -> Understanding:
    asked = plain_signs((conversation.turns[turn].question or "").strip())
    text = with_facts(asked, conversation, turn)
    found = Understanding()
    if not text or len(text) > LONGEST:
        return found
    masked = text
    for mark in quoted(text):
        hidden = "q" * (mark.end - mark.start - 2)  # what is quoted is passed on, not read
        masked = f'{masked[: mark.start]}"{hidden}"{masked[mark.end :]}'
    expressions = find_expressions(masked)
    pieces = cut(masked, text, expressions, tools)
    leaning = [expression for expression in expressions if expression.refers_back]
    if not expressions and (AGAIN.match(text) or all(p.keyword is None for p in pieces)):
        # "How about TSLA?" repeats what was asked before, with all that followed from it.
        repeated = follow_up(conversation, turn, text, tools, depth, read, strictly=True)
        if repeated:
            return Understanding(wants=repeated)
    rest = _without(text, [e for e in expressions if e not in leaning])
    _add_tool_wants(found, pieces, rest, conversation, turn, tools)
    _join_compared(found, rest)
    # "the price of AAPL and multiply it by 12" is a chain of that want; `find_chain` has read it.
    chained = leaning if any(want.chain for want in found.wants) else []
    own = [expression for expression in expressions if expression not in chained]
    add_arithmetic(found, own, text, conversation, turn, tools)
    if not found.wants and not found.problem and not leaning:
        repeated = follow_up(conversation, turn, text, tools, depth, read)
        if repeated:
            return Understanding(wants=repeated)
    found.wants.sort(key=lambda want: text.find(want.text))
    return found


def _without(text: str, expressions: Sequence[Expression]) -> str:
    """A text with its arithmetic blanked out; every other character keeps its place."""
    for expression in expressions:
        width = expression.end - expression.start
        text = text[: expression.start] + " " * width + text[expression.end :]
    return text


def _add_tool_wants(
    found: Understanding,
    pieces: list[Piece],
    text: str,
    conversation: Conversation,
    turn: int,
    tools: Sequence[Tool],
) -> None:
    groups = grouped(pieces, text)
    for group in groups:
        tool = group.tool
        if tool is None:
            if asks(group.text):
                found.unanswered.append(group.text.strip())
            continue
        spare = " , ".join(
            piece.text for piece in pieces if not group.start <= piece.start < group.end
        )
        filled = fill(tool, group.text, keyword=group.keyword)
        if filled.missing:
            filled = completed(tool, filled, group, spare, conversation, turn)
        fed = feeder(tool, filled, group, tools) if filled.missing else None
        if fed is not None:
            found.wants.append(fed)
        elif filled.missing or not filled.calls:
            found.missing.append((tool, filled.missing))
        else:
            filled.calls = compared(tool, filled.calls, group.text, conversation, turn)
            chain = find_chain(group.text, tool, filled)
            found.wants.append(Want(tool, filled.calls, group.text.strip(), chain))
            found.wants += second_tool(group, tool, filled, tools)
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
            if not REQUEST.match(piece) or len(content_words(piece)) > 1
        ]
