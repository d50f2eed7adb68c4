"""What a person says of themselves: "my name is Ann", "I live in Portland".

Read from their messages and repeated on request. Left out: whether it is true, and whatever is said in other
words.
"""

import re

_FACT = re.compile(
    r"\b(?:my (?P<what>(?!question|first|last)[a-z]+(?: [a-z]+){0,2}) (?:is|are|'s) "
    r"(?P<value>[^.,!?;\n]{1,80}?)|"
    r"(?:i'm called|i am called|call me|my name's) (?P<name>[^.,!?;\n]{1,40}?)|i live in "
    r"(?P<home>[^.,!?;\n]{1,40}?)|i am from (?P<home2>[^.,!?;\n]{1,40}?)|"
    r"remember (?:that |this: ?)(?P<note>[^?\n]{1,200}?))\s*(?=[.,!?;\n]| and\b| but\b|$)",
    re.IGNORECASE,
)


def stated_facts(text: str) -> dict[str, str]:
    """What a person says of themselves: {"name": "Ann", "favourite city": "Portland"}."""
    facts: dict[str, str] = {}
    for match in _FACT.finditer(text):
        if match["what"]:
            facts[match["what"].lower().replace("favorite", "favourite")] = match["value"].strip()
        elif match["name"]:
            facts["name"] = match["name"].strip()
        elif home := match["home"] or match["home2"]:
            facts["home"] = home.strip()
        elif match["note"]:
            facts["note"] = match["note"].strip()
    return facts
