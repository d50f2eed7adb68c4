"""What of a conversation must not be lost when it is cut short, found by rules: an extract.

Sentences are chosen, never written. First come what a person has told or decided, and what was promised; of
two values for one thing the later one is kept. Then, as far as there is room, results and questions with
figures, the latest first. Pure, so that workflow code may use it. Left out: understanding.
"""

import re
from collections.abc import Iterator, Sequence

LONGEST = 240  # characters of one sentence
LEAST_SHARE = (
    3  # what nobody told or promised gets at most one third of the extract, and half of itself
)
OPEN = "Open: "  # stands before a promise

_PROMISE = re.compile(
    r"\b(?:promis\w+|I will|I'll|we will|we'll|remind\w*|still open|pending|deadline|must|later)\b",
    re.I,
)
_TOLD = re.compile(
    r"\b(?:decid\w+|agree\w*|approv\w+|reject\w+|remember|until|never|always|prefer\w*|my|call me|I am|I'm"
    r"|correction|actually|instead|our|no longer)\b",
    re.I,
)
_FIGURE = re.compile(r"\d|(?-i:\b[A-Z]{2,}\b)")
_ERROR = re.compile(r"\b(?:cannot|error)\b", re.I)
_MARK = re.compile(r"[A-Za-z]*[A-Z][\w-]*\d[\w-]*|\d(?:[\d.,:/-]*\d)?")  # ids and numbers
_NO_MORE = re.compile(r"\b(?:not|instead of|rather than) \S+", re.I)  # corrected in passing
_QUESTION = re.compile(
    r"\?|^\W*(?:wh\w+|how|is|are|do|does|can|could|tell|give|show|get|calculate)\b", re.I
)
_FACT = re.compile(
    r"\b(?:my|the|our) (?P<what>[\w' -]{2,40}?)(?: is|'s| are| was) (?:now |called |named )?"
    r"(?P<value>[^.!?;]+)"
    r"|\b(?:I'm called|call me|I'm|I am) (?P<name>[A-Z]\w+)\s*[.!,]?(?:\s|$)", re.I)  # fmt: skip
_LINE = re.compile(r"^\s*(?:Open: )?(user|agent|tool|before)\s*: (.+)$", re.I)


def facts(texts: Sequence[str]) -> list[tuple[str, str]]:
    """What a person has told, as (what, value): ("door code", "4471"), latest last."""
    found = []
    for sentence in re.split(r"(?<=[.!?;])\s+|,\s+(?:and|but)\s+|\n", "\n".join(texts)):
        asks = "?" in sentence or (_QUESTION.match(sentence) and "remember" not in sentence)
        for told in _FACT.finditer("" if asks else sentence):
            value = re.split(
                r",? by the way|, (?:please|thanks|not)", told["value"] or told["name"]
            )[0]
            if told["what"] or value[0].isupper():
                what = (told["what"] or "name").lower().replace("favorite", "favourite")
                found.append((what, value.strip(" ,")))
    return found


def spoken(who: str, text: str) -> str:
    """What somebody has said as one line: "User: …". No line break in it can begin another."""
    return f"{who}: {' '.join(text.split())}"


def extract(lines: Sequence[str], most: int) -> str:
    """The lines' sentences that matter, oldest first, and what was promised at the end.

    Args:
        lines: as `spoken` writes them, or as an extract has them, oldest first.
        most: characters.
    """
    sentences = list(dict.fromkeys(reversed([*_sentences(lines)])))[::-1]
    ranks = _without_corrected([(_rank(sentence), sentence) for sentence in sentences])
    # What it began with says what it is about.
    order = sorted(range(len(ranks)), key=lambda n: (ranks[n][0] // 3, n == 0, ranks[n][0] % 3, n))
    said = sum(map(len, sentences))
    kept, room, spare = set[int](), most, min(most // LEAST_SHARE, said // 2)
    for index in reversed(order):
        rank, sentence = ranks[index]
        needed = len(sentence) + len(OPEN) + 1
        if not rank or needed > (room if rank >= 3 else min(room, spare)):
            continue
        kept.add(index)
        room, spare = room - needed, spare - (needed if rank < 3 else 0)
    chosen = [sentences[index] for index in sorted(kept)]
    promised = [f"{OPEN}{sentence}" for sentence in chosen if _PROMISE.search(sentence)]
    return "\n".join([*(one for one in chosen if not _PROMISE.search(one)), *promised])


def missing_from(summary: str, lines: Sequence[str]) -> list[str]:
    """The ids and numbers in what the lines tell and promise that a summary of them lacks."""
    told = [_NO_MORE.sub("", one) for one in _sentences(lines) if _rank(one) >= 3]
    marks = {mark for sentence in told for mark in _MARK.findall(sentence)}
    held = r"(?<!\w){}(?!\w)".format
    return sorted(mark for mark in marks if not re.search(held(re.escape(mark)), summary))


def _sentences(lines: Sequence[str]) -> Iterator[str]:
    """Who said what, a sentence a line."""
    for line in lines:
        if told := _LINE.match(line):
            for sentence in re.split(r"(?<=[.!?])\s+", told[2].strip()):
                if sentence:
                    yield f"{told[1].capitalize()}: {sentence[:LONGEST]}"


def _rank(sentence: str) -> int:
    """How much a sentence matters: 3 what was told or promised, 2 a result, 1 a question, 0 small talk."""
    who, _, text = sentence.partition(": ")
    if who != "Tool" and _PROMISE.search(text) and "?" not in text:
        return 3
    asks = bool(_QUESTION.search(text)) and "remember" not in text
    if who == "User" and not asks and (_TOLD.search(text) or facts([text])):
        return 3
    if not (_FIGURE.search(text) or _ERROR.search(text)):
        return 0
    return 1 if asks or who == "Tool" else 2


def _without_corrected(ranked: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """What was told of a thing that was told of later, too, does not matter any more."""
    later, kept = set[str](), list[tuple[int, str]]()
    for rank, sentence in reversed(ranked):
        who, _, text = sentence.partition(": ")
        told = {what for what, _ in facts([text])} if rank >= 3 and who == "User" else set()
        kept.append((0 if told and told <= later else rank, sentence))
        later |= told
    return kept[::-1]
