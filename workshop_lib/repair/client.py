"""A repair seen from outside: start it, look at it, decide its plan, wait for its end.

What the command line, the MCP server and notebooks use. It says what went wrong in words that a person can
act on, and works for the proactive agent too. Left out: the repair itself (`workflow`).
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import date, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.harmless import faults
from workshop_lib.repair.approval import MAY_DECIDE
from workshop_lib.repair.models import Analysis, Plan, RepairResult
from workshop_lib.repair.states import (
    Callback,
    Decision,
    ProactiveOutcome,
    RecordedDecision,
    RepairOutcome,
    RepairStart,
    RepairStatus,
    ReportStatus,
    State,
)
from workshop_lib.settings import get_settings
from workshop_lib.temporal import client_retries, lookup
from workshop_lib.temporal.names import check_name
from workshop_lib.temporal.search_attributes import REPAIR_STATUS, SESSION_OWNER, found_by
from workshop_lib.temporal.steps import TASK_TIMEOUT

RPC_LIMIT = timedelta(seconds=10)
DECIDE_LIMIT = timedelta(seconds=30)  # for a worker to take a decision
# Workflow types, by what people call them.
KINDS = {"repair": "OrderRepair", "proactive": "ProactiveRepair"}

Outcome = TypeVar("Outcome", RepairOutcome, ProactiveOutcome)


class DecisionRefused(WorkshopError):
    """The decision did not count, and nothing was changed.

    Args:
        kind: why, in one word: NoPlan, WrongDigest, StalePlan, AlreadyDecided, Expired, Closed,
            UnknownProposal, NothingApproved, PartOfRejection or Unreadable; where identity is checked also
            NoProof, OwnRequest, Forbidden or Unidentified.
    """

    def __init__(self, kind: str, what: str) -> None:
        fix = "look at the status and the plan, and decide about that."
        if kind in ("AlreadyDecided", "Expired", "Closed"):
            fix = "this plan is settled: start a repair, or decide about an agent's next plan."
        elif kind in ("OwnRequest", "Forbidden"):
            fix = f"somebody with {MAY_DECIDE} who has not asked for it has to decide."
        elif kind in ("NoProof", "Unidentified"):
            fix = "sign in, and decide with a client that carries your proof."
        super().__init__(what, fix=fix)
        self.kind = kind


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
        name = f"repair-{uuid.uuid4().hex[:8]}" if workflow_id is None else workflow_id
        start = RepairStart(
            today=today or settings.today,
            user=settings.user_name,
            auto_approve=auto_approve,
            callback=callback,
        )
        await start_run(client, "repair", check_name(name, "repair"), start, task_queue)
        return cls(client, name)

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
        return await self._decide(
            approve=True,
            plan_digest=plan_digest,
            decided_by=decided_by,
            proposals=proposals,
            comment=comment,
        )

    async def reject(
        self, plan_digest: str, *, decided_by: str | None = None, comment: str = ""
    ) -> RecordedDecision:
        """Reject the plan with this digest.

        Raises:
            DecisionRefused: it does not count.
        """
        return await self._decide(
            approve=False, plan_digest=plan_digest, decided_by=decided_by, comment=comment
        )

    async def _decide(self, decided_by: str | None, **typed: Any) -> RecordedDecision:
        """Send what a person decides, and wait until it is recorded.

        Sent again after a lost connection, or after it was given up, it carries the same id and counts once.

        Raises:
            DecisionRefused: it does not count; the reason says why.
            WorkshopError: no worker took it in time. It may still be taken later.
        """
        try:
            decision = Decision(decided_by=decided_by or get_settings().user_name, **typed)
        except ValidationError as error:
            why = f"That is no decision: {faults(error)}."
            raise DecisionRefused("Unreadable", why) from None

        async def send(update_id: str, limit: timedelta) -> RecordedDecision:
            try:
                recorded: RecordedDecision = await self.handle.execute_update(
                    "decide",
                    decision,
                    id=update_id,
                    result_type=RecordedDecision,
                    rpc_timeout=limit,
                )
                return recorded
            except WorkflowUpdateFailedError as error:
                if isinstance(cause := error.cause, ApplicationError):
                    raise DecisionRefused(cause.type or "Refused", cause.message) from None
                why = f"The decision was not understood: {cause}."
                raise DecisionRefused("Unreadable", why) from None
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
                status = await self.status()  # says so itself where there never was one
                ended = f"The repair has ended: {status.state}. {status.reason}".rstrip()
                raise DecisionRefused("Closed", ended) from None

        try:
            return await client_retries.update(
                self.workflow_id, decision.model_dump_json(), send, DECIDE_LIMIT
            )
        except (TimeoutError, RPCError):
            raise self._no_answer("took the decision") from None

    async def follow(
        self, timeout: timedelta = timedelta(minutes=5)
    ) -> AsyncGenerator[RepairStatus, None]:
        """Where it is now, and again at every change, until its end.

        The server says when the history has grown, and only then the repair is asked: while it waits for
        somebody, no worker has to run. A state that is left meanwhile is found in `states`.

        Raises:
            WorkshopError: no worker answers, or it has not ended within `timeout`. It goes on.
        """
        steps = self._steps(asyncio.get_running_loop().time() + timeout.total_seconds())
        seen = await self.status()
        yield seen
        try:
            async for _ in steps:
                status = await self.status()
                if status != seen:
                    seen = status
                    yield status
        except TimeoutError:
            await self.status()  # where nobody serves it any more, that is what is wrong
            raise self._not_over(timeout) from None

    async def _steps(self, end: float) -> AsyncIterator[None]:
        """Each time that workflow code has run, or may have, until the run is over.

        Raises:
            TimeoutError: it is not over at `end`, by the loop's clock.
        """
        news = self.handle.fetch_history_events(wait_new_event=True)
        while True:
            with self._in_words():
                async with asyncio.timeout_at(end):
                    await news.fetch_next_page()
            kinds = {event.event_type for event in news.current_page or ()}
            if EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW in kinds:
                news = self.handle.fetch_history_events(wait_new_event=True)
            elif news.next_page_token is None:
                yield
                return
            elif EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in kinds:
                yield

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
        self, *states: str, timeout: timedelta = timedelta(minutes=5)
    ) -> RepairStatus:
        """Wait until the repair, or the agent's cycle, is in one of these states.

        Raises:
            WorkshopError: it has ended in another one, or is not there in time.
        """
        status = await self.wait_until(lambda now: now.state in states, timeout)
        if status.state not in states:
            raise WorkshopError(
                f"{self.workflow_id} has ended as {status.state}: {status.reason or 'no reason given'}",
                expected=" or ".join(states),
            )
        return status

    async def outcome(self, timeout: timedelta = timedelta(minutes=5)) -> RepairOutcome:
        """Wait for the end. A repair that failed is an outcome too, with the state FAILED.

        Raises:
            WorkshopError: it is not over within `timeout`, or it was cancelled or terminated.
        """
        return await self._result(RepairOutcome, timeout)

    async def _result(self, kind: type[Outcome], timeout: timedelta) -> Outcome:
        handle = self._client.get_workflow_handle(self.workflow_id, result_type=kind)
        try:
            with self._in_words():
                async with asyncio.timeout(timeout.total_seconds()):
                    outcome: Outcome = await handle.result()
                    return outcome
        except TimeoutError:
            raise self._not_over(timeout) from None
        except WorkflowFailureError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and cause.type == "RepairFailed":
                # Details that were too long to be kept are left out.
                failed = {"state": State.FAILED, "reason": str(cause)}
                return kind.model_validate(cause.details[0] if cause.details else failed)
            raise WorkshopError(f"{self.workflow_id} ended without a result: {cause}.") from None

    async def _query(self, name: str, kind: Any) -> Any:
        with self._in_words():
            return await client_retries.query(self.handle, name, kind)

    def _not_over(self, timeout: timedelta) -> WorkshopError:
        return WorkshopError(
            f"{self.workflow_id} is not that far within {timeout.total_seconds():.0f} s. It goes on.",
            fix="look at its status: it may wait for a decision.",
        )

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """What the server answers instead, as something that a person can act on."""
        try:
            yield
        except WorkflowQueryFailedError as error:
            raise WorkshopError(f"{self.workflow_id} cannot answer: {error}.") from None
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise self._no_answer("answered") from None
            raise WorkshopError(
                f"There is no repair {self.workflow_id}.", fix="list the repairs, or start one."
            ) from None

    def _no_answer(self, what: str) -> WorkshopError:
        return WorkshopError(
            f"No worker of {self.workflow_id} {what} in time. Nothing is lost.",
            expected="a repair worker on its task queue.",
            fix="`workshop up`, or in a notebook `await lab.start_worker(repair())`.",
        )


def list_repairs(client: Client, where: str = "") -> AsyncIterator[lookup.RunInfo]:
    """The repairs that the server knows, or those that pass `approval.waiting_for`, latest first."""
    return lookup.list_runs(client, KINDS, where)


async def start_run(
    client: Client, kind: str, name: str, start: BaseModel, task_queue: str | None
) -> None:
    """Start a repair or an agent under a name that is free.

    Raises:
        WorkshopError: there is one of that name under way.
    """
    settings = get_settings()
    try:
        await client.start_workflow(
            KINDS[kind],
            start,
            id=name,
            task_queue=task_queue or settings.repair_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo={"user": settings.user_name},
            search_attributes=await found_by(
                client, {SESSION_OWNER: settings.user_name, REPAIR_STATUS: State.INITIALIZING}
            ),
            task_timeout=TASK_TIMEOUT,
            rpc_timeout=RPC_LIMIT,
        )
    except WorkflowAlreadyStartedError:
        raise WorkshopError(
            f"The {'repair' if kind == 'repair' else 'proactive agent'} {name} is under way.",
            fix="look at its status, or use another name.",
        ) from None
