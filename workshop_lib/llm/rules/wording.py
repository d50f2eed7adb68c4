"""Words and the terms they stand for: stems, and groups of words that mean the same.

"What are TSLA shares trading at" and a tool described as "latest stock price" have to meet somewhere.
They meet in terms. Left out: grammar.
"""

import re
from functools import lru_cache

from workshop_lib.llm.rules.lexicon import CONCEPTS

_PLAIN_SIGNS = str.maketrans(
    "\u2018\u2019\u201c\u201d\u2212\u2013\u00d7\u00b7\u00f7", "''\"\"--**/"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*[A-Za-z]|[A-Za-z]|\d[\d.,]*")


@lru_cache(maxsize=1024)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, lower case, without possessive endings; snake_case and camelCase are split."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text.replace("_", " "))
    return tuple(plain(word) for word in _WORD.findall(text))


@lru_cache(maxsize=4096)
def plain(word: str) -> str:
    """A word in lower case, without 's and apostrophes."""
    return re.sub(r"'", "", re.sub(r"'s$", "", word.lower()))


def plain_signs(text: str) -> str:
    """A text with typographic quotes, dashes and operators as a keyboard has them, sign for sign."""
    return text.translate(_PLAIN_SIGNS)


@lru_cache(maxsize=4096)
def terms_of(word: str) -> frozenset[str]:
    """What a word is compared by: its stem, and the group of words with the same meaning."""
    terms = {_stem(word)}
    if word in CONCEPTS:
        terms.add(CONCEPTS[word])
    return frozenset(terms)


def _stem(word: str) -> str:
    for ending, least in (("ations", 4), ("ation", 4), ("ings", 4), ("ing", 4), ("ies", 3), ("ers", 4),
                          ("ed", 4), ("es", 4), ("er", 4), ("s", 3), ("e", 3), ("y", 3)):  # fmt: skip
        if word.endswith(ending) and len(word) - len(ending) >= least and not word.endswith("ss"):
            return word[: -len(ending)]
    return word
