"""Questions about the conversation itself: what was asked, answered and told before.

They are answered from the messages of the request and from notes in its system message ("The conversation
began with: …"). What a context window has dropped is said to be out of sight, not guessed.
"""

import re

from workshop_lib.llm.rules.answering import describe_record
from workshop_lib.llm.rules.conversation import Conversation, Turn
from workshop_lib.llm.rules.facts import stated_facts
from workshop_lib.llm.rules.lexicon import ORDINALS
from workshop_lib.llm.rules.tool_schema import Tool
from workshop_lib.llm.rules.wording import plain_signs

_ME = r"(?:did i|i|have i|had i|i've|was my|is my|were my)"
_ASKED = (
    r"(?:ask(?:ed)?|sa(?:y|id)|want(?:ed)?|tell|told|write|wrote|question|message|request|typed?|"
    r"query)"
)
_FIRST = re.compile(
    rf"\b(first|initially|originally|at the (?:beginning|start)|to begin with|start(?:ed)? "
    rf"with|begin with|began with)\b.*\b{_ASKED}|"
    rf"\b{_ME}\b.*\b{_ASKED}\b.*\b(first|initially|originally|at the (?:very )?(?:beginning|"
    rf"start))\b|"
    r"\b(?:what was|what's|tell me|repeat) (?:my|the) (?:very )?(?:first|initial|original) "
    r"(?:question|message|request|thing)\b|"
    r"\bhow did (?:we|this conversation|i) (?:start|begin)\b|\bwhat did (?:we|i) start with\b",
    re.IGNORECASE,
)
_NTH = re.compile(
    rf"\b(second|third|fourth|fifth|sixth|2nd|3rd|4th|5th|6th)\b (?:\w+ )?(?:question|message|"
    rf"thing|request)|\b{_ME}\b.*\b{_ASKED}\b.*\b(second|third|fourth|fifth)\b",
    re.IGNORECASE,
)
_LAST_QUESTION = re.compile(
    r"\bwhat (?:did|have) i (?:just |last |previously )?(?:ask|asked|say|said|want|wanted)(?: "
    r"you)?(?: (?:just now|last|before(?: that| this)?|previously|a moment ago|"
    r"earlier))?\s*\W*$|"
    r"\b(?:my|the) (?:last|previous|prior) (?:question|message|request)\b",
    re.IGNORECASE,
)
_LAST_ANSWER = re.compile(
    r"\bwhat (?:was|were|is|'s) (?:the|your|that|its?) (?:(?:last|previous|prior|earlier|"
    r"first) )?(?:result|answer|reply|response|number|value|outcome)s?\b(?: (?:before|again|"
    r"earlier|previously|just now|last time|you gave))*\W*$|"
    r"\b(?:the|your) (?:last|previous|prior|earlier) (?:result|answer|reply|response)\b(?! "
    r"(?:times|plus|minus|divided|multiplied|by|and|\+|\*|-|/))|"
    r"\bwhat did you (?:just |last )?(?:say|answer|reply|get|find|tell me)(?: (?:just now|before|last|"
    r"earlier|again|previously))?\W*$|"
    r"^\W*(?:please |can you |could you |would you )*(?:repeat|say) "
    r"(?:that|it|this|the (?:last )?(?:answer|result)|your "
    r"(?:last )?answer)(?: again)?(?: please)?\W*$|^\W*come again\W*$|"
    r"\bwhat was (?:it|that) again\W*$",
    re.IGNORECASE,
)
_FIRST_ANSWER = re.compile(
    r"\b(?:first|initial) (?:result|answer|reply|calculation)\b", re.IGNORECASE
)
_COUNT = re.compile(r"\bhow many (?:questions|messages|things) (?:did|have) i\b", re.IGNORECASE)
_LIST = re.compile(
    r"\b(?:list|show|repeat|what are|what were) (?:me )?(?:all )?(?:of )?(?:my|the) "
    r"(?:questions|messages|requests)\b|\bwhat (?:questions|things) (?:did|have) i ask|"
    r"\bwhat (?:have|did) (?:we|i) (?:talk(?:ed)?|discuss(?:ed)?|ask(?:ed)?|spoken)(?: you)? "
    r"about\b",
    re.IGNORECASE,
)
_SUMMARY = re.compile(
    r"\b(?:summari[sz]e|sum up|recap|summary of)\b.*\b(?:conversation|chat|discussion|"
    r"dialog(?:ue)?|so far|talk|messages|session|us)\b|^\W*(?:summari[sz]e|recap)\W*$",
    re.IGNORECASE,
)
_WHICH = re.compile(
    r"\b(?:which|what) (?P<kind>\w+) (?:did|have) i (?:ask(?:ed)?|mention(?:ed)?|quer(?:y|ied)|"
    r"check(?:ed)?|talk(?:ed)?)(?: you)?(?: about| for)?",
    re.IGNORECASE,
)
_TOLD_ABOUT = re.compile(
    r"\bwhat (?:did you|have you|you) (?:say|said|tell me|told me|answer|answered|report|"
    r"reported) (?:about|for|on) (?P<what>[^?.!]+)",
    re.IGNORECASE,
)
_FACT_ASKED = re.compile(
    r"\b(?:what(?:'s| is| was| are| were)?|who(?:'s| is)?|which|tell me|do you (?:know|"
    r"remember)(?: what)?|remind me(?: of)?) (?:my (?P<what>[a-z]+(?: [a-z]+){0,2}?))(?: is| "
    r"was)?(?: again)?\W*$|"
    r"\b(?P<who>who am i)\b|\b(?P<where>where do i live|where am i from)\b|\b(?P<told>what did "
    r"i (?:tell|ask) you to remember)\b",
    re.IGNORECASE,
)
_NOTE = re.compile(
    r"(?:conversation (?:began|started|begins|starts) with|first (?:question|message)(?: was)?|"
    r"user first asked)\W*[:-]?\s*[\"“']?(?P<text>.+?)[\"”']?\s*(?:\n|$)",
    re.IGNORECASE,
)


