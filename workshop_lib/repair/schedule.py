"""Repairs on a schedule, one a day: create, upsert, list, describe, trigger, delete, backfill.

The server starts the repairs, so nothing of ours has to run for it. A repair that is still waiting for its
decision when the next one is due lets that one drop: it would only propose the same. Left out: the repair
itself (`workflow`), and an agent that lives on between repairs (`proactive`).
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime, timedelta
from typing import TypedDict, Unpack

from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleBackfill,
    ScheduleCalendarSpec,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.client import KINDS
from workshop_lib.repair.states import RepairStart, State
from workshop_lib.settings import get_settings
from workshop_lib.temporal.names import check_name
from workshop_lib.temporal.search_attributes import REPAIR_STATUS, found_by
from workshop_lib.temporal.steps import TASK_TIMEOUT

DEFAULT_ID = "daily-order-repair"
LIMIT = timedelta(seconds=10)  # for one call to the server


class ScheduleInfo(BaseModel):
    """A schedule.

    Attributes:
        hour: of the day, UTC.
        next_times: when it fires next.
        runs: ids of the latest repairs that it has started.
    """

    schedule_id: str
    hour: int
    auto_approve: bool
    today: date
    paused: bool
    next_times: list[datetime]
    runs: list[str]


class ScheduleOptions(TypedDict, total=False):
    """What a schedule is like.

    Attributes:
        hour: of the day, UTC; six when left out.
        today: the day that every one of its repairs counts from; the settings' one when left out.
        auto_approve: carry whole plans out without asking.
    """

    hour: int
    today: date | None
    auto_approve: bool


class RepairSchedules:
    """The schedules of repairs.

    Args:
        client: connected to the orchestrator's namespace.
        task_queue: where the repairs run; the settings' one when left out.
    """

    def __init__(self, client: Client, *, task_queue: str | None = None) -> None:
        self._client = client
        self._queue = task_queue or get_settings().repair_queue

    async def create(
        self, schedule_id: str = DEFAULT_ID, **what: Unpack[ScheduleOptions]
    ) -> ScheduleInfo:
        """Create a schedule.

        Raises:
            WorkshopError: there is one of this name, or no such hour.
        """
        wanted = await self._schedule(schedule_id, **what)
        try:
            await self._client.create_schedule(schedule_id, wanted, rpc_timeout=LIMIT)
        except ScheduleAlreadyRunningError:
            raise WorkshopError(
                f"There is a schedule {schedule_id} already.",
                fix="upsert it, delete it first, or use another name.",
            ) from None
        return await self.describe(schedule_id)

    async def upsert(
        self, schedule_id: str = DEFAULT_ID, **what: Unpack[ScheduleOptions]
    ) -> ScheduleInfo:
        """Create a schedule, or make the one of this name be like this.

        Raises:
            WorkshopError: there is no such hour.
        """
        wanted = await self._schedule(schedule_id, **what)

        def changed(found: ScheduleUpdateInput) -> ScheduleUpdate:
            wanted.state = found.description.schedule.state  # a paused one stays paused
            return ScheduleUpdate(schedule=wanted)

        try:
            await self._client.create_schedule(schedule_id, wanted, rpc_timeout=LIMIT)
        except ScheduleAlreadyRunningError:
            await self._handle(schedule_id).update(changed, rpc_timeout=LIMIT)
        return await self.describe(schedule_id)

    async def list(self) -> AsyncIterator[str]:
        """The names of the schedules that start repairs."""
        async for found in await self._client.list_schedules():
            action = getattr(found.schedule, "action", None)
            if getattr(action, "workflow", None) == KINDS["repair"]:
                yield found.id

    async def describe(self, schedule_id: str = DEFAULT_ID) -> ScheduleInfo:
        """A schedule: when it fires, and what it has started.

        Raises:
            WorkshopError: there is none of this name.
        """
        with _known(schedule_id):
            found = await self._handle(schedule_id).describe(rpc_timeout=LIMIT)
        schedule = found.schedule
        assert isinstance(schedule.action, ScheduleActionStartWorkflow)
        written = [arg for arg in schedule.action.args if isinstance(arg, Payload)]
        (start,) = await self._client.data_converter.decode(written, [RepairStart])
        return ScheduleInfo(
            schedule_id=schedule_id,
            hour=schedule.spec.calendars[0].hour[0].start,
            auto_approve=start.auto_approve,
            today=start.today,
            paused=schedule.state.paused,
            next_times=list(found.info.next_action_times),
            runs=[
                result.action.workflow_id
                for result in found.info.recent_actions
                if isinstance(result.action, ScheduleActionExecutionStartWorkflow)
            ],
        )

    async def trigger(self, schedule_id: str = DEFAULT_ID) -> None:
        """Start one of its repairs now, even while another one is under way.

        Raises:
            WorkshopError: there is no schedule of this name.
        """
        with _known(schedule_id):
            await self._handle(schedule_id).trigger(
                overlap=ScheduleOverlapPolicy.ALLOW_ALL, rpc_timeout=LIMIT
            )

    async def backfill(self, start: datetime, end: datetime, schedule_id: str = DEFAULT_ID) -> None:
        """Start the repairs that would have been due between two times, one after the other.

        Raises:
            WorkshopError: there is no schedule of this name, or the end is before the start.
        """
        if end <= start:
            raise WorkshopError("The end of the backfill is not after its start.")
        # One after the other: the second would propose what the first is about to repair.
        period = ScheduleBackfill(
            start_at=start, end_at=end, overlap=ScheduleOverlapPolicy.BUFFER_ALL
        )
        with _known(schedule_id):
            await self._handle(schedule_id).backfill(period, rpc_timeout=LIMIT)

    async def delete(self, schedule_id: str = DEFAULT_ID) -> None:
        """Delete a schedule. Repairs that it has started go on.

        Raises:
            WorkshopError: there is none of this name.
        """
        with _known(schedule_id):
            await self._handle(schedule_id).delete(rpc_timeout=LIMIT)

    def _handle(self, schedule_id: str) -> ScheduleHandle:
        return self._client.get_schedule_handle(check_name(schedule_id, "schedule", known=True))

    async def _schedule(
        self, name: str, hour: int = 6, today: date | None = None, auto_approve: bool = False
    ) -> Schedule:
        if not (isinstance(hour, int) and 0 <= hour <= 23):
            raise WorkshopError(f"There is no hour {hour!r}.", expected="0 to 23, UTC.")
        settings = get_settings()
        start = RepairStart(
            today=today or settings.today, user=settings.user_name, auto_approve=auto_approve
        )
        daily = ScheduleCalendarSpec(
            hour=[ScheduleRange(hour)], comment=f"every day at {hour:02}:00 UTC"
        )
        return Schedule(
            action=ScheduleActionStartWorkflow(
                KINDS["repair"],
                start,
                id=f"{check_name(name, 'schedule')}-run",  # the server adds the time
                task_queue=self._queue,
                task_timeout=TASK_TIMEOUT,
                # Of nobody's: it is not the person who sets a schedule up that asks for each of its runs.
                typed_search_attributes=await found_by(
                    self._client, {REPAIR_STATUS: State.INITIALIZING}
                ),
            ),
            spec=ScheduleSpec(calendars=[daily]),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
        )


@contextlib.contextmanager
def _known(schedule_id: str) -> Iterator[None]:
    """What the server answers instead, as something that a person can act on."""
    try:
        yield
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise WorkshopError(
                f"There is no schedule {schedule_id}.", fix="list the schedules, or create it."
            ) from None
        raise WorkshopError(
            f"The server did not answer about the schedule {schedule_id}: {error.message}."
        ) from None
