"""Reports without a model: what code checks a written report for, and the report that code writes itself.

The second stands in where a model cannot write one that passes, or cannot be reached: repairs that were made
must not go unreported. Pure functions, so workflow code may use them too. Left out: PDF.
"""

import re

from workshop_lib.harmless import block, markdown
from workshop_lib.repair.models import Problem, Proposal, Report, ReportRequest

MAX_REPORT_CHARS = 20_000

_LINK_OR_HTML = re.compile(r"!\[|\][(:\[]|://|\bwww\.|<[A-Za-z/!?]", re.IGNORECASE)
_ORDER_ID = re.compile(r"\bORD-[A-Z0-9]+(?:-[A-Z0-9]+)*\b", re.IGNORECASE)


def problem_with_report(text: str, request: ReportRequest) -> str | None:
    """Why a report that a model wrote cannot be accepted, in words for the model, or None."""
    if not text.strip():
        return "the report is empty"
    if len(text) > MAX_REPORT_CHARS:
        return f"the report has {len(text):,} characters, {MAX_REPORT_CHARS:,} are the most"
    if block(text) != text:
        return "the report holds characters that cannot be shown"
    if _LINK_OR_HTML.search(text):
        return "the report holds a link, an image or HTML"
    said = _plain(text)
    missing = [
        f"{result.tool} on {result.order_id}"
        for result in request.results
        if _plain(result.order_id) not in said or _plain(result.tool) not in said
    ]
    if missing:
        return f"the report does not mention {', '.join(missing)}"
    unknown = _order_ids(text) - _order_ids(request.model_dump_json())
    if unknown:
        return (
            f"the report mentions orders that are not in the data: {', '.join(sorted(unknown)[:5])}"
        )
    return None


def plain_report(request: ReportRequest, why: str) -> Report:
    """The report that code writes.

    Args:
        why: why no model has written it, a sentence; the report says so.
    """
    done = [result for result in request.results if result.done]
    failed = [result for result in request.results if not result.done]
    declined = [p for p in request.plan.proposals if p.proposal_id in set(request.declined)]
    orders = len({result.order_id for result in done})
    lines = [
        "# Repair report",
        "",
        f"*Written by the program, without a model. {markdown(why)}*",
        "",
        f"{request.today.isoformat()}: {_count(len(done), 'repair')} on {_count(orders, 'order')}"
        + (f", decided by {markdown(request.decided_by)}." if request.decided_by else "."),
    ]
    sections = {
        "What was found": [_problem(problem) for problem in request.analysis.problems],
        "Done": [
            f"{r.order_id}: {r.tool}. {markdown(r.outcome)}"
            + (" It had been done before and was not repeated." if r.repeated else "")
            for r in done
        ],
        "Not done": [f"{r.order_id}: {r.tool}. {markdown(r.outcome)}" for r in failed],
        "Declined by the approver": [_proposal(proposal) for proposal in declined],
        "Skipped, because the agent was not sure enough": [
            _proposal(proposal) for proposal in request.plan.skipped
        ],
        "Refused by the rules for plans": [
            f"{markdown(rejected.proposal.get('tool'))}: {markdown(rejected.reason)}"
            for rejected in request.plan.refused
        ],
    }
    for title, entries in sections.items():
        if entries:
            lines += ["", f"## {title}", "", *(f"* {entry}" for entry in entries)]
    return Report(markdown="\n".join(lines) + "\n")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _problem(problem: Problem) -> str:
    return f"{problem.order_id}: {markdown(problem.kind)}. {markdown(problem.description)}"


def _proposal(proposal: Proposal) -> str:
    item = f" {proposal.item_id}" if proposal.item_id else ""
    return f"{proposal.order_id}: {proposal.tool}{item} (confidence {proposal.confidence:.2f})"


def _order_ids(text: str) -> set[str]:
    return {match.upper() for match in _ORDER_ID.findall(text)}


def _plain(text: str) -> str:
    """A text for comparing: lower case, and "order_inventory" like "order inventory"."""
    return re.sub(r"[\s_\\*`-]+", " ", text.lower())
