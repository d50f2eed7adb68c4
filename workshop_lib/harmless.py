"""Text that others have written, made harmless for the place where it is shown: one function a kind of place.

Others are models, tools, customers, whoever decides, other programs on the same server. A terminal obeys
control characters, letters that turn the direction of writing make a line say something else than it holds,
a line break begins what looks like a line of ours, and HTML and Markdown are carried out. Pure functions,
so workflow code uses them too. Left out: JSON, where `json.dumps` writes all of it in ASCII.
"""

import re
from html import escape
from typing import Any

LIMIT = 1000  # characters of a line
_JOINERS = "\u200c\u200d"  # invisible, and part of Persian words and of emoji
_MARKS = re.compile(r"[\[\]<>`*#|\\]|~~+|(?<!\w)_|_(?!\w)")  # within a word _ is no emphasis
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=\bwww)(?=\.)", re.IGNORECASE)  # viewers make it a link


def line(text: object, limit: int = LIMIT) -> str:
    """One line of a terminal: printable characters, cut with an ellipsis to at most `limit` of them."""
    # The first cut is for texts of megabytes, of which hardly anything is shown.
    printable = "".join(c if c.isprintable() else " " for c in str(text)[: 20 * limit])
    plain = " ".join(printable.split())
    return plain if len(plain) <= limit else plain[: limit - 1].rstrip() + "…"


def block(text: str, indent: str = "") -> str:
    """Several lines of a terminal: line breaks and tabs stay, what else is not printable is a blank.

    Args:
        indent: put before every line but the first, so that none looks like the beginning of another text.
    """
    kept = "\t\n" + _JOINERS
    lines = text.replace("\r\n", "\n").replace("\n", f"\n{indent}")
    return "".join(c if c.isprintable() or c in kept else " " for c in lines)


def faults(error: Any, whole: str = "it") -> str:
    """What is wrong with data, on one line: a pydantic error without the values, which may be secret or long.

    Args:
        whole: what the data are called where the fault is in no field of theirs.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = (".".join(map(str, fault["loc"])) or whole for fault in found)
    words = (f"{place}: {fault['msg']}" for place, fault in zip(places, found, strict=True))
    return line("; ".join(words))


def html(text: object, limit: int = LIMIT) -> str:
    """One line of HTML that is nothing but text, also inside an attribute."""
    return escape(line(text, limit))


def markdown(text: object, limit: int = LIMIT) -> str:
    """One line of Markdown that is nothing but text: no heading, link or image, emphasis, code or HTML."""
    plain = _ADDRESS.sub(" ", _MARKS.sub(" ", line(text, 2 * limit)))
    return line(plain, limit)
