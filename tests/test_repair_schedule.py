"""Repairs on a schedule: when it fires, what it starts, and what becomes of it."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
import pytest_asyncio
from repair_ground import LIMIT, a_name, assert_repaired_once
from temporalio.client import Client

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.schedule import RepairSchedules, ScheduleInfo
from workshop_lib.repair.states import State
from workshop_lib.repair.store import OrderStore
from workshop_lib.repair.worker import repair as repair_spec


@pytest.fixture
def schedules(client: Client, queue: str) -> RepairSchedules:
    return RepairSchedules(client, task_queue=queue)


@pytest_asyncio.fixture
async def name(schedules: RepairSchedules) -> AsyncIterator[str]:
    """The name of a schedule, which is gone afterwards."""
    chosen = a_name("schedule")
    yield chosen
    with contextlib.suppress(WorkshopError):
        await schedules.delete(chosen)


async def with_runs(schedules: RepairSchedules, name: str, count: int) -> ScheduleInfo:
    async with asyncio.timeout(LIMIT):
        while True:
            info = await schedules.describe(name)
            if len(info.runs) >= count:
                return info
            await asyncio.sleep(0.05)


async def test_it_fires_every_day_at_its_hour(schedules: RepairSchedules, name: str) -> None:
    info = await schedules.create(name, hour=7, today=date(2025, 6, 28))
    assert (info.hour, info.today, info.auto_approve, info.runs) == (
        7,
        date(2025, 6, 28),
        False,
        [],
    )
    assert len(info.next_times) >= 3
    assert all((at.hour, at.minute, at.second) == (7, 0, 0) for at in info.next_times)
    days = [later - earlier for earlier, later in itertools.pairwise(info.next_times)]
    assert set(days) == {timedelta(days=1)}
    assert info.next_times[0] > datetime.now(UTC)
    async with asyncio.timeout(LIMIT):
        while True:  # the list follows by some milliseconds
            if name in [found async for found in schedules.list()]:
                break
            await asyncio.sleep(0.05)


async def test_it_is_made_once_and_changed_by_upsert(
    schedules: RepairSchedules, client: Client, name: str
) -> None:
    assert (await schedules.upsert(name, hour=5)).hour == 5  # where there is none
    with pytest.raises(WorkshopError, match="already"):
        await schedules.create(name)
    await client.get_schedule_handle(name).pause()
    changed = await schedules.upsert(name, hour=22, auto_approve=True)
    assert (changed.hour, changed.auto_approve, changed.paused) == (22, True, True)
    with pytest.raises(WorkshopError, match="no hour 24"):
        await schedules.upsert(name, hour=24)
    assert (await schedules.describe(name)).hour == 22


async def test_a_trigger_starts_a_repair_now(
    schedules: RepairSchedules, client: Client, name: str, queue: str, store: OrderStore
) -> None:
    async with asyncio.timeout(150), repair_spec().with_queue(queue).build(client):
        await schedules.create(name, auto_approve=True)
        await schedules.trigger(name)
        (run,) = (await with_runs(schedules, name, 1)).runs
        assert run.startswith(f"{name}-run")
        assert (await RepairClient(client, run).outcome()).state is State.COMPLETED
    assert_repaired_once(store)


async def test_a_backfill_makes_up_for_missed_days(
    schedules: RepairSchedules, client: Client, name: str, queue: str, store: OrderStore
) -> None:
    async with asyncio.timeout(150), repair_spec().with_queue(queue).build(client):
        await schedules.create(name, hour=6, auto_approve=True)
        start = datetime(2025, 6, 25, tzinfo=UTC)
        with pytest.raises(WorkshopError, match="not after"):
            await schedules.backfill(start, start, name)
        await schedules.backfill(start, start + timedelta(days=3), name)
        runs = (await with_runs(schedules, name, 3)).runs
        assert sorted(run[-20:-10] for run in runs) == ["2025-06-25", "2025-06-26", "2025-06-27"]
        states = [(await RepairClient(client, run).outcome()).state for run in sorted(runs)]
    # One after the other: the first repairs, the others find nothing left to do.
    assert states == [State.COMPLETED, State.NO_REPAIR_NEEDED, State.NO_REPAIR_NEEDED]
    assert_repaired_once(store)


async def test_what_is_not_there(schedules: RepairSchedules, name: str) -> None:
    await schedules.create(name)
    await schedules.delete(name)
    start = datetime(2025, 6, 25, tzinfo=UTC)
    for asking in (
        schedules.describe(name),
        schedules.trigger(name),
        schedules.delete(name),
        schedules.backfill(start, start + timedelta(days=1), name),
    ):
        with pytest.raises(WorkshopError, match="There is no schedule"):
            await asking
