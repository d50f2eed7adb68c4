"""Arithmetic in a message, handed to a tool that calculates, in the spelling that this tool understands.

"And times 2" goes on with the number before it: of the message, or of the conversation. Left out: reading
the arithmetic, and doing it.
"""

import re
from collections.abc import Sequence

from workshop_lib.llm.rules.arithmetic import Expression
from workshop_lib.llm.rules.conversation import Conversation
from workshop_lib.llm.rules.results import number_in, read_result
from workshop_lib.llm.rules.tool_choice import call_with, operation_call
from workshop_lib.llm.rules.tool_schema import Tool
from workshop_lib.llm.rules.wants import Understanding, Want

_RAW = re.compile(
    r"^\W*(?:calculate|compute|evaluate|solve|what is|"
    r"what's)\s+((?=[^a-z]*\d)(?=[^a-z]*[-+*/^%])[-\d\s.+*/()^%,]+?)\s*[?=]?\s*$",
    re.IGNORECASE,
)


def add_arithmetic(
    found: Understanding,
    expressions: Sequence[Expression],
    text: str,
    conversation: Conversation,
    turn: int,
    tools: Sequence[Tool],
) -> None:
    """Add a want for every expression of a message, or the reason why there is none."""
    before: str | None = None
    raw = _RAW.match(text)
    if not expressions and raw and any(tool.calculates for tool in tools):
        # Not well formed: the tool says what is wrong with it better than we could.
        found.wants += [want for want in [calculation(raw[1].strip(), text, tools)] if want]
    for expression in expressions:
        written = expression.text
        if expression.refers_back:
            base = f"({before})" if before else _earlier_number(conversation, turn)
            if base is None:
                found.problem = found.problem or (
                    "There is no earlier number in this conversation that I could go on with."
                )
                continue
            written = written.replace("{}", base)
        before = written
        piece = text[expression.start : expression.end].strip()
        want = calculation(written, piece, tools)
        if want is not None:
            found.wants.append(want)
            continue
        computer = calculator(tools)
        found.problem = found.problem or (
            f"I do not calculate myself, and the tool {computer.name} does not say that it can do “{piece}”."
            if computer
            else f"I do not calculate myself, and I have no tool that does “{piece}”."
        )


def calculation(expression: str, piece: str, tools: Sequence[Tool]) -> Want | None:
    """A want for an expression, in the spelling that the calculating tool understands."""
    for tool in tools:
        if not tool.calculates:
            continue
        spelled = spell(expression, tool)
        if spelled is not None:
            return Want(tool, [call_with(tool, {tool.required[0].path: spelled})], piece)
    operation = operation_call(tools, expression)
    return Want(operation[0], [operation[1]], piece) if operation else None


def spell(expression: str, tool: Tool) -> str | None:
    """An expression as a tool's description wants it; None where it cannot do what is asked."""
    said = f"{tool.description} {tool.required[0].description}"
    if "sqrt(" in expression and not re.search(r"sqrt|square root", said, re.IGNORECASE):
        return None
    if "^" in said and "**" not in said:
        return expression.replace("**", "^")
    return expression


def calculator(tools: Sequence[Tool]) -> Tool | None:
    """The tool that computes an expression, if there is one."""
    return next((tool for tool in tools if tool.calculates), None)


def _earlier_number(conversation: Conversation, turn: int) -> str | None:
    """The last number that a tool returned before a turn."""
    for earlier in reversed(conversation.turns[:turn]):
        for record in reversed(earlier.records):
            if record.result is not None:
                return number_in(read_result(record.result))
        if earlier.answer and not earlier.records and earlier.question is None:
            numbers = re.findall(r"-?\d+(?:\.\d+)?", earlier.answer)
            return numbers[-1] if numbers else None
    return None
