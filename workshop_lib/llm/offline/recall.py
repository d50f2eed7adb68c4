"""Questions about the conversation itself: what was asked, told and answered. And small talk.

They are answered from the messages of the request, and from the note in its system message of how it began.
What a window has dropped is said to be out of sight, not guessed.
"""

import re
from collections.abc import Sequence

from workshop_lib.llm.offline.results import came, describe
from workshop_lib.llm.offline.schema import Tool
from workshop_lib.llm.offline.talk import Talk, leaves
from workshop_lib.llm.offline.words import content, content_words, plain, split_name, stem

WHO = "I am the workshop's offline model: a set of rules, not a language model."
HOW = "I match your words to tools, call them, and quote what they return."
NOTED = "I see: {}. I can look that up in this conversation as long as it is in view."
MOST = 20  # questions or tools that are listed

_BEGAN = re.compile(r"conversation began with: [\"“]?(?P<text>.+?)[\"”]?\s*(?:\n|$)", re.I)
_ABOUT_TALK = re.compile(
    r"\b(?:did|have|had) (?:i|you|we)\b.*\b(?:ask|say|said|tell|told|mention|start|begin|answer)|\bagain\W*$"
    r"|\b(?:first|second|third|last|previous|earlier) (?:question|message|answer|reply|result|thing)"
    r"|\b(?:remember|recall|repeat|remind)\b|\bwhat (?:was|were)\b|\bwhat(?:'s|s| is| are) my\b|\bwho am i\b"
    r"|\b(?:my|which) questions\b", re.I)  # fmt: skip
_FACT = re.compile(
    r"\b(?:my|the|our) (?P<what>[\w' -]{2,40}?)(?: is|'s| are| was) (?:called |named )?(?P<value>[^.!?;]+)"
    r"|\b(?:I'm called|call me|I'm|I am) (?P<name>[A-Z]\w+)\s*[.!,]?(?:\s|$)", re.I)  # fmt: skip
