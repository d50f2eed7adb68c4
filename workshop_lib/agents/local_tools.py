"""The tools that the agent runs itself: a calculator and the weather.

Each is a typed function; its name, docstring and pydantic input are all that a model gets to know. Both
are pure look-ups, so running one twice is harmless. Left out: tools of other teams, which are called
through their contracts.
"""

import ast
import json
import math
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from temporalio import activity
from temporalio.exceptions import ApplicationError

from workshop_lib.agents.conversation.results import (
    MAX_KEPT,
    ReadResultInput,
    kept,
    read_result,
)
from workshop_lib.llm.messages import ToolSpec
from workshop_lib.llm.tools import ToolInputError, changes_of, checked, spec_of
from workshop_lib.settings import PROJECT_ROOT
from workshop_lib.temporal.bounded import as_text
from workshop_lib.temporal.steps import heartbeating, step_options

TOOL_OPTIONS = step_options(attempt=20, total=300, longest_pause=2)
MAX_EXPRESSION = 200  # characters
MAX_EXPONENT = 1_000
MAX_DIGITS = 300  # of a number on the way to the result; 9**9**9 would have 369 million


class CalculatorInput(BaseModel):
    """Arguments of the calculator."""

    model_config = ConfigDict(extra="forbid")

    expression: str = Field(
        description="An arithmetic expression of numbers, + - * / // % ** and parentheses,"
        " such as 25 + 17 or (3 + 4) * 2",
        max_length=MAX_EXPRESSION,
    )


class WeatherInput(BaseModel):
    """Arguments of the weather tool."""

    model_config = ConfigDict(extra="forbid")

    city: str = Field(
        description="Name of the city, such as Seattle or Portland, Oregon",
        max_length=80,
    )


def calculator(args: CalculatorInput) -> str:
    """Calculate an arithmetic expression exactly as written and return the result as a number."""
    try:
        value = _evaluate(ast.parse(args.expression.strip(), mode="eval").body)
    except ToolInputError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolInputError(f"not an arithmetic expression: {args.expression!r}") from None
    except ZeroDivisionError:
        raise ToolInputError(f"division by zero in {args.expression!r}") from None
    except OverflowError:
        raise ToolInputError(f"the result of {args.expression!r} is too large") from None
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ToolInputError(f"the result of {args.expression!r} is not a finite number")
        if value.is_integer() and abs(value) < 1e16:
            return str(int(value))
        # Fifteen digits are what a float is sure of: 0.1 + 0.2 is 0.3 to the person who asked.
        return f"{value:.15g}"
    return str(value)


def weather(args: WeatherInput) -> str:
    """Get the current weather in a city: temperature in °C, conditions and wind."""
    cities = _cities()
    wanted = " ".join(args.city.split(",")[0].split()).casefold()
    city = next((name for name in cities if name.casefold() == wanted), None)
    if city is None:
        raise ToolInputError(f"unknown city {args.city!r}; known are {', '.join(sorted(cities))}")
    report = cities[city]
    return f"{city}: {report['temperature_c']} °C, {report['conditions']}, wind {report['wind_kmh']} km/h"


class LocalTool:
    """A function and its input model, as one tool."""

    def __init__(self, function: Callable[[Any], str], arguments: type[BaseModel]) -> None:
        self.name = function.__name__
        self.changes = changes_of(arguments)
        self._function = function
        self._arguments = arguments

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""
        return spec_of(self.name, self._arguments, self._function.__doc__)

    def run(self, arguments: dict[str, Any]) -> str:
        """Check the arguments and run the function.

        Raises:
            ToolInputError: the arguments do not fit the schema, or mean nothing to the tool.
        """
        return self._function(checked(self._arguments, arguments))


LOCAL_TOOLS = {
    tool.name: tool
    for tool in (LocalTool(calculator, CalculatorInput), LocalTool(weather, WeatherInput))
}


# Offered where there is something to read.
READ_RESULT = LocalTool(read_result, ReadResultInput)


class ToolRequest(BaseModel):
    """Input of `execute_tool`: which tool, with arguments that are already parsed JSON."""

    name: str
    arguments: dict[str, Any]


@activity.defn
async def execute_tool(request: ToolRequest) -> str:
    """Run one local tool.

    May run twice, when a worker dies between the result and its report; the tools only look things up,
    so the second run returns the same. Of a large result the first part is returned; all of it is kept
    once, under a reference that both runs make.

    Raises:
        ApplicationError: type `ToolInputError`, not retried: only the model can correct its arguments.
    """
    tool = (LOCAL_TOOLS | {READ_RESULT.name: READ_RESULT}).get(request.name)
    if tool is None:
        raise ApplicationError(
            f"there is no local tool {request.name!r}", type="ToolInputError", non_retryable=True
        )
    async with heartbeating():
        try:
            return kept(as_text(tool.run(request.arguments), MAX_KEPT))
        except ToolInputError as error:
            reason = as_text(str(error), 2_000)
            raise ApplicationError(reason, type="ToolInputError", non_retryable=True) from None


@lru_cache(maxsize=1)
def _cities() -> dict[str, dict[str, Any]]:
    path = PROJECT_ROOT / "data" / "weather.json"
    cities: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cities"]
    return cities


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def _evaluate(node: ast.expr) -> int | float:
    """The value of an expression tree: numbers and operators, nothing that could call or look up."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            result = _UNARY[type(op)](_evaluate(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _evaluate(left), _evaluate(right)
            if isinstance(op, ast.Pow):
                _refuse_huge_power(a, b)
            result = _BINARY[type(op)](a, b)
        case _:
            raise ToolInputError("only numbers, + - * / // % ** and parentheses can be used")
    if isinstance(result, complex):
        raise ToolInputError("the result is not a real number")
    if isinstance(result, int) and result.bit_length() > MAX_DIGITS * 3.33:
        raise ToolInputError(f"a number on the way has more than {MAX_DIGITS} digits")
    return result  # type: ignore[no-any-return]


def _refuse_huge_power(base: int | float, exponent: int | float) -> None:
    """Refuse before computing: the product would eat the CPU, not the answer."""
    digits = abs(exponent) * math.log10(abs(base)) if base else 0
    if abs(exponent) > MAX_EXPONENT or digits > MAX_DIGITS:
        raise ToolInputError(f"the power is too large; results may have {MAX_DIGITS} digits")