def recall(conversation: Conversation, tools: dict[str, Tool]) -> str | None:
    """The answer to a question about the conversation, or None where it is about something else.

    Args:
        tools: by name, to say what earlier calls were about.
    """
    question = plain_signs(conversation.current.question or "")
    if len(question) > 400:
        return None
    earlier = [turn for turn in conversation.turns[:-1] if turn.question]
    if _SUMMARY.search(question):
        return _summary(conversation, earlier)
    if _FIRST_ANSWER.search(question) and re.search(
        r"\bwhat (was|is|were)\b", question, re.IGNORECASE
    ):
        return _answer_of(next((turn for turn in earlier if turn.answer), None), "first", tools)
    if _FIRST.search(question):
        return _first_question(conversation, earlier)
    if _COUNT.search(question):
        seen = " that I can still see" if _window_slid(conversation) else ""
        return f"You have asked {len(earlier)} question{'s' * (len(earlier) != 1)} before this one{seen}."
    if nth := _NTH.search(question):
        place = ORDINALS[(nth[1] or nth[2]).lower()]
        if _window_slid(conversation):
            return "I cannot count from the beginning: older messages are no longer in what I am given."
        if place < len(earlier):
            return f"Question {place + 1} was: “{earlier[place].question}”"
        return f"You have asked {len(earlier)} question{'s' * (len(earlier) != 1)} before this one."
    if _LIST.search(question):
        return _questions(conversation, earlier)
    if which := _WHICH.search(question):
        return _which(conversation, which["kind"], tools)
    if _LAST_QUESTION.search(question):
        if not earlier:
            return "This is the first message that I can see: you have asked nothing before it."
        return f"Before this you asked: “{earlier[-1].question}”"
    if _LAST_ANSWER.search(question):
        with_calls = [turn for turn in conversation.turns[:-1] if turn.records]
        with_answers = [turn for turn in conversation.turns[:-1] if turn.answer]
        turns = with_calls or with_answers
        return _answer_of(turns[-1] if turns else None, "last", tools)
    if told := _TOLD_ABOUT.search(question):
        what = told["what"].strip().lower()
        for turn in reversed(conversation.turns[:-1]):
            if turn.answer and what.removeprefix("the ") in turn.answer.lower():
                return f"I said: “{turn.answer}”"
        return f"I have said nothing about {told['what'].strip()} that I can still see."
    return _fact(question, earlier)


