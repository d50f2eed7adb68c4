"""The desk at which a plan is decided: one plan, one decision, bound to the digest of the plan.

Plain code without any waiting, so that an update's validator can ask it and refuse before anything is
recorded. Where identity is checked, the desk knows who decides; elsewhere whoever can reach the workflow may,
under the name that the decision gives. Left out: the check (`temporal.caller` says what came of it).
"""

from datetime import datetime

from temporalio.exceptions import ApplicationError

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.models import Plan
from workshop_lib.repair.states import APPROVAL_TIMEOUT, Decision, RecordedDecision, State, Way
from workshop_lib.temporal.caller import FORBIDDEN, Asker, asker, may
from workshop_lib.temporal.search_attributes import REPAIR_STATUS, SESSION_OWNER, equals

MAY_DECIDE = "orders:approve"
MAY_DECIDE_OWN = "orders:auto-approve"  # a standing permission, for agents that act alone too


class ApprovalDesk:
    """Takes at most one decision on one plan.

    Args:
        past: digests of earlier plans of the same workflow, and what became of them, in words.
    """

    def __init__(self, past: dict[str, str] | None = None) -> None:
        self._past = dict(past or {})
        self._closed = ""
        self._requested_by: Asker | None = None
        self.plan: Plan | None = None
        self.until: datetime | None = None
        self.decision: RecordedDecision | None = None

    def open(self, plan: Plan, now: datetime) -> None:
        """Show a plan: from now on it can be decided, until it expires."""
        self.plan = plan
        self.until = now + APPROVAL_TIMEOUT
        self._requested_by = asker()

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
        self._check_asker(decision.approve)
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
        who = asker() if way != "automatic" else None
        every = [proposal.proposal_id for proposal in self.plan.proposals]
        wanted = every if decision.proposals is None else decision.proposals
        approved = [name for name in every if decision.approve and name in wanted]
        self.decision = RecordedDecision(
            approve=decision.approve,
            plan_digest=decision.plan_digest,
            decided_by=who.name if who else decision.decided_by.strip(),
            decided_at=now,
            way=way,
            comment=decision.comment,
            approved=approved,
            declined=[name for name in every if name not in approved],
        )
        return self.decision

    @property
    def needs_somebody_else(self) -> bool:
        """Whether whoever asks for a repair may not approve of it as well."""
        return asker() is not None and not may(MAY_DECIDE_OWN)

    def _check_asker(self, approve: bool) -> None:
        who = asker()
        if who is None or not self.needs_somebody_else:
            return
        if not who.name:
            raise _refusal(
                "NoProof",
                "It carries no proof of who decides, and a signal cannot. Decide in the notebook, by"
                " `workshop repair approve` or over MCP, as somebody who has signed in.",
            )
        if approve and self._requested_by and who.name == self._requested_by.name:
            raise _refusal(
                "OwnRequest", f"{who.name} has asked for this repair: somebody else approves of it."
            )
        if not may(MAY_DECIDE):
            raise _refusal(FORBIDDEN, f"{who.name} lacks the scope {MAY_DECIDE}.")


def waiting_for(who: Asker | None) -> str:
    """A list filter: the repairs whose plan waits for a decision, and may be approved of by this one.

    Args:
        who: None is anybody, where nobody checks.

    Raises:
        WorkshopError: it may approve of nothing.
    """
    waiting = f"{equals(REPAIR_STATUS, State.PENDING_APPROVAL)} AND ExecutionStatus = 'Running'"
    if who is None or MAY_DECIDE_OWN in who.scopes:
        return waiting
    if MAY_DECIDE not in who.scopes:
        raise WorkshopError(
            f"{who.name} lacks the scope {MAY_DECIDE}, so no plan waits for {who.name}.",
            fix="`workshop repair list` shows them all; ask whoever grants scopes.",
        )
    others = f"NOT {equals(SESSION_OWNER, who.name)} OR {SESSION_OWNER.name} IS NULL"
    return f"{waiting} AND ({others})"


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
