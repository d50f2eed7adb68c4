"""The desk at which a plan is decided: one plan, one decision, bound to the digest of the plan.

Plain code without any waiting, so that an update's validator can ask it and refuse before anything is
recorded. Left out: who may decide. Whoever can reach the workflow may, and is recorded.
"""

from datetime import datetime
from typing import NamedTuple

from workshop_lib.repair.models import Plan
from workshop_lib.repair.states import APPROVAL_TIMEOUT, Decision, RecordedDecision, Way


class Refusal(NamedTuple):
    """Why a decision does not count."""

    kind: str
    reason: str


class ApprovalDesk:
    """Takes at most one decision on one plan.

    Args:
        past: digests of earlier plans of the same workflow, and what became of them, in words.
    """

    def __init__(self, past: dict[str, str] | None = None) -> None:
        self._past = dict(past or {})
        self._closed = ""
        self.plan: Plan | None = None
        self.until: datetime | None = None
        self.decision: RecordedDecision | None = None

    def open(self, plan: Plan, now: datetime) -> None:
        """Show a plan: from now on it can be decided, until it expires."""
        self.plan = plan
        self.until = now + APPROVAL_TIMEOUT

    def close(self, why: str) -> None:
        """Take no decision any more.

        Args:
            why: a sentence for whoever comes too late.
        """
        self._closed = why

    def problem_with(self, decision: Decision, now: datetime) -> Refusal | None:
        """Why a decision does not count, or None where it does."""
        digest = decision.plan_digest
        if digest in self._past:
            return Refusal("StalePlan", f"That digest is of an older plan: {self._past[digest]}.")
        if self.plan is None or self.until is None:
            why = self._closed or "There is no plan to decide about yet."
            return Refusal("NoPlan", why)
        if digest != self.plan.digest:
            return Refusal(
                "WrongDigest",
                # The right one is not said: whoever decides has to look.
                f"The digest {digest[:12]} is not that of the plan."
                " Look at the plan again and decide about what it says now.",
            )
        if self.decision is not None:
            word = "approved" if self.decision.approve else "rejected"
            return Refusal(
                "AlreadyDecided",
                f"The plan was {word} by {self.decision.decided_by} at"
                f" {self.decision.decided_at:%Y-%m-%d %H:%M} UTC.",
            )
        if now >= self.until:
            return Refusal("Expired", f"The plan has expired at {self.until:%Y-%m-%d %H:%M} UTC.")
        if self._closed:
            return Refusal("Closed", self._closed)
        return self._problem_with_part(decision, self.plan)

    def take(self, decision: Decision, now: datetime, way: Way) -> RecordedDecision:
        """Record a decision that `problem_with` has nothing against."""
        assert self.plan is not None and self.decision is None
        every = [proposal.proposal_id for proposal in self.plan.proposals]
        wanted = every if decision.proposals is None else decision.proposals
        approved = [name for name in every if decision.approve and name in wanted]
        self.decision = RecordedDecision(
            approve=decision.approve,
            plan_digest=decision.plan_digest,
            decided_by=decision.decided_by.strip(),
            decided_at=now,
            way=way,
            comment=decision.comment,
            approved=approved,
            declined=[name for name in every if name not in approved],
        )
        return self.decision

    @staticmethod
    def _problem_with_part(decision: Decision, plan: Plan) -> Refusal | None:
        if decision.proposals is None:
            return None
        if not decision.approve:
            return Refusal(
                "PartOfRejection",
                "A rejection is of the whole plan. To decline a part, approve the rest.",
            )
        known = [proposal.proposal_id for proposal in plan.proposals]
        unknown = [name for name in decision.proposals if name not in known]
        if unknown:
            return Refusal(
                "UnknownProposal",
                f"The plan has no proposal {', '.join(unknown)}; it has {', '.join(known)}.",
            )
        if not decision.proposals:
            return Refusal(
                "NothingApproved", "An approval of nothing is a rejection: reject the plan instead."
            )
        return None
