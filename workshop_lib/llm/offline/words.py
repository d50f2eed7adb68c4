"""Words: which carry no meaning, which mean much the same, and numbers written as words.

Small on purpose. It holds no names of cities, companies or people: a tool knows those, and says so when
it does not know one.
"""

import re
from collections.abc import Iterable
from functools import lru_cache


def word_set(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


STOP = word_set(
    "a an the this that these those it its i im id ill ive you your u we us our me my mine they them "
    "their he she him her his is are was were be been being am to of in on at by for from with into onto "
    "about as and or but if then than so not no nor do does did done doing have has had having can could "
    "would will shall should may might must what whats which who whom whose where wheres when how hows "
    "why any anything some something anyone someone there theres here now rn right please pls plz thx "
    "thanks thank hi hey hello ok okay well just also again too still only really very current currently "
    "moment tell show give get got let lets know want wants need needs like look looking lookin find turn "
    "check see say said make made go going come coming came take put up out off over all much many more "
    "most less least both each every one ones thing things way teh yuo ur good great sorry same other "
    "another after before under above below between around during until till often ever far long per plus "
    "minus times divided multiplied squared multiply divide add subtract compare calculate compute "
    "because while ready kind kindly yes back whether lot lots use used away yet already able wie ist das "
    "der die el la le les de und viel sind wäre cuánto cuanto cuántos qué que son est quel quelle combien"
)
# These may speak for a tool, and never against one.
_QUIET = word_set(
    "total totals sum difference average double half left next number numbers status info information details"
)
_STOP_OR_QUIET = STOP | _QUIET
# The first word of a group stands for all of it.
GROUPS = (
    "weather wetter tiempo météo forecast rain raining rainy umbrella sunny snow snowing hot warm warmer"
    " cold colder jacket coat",
    "temperature hot warm warmer cold colder degrees celsius c", "where location locate", "birth born",
    "price cost worth pay fee charge rate expensive cheap cheaper", "time clock hour", "day daily",
    "month monthly", "roi invest invested investment return profit",
    "book reserve reservation booking visit appointment slot",
    "person people guest visitor participant attendee", "ticket issue bug", "money dollar euro currency",
    "arrive arrival", "email mail e-mail", "meaning define definition mean explain", "week weekly",
    "duration long", "create set start open add new make raise", "delete remove",
    "max maximum highest most under below", "min minimum lowest least above over",
    "product item sell buy shop goods", "free available vacant empty", "parcel package shipment delivery",
    "loan borrow borrowed lend", "share stock", "member patron reader", "tag label", "weight heavy weigh",
    "age old older young", "car vehicle van truck", "track location position", "note comment remark",
    "search look find", "hire rent", "list show all", "phone telephone call", "record log",
    "doctor physician", "film movie", "assign put give", "place city town location", "closed close",
    "open opening", "send mail write transfer", "manager manage boss lead",
)  # fmt: skip
# Other spellings of what a tool may offer as a choice.
ALIASES = (
    "kilogram kilo kg", "kilometre kilometer km", "metre meter m", "litre liter l", "mile mi",
    "feet foot ft", "inch inches", "celsius c", "fahrenheit f", "usd dollar buck $", "eur euro €",
    "gbp pound sterling £", "gram g", "ounce oz", "minute min", "hour h", "german deutsch",
    "french français", "spanish español",
)  # fmt: skip
# What changes something in the world. A tool that does so is not called without such a word.
DEEDS = word_set(
    "cancel book send delete remove pay order buy sell reserve refund renew transfer write draw create "
    "post call invite schedule remind set change move install restart email mail translate play sing open "
    "close share upload add put record log report assign block unblock enrol enroll start stop return "
    "register submit approve reject request extend update reset withdraw subscribe print lock unlock ship "
    "hire rent publish archive rename cook"
)
# What question words ask for.
_ASKED = {
    "where": "location track place room", "when": "time date hour schedule due", "who": "author person",
    "how much is": "price", "how much are": "price", "how much does": "price", "how much would": "price",
    "how long": "duration", "how far": "distance", "how old": "age", "how heavy": "weight",
    "how tall": "height",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_](?:[^\W_]|['’])+")  # of a tool's name, its parts


@lru_cache(20_000)
def stem(word: str) -> str:
    """A crude stem: `prices` and `price`, `calculation` and `calculator` meet."""
    word = re.sub(r"['’]s?$", "", word.lower())
    word = re.sub(r"(?<=\w\w\w)(?<!s)s$", "", re.sub(r"(?<=\w\w)ies$", "y", word))
    word = re.sub(
        r"(?<=\w\w\w)(?:ation|ator|ating|ance|ence|ment|ing|ion|ent|ant|or|ed|e|y)$", "", word
    )
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def _heads(groups: tuple[str, ...]) -> dict[str, set[str]]:
    heads: dict[str, set[str]] = {}
    for words in map(str.split, groups):
        for word in words:
            heads.setdefault(stem(word), set()).add(stem(words[0]))
    return heads


_MEANINGS, _SPELLINGS = _heads(GROUPS), _heads(ALIASES)


def spellings(word: str) -> set[str]:
    """A word's stem, and that of the choice of which it is another spelling."""
    return {stem(word)} | _SPELLINGS.get(stem(word), set())


@lru_cache(20_000)
def senses(word: str) -> frozenset[str]:
    """A word's spellings, and the groups that it belongs to."""
    return frozenset(spellings(word) | _MEANINGS.get(stem(word), set()))


def all_senses(words: Iterable[str]) -> set[str]:
    """The senses of several words."""
    return {sense for word in words for sense in senses(word)}


def split_name(name: str) -> list[str]:
    """The words of an identifier: `library_memberLoans` holds library, member and Loans."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)


def is_stop(word: str) -> bool:
    """True for a word that says nothing by itself."""
    return re.sub(r"['’]", "", word.lower()) in _STOP_OR_QUIET


def content_words(text: str) -> list[str]:
    """The words of a text that say something."""
    return [word for word in _WORD.findall(text) if not is_stop(word)]


def content(text: str) -> set[str]:
    """The senses of the words of a text that say something, the quiet ones too."""
    words = _WORD.findall(text)
    return all_senses(word for word in words if re.sub(r"['’]", "", word.lower()) not in STOP)


def asked(text: str) -> set[str]:
    """What the question words of a text ask for: `where` for a place."""
    text = re.sub(r"\b(where|when|who)'?s\b", r"\1", text.lower())
    meant = [words for said, words in _ASKED.items() if re.search(rf"\b{said}\b", text)]
    return all_senses(" ".join(meant).split())


_NUMBERS = {word: n for n, word in enumerate(
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
     "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
     "nineteen"])}  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBERS |= {word: 10 * n for n, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6}
_ANY = "|".join(sorted([*_NUMBERS, *_SCALES], key=len, reverse=True))
_SPELLED = re.compile(
    rf"\b(?:a (?=hundred|thousand))?(?:{_ANY})(?:(?:[\s-]|\s+and\s+)+(?:{_ANY}))*\b", re.I
)
_SIGNS = str.maketrans("\u00a0’‘×÷−“”„", ' \'\'*/-"""')


def plain(text: str) -> str:
    """A message in plain signs, with numbers in digits: "ten thousand", "10,000" and "10k" become 10000."""
    pieces = re.split(r"(\"[^\"]*\")", text.translate(_SIGNS).strip())
    for i in range(0, len(pieces), 2):
        piece = re.sub(r"(?<=\d),(?=\d{3}\b)", "", _SPELLED.sub(_digits_of, pieces[i]))
        pieces[i] = re.sub(r"(?<![\w.])(\d+)k\b", r"\g<1>000", piece)
    return "".join(pieces)


def _digits_of(match: re.Match[str]) -> str:
    words = re.findall(r"[a-z]+", match[0].lower())
    if words == ["one"] or ("and" in words and not set(words) & set(_SCALES)):
        return match[0]
    whole = part = 0
    for word in words:
        part = max(part, 1) * 100 if word == "hundred" else part + _NUMBERS.get(word, 0)
        if _SCALES.get(word, 0) > 100:
            whole, part = whole + max(part, 1) * _SCALES[word], 0
    return str(whole + part)
