"""What is about the conversation itself: what was asked, told and answered, a summary of it, and small talk.

All of it is answered from the messages of the request, and from the note in its system message of how it
began. What a window has dropped is said to be out of sight, not guessed. In a summary sentences are chosen,
not written: one is kept where it holds a figure, an id, a decision or a promise. The conversation to be
summed up may stand in the messages, or as a transcript in the message that asks for it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from workshop_lib.llm import extract
from workshop_lib.llm.offline.results import came, describe
from workshop_lib.llm.offline.schema import Tool
from workshop_lib.llm.offline.talk import Talk, leaves
from workshop_lib.llm.offline.words import content, content_words, plain, split_name, stem

WHO = "I am the workshop's offline model: a set of rules, not a language model."
HOW = "I match your words to tools, call them, and quote what they return."
NOTED = "I see: {}. I can look that up in this conversation as long as it is in view."
MOST = 20  # questions or tools that are listed
MOST_CHARS = 2400  # of a summary

_SUMS_UP = re.compile(r"\b(?:summari[sz]e|sum up|recap|condense|summary of)\b", re.I)
_ALL_OF_IT = re.compile(
    r"\b(?:conversation|chat|discussion|dialogue|so far|talk|messages|session|transcript|above|history)\b"
    r"|^\W*(?:please )?(?:summari[sz]e|recap)(?: this| it| that)?\W*$", re.I)  # fmt: skip
_SPOKEN = re.compile(
    r"^\s*(?:Open: )?(user|assistant|agent|human|customer|tool|ai)\s*[:>]\s*(.+)$", re.I
)
_SPEAKERS = dict.fromkeys(("user", "human", "customer"), "User") | {"tool": "Tool"}
_MOST = re.compile(r"\bat most ([1-9]\d{1,5}) characters\b")
_SUMMARY = re.compile(r"summary of the earlier conversation[^\n]*:\n(.+)", re.I | re.S)

_BEGAN = re.compile(r"conversation began with: [\"“]?(?P<text>.+?)[\"”]?\s*(?:\n|$)", re.I)
_ABOUT_TALK = re.compile(
    r"\b(?:did|have|had) (?:i|you|we)\b.*\b(?:ask|say|said|tell|told|mention|start|begin|answer)|\bagain\W*$"
    r"|\b(?:first|second|third|last|previous|earlier) (?:question|message|answer|reply|result|thing)"
    r"|\b(?:remember|recall|repeat|remind)\b|\bwhat (?:was|were)\b|\bwhat(?:'s|s| is| are) my\b|\bwho am i\b"
    r"|\b(?:my|which) questions\b", re.I)  # fmt: skip
_DULL = content(
    "remember ask question tell say answer repeat last first previous know recall result message"
    " before again second third mention remind response outcome number called reply"
)
_ORDINALS = ["first", "second", "third", "fourth", "fifth"]
_SMALL = tuple((re.compile(pattern, re.I), said) for pattern, said in (
    (r"\b(?:what|how) (?:else )?(?:can|could|do) you (?:do|help|offer)\b|\bwhat tools\b|^\W*help(?: me)?\W*$"
     r"|\b(?:what|which|who) (?:\w+ )?are you\b|\bare you (?:an? )?(?:ai|bot|human|chatgpt)\b",
     f"{WHO} {HOW} {{}}"),
    (r"^\W*(?:hi|hello|hey|good (?:morning|afternoon|evening|day)|hallo|hola|how are you)\b"
     r"(?:[\s,!]+(?:there|again|all|you|agent|how(?:'s| is| are)?|it|things|going))*\W*$",
     f"Hello! {WHO} {{}}"),
    (r"^\W*(?:(?:ok(?:ay)?|great|cool|perfect|many)\W+)*(?:thanks|thank you|thx)\b[^?]{0,30}$",
     "You are welcome."),
    (r"^\W*(?:ok(?:ay)?|great|cool|nice|good|fine|got it|yes|no|sure|bye|goodbye)\W*$",
     "All right. What would you like to know?"),
))  # fmt: skip


def small_talk(text: str, tools: Sequence[Tool]) -> str | None:
    """A reply to small talk, or None where the message is none."""
    said = next((said for pattern, said in _SMALL if pattern.search(text)), None)
    return said.format(list_tools(tools)) if said else None


def list_tools(tools: Sequence[Tool]) -> str:
    """The tools in one line."""
    described = []
    for tool in tools[:MOST]:
        first = re.split(r"\.(?:\s|$)|\n", tool.description.strip())[0][:160]
        described.append(f"{tool.name} ({first})" if first else tool.name)
    return f"Tools I have: {'; '.join(described)}." if tools else "I have no tools here."


def facts(texts: Iterable[str]) -> list[tuple[str, str]]:
    """What a person has told, as (what, value): ("door code", "4471"), latest last."""
    return extract.facts([plain(text) for text in texts])


def told_before(talk: Talk) -> list[str]:
    """What the user has said before: what a summary in the system message has of it, and what is in view."""
    return [*_summed_up(talk, "User"), *talk.told]


def _summed_up(talk: Talk, who: str) -> list[str]:
    """The lines of one speaker in the summary that a system message holds."""
    noted = [m[1].splitlines() for note in talk.notes if (m := _SUMMARY.search(note))]
    lines = [_SPOKEN.match(line) for line in chain.from_iterable(noted)]
    return [line[2] for line in lines if line and line[1].title() == who]


def recall(talk: Talk, tools: Sequence[Tool]) -> str | None:
    """The answer to a question about the conversation, or None where it is about something else."""
    lower = plain(talk.text).lower()
    if len(lower) > 400 or not _ABOUT_TALK.search(lower):
        return None
    found = _of_facts(lower, talk) or _of_questions(lower, talk) or _of_results(lower, talk, tools)
    if not found and re.search(r"\bmy (?:name|favou?rite)\b|\bwho am i\b", lower):
        return "You have not told me that in what I can see of this conversation."
    return found


def _of_facts(lower: str, talk: Talk) -> str | None:
    """What the user has told before."""
    asked = {stem(word) for word in content_words(lower.replace("who am i", "my name"))} - _DULL
    for what, value in reversed(facts(told_before(talk))):
        known = {stem(word) for word in content_words(what)}
        half = 2 * len(known & asked) >= len(known)
        if known and half and asked <= known | {stem(word) for word in content_words(value)}:
            return f"You told me: {what} is {value}."
    return None


def _of_questions(lower: str, talk: Talk) -> str | None:
    """The user's own questions."""
    asks = r"\b(?:i|we)\b.*\b(?:ask|say|said|want|tell|told|start|begin)|\b(?:question|message|thing)s?\b"
    if not re.search(asks, lower) or re.search(r"\b(?:answer|reply|result|about)\b", lower):
        return None
    told, began = (
        talk.told,
        next((m["text"] for note in talk.notes if (m := _BEGAN.search(note))), ""),
    )
    slid = talk.turns[0].text is None or bool(began)
    if not told:
        return "This is the first message that I can see: you have asked nothing before it."
    if "questions" in lower:
        listed = "; ".join(f"({n}) “{text}”" for n, text in enumerate(told[-MOST:], 1))
        return f"You asked, {'as far as I can still see' if slid else 'so far'}: {listed}."
    word = next((w for w in _ORDINALS if w in lower), "first" if "start" in lower else "")
    if not word:
        before = re.search(r"before (?:that|it)\b", lower) and len(told) > 1
        return f"Before this you asked: “{told[-2 if before else -1]}”"
    if began and word == "first":
        return f"Your first question was: “{began}”"
    if slid:
        return f"The beginning is no longer in what I am given. The earliest that I can see is: “{told[0]}”"
    place = min(_ORDINALS.index(word), len(told) - 1)
    return f"Your {_ORDINALS[place]} question was: “{told[place]}”"


