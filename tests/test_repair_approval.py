"""One plan, one decision, bound to the plan that was shown; everything else is refused in words."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from repair_ground import (
    LIMIT,
    a_plan,
    approval,
    assert_repaired_once,
    badges,
    ledger_of,
    payment,
    reached,
)
from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    Client,
    Interceptor,
    OutboundInterceptor,
    StartWorkflowUpdateInput,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.approval import ApprovalDesk
from workshop_lib.repair.client import DecisionRefused, RepairClient
from workshop_lib.repair.states import Decision, State
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.worker import repair as repair_spec
from workshop_lib.temporal.connect import connect

NOW = datetime(2025, 6, 28, 9, tzinfo=UTC)
PLAN = a_plan([badges(), payment(), approval()])


def decision(**changes: Any) -> Decision:
    given = {"approve": True, "plan_digest": PLAN.digest, "decided_by": "Minerva"}
    return Decision.model_validate(given | changes)


def open_desk(past: dict[str, str] | None = None) -> ApprovalDesk:
    desk = ApprovalDesk(past)
    desk.open(PLAN, NOW)
    return desk


def kind_of(desk: ApprovalDesk, given: Decision, later: timedelta = timedelta()) -> str | None:
    try:
        desk.check(given, NOW + later)
    except ApplicationError as refusal:
        assert len(refusal.message) > 20
        return refusal.type
    return None


def test_what_the_desk_refuses() -> None:
    assert kind_of(ApprovalDesk(), decision()) == "NoPlan"
    assert kind_of(open_desk(), decision()) is None
    assert kind_of(open_desk(), decision(plan_digest="f" * 64)) == "WrongDigest"
    assert kind_of(open_desk({"old": "of cycle 3"}), decision(plan_digest="old")) == "StalePlan"
    assert kind_of(open_desk(), decision(proposals=["p1", "p9"])) == "UnknownProposal"
    assert kind_of(open_desk(), decision(proposals=[])) == "NothingApproved"
    assert kind_of(open_desk(), decision(approve=False, proposals=["p1"])) == "PartOfRejection"
    late = timedelta(hours=12)
    assert kind_of(open_desk(), decision(), late) == "Expired"
    assert kind_of(open_desk(), decision(), late - timedelta(seconds=1)) is None
    closed = open_desk()
    closed.close("The repair has ended: it was cancelled.")
    assert kind_of(closed, decision()) == "Closed"


def test_only_the_first_decision_counts() -> None:
    desk = open_desk()
    desk.take(decision(), NOW, "update")
    for again in (decision(), decision(approve=False), decision(proposals=["p1"])):
        assert kind_of(desk, again) == "AlreadyDecided"
    with pytest.raises(ApplicationError, match="approved by Minerva at 2025-06-28"):
        desk.take(decision(), NOW, "update")


def test_what_a_decision_covers() -> None:
    every = open_desk().take(decision(), NOW, "update")
    assert (every.approved, every.declined) == (["p1", "p2", "p3"], [])
    part = open_desk().take(decision(proposals=["p3", "p1", "p1"]), NOW, "update")
    assert (part.approved, part.declined) == (["p1", "p3"], ["p2"])
    none = open_desk().take(decision(approve=False), NOW, "signal")
    assert (none.approved, none.declined) == ([], ["p1", "p2", "p3"])
    assert (none.decided_by, none.decided_at, none.way) == ("Minerva", NOW, "signal")
    assert none.plan_digest == PLAN.digest


# --- in the workflow --------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def repair(client: Client, queue: str, store: OrderStore) -> AsyncIterator[RepairClient]:
    """A repair that waits for a decision."""
    async with asyncio.timeout(150), repair_spec().with_queue(queue).build(client):
        started = await RepairClient.start(client, task_queue=queue)
        await reached(started, State.PENDING_APPROVAL)
        yield started


async def digest_of(repair: RepairClient) -> str:
    plan = await repair.plan()
    assert plan is not None and plan.digest == (await repair.status()).plan_digest
    return plan.digest


async def refused(sending: Any) -> str:
    with pytest.raises(DecisionRefused) as problem:
        await sending
    assert problem.value.what
    return problem.value.kind


async def test_an_approval_is_recorded_with_who_when_and_which_plan(
    repair: RepairClient, store: OrderStore
) -> None:
    digest = await digest_of(repair)
    assert store.ledger() == []  # nothing happens before
    given = await repair.approve(digest, decided_by="Minerva McGonagall", comment="fine")
    outcome = await repair.outcome()
    assert outcome.state is State.COMPLETED and outcome.declined == []
    assert_repaired_once(store)
    kept = (await repair.status()).decision
    assert kept == given and kept is not None
    assert (kept.decided_by, kept.way, kept.plan_digest, kept.comment) == (
        "Minerva McGonagall",
        "update",
        digest,
        "fine",
    )
    assert abs(datetime.now(UTC) - kept.decided_at) < timedelta(minutes=5)
    assert "Minerva McGonagall" in (outcome.report or "") or outcome.report
    # After the end there is nothing to decide; the state is said.
    with pytest.raises(DecisionRefused, match="REPORT-COMPLETED"):
        await repair.approve(digest)


async def kinds_of_events(repair: RepairClient) -> list[str]:
    """Its history, without the workflow tasks: one that came late for a refusal is in it."""
    events = [
        EventType.Name(event.event_type) async for event in repair.handle.fetch_history_events()
    ]
    return [kind for kind in events if not kind.startswith("EVENT_TYPE_WORKFLOW_TASK_")]


async def test_bad_decisions_change_nothing(repair: RepairClient, store: OrderStore) -> None:
    digest = await digest_of(repair)
    before = await kinds_of_events(repair)
    assert await refused(repair.approve("f" * 64)) == "WrongDigest"
    assert await refused(repair.approve(digest[:12])) == "WrongDigest"
    assert await refused(repair.reject("f" * 64)) == "WrongDigest"
    assert await refused(repair.approve(digest, proposals=["p1", "p77"])) == "UnknownProposal"
    assert await refused(repair.approve(digest, proposals=["ORD-002-HJG"])) == "UnknownProposal"
    assert await refused(repair.approve(digest, proposals=[])) == "NothingApproved"
    assert await kinds_of_events(repair) == before  # refused, and not even recorded
    assert (await repair.status()).state is State.PENDING_APPROVAL
    assert store.ledger() == []
    # And then the right one counts.
    await repair.reject(digest, decided_by="Minerva", comment="too dear")
    outcome = await repair.outcome()
    assert outcome.state is State.REJECTED and "Minerva" in outcome.reason
    assert "too dear" in outcome.reason and store.ledger() == []


@pytest.mark.parametrize("payload", [{"approve": "perhaps"}, "yes", None, [1]], ids=str)
async def test_an_update_that_is_no_decision_is_refused(repair: RepairClient, payload: Any) -> None:
    with pytest.raises(WorkflowUpdateFailedError):
        async with asyncio.timeout(LIMIT):
            await repair.handle.execute_update("decide", payload)
    await repair.approve(await digest_of(repair), proposals=["p2"])
    assert (await repair.outcome()).state is State.COMPLETED


async def test_a_part_is_approved_and_the_rest_listed_as_declined(
    repair: RepairClient, store: OrderStore
) -> None:
    plan = await repair.plan()
    assert plan is not None
    wanted = [p.proposal_id for p in plan.proposals if p.order_id == "ORD-003-RBW"]
    others = [p.proposal_id for p in plan.proposals if p.order_id != "ORD-003-RBW"]
    recorded = await repair.approve(plan.digest, proposals=wanted)
    assert recorded.declined == others
    outcome = await repair.outcome()
    assert outcome.state is State.COMPLETED and outcome.declined == others
    assert ledger_of(store) == [("request_payment_update", "ORD-003-RBW", "")]


async def test_two_decisions_at_once_and_one_counts(
    repair: RepairClient, store: OrderStore
) -> None:
    digest = await digest_of(repair)
    sent = await asyncio.gather(
        *(repair.approve(digest, decided_by=f"A{number}") for number in range(3)),
        *(repair.reject(digest, decided_by=f"R{number}") for number in range(3)),
        return_exceptions=True,
    )
    counted = [answer for answer in sent if not isinstance(answer, BaseException)]
    assert len(counted) == 1
    for answer in sent:
        if isinstance(answer, BaseException):
            assert isinstance(answer, DecisionRefused)
            assert answer.kind in ("AlreadyDecided", "Closed")
    outcome = await repair.outcome()
    assert outcome.state is (State.COMPLETED if counted[0].approve else State.REJECTED)
    assert len(store.ledger()) == (4 if counted[0].approve else 0)


async def test_the_same_by_signal(repair: RepairClient, store: OrderStore) -> None:
    digest = await digest_of(repair)
    good = {"approve": True, "plan_digest": digest, "decided_by": "Web UI"}
    handle = repair.handle
    await handle.signal("decide_by_signal", good)
    outcome = await repair.outcome()
    assert outcome.state is State.COMPLETED
    assert_repaired_once(store)
    decision = (await repair.status()).decision
    assert decision and (decision.way, decision.decided_by) == ("signal", "Web UI")


async def test_a_bad_signal_changes_nothing_and_its_reason_shows(
    repair: RepairClient, store: OrderStore
) -> None:
    digest = await digest_of(repair)
    handle = repair.handle
    good: dict[str, Any] = {"approve": True, "plan_digest": digest, "decided_by": "Web UI"}
    bad: list[tuple[list[Any], str]] = [
        ([], "Unreadable"),
        (["approve it"], "Unreadable"),
        ([None], "Unreadable"),
        ([good, good], "Unreadable"),
        ([b"\xff\x00 no JSON"], "Unreadable"),
        ([{"approve": True}], "Unreadable"),
        ([good | {"decided_by": "  "}], "Unreadable"),
        ([good | {"surprise": 1}], "Unreadable"),
        ([good | {"plan_digest": "f" * 64}], "WrongDigest"),
        ([good | {"proposals": ["p9"]}], "UnknownProposal"),
        ([good | {"proposals": []}], "NothingApproved"),
    ]
    sent = [("decide_by_signal", arguments, kind) for arguments, kind in bad]
    for name, arguments, kind in [*sent, ("aprove", [good], "UnknownSignal")]:
        await handle.signal(name, args=arguments)
        seen = await reached(
            repair,
            State.PENDING_APPROVAL,
            when=lambda status, kind=kind: (  # type: ignore[misc]
                bool(status.refused_signals) and status.refused_signals[-1].kind == kind
            ),
        )
        assert len(seen.refused_signals[-1].reason) > 20
    assert len(seen.refused_signals) == 5  # the latest
    described = await handle.describe()
    details = await described_details(repair)
    assert described.status and "A signal changed nothing" in details and digest in details
    assert store.ledger() == []
    await handle.signal("decide_by_signal", good)
    assert (await repair.outcome()).state is State.COMPLETED


async def described_details(repair: RepairClient) -> str:
    """What the Web UI shows beside the run."""
    metadata: Any = await repair.handle.query("__temporal_workflow_metadata")
    if isinstance(metadata, dict):
        return str(metadata.get("currentDetails", ""))
    return str(metadata.current_details)


async def test_a_repair_that_never_was(client: Client) -> None:
    missing = RepairClient(client, "repair-that-never-was")
    for asking in (missing.status(), missing.approve("x"), missing.outcome()):
        with pytest.raises(WorkshopError, match="There is no repair"):
            await asking


class Silent(Interceptor):
    """Updates arrive, and their answers do not."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Silent(next)


class _Silent(OutboundInterceptor):
    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> Any:  # noqa: A002
        await super().start_workflow_update(input)
        await asyncio.Event().wait()


@pytest.mark.parametrize("over", [False, True], ids=["at once", "when the repair is over"])
async def test_a_decision_that_was_interrupted_is_found_again(
    repair: RepairClient, store: OrderStore, over: bool
) -> None:
    digest = await digest_of(repair)
    silent = RepairClient(await connect(interceptors=[Silent()]), repair.workflow_id)
    deciding = asyncio.create_task(silent.approve(digest, decided_by="Ada"))
    async with asyncio.timeout(LIMIT):
        while (await repair.status()).decision is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    deciding.cancel()
    await asyncio.gather(deciding, return_exceptions=True)
    if over:
        await repair.outcome()
    recorded = await repair.approve(digest, decided_by="Ada")
    assert recorded == (await repair.status()).decision
    # It has been answered, so this is another decision.
    assert await refused(repair.approve(digest, decided_by="Ada")) in ("AlreadyDecided", "Closed")
    await repair.outcome()
    assert_repaired_once(store)
