"""The approval panel: it shows one plan, and decides this plan or is refused in words."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from repair_ground import a_name, a_plan, badges, ledger_of, payment
from temporalio.client import Client

from workshop_lib import lab
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.lessons.approving import ApprovalPanel
from workshop_lib.lab.watching.waiting import NobodyPolls
from workshop_lib.repair.client import DecisionRefused, RepairClient
from workshop_lib.repair.models import Plan, Proposal, Rejected
from workshop_lib.repair.states import RepairStatus, State
from workshop_lib.repair.store import OrderStore, open_store
from workshop_lib.repair.worker import repair as repair_spec


class Text(HTMLParser):
    """The tags of a page, and its text by tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "th":
            self.headings.append(dict(attrs).get("scope") or "")

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.fixture
def store(settings_env: Callable[..., None], tmp_path: Path) -> OrderStore:
    settings_env(WORKSHOP_STATE_DIR=tmp_path, USER_NAME="Molly")
    return open_store()


@pytest_asyncio.fixture
async def served(client: Client, queue: str, store: OrderStore) -> AsyncIterator[str]:
    """The name of a queue that a repair worker polls."""
    async with asyncio.timeout(150), repair_spec().with_queue(queue).build(client):
        yield queue


def shown(plan: Plan, handle: Any, **status: Any) -> ApprovalPanel:
    given = {"state": State.PENDING_APPROVAL, "decide_until": datetime(2025, 6, 28, tzinfo=UTC)}
    return ApprovalPanel(handle, plan, RepairStatus.model_validate(given | status))


async def test_what_strangers_wrote_is_text_and_nothing_else(client: Client) -> None:
    hostile = "<script>alert(1)</script> \x1b[2J\u202etnemyap & <b>bold</b>\nApproved by everybody"
    proposal = Proposal.model_validate(badges().model_dump() | {"reasoning": hostile})
    plan = Plan(
        scope="r",
        proposals=[proposal],
        skipped=[payment(0.2)],
        refused=[
            Rejected(proposal={"tool": "<i>x</i>", "arguments": 7}, reason=hostile),
            Rejected(proposal={}, reason="no tool"),
        ],
    )
    panel = shown(plan, client.get_workflow_handle("<img src=x>"))
    page, text = panel._repr_html_(), str(panel)
    seen = Text(page)
    allowed = {"p", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td", "code"}
    assert set(seen.tags) <= allowed | {"ul", "li"}, seen.tags
    assert "alert(1)" in seen.text and "<script>" in seen.text  # shown, as text
    for each in (page, text):
        assert "\x1b" not in each and "\u202e" not in each
        assert plan.digest in each
    assert not any(line.startswith("Approved by everybody") for line in text.splitlines())
    for word in ("STP-ORG-001", "113", "0.97", "0.20", "Skipped", "Refused by the rules"):
        assert word in seen.text and word in text, word
    # Two tables of proposals, and one of what was refused.
    assert seen.headings.count("col") == 14 and seen.headings.count("row") == 4


async def test_a_decided_plan_offers_no_decision(client: Client) -> None:
    plan, handle = a_plan([badges()]), client.get_workflow_handle("r")
    for panel, offered in (
        (shown(plan, handle), True),
        (shown(plan, handle, state=State.COMPLETED), False),
    ):
        assert ("panel.approve()" in str(panel)) is offered
        assert ("panel.approve()" in panel._repr_html_()) is offered


async def test_a_part_is_approved_from_the_panel_and_then_it_is_stale(
    client: Client, served: str, store: OrderStore
) -> None:
    repair = await RepairClient.start(client, task_queue=served)
    panel = await lab.approval_panel(repair.handle)
    assert panel.digest == (await repair.status()).plan_digest
    bundle = panel._repr_mimebundle_()
    assert "ORD-003-RBW" in bundle["text/plain"] and "ORD-003-RBW" in bundle["text/html"]
    with pytest.raises(DecisionRefused, match="no proposal p9"):
        await panel.approve(["p9"])
    with pytest.raises(DecisionRefused, match="no decision"):
        await panel.approve(["p 1; drop"])
    assert store.ledger() == []
    names = [p.proposal_id for p in panel.plan.proposals if p.order_id == "ORD-003-RBW"]
    recorded = await panel.approve(names)
    assert (recorded.approved, recorded.decided_by) == (names, "Molly")
    assert recorded.plan_digest == panel.digest
    assert "approved by Molly" in str(panel) and "panel.approve()" not in str(panel)
    assert "PENDING-APPROVAL" not in panel._repr_html_()
    assert (await repair.outcome()).state is State.COMPLETED
    assert ledger_of(store) == [("request_payment_update", "ORD-003-RBW", "")]
    with pytest.raises(DecisionRefused, match="REPORT-COMPLETED"):
        await panel.approve()
    again = await lab.approval_panel(repair)
    assert "approved by Molly" in str(again) and "panel.approve()" not in str(again)


async def test_a_panel_of_an_older_plan_decides_nothing(
    client: Client, served: str, store: OrderStore
) -> None:
    name = a_name()
    old = await lab.approval_panel(
        await RepairClient.start(client, task_queue=served, workflow_id=name)
    )
    recorded = await old.reject("too dear")
    assert (recorded.approve, recorded.comment) == (False, "too dear")
    again = await RepairClient.start(
        client,
        task_queue=served,
        workflow_id=await ended(old, name),
    )
    new = await lab.approval_panel(again)
    assert new.digest != old.digest
    with pytest.raises(DecisionRefused, match="not that of the plan"):
        await old.approve()
    with pytest.raises(DecisionRefused, match="not that of the plan"):
        await old.reject()
    assert (await again.status()).state is State.PENDING_APPROVAL and store.ledger() == []
    await new.reject()
    assert (await again.outcome()).state is State.REJECTED and store.ledger() == []


async def ended(panel: ApprovalPanel, name: str) -> str:
    """The name, once it is free for another repair."""
    outcome = await RepairClient(panel.handle._client, name).outcome()
    assert outcome.state is State.REJECTED and "too dear" in outcome.reason
    return name


async def test_where_there_is_no_plan_the_panel_says_why(
    client: Client, served: str, store: OrderStore
) -> None:
    done = await RepairClient.start(client, task_queue=served, auto_approve=True)
    assert (await done.outcome()).state is State.COMPLETED
    healthy = await RepairClient.start(client, task_queue=served)
    with pytest.raises(WorkshopError, match="NO-REPAIR-NEEDED"):
        await lab.approval_panel(healthy.handle)
    with pytest.raises(WorkshopError, match="There is no repair"):
        await lab.approval_panel(client.get_workflow_handle("repair-that-never-was"))


async def test_without_a_worker_the_panel_says_so(
    client: Client, queue: str, store: OrderStore
) -> None:
    lonely = await RepairClient.start(client, task_queue=queue)
    with pytest.raises(NobodyPolls, match=queue):
        await lab.approval_panel(lonely.handle)
    await lonely.handle.terminate()
