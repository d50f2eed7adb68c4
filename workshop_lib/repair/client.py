"""A repair seen from outside: start it, look at it, decide its plan, wait for its end.

What the command line, the MCP server and notebooks use. It says what went wrong in words that a person can
act on, and works for the proactive agent too. Left out: the repair itself (`workflow`).
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import date, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ValidationError
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistoryEventAsyncIterator,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.models import Analysis, Plan, RepairResult
from workshop_lib.repair.plan_rules import in_words
from workshop_lib.repair.states import (
    Callback,
    Decision,
    RecordedDecision,
    RepairOutcome,
    RepairStart,
    RepairStatus,
    ReportStatus,
    State,
)
from workshop_lib.settings import get_settings
from workshop_lib.temporal import asking
from workshop_lib.temporal.asking import query
from workshop_lib.temporal.names import check_name
from workshop_lib.temporal.steps import TASK_TIMEOUT

# The server answers a wait for new events after twenty seconds, with nothing where nothing has happened.
EVENTS_LIMIT = timedelta(seconds=40)
RPC_LIMIT = timedelta(seconds=10)
# Workflow types, by what people call them.
KINDS = {"repair": "OrderRepair", "proactive": "ProactiveRepair"}
_SETTLED = ("AlreadyDecided", "Expired", "Closed")  # nothing is left to decide


class DecisionRefused(WorkshopError):
    """The decision did not count, and nothing was changed.

    Args:
        kind: why, in one word: NoPlan, WrongDigest, StalePlan, AlreadyDecided, Expired, Closed,
            UnknownProposal, NothingApproved, PartOfRejection or Unreadable.
    """

    def __init__(self, kind: str, what: str) -> None:
        over = "this plan is settled: start a repair, or decide about an agent's next plan."
        look = "look at the status and the plan, and decide about that."
        super().__init__(what, fix=over if kind in _SETTLED else look)
        self.kind = kind


class RepairInfo(BaseModel):
    """A line of the list of repairs. `status` is the workflow's, not the repair's state."""

    workflow_id: str
    kind: str
    status: str
    started: datetime | None


class RepairClient:
    """One repair.

    Args:
        client: connected to the orchestrator's namespace.
        workflow_id: its id.

    Raises:
        WorkshopError: no repair can have this id.
    """

    def __init__(self, client: Client, workflow_id: str) -> None:
        self._client = client
        self.workflow_id = check_name(workflow_id, "repair", known=True)

    @classmethod
    async def start(
        cls,
        client: Client,
        *,
        today: date | None = None,
        auto_approve: bool = False,
        callback: Callback | None = None,
        workflow_id: str | None = None,
        task_queue: str | None = None,
    ) -> "RepairClient":
        """Start a repair.

        Args:
            today: the day to count from; the settings' one when left out.
            workflow_id: a name for it; one that is under way already is an error.

        Raises:
            WorkshopError: there is one of that name under way, or the name is none.
        """
        settings = get_settings()
        if workflow_id is None:
            workflow_id = f"repair-{uuid.uuid4().hex[:8]}"
        repair = cls(client, check_name(workflow_id, "repair"))
        try:
            await client.start_workflow(
                KINDS["repair"],
                RepairStart(
                    today=today or settings.today,
                    user=settings.user_name,
                    auto_approve=auto_approve,
                    callback=callback,
                ),
                id=repair.workflow_id,
                task_queue=task_queue or settings.repair_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={"user": settings.user_name},
                task_timeout=TASK_TIMEOUT,
                rpc_timeout=RPC_LIMIT,
            )
        except WorkflowAlreadyStartedError:
            raise WorkshopError(
                f"The repair {repair.workflow_id} is under way.",
                fix="look at it, or use another name.",
            ) from None
        return repair

    @property
    def handle(self) -> WorkflowHandle[Any, RepairOutcome]:
        """The repair's workflow."""
        return self._client.get_workflow_handle(self.workflow_id, result_type=RepairOutcome)

    async def status(self) -> RepairStatus:
        """Where it is."""
        answer: RepairStatus = await self._query("status", RepairStatus)
        return answer

    async def problems(self) -> Analysis | None:
        """What is wrong; None before the analysis."""
        answer: Analysis | None = await self._query("problems", Analysis | None)
        return answer

    async def plan(self) -> Plan | None:
        """The plan; None before there is one."""
        answer: Plan | None = await self._query("plan", Plan | None)
        return answer

    async def results(self) -> list[RepairResult]:
        """What became of the approved proposals so far."""
        answer: list[RepairResult] = await self._query("results", list[RepairResult])
        return answer

    async def report(self) -> ReportStatus:
        """The reports, as far as they are written."""
        answer: ReportStatus = await self._query("report", ReportStatus)
        return answer

    async def approve(
        self,
        plan_digest: str,
        *,
        decided_by: str | None = None,
        proposals: list[str] | None = None,
        comment: str = "",
    ) -> RecordedDecision:
        """Approve the plan with this digest, or a part of it.

        Args:
            decided_by: the settings' user when left out.
            proposals: ids; None for all.

        Raises:
            DecisionRefused: it does not count.
        """
        return await self.decide(
            _decision(True, plan_digest, decided_by, proposals=proposals, comment=comment)
        )

    async def reject(
        self, plan_digest: str, *, decided_by: str | None = None, comment: str = ""
    ) -> RecordedDecision:
        """Reject the plan with this digest.

        Raises:
            DecisionRefused: it does not count.
        """
        return await self.decide(_decision(False, plan_digest, decided_by, comment=comment))

    async def decide(
        self, decision: Decision, *, timeout: timedelta = timedelta(seconds=30)
    ) -> RecordedDecision:
        """Send a decision and wait until it is recorded.

        Sent again after a lost connection, or after it was given up, it carries the same id and counts once.

        Raises:
            DecisionRefused: it does not count; the reason says why.
            WorkshopError: no worker took it in time. It may still be taken later.
        """
        try:
            return await asking.update(
                self.workflow_id,
                decision.model_dump_json(),
                lambda *how: self._decide(decision, *how),
                timeout,
            )
        except (TimeoutError, RPCError):
            raise self._no_answer("took the decision") from None

    async def _decide(
        self, decision: Decision, update_id: str, timeout: timedelta
    ) -> RecordedDecision:
        try:
            recorded: RecordedDecision = await self.handle.execute_update(
                "decide",
                decision,
                id=update_id,
                result_type=RecordedDecision,
                rpc_timeout=timeout,
            )
            return recorded
        except WorkflowUpdateFailedError as error:
            raise _refused(error) from None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise await self._too_late() from None
            raise

    async def follow(
        self, timeout: timedelta = timedelta(minutes=5)
    ) -> AsyncGenerator[RepairStatus, None]:
        """Where it is now, and again at every change, until its end.

        The server says when something new has happened, so nothing is asked for in between. A state that
        is left in the same step as it is entered is found in `states`.

        Raises:
            WorkshopError: no worker answers, or it has not ended within `timeout`. It goes on.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout.total_seconds()
        seen = await self.status()
        yield seen
        events = self._events()
        while True:
            more = await self._next_events(events, end - loop.time(), timeout)
            status = await self.status()
            if status != seen:
                seen = status
                yield status
            if not more:
                if not _continues(events):
                    return
                events = self._events()

    async def wait_until(
        self, when: Callable[[RepairStatus], bool], timeout: timedelta = timedelta(minutes=5)
    ) -> RepairStatus:
        """Wait for a status of which something is true, or for the last one.

        Raises:
            WorkshopError: neither came within `timeout`; the repair goes on.
        """
        status = None
        async with contextlib.aclosing(self.follow(timeout)) as news:
            async for status in news:
                if when(status):
                    break
        assert status is not None  # the first one comes at once
        return status

    async def wait_for(
        self, *states: State, timeout: timedelta = timedelta(minutes=5)
    ) -> RepairStatus:
        """Wait until the repair is in one of these states, or has been.

        Raises:
            WorkshopError: it ended and never was, or is not there within `timeout`.
        """

        def reached(status: RepairStatus) -> bool:
            return bool({status.state, *(change.state for change in status.states)} & set(states))

        status = await self.wait_until(reached, timeout)
        if not reached(status):
            raise WorkshopError(
                f"{self.workflow_id} has ended as {status.state}: {status.reason}",
                expected=" or ".join(states),
            )
        return status

    def _events(self) -> WorkflowHistoryEventAsyncIterator:
        return self.handle.fetch_history_events(
            wait_new_event=True, skip_archival=True, rpc_timeout=EVENTS_LIMIT
        )

    async def _next_events(
        self, events: WorkflowHistoryEventAsyncIterator, left: float, timeout: timedelta
    ) -> bool:
        """Wait for events that may have changed the status. Returns whether there can be more."""
        try:
            async with asyncio.timeout(left):
                while True:
                    await events.fetch_next_page()
                    if not events.next_page_token:
                        return False
                    if any(_is_step(event) for event in events.current_page or ()):
                        return True
        except TimeoutError:
            await self.status()  # where nobody serves it any more, that is what is wrong
            raise self._not_over(timeout) from None
        except RPCError as error:
            raise self._unknown(error) from None

    async def outcome(self, timeout: timedelta = timedelta(minutes=5)) -> RepairOutcome:
        """Wait for the end. A repair that failed is an outcome too, with the state FAILED.

        Raises:
            WorkshopError: it is not over within `timeout`, or it was cancelled or terminated.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await self.handle.result()
        except TimeoutError:
            raise self._not_over(timeout) from None
        except WorkflowFailureError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type == "RepairFailed":
                return RepairOutcome.model_validate(
                    cause.details[0]
                    if cause.details
                    else {"state": State.FAILED, "reason": str(cause)}
                )
            raise WorkshopError(
                f"{self.workflow_id} has ended without a result: {cause}."
            ) from None
        except RPCError as error:
            raise self._unknown(error) from None

    def _not_over(self, timeout: timedelta) -> WorkshopError:
        return WorkshopError(
            f"{self.workflow_id} is not that far within {timeout.total_seconds():.0f} s. It goes on.",
            fix="look at its status: it may wait for a decision.",
        )

    async def _query(self, name: str, kind: Any) -> Any:
        try:
            return await query(self.handle, name, kind)
        except WorkflowQueryFailedError as error:
            raise WorkshopError(f"{self.workflow_id} cannot say its {name}: {error}.") from None
        except RPCError as error:
            raise self._unknown(error) from None

    async def _too_late(self) -> WorkshopError:
        """A decision for a repair that has ended, or that never was."""
        status = await self.status()  # says so itself where there is none
        why = f" {status.reason}" if status.reason else ""
        return DecisionRefused("Closed", f"The repair has ended: {status.state}.{why}")

    def _unknown(self, error: RPCError) -> WorkshopError:
        if error.status == RPCStatusCode.NOT_FOUND:
            return WorkshopError(
                f"There is no repair {self.workflow_id}.", fix="list the repairs, or start one."
            )
        return self._no_answer("answered")

    def _no_answer(self, what: str) -> WorkshopError:
        return WorkshopError(
            f"No worker of {self.workflow_id} {what} in time. Nothing is lost.",
            expected="a repair worker on its task queue.",
            fix="`workshop up`, or in a notebook `await lab.start_worker(repair())`.",
        )


