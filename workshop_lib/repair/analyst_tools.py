"""The tools by which a model answers the analysts, and how its calls are read.

None of them is ever carried out here. `report_detection` and `report_problems` are forms to fill in; the
three repair tools are the real ones with two more arguments, and a call to one is recorded as a proposal: a
plan is tool calls that are not made yet. Left out: what happens to a call that cannot be read (`analysts`).
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, create_model

from workshop_lib.harmless import faults
from workshop_lib.llm.messages import ToolCall, ToolSpec
from workshop_lib.llm.tools import ToolInputError, arguments_for, spec_of
from workshop_lib.repair.models import ARGUMENTS, HOW_SURE, Analysis, Confidence, Detection, Words

Form = TypeVar("Form", bound=BaseModel)

REASONING = Field(description="Why, with the figures that the decision rests on.")
DETECTION = {"report_detection": Detection}
ANALYSIS = {"report_problems": Analysis}
# A repair tool's arguments and the two that make a proposal of them.
REPAIRS: dict[str, type[BaseModel]] = {
    name: create_model(
        name,
        __base__=arguments,
        __doc__=arguments.__doc__,
        confidence=(Confidence, HOW_SURE),
        reasoning=(Words, REASONING),
    )
    for name, arguments in ARGUMENTS.items()
}


class Unacceptable(ToolInputError):
    """A call that can be read and whose values are not allowed.

    Attributes:
        raw: tool, arguments, confidence and reasoning as the model wrote them.
    """

    def __init__(self, reason: str, raw: dict[str, Any]) -> None:
        super().__init__(reason)
        self.raw = raw


def specs(forms: Mapping[str, type[BaseModel]]) -> list[ToolSpec]:
    """The forms as tools for a model."""
    return [spec_of(name, form) for name, form in forms.items()]


def read_call(call: ToolCall, forms: Mapping[str, type[Form]]) -> Form:
    """A call's arguments as the form of its tool.

    Raises:
        ToolInputError: with the reason, for the model. It is `Unacceptable` where only values are wrong;
            otherwise the tool is unknown, the JSON broken, or arguments are missing or of other names.
    """
    arguments = arguments_for(call, specs(forms))
    try:
        return forms[call.name].model_validate(arguments)
    except ValidationError as error:
        if any(part["type"] in ("extra_forbidden", "missing") for part in error.errors()):
            raise ToolInputError(faults(error)) from None
        raise Unacceptable(faults(error), as_proposal(call.name, arguments)) from None


def as_proposal(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call of a repair tool in the shape of a proposal, without a name yet."""
    sure = {name: arguments.get(name) for name in ("confidence", "reasoning")}
    rest = {name: value for name, value in arguments.items() if name not in sure}
    return {"tool": tool, "arguments": rest, **sure}
