"""A plan, a repair and a status in words: what each says stands here once, and is written out in two ways.

A `Document` is sentences, and sections of rows; the words of customers and models stand in it as they were
written. `as_text` (terminals, screen readers) and `as_markdown` (Web UI, reports, PDF) make them harmless
for their place: nothing in them becomes a heading, a link or HTML. A new section is written here and
nowhere else. Pure functions, so workflow code uses them too. Left out: files and PDF (`report_files`).
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import NamedTuple

from workshop_lib.harmless import block, line, markdown
from workshop_lib.repair.models import (
    Analysis,
    Plan,
    Proposal,
    Rejected,
    RepairResult,
    Report,
    ReportRequest,
)
from workshop_lib.repair.states import RepairStatus, State

SHORT = 12  # characters of a digest that are enough to tell plans apart
MAX_DETAILS = 15_000  # characters that the Web UI is given
MAX_REPORT_CHARS = 20_000

_LINK_OR_HTML = re.compile(r"!\[|\][(:\[]|://|\bwww\.|<[A-Za-z/!?]", re.IGNORECASE)
_ORDER_ID = re.compile(r"\bORD-[A-Z0-9]+(?:-[A-Z0-9]+)*\b", re.IGNORECASE)


class Section(NamedTuple):
    """What stands under one heading.

    Attributes:
        columns: headings of a table.
        rows: a cell a column; numbers are confidences, and the last cell is what somebody says about the
            others. Without rows there is no section.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str | float, ...]]


class Document(NamedTuple):
    """A title, sentences, and sections."""

    title: str
    opening: list[str]
    sections: Sequence[Section] = ()


def of_plan(plan: Plan, analysis: Analysis | None = None, today: date | None = None) -> Document:
    """A plan: what is proposed, and what is not and why.

    Args:
        analysis, today: for the planning report, which says what was found, and when.
    """
    counts = (
        f"{len(plan.proposals)} proposed, {len(plan.skipped)} skipped, {len(plan.refused)} refused"
    )
    opening = [
        f"Digest of the plan: {plan.digest}",
        f"{today.isoformat()}: {counts}." if today else f"{counts}.",
        "Nothing is carried out before somebody approves this digest, and nothing but what it covers.",
    ]
    sections = [_proposals("Proposed", plan.proposals), *_left_out(plan)]
    if analysis is not None:
        summary = Section("Summary", ("Summary",), [(analysis.summary,)])
        sections = [_found(analysis), *sections, *([summary] if analysis.summary else [])]
    return Document("Repair plan", opening, sections)


def of_repair(request: ReportRequest, why: str) -> Document:
    """A repair from its problems to its results, where no model says it.

    Args:
        why: why no model has written it, a sentence.
    """
    done = [result for result in request.results if result.done]
    failed = [result for result in request.results if not result.done]
    declined = [p for p in request.plan.proposals if p.proposal_id in request.declined]
    orders = len({result.order_id for result in done})
    made = f"{_count(len(done), 'repair')} on {_count(orders, 'order')}"
    by = f", decided by {request.decided_by}" if request.decided_by else ""
    return Document(
        "Repair report",
        [
            f"Written by the program, without a model. {why}",
            f"{request.today.isoformat()}: {made}{by}.",
        ],
        [
            _found(request.analysis),
            _results("Done", done),
            _results("Not done", failed),
            _proposals("Declined by the approver", declined),
            *_left_out(request.plan),
        ],
    )


def of_status(status: RepairStatus) -> list[str]:
    """Where a repair is, below its state: everything that a person may have to know."""
    lines = [status.reason]
    if status.states:
        lines.append(f"states: {' → '.join(change.state for change in status.states)}")
    if status.confidence is not None:
        lines.append(f"problems with the orders: confidence {status.confidence:.2f}")
    if status.plan_digest:
        lines.append(
            f"plan {status.plan_digest}: {status.proposed} proposed, {status.skipped} skipped,"
            f" {status.refused} refused, {status.done} done"
        )
    if decision := status.decision:
        comment = f": {decision.comment}" if decision.comment else ""
        lines.append(
            f"{'approved' if decision.approve else 'rejected'} by {decision.decided_by}"
            f" at {decision.decided_at:%Y-%m-%d %H:%M} UTC ({decision.way}){comment}"
        )
        if decision.approve and decision.declined:
            lines.append(f"declined: {', '.join(decision.declined)}")
    if status.state == State.PENDING_APPROVAL and status.decide_until:
        lines.append(f"waits for a decision until {status.decide_until:%Y-%m-%d %H:%M} UTC")
    lines += [f"a signal changed nothing: {refused.reason}" for refused in status.refused_signals]
    lines += [f"warning: {warning}" for warning in status.warnings]
    return [text for text in lines if text]


def as_text(document: Document) -> str:
    """A document for a terminal."""
    lines = [document.title, *map(line, document.opening)]
    for section in document.sections:
        if section.rows:
            lines += ["", f"{section.title}:"]
        for row in section.rows:
            head, words = _entry(row, line)
            lines += [f"  {part}" for part in (head, words and f"    {words}") if part]
    return "\n".join(lines)


