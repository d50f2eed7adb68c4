"""What is wanted of the tools: the outcome of understanding a message.

Left out: how a message is understood, and how a want is served.
"""

from dataclasses import dataclass, field
from typing import Any

from workshop_lib.llm.rules.chains import Chain
from workshop_lib.llm.rules.tool_choice import Filled
from workshop_lib.llm.rules.tool_schema import Slot, Tool


@dataclass
class Want:
    """One thing that is asked.

    Attributes:
        tool: the tool that serves it.
        calls: arguments of the calls to make first.
        chain: what is then computed from their results.
        fills: a further tool that needs a result as an argument, with what is known for it already.
        text: the piece of the message.
    """

    tool: Tool
    calls: list[dict[str, Any]]
    text: str
    chain: Chain | None = None
    fills: tuple[Tool, Filled] | None = None


@dataclass
class Understanding:
    """A message, understood as far as the rules can.

    Attributes:
        unanswered: pieces that ask for something no tool does.
        missing: a tool that fits and lacks required arguments, with these.
        problem: a sentence that says why nothing can be done.
    """

    wants: list[Want] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    missing: list[tuple[Tool, list[Slot]]] = field(default_factory=list)
    problem: str | None = None


def with_value(arguments: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A call's arguments with one of them changed."""
    if len(path) == 1:
        return {**arguments, path[0]: value}
    return {**arguments, path[0]: with_value(arguments.get(path[0]) or {}, path[1:], value)}