async def list_repairs(client: Client) -> AsyncIterator[RepairInfo]:
    """The repairs that the server knows, latest first."""
    kinds = {workflow_type: kind for kind, workflow_type in KINDS.items()}
    names = ", ".join(f"'{workflow_type}'" for workflow_type in kinds)
    async for run in client.list_workflows(f"WorkflowType IN ({names})"):
        yield RepairInfo(
            workflow_id=run.id,
            kind=kinds[run.workflow_type],
            status=_status_in_words(run.status),
            started=run.start_time,
        )


def _decision(approve: bool, plan_digest: str, decided_by: str | None, **given: Any) -> Decision:
    """A decision of what a person has typed.

    Raises:
        DecisionRefused: it cannot be one.
    """
    who = decided_by or get_settings().user_name
    try:
        return Decision(approve=approve, plan_digest=plan_digest, decided_by=who, **given)
    except ValidationError as error:
        raise DecisionRefused("Unreadable", f"That is no decision: {in_words(error)}.") from None


def _is_step(event: HistoryEvent) -> bool:
    """Whether the workflow's code may have run: only that changes its status."""
    return event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED


def _continues(events: WorkflowHistoryEventAsyncIterator) -> bool:
    """Whether a run that has ended goes on as a new one."""
    last = (events.current_page or ())[-1:]
    return any(
        event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
        for event in last
    )


def _status_in_words(status: WorkflowExecutionStatus | None) -> str:
    return status.name.lower().replace("_", " ") if status else "unknown"


def _refused(error: WorkflowUpdateFailedError) -> WorkshopError:
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return DecisionRefused(cause.type or "Refused", cause.message)
    return DecisionRefused("Unreadable", f"The decision was not understood: {cause}.")
