"""A repair in plain text: what terminals print and screen readers read.

Everything that others have written, ids included, goes through `harmless.line`. Left out: Markdown for
the Web UI and the reports (`plan_text`).
"""

from typing import NamedTuple

from workshop_lib import harmless
from workshop_lib.repair.models import Plan, Proposal, RepairResult
from workshop_lib.repair.states import RepairStatus, State

SHORT = 12  # characters of a digest that are enough to tell plans apart


class ProposalRow(NamedTuple):
    """A proposal as words, a column each."""

    name: str
    order: str
    tool: str
    arguments: str
    confidence: str
    reasoning: str


def proposal_row(proposal: Proposal) -> ProposalRow:
    """One proposal. The order stands in a column of its own, not among the arguments."""
    given = proposal.arguments.model_dump(exclude={"order_id"})
    return ProposalRow(
        name=proposal.proposal_id,
        order=proposal.order_id,
        tool=proposal.tool,
        arguments=", ".join(f"{name} {harmless.line(str(value))}" for name, value in given.items()),
        confidence=f"{proposal.confidence:.2f}",
        reasoning=harmless.line(proposal.reasoning),
    )


def plan_in_text(plan: Plan) -> str:
    """A plan: its digest, what it proposes, what it skips and what the rules have refused."""
    lines = [
        f"Plan {plan.digest}",
        f"{len(plan.proposals)} proposed, {len(plan.skipped)} skipped, {len(plan.refused)} refused",
    ]
    for title, proposals in (("Proposed", plan.proposals), ("Skipped, not sure", plan.skipped)):
        if proposals:
            lines += ["", f"{title}:"]
        for row in map(proposal_row, proposals):
            lines.append(f"  {row.name}  {row.order}  {row.tool}  confidence {row.confidence}")
            lines.append(f"      {row.arguments}")
            if row.reasoning:
                lines.append(f"      why: {row.reasoning}")
    if plan.refused:
        lines += ["", "Refused by the rules:"]
    lines += [
        f"  {rejected_in_words(rejected.proposal)}: {harmless.line(rejected.reason)}"
        for rejected in plan.refused
    ]
    return "\n".join(lines)


def rejected_in_words(proposal: dict[str, object]) -> str:
    """A proposal that the rules threw out, which may be of any shape."""
    arguments = proposal.get("arguments")
    order = arguments.get("order_id") if isinstance(arguments, dict) else None
    words = [str(word) for word in (proposal.get("tool"), order) if word]
    return harmless.line(" ".join(words), 100) or "a proposal without a tool"


def result_in_text(result: RepairResult) -> str:
    """What became of one proposal, on one line."""
    made = "repeated" if result.repeated else "done" if result.done else "NOT done"
    return f"{result.proposal_id}  {made}: {harmless.line(result.outcome)}"


def status_in_text(workflow_id: str, status: RepairStatus) -> str:
    """Where a repair is, with everything that a person may have to know."""
    lines = [f"{harmless.line(workflow_id)}: {status.state}"]
    if status.reason:
        lines.append(harmless.line(status.reason))
    if status.states:
        lines.append(f"states: {' → '.join(change.state for change in status.states)}")
    if status.confidence is not None:
        lines.append(f"problems with the orders: confidence {status.confidence:.2f}")
    if status.plan_digest:
        lines.append(
            f"plan {status.plan_digest}: {status.proposed} proposed, {status.skipped} skipped,"
            f" {status.refused} refused, {status.done} done"
        )
    if status.decision:
        made = "approved" if status.decision.approve else "rejected"
        comment = f": {harmless.line(status.decision.comment)}" if status.decision.comment else ""
        lines.append(
            f"{made} by {harmless.line(status.decision.decided_by)}"
            f" at {status.decision.decided_at:%Y-%m-%d %H:%M} UTC ({status.decision.way}){comment}"
        )
        if status.decision.approve and status.decision.declined:
            lines.append(f"declined: {', '.join(status.decision.declined)}")
    if status.state == State.PENDING_APPROVAL and status.decide_until:
        lines.append(f"waits for a decision until {status.decide_until:%Y-%m-%d %H:%M} UTC")
    lines += [
        f"a signal changed nothing: {harmless.line(r.reason)}" for r in status.refused_signals
    ]
    lines += [f"warning: {harmless.line(warning)}" for warning in status.warnings]
    return "\n".join(lines)
