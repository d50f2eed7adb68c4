"""The desk at which a plan is decided: one plan, one decision, bound to the digest of the plan.

Plain code without any waiting, so that an update's validator can ask it and refuse before anything is
recorded. Left out: who may decide. Whoever can reach the workflow may, and is recorded.
"""

from datetime import datetime

from temporalio.exceptions import ApplicationError

from workshop_lib.repair.models import Plan
from workshop_lib.repair.states import APPROVAL_TIMEOUT, Decision, RecordedDecision, Way


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

    def check(self, decision: Decision, now: datetime) -> None:
        """See that a decision counts.

        Raises:
            ApplicationError: it does not; the type says why in one word.
        """
        digest = decision.plan_digest
        if digest in self._past:
            older = f"That digest is of an older plan: {self._past[digest]}."
            raise _refusal("StalePlan", older)
        if self.plan is None or self.until is None:
            raise _refusal("NoPlan", self._closed or "There is no plan to decide about yet.")
        if digest != self.plan.digest:
            raise _refusal(
                "WrongDigest",
                # The right one is not said: whoever decides has to look.
                f"The digest {digest[:12]} is not that of the plan."
                " Look at the plan again and decide about what it says now.",
            )
        if self.decision is not None:
            word = "approved" if self.decision.approve else "rejected"
            raise _refusal(
                "AlreadyDecided",
                f"The plan was {word} by {self.decision.decided_by} at"
                f" {self.decision.decided_at:%Y-%m-%d %H:%M} UTC.",
            )
        if now >= self.until:
            raise _refusal("Expired", f"The plan has expired at {self.until:%Y-%m-%d %H:%M} UTC.")
        if self._closed:
            raise _refusal("Closed", self._closed)
        if decision.proposals is not None:
            _check_part(decision.approve, decision.proposals, self.plan)

    def take(self, decision: Decision, now: datetime, way: Way) -> RecordedDecision:
        """Record a decision.

        Raises:
            ApplicationError: it does not count; the type says why in one word.
        """
        self.check(decision, now)
        assert self.plan is not None
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


def _check_part(approve: bool, names: list[str], plan: Plan) -> None:
    if not approve:
        raise _refusal(
            "PartOfRejection",
            "A rejection is of the whole plan. To decline a part, approve the rest.",
        )
    known = [proposal.proposal_id for proposal in plan.proposals]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _refusal(
            "UnknownProposal",
            f"The plan has no proposal {', '.join(unknown)}; it has {', '.join(known)}.",
        )
    if not names:
        raise _refusal(
            "NothingApproved", "An approval of nothing is a rejection: reject the plan instead."
        )


def _refusal(kind: str, reason: str) -> ApplicationError:
    return ApplicationError(reason, type=kind, non_retryable=True)
