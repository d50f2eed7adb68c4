"""Arithmetic as people write it, turned into expressions. Nothing is computed here.

"twelve percent of 250" becomes `250 * 12 / 100`, "add 3 to 9" becomes `9 + 3`. An expression keeps the
numbers as they were written, so that a tool computes what the person meant. Left out: word problems,
where the operation is not named.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from workshop_lib.llm.rules.lexicon import NUMBER_WORDS, SCALES, TENS, words_in


class Expression(NamedTuple):
    """An expression found in a text.

    Attributes:
        text: operators + - * / % ** and brackets; `sqrt(…)` where a root is meant.
        start, end: the characters of the message that it was read from.
        refers_back: it begins with an earlier result, written here as `{}`.
    """

    text: str
    start: int
    end: int
    refers_back: bool = False


class Token(NamedTuple):
    """A piece of the text: kind is num, op, word, open, close, comma, call, back or other."""

    kind: str
    text: str
    start: int
    end: int
    spaced: bool = True  # for an operator: white space on both sides


_TOKEN = re.compile(
    r"""(?P<other>\d{4}-\d{2}-\d{2}\b | \d+(?:\.\d+){2,} | \d+:\d+ | \d{1,2}/\d{1,2}/\d{2,4}\b
          | [A-Za-z]+[-_]?\d[\w-]* | \w+(?:-\w+)*@[\w.-]+ | \d+(?:st|nd|rd|th)\b)
      | (?P<call>(?:sqrt|sin|cos|tan|log10|log2|log|ln|exp|abs|min|max|round|floor|ceil|factorial)\s*\()
      | (?P<num>[$€£¥]?\s?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?
                (?:k\b|\s?%(?!\s*[\d(]))?|[$]?\.\d+)
      | (?P<op>\*\*|//|[-+*/^%])
      | (?P<open>\() | (?P<close>\)) | (?P<comma>,)
      | (?P<word>[A-Za-z]+(?:'[a-z]+)?)
      | (?P<sign>\S)""",
    re.VERBOSE,
)
_OPERATORS = {"^": "**"}
_WORD_OPERATORS = (
    (("to", "the", "power", "of"), "**"), (("raised", "to", "the", "power", "of"), "**"),
    (("raised", "to", "the"), "**"), (("raised", "to"), "**"), (("to", "the", "power"), "**"),
    (("multiplied", "by"), "*"), (("divided", "by"), "/"), (("added", "to"), "+"),
    (("increased", "by"), "+"), (("decreased", "by"), "-"), (("reduced", "by"), "-"),
    (("modulo",), "%"), (("mod",), "%"), (("plus",), "+"), (("minus",), "-"), (("less",), "-"),
    (("times",), "*"), (("multiply", "by"), "*"), (("divide", "by"), "/"), (("over",), "/"), (("x",), "*"),
)  # fmt: skip
_FIRST_WORDS = frozenset(words[0] for words, _ in _WORD_OPERATORS)
# Without one of these a text holds no arithmetic, and need not be read.
_MAY_HOLD = re.compile(
    r"\d|\b(?:"
    + "|".join([*NUMBER_WORDS, *TENS])
    + r"|double|twice|triple|halve|half|squared?|cubed?|root)\b",
    re.IGNORECASE,
)
_BACK = {"that", "it", "this", "result", "answer"}
_PRE_BACK = {"the", "previous", "last"}
_FRACTIONS = {"half": "2", "third": "3", "quarter": "4", "fifth": "5", "tenth": "10"}
_FACTORS = {"double": "2", "twice": "2", "triple": "3", "thrice": "3", "quadruple": "4"}
# Words that ask for a result, and words that a follow-up begins with.
_ASKING = words_in(
    "what is what's whats calculate compute evaluate how much please the result of solve and tell me "
    "can you equals hi hello now"
)
_LEADING = words_in("and now then ok okay so what about if is how what's whats again also")
_UNITS = {"dollar", "dollars", "euro", "euros", "usd", "eur", "bucks", "cents", "pounds"}


def find_expressions(text: str) -> list[Expression]:
    """Every piece of arithmetic in a text, from left to right."""
    if not _MAY_HOLD.search(text):
        return []
    tokens = _merge_number_words(_tokenise(text))
    found: list[Expression] = []
    place = 0
    while place < len(tokens):
        parsed = _Parser(tokens, place).parse()
        if parsed is None:
            place += 1
            continue
        found.append(parsed[0])
        place = parsed[1]
    return found


def plain_number(text: str) -> str:
    """A number as an expression has it: no currency sign, no commas, `k` spelled out."""
    text = re.sub(r"[$€£¥,\s%]", "", text)
    if text.lower().endswith("k"):
        value = float(text[:-1]) * 1000
        return str(int(value)) if value == int(value) else str(value)
    return "0" + text if text.startswith(".") else text


def _tokenise(text: str) -> list[Token]:
    tokens: list[Token] = []
    text = re.sub(r"(?<=\d)[xX](?=\d)", "*", text)  # "3x4"
    for match in _TOKEN.finditer(text):
        kind, piece = str(match.lastgroup), match.group()
        start, end = match.span()
        spaced = text[max(start - 1, 0) : start].isspace() and text[end : end + 1].isspace()
        if kind == "sign":
            kind = "other"
        if kind == "op":
            piece = _OPERATORS.get(piece, piece)
        elif kind == "num" and piece.rstrip().endswith("%"):
            tokens.append(Token("num", plain_number(piece), start, end))
            tokens.append(Token("word", "percent", end, end))
            continue
        elif kind == "num":
            piece = plain_number(piece)
        elif kind == "word":
            piece = piece.lower()
        elif kind == "call":
            piece = re.sub(r"\s", "", piece)
        tokens.append(Token(kind, piece, start, end, spaced))
    return tokens


def _merge_number_words(tokens: list[Token]) -> list[Token]:
    """'twenty five' and '3 million' as one number each."""
    merged: list[Token] = []
    place = 0
    while place < len(tokens):
        value, end = _number_words(tokens, place)
        if value is not None:
            merged.append(Token("num", value, tokens[place].start, tokens[end - 1].end))
            place = end
        else:
            merged.append(tokens[place])
            place += 1
    return merged


def _number_words(tokens: list[Token], place: int) -> tuple[str | None, int]:
    total, current, seen, start = 0.0, 0.0, False, place
    while place < len(tokens):
        token = tokens[place]
        word = token.text
        if token.kind == "num" and place == start:
            following = tokens[place + 1].text if place + 1 < len(tokens) else ""
            if following not in SCALES:
                return None, place
            current, seen = float(word), True
        elif token.kind != "word":
            if word == "-" and token.kind == "op" and seen and not token.spaced:
                following = tokens[place + 1].text if place + 1 < len(tokens) else ""
                if following in NUMBER_WORDS and current in TENS.values():
                    place += 1
                    continue
            break
        elif word in NUMBER_WORDS:
            if seen and current % 10:
                break
            current, seen = current + NUMBER_WORDS[word], True
        elif word in TENS:
            if seen and current % 100:
                break
            current, seen = current + TENS[word], True
        elif word == "and" and current >= 100 and _is_small_number(tokens, place + 1):
            pass  # "one hundred and twenty"
        elif word in SCALES and seen:
            current *= SCALES[word]
            if SCALES[word] >= 1000:
                total, current = total + current, 0.0
        else:
            break
        place += 1
    if not seen:
        return None, start
    value = total + current
    return (str(int(value)) if value == int(value) else str(value)), place


def _is_small_number(tokens: list[Token], place: int) -> bool:
    return place < len(tokens) and tokens[place].text in (NUMBER_WORDS | TENS)


@dataclass
class _Parser:
    """Reads one expression that begins at a token. Every method returns text or None, and moves `at`."""

    tokens: list[Token]
    begin: int

    def __post_init__(self) -> None:
        self.at = self.begin
        self.operations = 0  # operators read; an expression has at least one
        self.doubtful = False  # read from "24/7" or "9-5", which may be no arithmetic
        self.sure = False
        self.back = False

    def parse(self) -> tuple[Expression, int] | None:
        """The expression and the place after it."""
        first = self.tokens[self.at]
        text: str | None
        if first.kind == "word" and (listed := self._listed()) is not None:
            text = listed
        elif self._leading_operator():
            self.back = True
            text = self._rest("{}")
        else:
            text = self._sum()
        if first.text in ("squared", "cubed") and text is None and self._nothing_before():
            self.at, self.back, self.operations = self.begin + 1, True, 1
            text = f"{{}} ** {2 if first.text == 'squared' else 3}"
        if (
            not text
            or not self.operations
            or (self.doubtful and not self.sure and self._in_prose())
        ):
            return None
        last = self.tokens[self.at - 1]
        return Expression(text, first.start, last.end, self.back), self.at

    # tokens

    def _peek(self, ahead: int = 0) -> Token:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else Token("end", "", -1, -1)

    def _words(self, *words: str) -> bool:
        """Step over these words if they come next."""
        if all(
            self._peek(place).kind == "word" and self._peek(place).text == word
            for place, word in enumerate(words)
        ):
            self.at += len(words)
            return True
        return False

    def _in_prose(self) -> bool:
        """True where the sentence around a bare 24/7 holds other words than those that ask."""
        ahead = self.tokens[self.begin - 1].text if self.begin else ""
        if ahead in ("calculate", "compute", "evaluate", "solve", "what's", "whats", ":", "="):
            return False
        others = [*self.tokens[: self.begin], *self.tokens[self.at :]]
        return any(token.kind == "word" and token.text not in _ASKING for token in others)

    # grammar

    def _sum(self) -> str | None:
        term = self._term()
        return None if term is None else self._rest(term)

    def _rest(self, text: str) -> str:
        """Operators and terms after a first term."""
        while True:
            mark = self.at
            if self._peek().kind == "word" and self._peek().text in _UNITS:
                self.at += 1
            operator = self._operator()
            if operator is None:
                self.at = mark
                return text
            operation = self._peek(-1)
            if self._peek().kind == "word" and operator in "+-" and self._words("another"):
                pass
            term = self._term()
            if term is None:
                self.at = mark
                return text
            self.operations += 1
            if operator in ("/", "-") and operation.kind == "op" and not operation.spaced:
                self.doubtful = True
            else:
                self.sure = True
            if self._peek().text == "percent" and operator in "+-" and self._peek(1).text != "of":
                self.at += 1
                text = f"{_grouped(text)} * (1 {operator} {term} / 100)"
            elif self._swapped:
                text = f"{_grouped(term)} {operator} {_grouped(text)}"
            else:
                text = f"{text} {operator} {term}"

    _swapped = False

    def _operator(self) -> str | None:
        token = self._peek()
        if token.kind == "op":
            self.at += 1
            return token.text
        if token.kind == "word" and token.text in _FIRST_WORDS:
            for words, operator in _WORD_OPERATORS:
                if self._words(*words):
                    if words == ("over",) and self._peek(1).kind == "word":
                        self.at -= 1  # "1,000 over 10 years" divides nothing
                        return None
                    return operator
        return None

    def _leading_operator(self) -> bool:
        """'times 2' and 'plus 10' where nothing stands before: an earlier result is meant."""
        before = self.tokens[: self.begin]
        if not self._nothing_before():
            return False
        token = self._peek()
        if token.kind == "op" and token.text in "*/+**^%" and self._peek(1).kind == "num":
            return bool(before) or token.text != "+" or token.spaced
        mark = self.at
        leads = token.kind == "word" and token.text != "x" and self._operator() is not None
        leads = leads and (self._peek().kind in ("num", "open") or self._peek().text == "another")
        self.at = mark
        return leads

    def _nothing_before(self) -> bool:
        """True where only words like "and" or "what about" stand in front of the expression."""
        before = self.tokens[: self.begin]
        if any(token.kind not in ("word", "comma", "other") for token in before[-2:]):
            return False
        return all(token.text in _LEADING for token in before if token.kind == "word")

    def _term(self) -> str | None:
        token = self._peek()
        text: str | None = None
        if token.kind == "op" and token.text == "-":
            self.at += 1
            inner = self._term()
            return None if inner is None else f"-{inner}"
        if token.kind == "num":
            self.at += 1
            text = token.text
        elif token.kind == "open":
            text = self._bracketed()
        elif token.kind == "call":
            self.at += 1
            text = self._call(token.text)
        elif token.kind == "word":
            text = self._word_term()
        return None if text is None else self._postfix(text)

    def _bracketed(self) -> str | None:
        mark = self.at
        self.at += 1
        inner = self._sum()
        if inner is not None and self._peek().kind == "close":
            self.at += 1
            return f"({inner})"
        self.at = mark
        return None

    def _call(self, name: str) -> str | None:
        parts = [self._sum()]
        while self._peek().kind == "comma":
            self.at += 1
            parts.append(self._sum())
        if any(part is None for part in parts) or self._peek().kind != "close":
            return None
        self.at += 1
        self.operations += 1
        self.sure = True
        return f"{name}{', '.join(str(part) for part in parts)})"

    def _word_term(self) -> str | None:
        mark, word = self.at, self._peek().text
        self._words("the")
        if self._words("square", "root", "of") or self._words("sqrt", "of") or self._words("sqrt"):
            inner = self._term()
            if inner is not None:
                return self._done(f"sqrt({_ungrouped(inner)})")
        elif self._words("square", "of") or self._words("cube", "of"):
            power = "3" if self._peek(-2).text == "cube" else "2"
            inner = self._term()
            if inner is not None:
                return self._done(f"{_grouped(inner)} ** {power}")
        elif word in ("negative", "minus") and self._peek(1).kind == "num":
            self.at += 2
            return f"-{self._peek(-1).text}"
        elif word == "halve":
            self.at += 1
            inner = self._term()
            if inner is not None:
                return self._done(f"{_grouped(inner)} / 2")
        elif word in _FACTORS:
            self.at += 1
            self._words("the")
            inner = self._term()
            if inner is not None:
                return self._done(f"{_FACTORS[word]} * {_grouped(inner)}")
        elif fraction := self._fraction():
            inner = self._term()
            if inner is not None:
                return self._done(f"{_grouped(inner)} / {fraction}")
        elif self._refers_back():
            self.back = True
            return "{}"
        self.at = mark
        return None

    def _fraction(self) -> str | None:
        mark = self.at
        _ = self._words("a") or self._words("one")
        word = self._peek().text
        if self._peek().kind == "word" and word in _FRACTIONS:
            self.at += 1
            if self._words("of", "the") or self._words("of") or self._peek().kind == "num":
                return _FRACTIONS[word]
        self.at = mark
        return None

    def _refers_back(self) -> bool:
        """'that', 'it', 'the last result': an earlier result, if arithmetic stands next to it."""
        mark = self.at
        while self._peek().kind == "word" and self._peek().text in _PRE_BACK:
            self.at += 1
        if self._peek().kind == "word" and self._peek().text in _BACK:
            named = self._peek().text in ("result", "answer")
            self.at += 1
            if named or self._peek(-2).text != "the":
                if not named and (self._words("result") or self._words("number")):
                    pass
                return True
        self.at = mark
        return False

    def _postfix(self, text: str) -> str:
        if self._words("squared"):
            return self._done(f"{_grouped(text)} ** 2")
        if self._words("cubed"):
            return self._done(f"{_grouped(text)} ** 3")
        mark = self.at
        if self._words("percent") or self._words("per", "cent"):
            for filler in ("tip", "tax", "vat", "commission", "discount", "sales"):
                self._words(filler)
            off = self._words("off")
            if off or self._words("of") or self._words("on") or self._words("from"):
                _ = self._words("the") or self._words("a") or self._words("an")
                whole = self._term()
                if whole is not None:
                    share = f"{text} / 100"
                    whole = _grouped(whole)
                    return self._done(f"{whole} * (1 - {share})" if off else f"{whole} * {share}")
            self.at = mark
        return text

    def _done(self, text: str) -> str:
        self.operations += 1
        self.sure = True
        return text

    # "sum of 3, 4 and 5", "add 3 to 9"

    def _listed(self) -> str | None:
        mark = self.at
        self._words("the")
        word = self._peek().text
        text: str | None = None
        if word in ("sum", "total", "product", "average", "mean", "difference", "quotient"):
            self.at += 1
            if self._words("of") or self._words("between") or word == "sum":
                text = _combined(word, self._list())
        elif word in ("add", "sum", "subtract", "multiply", "divide", "deduct", "increase", "decrease",
                      "reduce", "raise", "take"):  # fmt: skip
            self.at += 1
            self._words("up")
            text = self._commanded(word)
        if text is None:
            self.at = mark
            return None
        self.operations += 1
        self.sure = True
        return self._rest(text)

    def _list(self) -> list[str]:
        items: list[str] = []
        while (item := self._term()) is not None:
            items.append(item)
            mark = self.at
            separated = False
            while self._peek().kind == "comma" or self._peek().text in ("and", "with"):
                self.at += 1
                separated = True
            if not separated or self._peek().kind not in ("num", "open", "op", "word", "call"):
                self.at = mark
                break
        return items

    def _commanded(self, verb: str) -> str | None:
        mark = self.at
        first = self._term()
        if first is None:
            # "divide by 4" leaves the first operand out
            if verb not in ("multiply", "divide") or not self._words("by"):
                return None
            first, self.back = "{}", True
            self.at -= 1
        joint = self._peek().text
        if joint in ("to", "from", "by", "and", "with", "away", "off"):
            self.at += 1
            if joint == "away":
                self._words("from")
        elif verb in ("add", "subtract", "deduct"):
            # "add 5" and nothing else: to the earlier result
            self.back = True
            return f"{{}} {'+' if verb == 'add' else '-'} {first}"
        second = self._term()
        if second is None:
            if verb in ("add", "sum") and joint in ("and",):
                self.at = mark
            return None
        if self._peek().text == "percent" and verb in ("increase", "decrease", "reduce", "raise"):
            self.at += 1
            sign = "+" if verb in ("increase", "raise") else "-"
            return f"{_grouped(first)} * (1 {sign} {second} / 100)"
        more = [second]
        while joint == "and" and (self._peek().kind == "comma" or self._peek().text == "and"):
            self.at += 1
            another = self._term()
            if another is None:
                break
            more.append(another)
        if verb in ("add", "sum"):
            order = [second, first] if joint == "to" else [first, *more]
            return " + ".join(order)
        if verb in ("subtract", "deduct", "take"):
            return (
                f"{second} - {_grouped(first)}"
                if joint in ("from", "away")
                else f"{first} - {_grouped(second)}"
            )
        if verb in ("increase", "raise"):
            return f"{first} + {second}"
        if verb in ("decrease", "reduce"):
            return f"{first} - {second}"
        operator = "*" if verb == "multiply" else "/"
        return f"{_grouped(first)} {operator} {_grouped(second)}"


def _combined(word: str, items: list[str]) -> str | None:
    if len(items) < 2:
        return None
    if word in ("sum", "total"):
        return " + ".join(items)
    if word == "product":
        return " * ".join(_grouped(item) for item in items)
    if word in ("average", "mean"):
        return f"({' + '.join(items)}) / {len(items)}"
    return f"{items[0]} {'-' if word == 'difference' else '/'} {_grouped(items[1])}"


def _grouped(text: str) -> str:
    """In brackets, unless it is one number, one bracket or one call."""
    if re.fullmatch(r"\{\}|[\w.]+|\w*\([^()]*\)", text):
        return text
    return f"({text})"


def _ungrouped(text: str) -> str:
    return text[1:-1] if re.fullmatch(r"\([^()]*\)", text) else text