def _fact(question: str, earlier: list[Turn]) -> str | None:
    asked = _FACT_ASKED.search(question)
    if not asked:
        return None
    key = (
        "name"
        if asked["who"]
        else "home"
        if asked["where"]
        else "note"
        if asked["told"]
        else asked["what"].lower()
    )
    key = key.replace("favorite", "favourite")
    for turn in reversed(earlier):
        facts = stated_facts(turn.question or "")
        if key in facts:
            if key == "note":
                return f"You told me: {facts[key]}"
            return f"You told me: your {key} is {facts[key]}."
    if key in ("name", "home", "note") or key.startswith("favourite"):
        return "You have not told me that in what I can see of this conversation."
    return None


def _window_slid(conversation: Conversation) -> bool:
    return conversation.begins_in_the_middle or any(
        _NOTE.search(note) for note in conversation.notes
    )


def _first_question(conversation: Conversation, earlier: list[Turn]) -> str:
    for note in conversation.notes:
        if noted := _NOTE.search(note):
            return f"Your first question was: “{noted['text'].strip()}”"
    if not earlier:
        if conversation.begins_in_the_middle:
            return "I cannot see it any more: older messages are not in what I am given."
        return "This is your first question: I see nothing before it."
    if conversation.begins_in_the_middle:
        return (
            "The beginning is no longer in what I am given. The earliest question that I can see is: "
            f"“{earlier[0].question}”"
        )
    return f"Your first question was: “{earlier[0].question}”"


def _answer_of(turn: Turn | None, which: str, tools: dict[str, Tool]) -> str:
    if turn is None:
        return "There is no earlier result that I can see in this conversation."
    results = [
        described
        for record in turn.records
        if record.result is not None
        and (described := describe_record(record, tools.get(record.tool)))
    ]
    return f"The {which} result: {' '.join(results)}" if results else f"I answered: “{turn.answer}”"


def _questions(conversation: Conversation, earlier: list[Turn]) -> str:
    if not earlier:
        return "You have asked nothing before this that I can see."
    listed = "; ".join(f"({n}) “{turn.question}”" for n, turn in enumerate(earlier[-20:], start=1))
    seen = "as far as I can still see" if _window_slid(conversation) else "so far"
    return f"You asked, {seen}: {listed}."


def _summary(conversation: Conversation, earlier: list[Turn]) -> str:
    lines = [
        note
        for c in conversation.notes
        if (found := _NOTE.search(c))
        for note in [f"It began with: “{found['text'].strip()}”"]
    ]
    for turn in earlier[-20:]:
        answer = (turn.answer or "").strip()
        lines.append(
            f"You asked: “{turn.question}” I answered: “{answer[:200]}”"
            if answer
            else f"You asked: “{turn.question}”"
        )
    return (
        "\n".join(lines) if lines else "There is nothing before this message that I could sum up."
    )


def _which(conversation: Conversation, kind: str, tools: dict[str, Tool]) -> str | None:
    kind = kind.lower()
    for ending, singular in (("ies", "y"), ("s", "")):
        if kind.endswith(ending):
            kind = kind.removesuffix(ending) + singular
            break
    kind = {
        "company": "ticker",
        "share": "ticker",
        "stock": "ticker",
        "place": "city",
        "town": "city",
    }.get(kind, kind)
    named: list[str] = []
    for turn in conversation.turns[:-1]:
        for record in turn.records:
            for slot in tools[record.tool].slots if record.tool in tools else ():
                value = (record.arguments or {}).get(slot.name)
                about = {*slot.words, slot.kind, "city" if slot.kind == "place" else ""}
                if isinstance(value, str) and kind in about and value not in named:
                    named.append(value)
    return f"You asked about {', '.join(named)}." if named else None
