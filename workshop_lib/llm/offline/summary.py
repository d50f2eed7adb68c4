"""A conversation summed up: what was decided and promised, ids and figures, in the words that were used.

Sentences are chosen and never written: one is kept where it holds a figure, an id, a decision or a
promise. The conversation may stand in the messages, or as a transcript in the message that asks for it.
Left out: wording.
"""

import re
from collections.abc import Iterator

from workshop_lib.llm.offline.talk import Talk

MOST_CHARS = 2400  # of a summary
LONGEST = 240  # characters of one line

_ASKS = re.compile(r"\b(?:summari[sz]e|sum up|recap|condense|summary of)\b", re.I)
_WHAT = re.compile(
    r"\b(?:conversation|chat|discussion|dialogue|so far|talk|messages|session|transcript|above|history)\b"
    r"|^\W*(?:please )?(?:summari[sz]e|recap)(?: this| it| that)?\W*$", re.I)  # fmt: skip
_PROMISE = re.compile(
    r"\b(?:promis\w+|I will|I'll|we will|we'll|remind\w*|still open|pending|deadline|must|later)\b",
    re.I,
)
_WEIGHTY = re.compile(
    rf"\d|(?-i:\b[A-Z]{{2,}}\b)|{_PROMISE.pattern}|\b(?:decid\w+|agree\w*|approv\w+|reject\w+|remember|until|never"
    r"|always|prefer\w*|my|called|cannot|error)\b", re.I)  # fmt: skip
_SPOKEN = re.compile(r"^\s*(user|assistant|agent|human|customer|tool|ai)\s*[:>]\s*(.+)$", re.I)


def asks_for_summary(talk: Talk) -> bool:
    """Does a request want a conversation summed up: by its system message, or by what was said last?"""
    order = next(
        (n[:160] for n in talk.notes if re.match(r"\W*(?:\w+ ){0,4}(?:summar|condense)", n, re.I)),
        "",
    )
    return any(
        _ASKS.search(t) and _WHAT.search(t) for t in (order, talk.text[:400], talk.text[-300:])
    )


def summarise(talk: Talk) -> str:
    """The summary, in lines of who said what; promises come once more at the end."""
    lines = list(dict.fromkeys(_lines(talk)))
    kept = [line for line in lines if _WEIGHTY.search(line.partition(": ")[2])] or lines
    while sum(map(len, kept)) > MOST_CHARS and len(kept) > 2:
        # The beginning says what it is about and the end where it stands: the middle goes first.
        plain = [i for i, line in enumerate(kept[1:-1], 1) if not _PROMISE.search(line)]
        kept.pop(plain[len(plain) // 3] if plain else 1)
    promises = [line for line in kept if _PROMISE.search(line)]
    open_ones = ["Open: " + " | ".join(promises)] if promises else []
    return (
        "\n".join([*kept, *open_ones])
        or "There is nothing before this message that I could sum up."
    )


def _lines(talk: Talk) -> Iterator[str]:
    """Who said what, a sentence a line."""
    began = [("Before", note.partition("began with: ")[2]) for note in talk.notes]
    spoken = [
        said for turn in talk.earlier for said in (("User", turn.text), ("Agent", turn.answer))
    ]
    written = [match for line in talk.text.splitlines() if (match := _SPOKEN.match(line))]
    told = [
        ("User" if m[1].lower() in ("user", "human", "customer") else "Agent", m[2])
        for m in written
    ]
    for who, text in [*began, *spoken, *told]:
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", (text or "").strip()):
            if sentence.strip():
                yield f"{who}: {sentence.strip()[:LONGEST]}"