_QUESTION = re.compile(r"\W*(?:wh\w+|how|is|are|do|does|can|could|tell|give|show)\b", re.I)
_DULL = content(
    "remember ask question tell say answer repeat last first previous know recall result calculation message"
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


def facts(texts: Sequence[str]) -> list[tuple[str, str]]:
    """What a person has told, as (what, value): ("door code", "4471"), latest last."""
    found = []
    for sentence in re.split(r"(?<=[.!?;])\s+|,\s+(?:and|but)\s+|\n", "\n".join(map(plain, texts))):
        asks = "?" in sentence or (_QUESTION.match(sentence) and "remember" not in sentence)
        for told in _FACT.finditer("" if asks else sentence):
            value = re.split(r",? by the way|, (?:please|thanks)", told["value"] or told["name"])[0]
            if told["what"] or value[0].isupper():
                what = (told["what"] or "name").lower().replace("favorite", "favourite")
                found.append((what, value.strip(" ,")))
    return found


def recall(talk: Talk, tools: Sequence[Tool]) -> str | None:
    """The answer to a question about the conversation, or None where it is about something else."""
    lower = plain(talk.text).lower()
    if len(lower) > 400 or not _ABOUT_TALK.search(lower):
        return None
    by_name = {tool.name: tool for tool in tools}
    found = (
        _of_facts(lower, talk) or _of_questions(lower, talk) or _of_answers(lower, talk, by_name)
    )
    if not found and re.search(r"\bmy (?:name|favou?rite)\b|\bwho am i\b", lower):
        return "You have not told me that in what I can see of this conversation."
    return found or _about(lower, talk, by_name)


def _of_facts(lower: str, talk: Talk) -> str | None:
    """What the user has told before."""
    asked = {stem(word) for word in content_words(lower.replace("who am i", "my name"))} - _DULL
    for what, value in reversed(facts(talk.told)):
        known = {stem(word) for word in content_words(what)}
        half = 2 * len(known & asked) >= len(known)
        if known and half and asked <= known | {stem(word) for word in content_words(value)}:
            return f"You told me: {what} is {value}."
    return None


def _of_questions(lower: str, talk: Talk) -> str | None:
    """The user's own questions."""
    told, began = (
        talk.told,
        next((m["text"] for note in talk.notes if (m := _BEGAN.search(note))), ""),
    )
    slid = talk.turns[0].text is None or bool(began)
    if re.search(r"\b(?:my|which|what|all) (?:the |of |my )?questions\b|everything i asked", lower):
        listed = "; ".join(f"({n}) “{text}”" for n, text in enumerate(told[-MOST:], 1))
        return f"You asked, {'as far as I can still see' if slid else 'so far'}: {listed or 'nothing'}."
    asks = r"\b(?:i|we)\b.*\b(?:ask|say|said|want|tell|told|start|begin)|\b(?:question|message|thing)\b"
    if not re.search(asks, lower) or re.search(r"\b(?:answer|reply|result|about)\b", lower):
        return None
    if not told:
        return "This is the first message that I can see: you have asked nothing before it."
    word = next((w for w in _ORDINALS if w in lower), "first" if "start" in lower else "")
    if word and slid:
        seen = f"The beginning is no longer in what I am given. The earliest that I can see is: “{told[0]}”"
        return f"Your first question was: “{began}”" if began and word == "first" else seen
    before = 2 if len(told) > 1 and re.search(r"before (?:that|it)\b", lower) else 1
    place = min(_ORDINALS.index(word), len(told) - 1) if word else len(told) - before
    return (
        f"Your {_ORDINALS[place]} question was: “{told[place]}”"
        if word
        else f"Before this you asked: “{told[place]}”"
    )


def _of_answers(lower: str, talk: Talk, tools: dict[str, Tool]) -> str | None:
    """An earlier answer once more."""
    asks = (
        r"\b(?:answer|reply|response|result)\b|\b(?:repeat|say) (?:that|it)\b|you (?:just )?say\W*$"
    )
    if not re.search(asks, lower) or {stem(word) for word in content_words(lower)} - _DULL:
        return None
    called = [turn for turn in talk.earlier if turn.calls]
    sums = [
        t for t in called if any((tool := tools.get(c.name)) and tool.expression for c in t.calls)
    ]
    asked = sums if "calcul" in lower else called if re.search("result|first|number", lower) else []
    turns = asked or [turn for turn in talk.earlier if turn.answer]
    if not turns:
        return "There is no earlier result that I can see in this conversation."
    turn = turns[0] if "first" in lower else turns[-1]
    said = " ".join(describe(call, tools.get(call.name)) for call in turn.calls)
    return f"I said: {said}" if asked else f"I said: “{turn.answer}”"


def _about(lower: str, talk: Talk, tools: dict[str, Tool]) -> str | None:
    """What was said about a thing: by the values of earlier calls, their tools and their arguments' names."""
    topic, ranked = content(lower) - _DULL, []
    for called in [called for turn in talk.earlier for called in turn.calls if came(called)]:
        values = [str(value).lower() for value in leaves(called.arguments)]
        if content(" ".join(called.arguments or {})) & topic and re.search(
            r"\bi\b.*\b(?:ask|mention)", lower
        ):
            ranked.append((99, f"You asked about {', '.join(map(str, leaves(called.arguments)))}."))
        rank = 2 * len(topic & content(" ".join(values))) + len(
            topic & content(" ".join(split_name(called.name)))
        )
        rank += 4 * sum(value in lower for value in values if re.search(r"\d", value))
        ranked += [(rank, f"I said: {describe(called, tools.get(called.name))}")] if rank else []
    best = max(reversed(ranked), key=lambda pair: pair[0], default=None)
    said = re.search(r"\b(?:told|tell|say|said|was|were|answer\w*|again|remember|ask)\b", lower)
    return best[1] if best and said else None
