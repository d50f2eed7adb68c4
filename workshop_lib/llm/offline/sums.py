"""Arithmetic: a table of phrases makes an expression of a sentence, and Python's parser judges it.

Nothing is computed here. Numbers stay as they were written, so that a tool computes what was meant. `§`
is a number that an earlier result will bring; `§2` is the result of step 2 of a plan. Left out: word
problems in which no operation is named.
"""

import ast
import re
from functools import lru_cache

BACK = "§"
LONGEST = 400  # characters of a text that is read for a sum
_N = r"(?:\((?:[^()]|\([^()]*\))*\)|-?\d+(?:\.\d+)?|§\d*)"
_IT = r"(?:it|that|this|them|those|the (?:result|answer|number|sum|total))"
_MORE = r"(?:tip|tax|vat|more|raise|surcharge|extra|increase|markup)"
_LESS = r"(?:off|discount|less|cheaper|reduction|reduced|rebate)"
# Phrase, and the expression that it stands for, one after the other.
_PHRASES = tuple((re.compile(pattern, re.I), expression) for pattern, expression in (
    (r"[$€£]\s?(?=[\d§])|(?<=\d)\s?[€£](?!\w)|(?<=\d) (?:euros?|dollars?|pounds?|usd|eur|gbp)\b", ""),
    (r"(?<=[\d)]) per ?cent\b", "%"),
    (rf"({_N}) ?% (?:off|discount on|less than) (?:of )?({_N})", r"(\2 * (1 - \1 / 100))"),
    (rf"({_N}) ?% {_MORE} (?:on|to|than) (?:an? )?(?:bill of )?({_N})", r"(\2 * \1 / 100)"),
    (rf"({_N}) ?%(?: \w+)? (?:of|on) (?:an? |the )?({_N})", r"(\2 * \1 / 100)"),
    (rf"(?:increase|raise) ({_N}) by ({_N}) ?%", r"(\1 * (1 + \2 / 100))"),
    (rf"(?:decrease|reduce|lower|cut) ({_N}) by ({_N}) ?%", r"(\1 * (1 - \2 / 100))"),
    (rf"({_N})(?: \w+){{0,3}} (?:plus|and|with|\+) (?:an? )?({_N}) ?%", r"(\1 * (1 + \2 / 100))"),
    (rf"({_N})(?: \w+)? (?:minus|less|-) ({_N}) ?%", r"(\1 * (1 - \2 / 100))"),
    (rf"({_N})[^.?!\d§]{{0,40}}?({_N}) ?% {_LESS}", r"(\1 * (1 - \2 / 100))"),
    (rf"({_N})[^.?!\d§]{{0,40}}?({_N}) ?% {_MORE}", r"(\1 * (1 + \2 / 100))"),
    (rf"subtract ({_N}) from ({_N})", r"(\2 - \1)"), (rf"add (?:up )?({_N}) to ({_N})", r"(\1 + \2)"),
    (rf"(?:divide|split|share) ({_N}) (?:\w+ )?(?:by|among|between|into) ({_N})", r"(\1 / \2)"),
    (rf"multiply ({_N}) (?:by|with|and) ({_N})", r"(\1 * \2)"),
    (rf"product of ({_N}) and ({_N})", r"(\1 * \2)"),
    (rf"difference between ({_N}) and ({_N})", r"(\1 - \2)"), (rf"square root of ({_N})", r"(\1 ** 0.5)"),
    (rf"square of ({_N})|({_N}) squared", r"(\1\2 ** 2)"), (rf"cube of ({_N})|({_N}) cubed", r"(\1\2 ** 3)"),
    (rf"({_N})(?: raised)? to the (?:power (?:of )?)?({_N})", r"(\1 ** \2)"),
    (rf"(?:half (?:of )?(?:the )?|halve )({_N})", r"(\1 / 2)"),
    (rf"(?:double|twice) (?:the )?({_N})", r"(\1 * 2)"),
    (rf"({_N})(?: \w+){{0,3}} (?:at|for|costing|of) ({_N}) (?:\w+ )?(?:each|apiece|per \w+)", r"(\1 * \2)"),
    (rf"({_N})(?: \w+){{0,2}} each (?:for|at|costs?|of) ({_N})", r"(\1 * \2)"),
))  # fmt: skip
_WORDS = tuple((re.compile(rf"(?<=[\d)§]) ?(?:{pattern}) ?(?=[-\d(§])", re.I), sign) for pattern, sign in (
    (r"multiplied by|times|por|mal|fois|x", " * "),
    (r"divided by|over|durch|geteilt durch|entre", " / "),
    (r"\^", " ** "),
    (r"plus|más|und", " + "), (r"minus|less|menos|moins|weniger", " - "), (r"mod|modulo", " % "),
))  # fmt: skip
_STEP = re.compile(
    rf"({_N}),? ?(?:and then |and |then |, )?(?:(multiply|multiplied|divide|divided|times)(?: {_IT})?(?: by)?"
    rf"|(add|plus)|(?:subtract|minus|less)) ({_N})(?: (?:to|from) {_IT})?", re.I)  # fmt: skip
