"""What a message points back to: "there", "its price", "my city".

Subjects come from the calls and questions of earlier turns, facts from what the person said. Left out:
messages that repeat a whole question about something else, which `follow_ups` reads.
"""

import re
from typing import Any

from workshop_lib.llm.rules.conversation import Conversation
from workshop_lib.llm.rules.entities import find
from workshop_lib.llm.rules.facts import stated_facts
from workshop_lib.llm.rules.pieces import Piece
from workshop_lib.llm.rules.tool_choice import Filled, call_with, fill
from workshop_lib.llm.rules.tool_schema import ENTITY_KINDS, Slot, Tool
from workshop_lib.llm.rules.wants import with_value

_OWN = re.compile(r"\bmy\b|\bi live\b|\bi am from\b|\bat home\b", re.IGNORECASE)
_COMPARED = re.compile(r"\b(than|compare[ds]?|comparison|versus|vs)\b", re.IGNORECASE)
_POINTS_BACK = re.compile(
    r"\b(there|it|its|it's|that|this|same|they|them|their|those|these|he|she|his|her|here|both|"
    r"again|which)\b",
    re.IGNORECASE,
)
_PLURAL = re.compile(r"\b(they|them|their|those|these|both|all|which)\b", re.IGNORECASE)


def with_facts(text: str, conversation: Conversation, turn: int) -> str:
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


def completed(
    tool: Tool,
    filled: Filled,
    piece: Piece,
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


def compared(
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
    others = [with_value(calls[0], slot.path, value) for value in earlier]
    return [*(call for call in others if call not in calls), *calls]


def _earlier_things(
    slot: Slot, conversation: Conversation, turn: int, *, plural: bool
) -> list[Any]:
    """What earlier turns were about, of the kind that a slot wants; the last one first."""
    if slot.kind not in ENTITY_KINDS:
        return []
    things: list[Any] = []
    for earlier in reversed(conversation.turns[max(0, turn - 20) : turn]):
        here: list[Any] = []
        for record in reversed(earlier.records):
            leaves = _leaves(record.arguments or {})
            here += [v for v in leaves if find(slot, f"for {v}") and v not in things]
        if not here:
            named = [entity.value for entity in find(slot, earlier.question or "") if entity.known]
            here = [value for value in named if value not in things]
        things += here
        if len(things) > plural:
            break
    return list(reversed(things)) if plural else things[:1]


def _leaves(arguments: dict[str, Any]) -> list[str]:
    """The texts among the values of a call, one level deep."""
    values: list[Any] = []
    for value in arguments.values():
        inner = value.values() if isinstance(value, dict) else value
        values += inner if isinstance(inner, list) else [inner] if inner is value else list(inner)
    return [value for value in values if isinstance(value, str)]
