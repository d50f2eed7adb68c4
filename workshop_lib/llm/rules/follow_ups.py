"""Messages that repeat an earlier question about something else: "and in Portland?", "with 7 %?".

The earlier question's wants are taken over with the new subject or number in them. Left out: pronouns, which
`references` reads.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from workshop_lib.llm.rules.chains import Chain, find_chain
from workshop_lib.llm.rules.conversation import Conversation
from workshop_lib.llm.rules.lexicon import TIME_WORDS, words_in
from workshop_lib.llm.rules.pieces import DENIAL
from workshop_lib.llm.rules.references import compared
from workshop_lib.llm.rules.tool_choice import content_words, fill
from workshop_lib.llm.rules.tool_schema import Tool
from workshop_lib.llm.rules.wants import Understanding, Want, with_value
from workshop_lib.llm.rules.wording import terms_of, words_of

# Understands an earlier turn: its place, and how many turns may still be looked back.
Reader = Callable[[int, int], Understanding]

_LEAD = re.compile(
    r"^\W*(?:(?:and|or|ok|okay|so|now|then|also|what|how|about|same|for|in|at|of|on|with|the|"
    r"thanks|great|cool|please|"
    r"again|is|it|if|i|do|that|instead|over|to|from|a|just|only|but|change|make|try|use|there|"
    r"too)\b\W*)+",
    re.IGNORECASE,
)
AGAIN = re.compile(r"^\W*(and|what about|how about|what if|same for|now)\b", re.IGNORECASE)
_UNIT_WORDS = words_in("percent years year months month days day dollars shares share units")
_OF_THEM = re.compile(
    r"\bhow much\b.*\d|\d\s+(?:of\s+(?:them|those|these|it)|shares?|units?|pieces)\b", re.IGNORECASE
)


def follow_up(
    conversation: Conversation,
    turn: int,
    text: str,
    tools: Sequence[Tool],
    depth: int,
    read: Reader,
    *,
    strictly: bool = False,
) -> list[Want]:
    """ "And in Portland?": what was asked before, about something else.

    Args:
        read: understands an earlier turn.
        strictly: the message names another subject and nothing else.
    """
    if depth <= 0 or DENIAL.match(text):
        return []
    lead = _LEAD.match(text)
    body = text[lead.end() :] if lead else text
    for back in range(turn - 1, max(-1, turn - 4), -1):
        earlier = _earlier_wants(conversation, back, tools, depth - 1, read)
        changed = [
            new for want in earlier if (new := _about(want, text, body, strictly)) is not None
        ]
        for want in changed:
            want.calls = compared(want.tool, want.calls, text, conversation, turn)
        if changed or earlier:
            return changed
        added = _completing(conversation, back, text, body, depth - 1, read)
        if added or conversation.turns[back].records:
            return added
    return []


def _completing(
    conversation: Conversation,
    turn: int,
    text: str,
    body: str,
    depth: int,
    read: Reader,
) -> list[Want]:
    """ "Seattle", after "the weather where?": what an earlier turn lacked, and nothing more."""
    asked = conversation.turns[turn].question or ""
    for tool, slots in read(turn, depth).missing[:1]:
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
    conversation: Conversation, turn: int, tools: Sequence[Tool], depth: int, read: Reader
) -> list[Want]:
    """What an earlier turn asked for: from its question, or else from the calls that were made."""
    wants = read(turn, depth).wants
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
    if not inner.partial and not words and set(words_of(body)) & TIME_WORDS:
        # "and tomorrow?": the same, and the answer says what the tool knows of days
        return None if strictly else replace(want, text=text)
    slot_words = {word for slot in tool.slots for word in slot.words}
    unknown = [word for word in words if word not in _UNIT_WORDS | slot_words]
    if unknown and all(
        terms_of(word) & (tool.description_terms | tool.name_terms) for word in unknown
    ):
        # "and how many closed ones?" asks the same tool the same
        return None if inner.used or strictly else replace(want, text=text)
    if unknown:
        return None
    base = want.calls[0]
    entity = tool.entity
    if entity is not None and entity.path in inner.partial:
        values = inner.partial[entity.path]
        new = [
            with_value(base, entity.path, v)
            for v in (values if isinstance(values, list) and not entity.many else [values])
        ]
        others = {path: v for path, v in inner.partial.items() if path != entity.path}
        for path, value in others.items():
            new = [with_value(call, path, value) for call in new]
        chain = want.chain.for_calls(len(new), inner.spare) if want.chain else None
        return replace(want, calls=new, chain=chain, text=text)
    changes = {path: v for path, v in inner.partial.items() if not isinstance(v, list)}
    if changes:
        call = base
        for path, value in changes.items():
            call = with_value(call, path, value)
        return replace(want, calls=[call], text=text)
    if want.chain is None and tool.entity is not None and inner.spare and _OF_THEM.search(text):
        amount = inner.spare[0].value
        return replace(want, chain=Chain((f"{amount} * {{0}}",), True, amount), text=text)
    if want.chain and inner.spare and (again := want.chain.with_amount(inner.spare[0].value)):
        return replace(want, chain=again, text=text)
    return None
