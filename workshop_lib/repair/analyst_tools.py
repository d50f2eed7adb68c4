"""The tools by which a model answers the analysts, and how its calls are read.

None of them is ever carried out here. `report_detection` and `report_problems` are forms to fill in; the
three repair tools are the real ones with two more arguments, and a call to one is recorded as a proposal: a
plan is tool calls that are not made yet. Left out: what happens to a call that cannot be read (`analysts`).
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from workshop_lib.llm.messages import ToolCall, ToolSpec
from workshop_lib.llm.tools import ToolInputError, arguments_for, spec_of
from workshop_lib.repair.models import ARGUMENTS, Confidence, Detection, Id, Problem
from workshop_lib.repair.plan_rules import in_words

REASONING = Field(
    min_length=1, max_length=2000, description="Why, with the figures that the decision rests on."
)
CONFIDENCE = Field(description="How sure you are, from 0 to 1, by the evidence in the data.")


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DetectionForm(_Form):
    """Report whether any order may have a problem, and which orders."""

    confidence: Confidence = Field(
        description="How sure you are that at least one order has a problem, from 0 to 1."
    )
    order_ids: list[Id] = Field(
        max_length=1000, description="Ids of the orders that may have a problem; empty if none."
    )
    reason: str = Field(max_length=2000, description="Why, in one or two sentences.")


class ProblemForm(_Form):
    """One problem of one order."""

    order_id: Id = Field(description="The order that has the problem.")
    kind: str = Field(
        min_length=1, max_length=60, description="What sort of problem, such as short-of-stock."
    )
    description: str = Field(
        min_length=1, max_length=2000, description="What is wrong, with the figures that prove it."
    )
    confidence: Confidence = CONFIDENCE


class AnalysisForm(_Form):
    """Report all problems of the orders, one entry a problem; an order may have several."""

    problems: list[ProblemForm] = Field(
        max_length=1000,
        description="The problems, each with the order it belongs to; empty if none.",
    )
    summary: str = Field(max_length=2000, description="All of it in one or two sentences.")


def _proposal_form(name: str, arguments: type[BaseModel]) -> type[BaseModel]:
    """A repair tool's arguments and the two that make a proposal of them."""
    return create_model(
        name,
        __base__=arguments,
        __doc__=arguments.__doc__,
        confidence=(Confidence, CONFIDENCE),
        reasoning=(str, REASONING),
    )


DETECTION: dict[str, type[BaseModel]] = {"report_detection": DetectionForm}
ANALYSIS: dict[str, type[BaseModel]] = {"report_problems": AnalysisForm}
REPAIRS: dict[str, type[BaseModel]] = {
    name: _proposal_form(name, arguments) for name, arguments in ARGUMENTS.items()
}


class Unreadable(ValueError):
    """A call that is no call: unknown tool, broken JSON, arguments missing or of other names."""


class Unacceptable(ValueError):
    """A call that can be read and whose values are not allowed.

    Attributes:
        raw: tool, arguments, confidence and reasoning as the model wrote them.
    """

    def __init__(self, reason: str, raw: dict[str, Any]) -> None:
        super().__init__(reason)
        self.raw = raw


def specs(forms: dict[str, type[BaseModel]]) -> list[ToolSpec]:
    """The forms as tools for a model."""
    return [spec_of(name, form) for name, form in forms.items()]


def read_call(call: ToolCall, forms: dict[str, type[BaseModel]]) -> BaseModel:
    """A call's arguments as the form of its tool.

    Raises:
        Unreadable, Unacceptable: with the reason, for the model.
    """
    try:
        arguments = arguments_for(call, specs(forms))
    except ToolInputError as error:
        raise Unreadable(str(error)) from None
    try:
        return forms[call.name].model_validate(arguments)
    except ValidationError as error:
        if any(part["type"] in ("extra_forbidden", "missing") for part in error.errors()):
            raise Unreadable(in_words(error)) from None
        raise Unacceptable(in_words(error), as_proposal(call.name, arguments)) from None


def as_proposal(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call of a repair tool in the shape of a proposal, without a name yet."""
    rest = {k: v for k, v in arguments.items() if k not in ("confidence", "reasoning")}
    return {
        "tool": tool,
        "arguments": rest,
        "confidence": arguments.get("confidence"),
        "reasoning": arguments.get("reasoning"),
    }


def to_detection(form: DetectionForm) -> Detection:
    """A filled-in form as the type that goes on."""
    return Detection(
        confidence=form.confidence,
        order_ids=list(dict.fromkeys(form.order_ids)),
        reason=form.reason,
    )


def to_problems(form: AnalysisForm) -> list[Problem]:
    """The problems of a filled-in form."""
    return [Problem(**problem.model_dump()) for problem in form.problems]
