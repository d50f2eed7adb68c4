"""What a session has cost, in tokens or in money, and how much it may.

Each model call is counted where its answer comes in, summaries too; here it is only added up, and compared to
a budget. Before a call the worst that it may cost has to fit into what is left: an upper estimate of what is
sent, and the longest answer that is then asked for. Left out: the price list. Whoever sets a budget of money
says what a token costs.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from workshop_lib.llm.messages import Usage
from workshop_lib.llm.tokens import at_most

MAX_OUTPUT = 2_000  # tokens of one answer, in a session with a budget
WARN_AT = 0.8


class Budget(BaseModel):
    """How much a session may cost, of all its turns and runs: tokens or dollars.

    Attributes:
        tokens: sent and received, together.
        dollars: instead of tokens.
        dollars_per_million: what a million tokens sent, and a million received, cost; with `dollars`.
    """

    model_config = ConfigDict(frozen=True)

    tokens: int | None = None
    dollars: float | None = None
    dollars_per_million: tuple[float, float] | None = None

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" if self.tokens is not None else f"${self.dollars:,.4g}"

    def share(self, used: Usage) -> float:
        """How much of it something takes: 1.0 is all."""
        if self.tokens is not None:
            return used.tokens / max(self.tokens, 1)
        sent, received = self.dollars_per_million or (0, 0)
        cost = (used.prompt_tokens * sent + used.completion_tokens * received) / 1_000_000
        return cost / (self.dollars or 1e-9)

    def problem(self) -> str | None:
        """Why it can be none, in words, or None."""
        if (self.tokens is None) == (self.dollars is None):
            return "A budget is a number of tokens, or of dollars: give one of the two."
        given = self.tokens if self.tokens is not None else self.dollars
        assert given is not None
        if not 0 < given < 1e15:
            return f"A budget is more than 0, and {given:,} is not. Give what the session may cost in all."
        prices = self.dollars_per_million
        if self.dollars is not None and (prices is None or not all(0 <= p < 1e9 for p in prices)):
            return (
                "A budget in dollars needs the price of a million tokens sent and of a million received, as"
                " in Budget(dollars=1, dollars_per_million=(0.25, 2))."
            )
        return None


class Spending(BaseModel):
    """What a session has cost so far.

    Attributes:
        used: by all model calls, those for summaries included.
        turns: tokens a turn, of the turns of this run.
        budget: None where it has none.
        waits: what the turn under way waits for, in words; empty where it goes on.
    """

    used: Usage
    turns: dict[int, int]
    budget: Budget | None
    waits: str


def worst_case(*sent: Any) -> Usage:
    """The most that a call can cost.

    Args:
        sent: what the model is sent, as JSON.
    """
    return Usage(prompt_tokens=at_most(sent), completion_tokens=MAX_OUTPUT, estimated=True)