_RUN = re.compile(rf"[(\s]*{_N}(?:[\s)(]*(?:\*\*|//|[-+*/%])[\s(]*{_N})+[)\s]*")
_SERIES = re.compile(
    rf"\b(?:sum of|sum|add(?: up| together)?|total of|(?P<mean>average|mean)(?: of)?)\b:?"
    rf"(?P<list>(?: the)?(?: numbers)?\s{_N}(?:(?:,? and |, ?|\s){_N})+)", re.I)  # fmt: skip
_ASKS = re.compile(r"(?:what(?:'s| is| are)?|how much is|calculate|compute|=)\W*$", re.I)
_DATES = re.compile(r"(?<![\d.])\d+(?:-\d+)+(?![\d-])|(?<![\d.])\d+/\d+(?![\d.])")


def is_sum(expression: str) -> bool:
    """Is it arithmetic, with at least one operation?"""
    try:
        tree = ast.parse(re.sub(r"§\d*", "1", expression).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    nodes = list(ast.walk(tree.body))
    allowed = (ast.BinOp, ast.UnaryOp, ast.Constant, ast.operator, ast.unaryop)
    return all(isinstance(n, allowed) for n in nodes) and any(
        isinstance(n, ast.BinOp) for n in nodes
    )


@lru_cache(200)  # each request of a turn asks again
def find_sum(text: str) -> str | None:
    """The expression that a text asks for, or None."""
    text = re.sub(r"\s+", " ", text)
    if not re.search(r"[\d§]", text) or len(text) > LONGEST or _is_no_sum(text):
        return None
    text = re.sub(r"(?<=\d) ?/ ?(?=\d)", " / ", text)
    if series := _SERIES.search(text):
        numbers = re.findall(_N, series["list"])
        body = f"({' + '.join(numbers)})"
        body = f"({body} / {len(numbers)})" if series["mean"] else body
        text = text[: series.start()] + body + text[series.end() :]
    text = re.sub(rf"(?<![*/+-] )({_N}) / ({_N})(?= (?:and|then))", r"(\1 / \2)", text)
    for pattern, expression in _PHRASES:
        text = pattern.sub(expression, text)
    while step := _STEP.search(text):  # `multiply 3 by 4 and add 5`: each works on what came before
        sign = "*" if step[2] else "+" if step[3] else "-"
        sign = "/" if (step[2] or "").lower().startswith("div") else sign
        text = f"{text[: step.start()]}({step[1]} {sign} {step[4]}){text[step.end() :]}"
    for pattern, sign in _WORDS:
        text = pattern.sub(sign, text)
    found = [match[0].strip() for match in _RUN.finditer(text) if is_sum(match[0])]
    if not found:
        return None
    best = re.sub(r"\s*(\*\*|//|[*/%+])\s*", r" \1 ", without_brackets(max(found, key=len)))
    return re.sub(r"(?<=[\d)§])\s*-\s*", " - ", best)


def without_brackets(text: str) -> str:
    """An expression without brackets around the whole of it."""
    text = text.strip()
    while text.startswith("(") and text.endswith(")") and is_sum(text[1:-1]):
        text = text[1:-1].strip()
    return text


def refer_back(text: str) -> str:
    """A text in which `it` and the like are `§`, and which begins with `§` where its operand is missing."""
    verb = r"(?:multipl|divid|subtract|add|times|plus|minus|half|double|twice|%|percent|square|cube|split)"
    if re.search(rf"\b{verb}.*\b{_IT}\b|\b{_IT}\b.*\b{verb}|% of {_IT}", text, re.I):
        return re.sub(rf"\b{_IT}\b", BACK, text, flags=re.I)
    lead = r"^(\W*(?:(?:and|now|then|ok|okay|what about|how about|what is|so)\b\W*)*)"
    operand = (
        r"(?:(?:multiply|divide|divided|multiplied) by|times|plus|minus|add|subtract|squared|cubed)"
    )
    if re.match(rf"{lead}{operand}\b(?! \S+ (?:to|from|by|and|with) )", text, re.I):
        return re.sub(lead, rf"\1{BACK} ", text, count=1, flags=re.I)
    return text


def _is_no_sum(text: str) -> bool:
    """`24/7`, `9-5` and `555-1234` are no arithmetic unless somebody asks for it."""
    bare, others = _DATES.search(text), re.sub(r"\d+[-/]\d+", "", text)
    asked = bare and (_ASKS.search(text[: bare.start()]) or not re.search(r"[^\W\d]", others))
    return bool(
        bare
        and not asked
        and not re.search(r"\d ?[*+%^(]|\b(?:times|multiply|divide|plus)\b", others)
    )
