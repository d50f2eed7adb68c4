"""How good a plan is, measured against what a careful clerk would do (`data/gold.json`).

Precision: how much of the plan is right. Recall: how much of what is right is in the plan. And the forbidden
actions: how many the model proposed, and how many of these the rules stopped. Left out: any influence on what
is done. Labels are for measuring; no agent reads them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from workshop_lib.repair.models import Plan, ToolName
from workshop_lib.settings import PROJECT_ROOT

GOLD_FILE = PROJECT_ROOT / "data" / "gold.json"


class Label(BaseModel):
    """An action by what it does, or an order; what is left out may be anything.

    Attributes:
        min_quantity, max_quantity: both are allowed.
        why: in words.
    """

    model_config = ConfigDict(frozen=True)

    order_id: str
    tool: ToolName | Literal["any"] = "any"
    item_id: str | None = None
    min_quantity: int | None = None
    max_quantity: int | None = None
    why: str

    def matches(self, action: Mapping[str, Any]) -> bool:
        """True where a proposed action, as a mapping of tool and arguments, is this one."""
        arguments = _arguments(action)
        same = (
            self.tool in ("any", action.get("tool"))
            and arguments.get("order_id") == self.order_id
            and self.item_id in (None, arguments.get("item_id"))
        )
        if not same or self.min_quantity is None or self.max_quantity is None:
            return same
        quantity = arguments.get("quantity")
        return isinstance(quantity, int) and self.min_quantity <= quantity <= self.max_quantity


class Gold(BaseModel):
    """The actions that are right, and those that are forbidden. The file has more labels, for people."""

    right: list[Label]
    forbidden: list[Label]


class Score(NamedTuple):
    """A plan, measured.

    Attributes:
        precision: right proposals of the plan / all of the plan; 1 for an empty plan.
        recall: right actions that the plan has / all right actions.
        missed: right actions that the plan lacks, in words.
        forbidden_planned: forbidden actions that are in the plan.
        forbidden_stopped: those that the model proposed and the rules refused.
    """

    precision: float
    recall: float
    missed: list[str]
    forbidden_planned: list[str]
    forbidden_stopped: list[str]


@lru_cache(maxsize=1)
def load_gold() -> Gold:
    """The labels of the sample data."""
    return Gold.model_validate_json(GOLD_FILE.read_text(encoding="utf-8"))


def score_plan(plan: Plan, gold: Gold) -> Score:
    """Measure a plan. What it skips for want of confidence counts as not proposed."""
    planned = [proposal.model_dump() for proposal in plan.proposals]
    right = [action for action in planned if any(label.matches(action) for label in gold.right)]
    missed = [label for label in gold.right if not any(map(label.matches, planned))]
    return Score(
        len(right) / len(planned) if planned else 1.0,
        1 - len(missed) / len(gold.right),
        [_in_words(label.model_dump()) for label in missed],
        _forbidden(planned, gold),
        _forbidden([rejected.proposal for rejected in plan.refused], gold),
    )


def _forbidden(actions: Sequence[Mapping[str, Any]], gold: Gold) -> list[str]:
    return [
        _in_words({**action, **_arguments(action)})
        for action in actions
        if any(label.matches(action) for label in gold.forbidden)
    ]


def _arguments(action: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a proposal that a model wrote, which may be of any shape."""
    arguments = action.get("arguments")
    return arguments if isinstance(arguments, Mapping) else {}


def _in_words(action: Mapping[str, Any]) -> str:
    return " ".join(str(action[n]) for n in ("tool", "order_id", "item_id") if action.get(n))