def _of_results(lower: str, talk: Talk, tools: Sequence[Tool]) -> str | None:
    """What was said about a thing, by the values and the tools of earlier calls; or the latest answer."""
    if not re.search(
        r"\b(?:told|tell|say|said|ask|was|were|answer\w*|repl\w+|repeat|again|remember)\b", lower
    ):
        return None
    topic, by_name = content(lower) - _DULL, {tool.name: tool for tool in tools}
    ranked: list[tuple[int, str]] = []
    for called in [called for turn in talk.earlier for called in turn.calls if came(called)]:
        values = [str(value).lower() for value in leaves(called.arguments)]
        names = content(" ".join([*split_name(called.name), *(called.arguments or {})]))
        rank = 2 * len(topic & content(" ".join(values))) + len(topic & names)
        rank += 4 * sum(value in lower for value in values if re.search(r"\d", value))
        ranked += [(rank, describe(called, by_name.get(called.name)))] if rank else []
    if ranked:
        return f"I said: {max(reversed(ranked), key=lambda pair: pair[0])[1]}"
    answers = [turn.answer for turn in talk.earlier if turn.answer]
    if not answers or topic or re.search(r"\d", lower):
        return None
    return f"I said: “{answers[0 if 'first' in lower else -1]}”"


def asks_for_summary(talk: Talk) -> bool:
    """Does a request want a conversation summed up: by its system message, or by what was said last?"""
    order = next(
        (n[:160] for n in talk.notes if re.match(r"\W*(?:\w+ ){0,4}(?:summar|condense)", n, re.I)),
        "",
    )
    return any(
        _SUMS_UP.search(t) and _ALL_OF_IT.search(t)
        for t in (order, talk.text[:400], talk.text[-300:])
    )


def summarise(talk: Talk) -> str:
    """The summary, in lines of who said what; promises come at the end."""
    wanted = next((int(m[1]) for note in talk.notes if (m := _MOST.search(note))), MOST_CHARS)
    lines = list(_lines(talk))
    return (
        extract.extract(lines, wanted)
        or "\n".join(lines)[:wanted]
        or "There is nothing before this message that I could sum up."
    )


def _lines(talk: Talk) -> Iterator[str]:
    """Who said what, oldest first."""
    yield from (
        extract.spoken("Before", note.partition("began with: ")[2])
        for note in talk.notes
        if "began with: " in note
    )
    for turn in talk.earlier:
        yield from (
            extract.spoken(who, text)
            for who, text in (("User", turn.text), ("Agent", turn.answer))
            if text
        )
    for line in talk.text.splitlines():
        if told := _SPOKEN.match(line):
            who = _SPEAKERS.get(told[1].lower(), "Agent")
            yield f"{extract.OPEN if line.startswith(extract.OPEN) else ''}{who}: {told[2]}"