def as_markdown(document: Document) -> str:
    """A document as Markdown."""
    lines = [f"# {document.title}"]
    for sentence in document.opening:
        lines += ["", markdown(sentence[:1].upper() + sentence[1:])]
    for section in document.sections:
        if section.rows:
            lines += ["", f"## {section.title}", ""]
        lines += [f"* {': '.join(filter(None, _entry(row, markdown)))}" for row in section.rows]
    return "\n".join(lines) + "\n"


def plan_in_text(plan: Plan) -> str:
    """A plan for a terminal."""
    return as_text(of_plan(plan))


def status_in_text(workflow_id: str, status: RepairStatus) -> str:
    """Where a repair is, for a terminal."""
    return as_text(Document(f"{line(workflow_id)}: {status.state}", of_status(status)))


def status_details(status: RepairStatus, plan: Plan | None) -> str:
    """Where a repair is, for the Web UI; while it waits, with the signal that decides."""
    sections = [_proposals("Proposed", plan.proposals)] if plan else []
    text = as_markdown(Document(status.state, of_status(status), sections))
    if status.state == State.PENDING_APPROVAL and plan is not None:
        example = {"approve": True, "plan_digest": plan.digest, "decided_by": "your name"}
        text += (
            "\nTo decide, send the signal `decide_by_signal` with your name:\n\n"
            f"```json\n{json.dumps(example, indent=2)}\n```\n"
        )
    return text if len(text) <= MAX_DETAILS else text[:MAX_DETAILS] + "\n\n…\n"


def result_in_text(result: RepairResult) -> str:
    """What became of one proposal, on one line."""
    made = "repeated" if result.repeated else "done" if result.done else "NOT done"
    return f"{result.proposal_id}  {made}: {line(result.outcome)}"


def plain_report(request: ReportRequest, why: str) -> Report:
    """The report that code writes, where no model does: repairs that were made must not go unreported."""
    return Report(markdown=as_markdown(of_repair(request, why)))


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
    words = _plain(text)
    missing = [
        f"{result.tool} on {result.order_id}"
        for result in request.results
        if _plain(result.order_id) not in words or _plain(result.tool) not in words
    ]
    if missing:
        return f"the report does not mention {', '.join(missing)}"
    unknown = _order_ids(text) - _order_ids(request.model_dump_json())
    if unknown:
        return (
            f"the report mentions orders that are not in the data: {', '.join(sorted(unknown)[:5])}"
        )
    return None


def _found(analysis: Analysis) -> Section:
    return Section(
        "What was found",
        ("Order", "Problem", "Confidence", "Description"),
        [(p.order_id, p.kind, p.confidence, p.description) for p in analysis.problems],
    )


def _proposals(title: str, proposals: Sequence[Proposal]) -> Section:
    return Section(
        title,
        ("Proposal", "Order", "Tool", "Confidence", "Arguments", "Why"),
        [
            (p.proposal_id, p.order_id, p.tool, p.confidence, _arguments(p), p.reasoning)
            for p in proposals
        ],
    )


def _results(title: str, results: Sequence[RepairResult]) -> Section:
    again = " It had been done before and was not repeated."
    return Section(
        title,
        ("Order", "Tool", "Outcome"),
        [(r.order_id, r.tool, r.outcome + (again if r.repeated else "")) for r in results],
    )


def _left_out(plan: Plan) -> list[Section]:
    return [
        _proposals("Skipped, because the agent was not sure enough", plan.skipped),
        Section(
            "Refused by the rules for plans",
            ("Proposal", "Reason"),
            [(_rejected(rejected), rejected.reason) for rejected in plan.refused],
        ),
    ]


def _arguments(proposal: Proposal) -> str:
    """The arguments but the order, which has a place of its own."""
    given = proposal.arguments.model_dump(exclude={"order_id"})
    return ", ".join(f"{name} {line(value, 200)}" for name, value in given.items())


def _rejected(rejected: Rejected) -> str:
    """A proposal that the rules threw out, which may be of any shape."""
    arguments = rejected.proposal.get("arguments")
    order = arguments.get("order_id") if isinstance(arguments, dict) else None
    words = [str(word) for word in (rejected.proposal.get("tool"), order) if word]
    return line(" ".join(words), 100) or "a proposal without a tool"


def _entry(row: tuple[str | float, ...], harmless: Callable[[object], str]) -> tuple[str, str]:
    """A row in words: the cells on one line, and what is said about them."""
    *cells, words = (
        harmless(f"confidence {cell:.2f}" if isinstance(cell, float) else cell) for cell in row
    )
    return ", ".join(filter(None, cells)), words


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _order_ids(text: str) -> set[str]:
    return {match.upper() for match in _ORDER_ID.findall(text)}


def _plain(text: str) -> str:
    """A text for comparing: lower case, and "order_inventory" like "order inventory"."""
    return re.sub(r"[\s_\\*`-]+", " ", text.lower())
