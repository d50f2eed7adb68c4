"""The approval panel: a plan in the notebook, and the decision on exactly this plan.

    panel = await lab.approval_panel(handle)
    panel
    await panel.approve()            # or approve(["p1"]), or reject("why")

The panel is a picture of one moment and holds the digest of the plan that it shows. It goes stale when the
plan is decided, expires or is followed by another, and is then refused by the workflow, in words. It is a
table and needs no widgets; terminals and screen readers get it as text. Left out: buttons.
"""

import contextlib
import re
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from typing import Any, TypeVar

from temporalio.client import WorkflowHandle

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.waiting import watch
from workshop_lib.repair.client import DecisionRefused, RepairClient
from workshop_lib.repair.documents import Section, of_plan, plan_in_text, status_in_text
from workshop_lib.repair.models import Plan
from workshop_lib.repair.states import RecordedDecision, RepairStatus, State

T = TypeVar("T")

LEFT = "text-align:left"  # JupyterLab's own tables are aligned to the right
HOW = (
    "Decide this plan: `await panel.approve()`, `await panel.approve(['p1'])` or"
    " `await panel.reject('reason')`."
)


@dataclass
class ApprovalPanel:
    """A plan as it was shown. Jupyter shows the table, `print` the text.

    Attributes:
        handle: the repair's workflow.
        plan: what is decided about.
        status: of the repair, at that moment; after a decision by this panel, then.
    """

    handle: WorkflowHandle[Any, Any]
    plan: Plan
    status: RepairStatus

    @property
    def digest(self) -> str:
        """Of the plan that is shown; a decision counts for this plan and no other."""
        return self.plan.digest

    async def approve(
        self,
        proposals: Sequence[str] | None = None,
        *,
        comment: str = "",
        decided_by: str | None = None,
        timeout: float = 30,
    ) -> RecordedDecision:
        """Approve the plan that this panel shows.

        Args:
            proposals: names such as ["p1", "p3"], to approve a part; None for all of it.
            decided_by: the settings' user when left out.
            timeout: seconds until this gives up; the decision may still be taken then.

        Raises:
            DecisionRefused: it does not count; the text says why.
        """
        if isinstance(proposals, str):
            proposals = [proposals]
        names = None if proposals is None else list(proposals)
        return await self._decided(
            self._repair.approve(
                self.digest, decided_by=decided_by, proposals=names, comment=comment
            ),
            timeout,
        )

    async def reject(
        self, reason: str = "", *, decided_by: str | None = None, timeout: float = 30
    ) -> RecordedDecision:
        """Reject the plan that this panel shows.

        Raises:
            DecisionRefused: it does not count; the text says why.
        """
        return await self._decided(
            self._repair.reject(self.digest, decided_by=decided_by, comment=reason), timeout
        )

    @property
    def _repair(self) -> RepairClient:
        return RepairClient(self.handle._client, self.handle.id)

    async def _decided(self, deciding: Awaitable[T], timeout: float) -> T:
        try:
            recorded = await watch(deciding, self.handle, timeout=timeout)
        except DecisionRefused:
            await self._look_again()
            raise
        await self._look_again()
        return recorded

    async def _look_again(self) -> None:
        """Where the repair is now; where nobody says it, the panel stays as it is."""
        with contextlib.suppress(WorkshopError):
            self.status = await self._repair.status()

    def __str__(self) -> str:
        lines = [status_in_text(self.handle.id, self.status), "", plan_in_text(self.plan)]
        return "\n".join([*lines, "", HOW] if self._open else lines)

    @property
    def _open(self) -> bool:
        older = self.status.plan_digest not in (None, self.digest)  # than the plan that waits now
        waits = self.status.state == State.PENDING_APPROVAL and self.status.decision is None
        return waits and not older

    def _repr_html_(self) -> str:
        document = of_plan(self.plan)
        parts = [
            f"<p><strong>{harmless.html(self.handle.id)}</strong>: {escape(self.status.state)}</p>",
            *(f"<p>{harmless.html(sentence)}</p>" for sentence in document.opening),
            *(_table(section) for section in document.sections if section.rows),
        ]
        if self._open:
            until = self.status.decide_until
            how = re.sub("`(.*?)`", r"<code>\1</code>", escape(HOW, quote=False))
            parts.append(f"<p>{how} It expires at {until:%Y-%m-%d %H:%M} UTC.</p>")
        return "".join(parts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


async def approval_panel(
    handle: WorkflowHandle[Any, Any] | RepairClient, *, timeout: float = 60
) -> ApprovalPanel:
    """Wait for a repair's plan, and show it.

    Args:
        handle: of the repair, or of a proactive agent.
        timeout: seconds to wait for the plan.

    Raises:
        WorkshopError: the repair has ended without a plan to decide, or there is none within `timeout`.
            What keeps it from going on (no worker, a bug, a model that fails) is said.
    """
    if isinstance(handle, RepairClient):
        handle = handle.handle
    repair = RepairClient(handle._client, handle.id)
    status = await watch(_decidable(repair, timeout), handle, timeout=timeout)
    plan = await watch(repair.plan(), handle, timeout=timeout)
    if plan is None:
        raise WorkshopError(
            f"There is nothing to approve: {handle.id} is {status.state}. {status.reason}".rstrip()
        )
    return ApprovalPanel(handle, plan, status)


async def repair_reaches(repair: RepairClient, *states: str, timeout: float = 60) -> RepairStatus:
    """Wait until a repair, or the proactive agent's cycle, is in one of these states.

    Raises:
        WorkshopError: it has ended in another one, or is not there within `timeout` seconds.
    """
    return await repair.wait_for(*states, timeout=timedelta(seconds=timeout))


async def _decidable(repair: RepairClient, timeout: float) -> RepairStatus:
    """Its status, once there is a plan or will be none."""
    # `watch` is the one to give up first: it says what is pending.
    return await repair.wait_until(
        lambda status: status.state == State.PENDING_APPROVAL or status.decision is not None,
        timedelta(seconds=2 * timeout),
    )


def _table(section: Section) -> str:
    """A section as an HTML table with real headings; text is escaped and aligned to the left."""
    head = "".join(f'<th scope="col" style="{LEFT}">{column}</th>' for column in section.columns)
    body = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in section.rows)
    return (
        f"<table><caption>{section.title}: {len(section.rows)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cells(row: Sequence[str | float]) -> Iterator[str]:
    for number, cell in enumerate(row):
        text = f"{cell:.2f}" if isinstance(cell, float) else harmless.html(cell)
        whole = "" if " " in text or len(text) > 40 else ";white-space:nowrap"  # an id is one word
        if number:
            yield f'<td style="{LEFT}{whole}">{text}</td>'
        else:
            yield f'<th scope="row" style="{LEFT}{whole}">{text}</th>'
