"""Greetings, thanks, and who and what the offline model is.

It says what it is: rules, not a language model. Left out: conversation for its own sake.
"""

import re
from collections.abc import Sequence

from workshop_lib.llm.rules.answering import list_tools
from workshop_lib.llm.rules.facts import stated_facts
from workshop_lib.llm.rules.tool_schema import Tool

WHO = "I am the workshop's offline model: a set of rules, not a language model."

_GREETING = re.compile(
    r"^\W*(?:hi|hello|hey|hiya|howdy|greetings|good (?:morning|afternoon|evening|day)|yo|"
    r"hallo)\b(?:[\s,]+(?:there|again|everyone|you|all|agent|assistant|bot|friend))*\W*$",
    re.IGNORECASE,
)
_HOW_ARE_YOU = re.compile(
    r"\bhow (?:are|r) (?:you|u)\b|\bhow(?:'s| is) it going\b|\bwhat'?s up\b", re.IGNORECASE
)
_THANKS = re.compile(
    r"^\W*(?:ok(?:ay)?[\s,.!]+|great[\s,.!]+|cool[\s,.!]+|perfect[\s,.!]+)?(?:many )?(?:thanks|"
    r"thank you|thx|cheers|ty|much appreciated)\b.{0,40}$",
    re.IGNORECASE | re.DOTALL,
)
_BYE = re.compile(
    r"^\W*(?:bye|goodbye|good bye|see you|see ya|farewell|good night|quit|exit)\b.{0,30}$",
    re.IGNORECASE | re.DOTALL,
)
_FINE = re.compile(
    r"^\W*(?:ok(?:ay)?|great|cool|nice|perfect|good|fine|wow|awesome|excellent|got it|i see|"
    r"alright|all right|yes|no|sure|lol|haha)(?: (?:job|work|one|to know))?\W*$",
    re.IGNORECASE,
)
_CAPABILITIES = re.compile(
    r"\bwhat (?:can|could|do|else can|things can) (?:you|u) (?:do|help|offer|know|answer)\b|"
    r"\bhow can you help\b|\bwhat are you (?:able|capable)\b|\bwhat (?:tools|functions|"
    r"capabilities|skills)\b|"
    r"\b(?:which|list|show)(?: me)?(?: all)?(?: the| your)? (?:tools|functions|capabilities)\b|"
    r"^\W*(?:help|help me|usage|menu|commands|what now)\W*$|\bwhat can i ask\b|\bcan you help\b",
    re.IGNORECASE,
)
_IDENTITY = re.compile(
    r"\b(?:who|what) (?:are|r) (?:you|u)\b|\bwhat(?:'s| is) your name\b|\bare you (?:an? |the "
    r")?(?:\w+ )?(?:ai|bot|robot|human|person|llm|language model|chatgpt|gpt|claude|gemini|"
    r"machine|real|model|computer|intelligent|alive|conscious)\b|"
    r"\b(?:which|what) (?:\w+ )?(?:model|llm|ai) (?:are you|is this|do you use|am i talking "
    r"to)\b|\bare you (?:chatgpt|gpt-?\d?|claude)\b|\bintroduce yourself\b|\btell me about "
    r"yourself\b|"
    r"\bhow do you work\b|\bwho (?:made|built|created|trained|wrote) you\b|\bdo you (?:use|"
    r"have) (?:an? )?(?:ai|llm|language model|gpt)\b|\bare you sure\b",
    re.IGNORECASE,
)


def small_talk(text: str, tools: Sequence[Tool]) -> str | None:
    """A reply to small talk, or None where the message is none."""
    if re.search(r"\bare you sure\b", text, re.IGNORECASE):
        return f"I repeat what tools return, and cannot check it any further. {WHO}"
    if _IDENTITY.search(text):
        how = "I match your words to tools, call them, and quote what they return."
        return f"{WHO} {how} {list_tools(tools)}"
    if _CAPABILITIES.search(text):
        return f"{WHO} {list_tools(tools)}"
    if _GREETING.match(text):
        return f"Hello! {WHO} {list_tools(tools)}"
    if _HOW_ARE_YOU.search(text) and len(text) < 60:
        return f"I work, thank you. {WHO} {list_tools(tools)}"
    if _THANKS.match(text):
        return "You are welcome."
    if _BYE.match(text):
        return "Goodbye."
    facts = stated_facts(text)
    if facts and "?" not in text:
        known = " and ".join(
            value if key == "note" else f"your {key} is {value}" for key, value in facts.items()
        )
        return f"I see: {known}. I can look that up in this conversation as long as it is in view."
    if _FINE.match(text):
        return "All right. What would you like to know?"
    return None
