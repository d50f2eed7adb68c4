"""A plan in words, as Markdown: what the approver reads, in the planning report and in the Web UI.

Pure functions, so workflow code uses them. Customers' and models' words are quoted on one line without
anything that could become a heading, a link or HTML. Left out: the report on what was done (`report_text`),
and PDF (`reports`).
"""

import json
from datetime import date

from workshop_lib.harmless import markdown
from workshop_lib.repair.models import Analysis, Plan, Proposal
from workshop_lib.repair.states import RepairStatus, State

MAX_DETAILS = 15_000  # characters that the Web UI is given


def plan_report(analysis: Analysis, plan: Plan, today: date) -> str:
    """The planning report: what is wrong, what is proposed, and what is not and why."""
    lines = [
        "# Repair plan",
        "",
        f"{today.isoformat()}: {len(plan.proposals)} repairs are proposed.",
        "",
        f"Digest of the plan: `{plan.digest}`",
        "",
        "Nothing is carried out before somebody approves this digest, and nothing but what it covers.",
    ]
    for title, entries in (
        (
            "What was found",
            [
                f"**{problem.order_id}**, {markdown(problem.kind)}, confidence {problem.confidence:.2f}:"
                f" {markdown(problem.description)}"
                for problem in analysis.problems
            ],
        ),
        ("Proposed", [proposal_in_words(proposal) for proposal in plan.proposals]),
        (
            "Skipped, because the agent was not sure enough",
            [proposal_in_words(proposal) for proposal in plan.skipped],
        ),
        (
            "Refused by the rules for plans",
            [
                f"{markdown(json.dumps(rejected.proposal, default=str), 300)}: {markdown(rejected.reason)}"
                for rejected in plan.refused
            ],
        ),
    ):
        if entries:
            lines += ["", f"## {title}", "", *(f"* {entry}" for entry in entries)]
    if analysis.summary:
        lines += ["", "## Summary", "", markdown(analysis.summary)]
    return "\n".join(lines) + "\n"


def status_text(status: RepairStatus, plan: Plan | None) -> str:
    """Where a repair is, for the Web UI; while it waits, with the signal that decides."""
    lines = [f"## {status.state}"]
    if status.reason:
        lines += ["", markdown(status.reason)]
    if status.decision is not None:
        made = "Approved" if status.decision.approve else "Rejected"
        who, when = status.decision.decided_by, status.decision.decided_at
        lines += ["", f"{made} by {markdown(who)} at {when:%Y-%m-%d %H:%M} UTC."]
    if plan is not None:
        lines += ["", *(f"* {proposal_in_words(proposal)}" for proposal in plan.proposals)]
        lines += [
            "",
            f"Skipped: {status.skipped}. Refused: {status.refused}. Done: {status.done}.",
        ]
    if status.state == State.PENDING_APPROVAL and plan is not None:
        example = {"approve": True, "plan_digest": plan.digest, "decided_by": "your name"}
        lines += [
            "",
            f"Undecided, it expires at {status.decide_until:%Y-%m-%d %H:%M} UTC. To decide, send the signal"
            " `decide_by_signal` with your name:",
            "",
            "```json",
            json.dumps(example, indent=2),
            "```",
        ]
    for refused in status.refused_signals[-3:]:
        lines += ["", f"A signal changed nothing: {markdown(refused.reason)}"]
    lines += [f"\nWarning: {markdown(warning)}" for warning in status.warnings[-3:]]
    text = "\n".join(lines) + "\n"
    return text if len(text) <= MAX_DETAILS else text[:MAX_DETAILS] + "\n\n…\n"


def proposal_in_words(proposal: Proposal) -> str:
    """One proposal with its arguments, its confidence and the model's reasoning, on one line."""
    given = ", ".join(
        f"{name} {markdown(str(value), 200)}"
        for name, value in proposal.arguments.model_dump(exclude={"order_id"}).items()
    )
    words = (
        f"`{proposal.proposal_id}` **{proposal.order_id}**: {proposal.tool} ({given}),"
        f" confidence {proposal.confidence:.2f}"
    )
    return f"{words}. {markdown(proposal.reasoning)}" if proposal.reasoning else words
