"""A plain report of executed repairs, in Markdown. Every sentence in it stands in the data.

Left out: judgement, and what nobody did.
"""

from typing import Any

from workshop_lib.llm.rules.order_data import Executed, OrderData

_MORE = {
    "problems": "What was found",
    "declined": "Declined by the approver",
    "skipped": "Skipped, because the agent was not sure enough",
    "refused": "Refused by the rules for plans",
}
_SAID = ("outcome", "reason", "reasoning", "description", "evidence")


def repair_report(data: OrderData) -> str:
    """The report on what was executed."""
    executed = data.executed or []
    made = [repair for repair in executed if repair.done]
    orders = len({repair.order_id for repair in made})
    lines = ["# Repair report", ""]
    lines.append(
        f"{_count(len(made), 'repair')} on {_count(orders, 'order')}."
        if made
        else "No repair was made."
    )
    for title, repairs in (("Done", made), ("Not done", [r for r in executed if not r.done])):
        if repairs:
            lines += ["", f"## {title}", "", *map(_executed, repairs)]
    for name, title in _MORE.items():
        entries = data.whole.get(name)
        told = [_told(entry) for entry in entries] if isinstance(entries, list) else []
        if told:
            lines += ["", f"## {title}", "", *(f"* {text}" for text in told if text)]
    return "\n".join(lines)


def _executed(repair: Executed) -> str:
    again = " It had been done before and was not repeated." if repair.repeated else ""
    return f"* {repair.order_id}: {repair.tool}. {repair.outcome}{again}".rstrip()


def _told(entry: Any) -> str:
    """One thing that was not done, in a line."""
    if not isinstance(entry, dict):
        return str(entry)
    head = ": ".join(str(entry[name]) for name in ("order_id", "tool", "kind") if entry.get(name))
    said = next((str(entry[name]) for name in _SAID if entry.get(name)), "")
    return f"{head}. {said}".strip(". ") + "." if said else head


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
