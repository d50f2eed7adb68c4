"""Record the history that notebook 09 has read without its source: `data/forensic.json`.

    uv run python tools/record_bad_day.py

A trip is booked, with a server, workers in processes of their own, and a card that is charged without a key
that would make a second try harmless. The first worker is killed right after it has charged the card, the
second right before; the third gets through. The model is away once. At the end the guest complains.

Left out: what the notebook asks about it (`workshop_lib.lab.lessons.forensic`). Nothing of this machine is in
the file.
"""

import asyncio
import base64
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from temporalio.workflow import ActivityConfig

with workflow.unsafe.imports_passed_through():
    from record_histories import PROJECT_ROOT, cleaned  # which finds the next
    from notebook_runner import forget_learners_settings, isolated_state  # isort: skip

    from workshop_lib.lab.server import lifecycle as server
    from workshop_lib.lab.server.namespaces import ensure_namespaces
    from workshop_lib.settings import get_settings, reload_settings
    from workshop_lib.temporal.connect import connect

CASE = PROJECT_ROOT / "data" / "forensic.json"
QUEUE = "trips"
SECONDS = 180
SENT = base64.b64encode(b'"sent"').decode()  # as a payload
STEP: ActivityConfig = {
    "start_to_close_timeout": timedelta(seconds=30),
    "heartbeat_timeout": timedelta(seconds=2),
    "retry_policy": RetryPolicy(initial_interval=timedelta(seconds=1)),
}
Json = dict[str, Any]


def _bank() -> Path:
    """Where the card's charges are kept: what happens outside, and in no history."""
    return get_settings().state_dir / "charges.json"


def _charges() -> list[Json]:
    return list(json.loads(_bank().read_text())) if _bank().exists() else []


@activity.defn
async def plan_trip(request: str) -> Json:
    """Ask a model, which is away at first."""
    if activity.info().attempt == 1:
        raise ApplicationError("429: too many requests", type="ModelUnavailable")
    return {"city": "Lisbon", "nights": 2, "most": 300}


@activity.defn
async def find_room(plan: Json) -> Json:
    """Look for a hotel."""
    return {"hotel": "Casa Azul", "city": plan["city"], "price": 240}


@activity.defn
async def charge_card(order: Json) -> Json:
    """Charge a card. Whoever calls it twice charges it twice."""
    attempt = activity.info().attempt
    activity.heartbeat()
    await asyncio.sleep(0.5)
    if attempt == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    charge = {"charge": f"CH-{70 + attempt}", "amount": order["amount"]}
    _bank().write_text(json.dumps([*_charges(), charge]))
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return charge


@activity.defn
async def send_confirmation(booking: Json) -> str:
    """Tell the guest."""
    return "sent"


@activity.defn
async def read_statement(guest: str) -> list[Json]:
    """What the bank says."""
    return _charges()


@activity.defn
async def write_answer(statement: list[Json]) -> str:
    """Ask a model for words."""
    return "You are right. Somebody will look into it."


@workflow.defn
class TripBooking:
    """Books a trip, and waits whether all is well."""

    def __init__(self) -> None:
        self._complaint = ""

    @workflow.run
    async def run(self, request: str) -> str:
        """Returns what the guest was told last."""
        plan: Json = await workflow.execute_activity(plan_trip, request, **STEP)
        room: Json = await workflow.execute_activity(find_room, plan, **STEP)
        order = {"guest": "Mia", "amount": room["price"]}
        charge: Json = await workflow.execute_activity(charge_card, order, **STEP)
        await workflow.execute_activity(send_confirmation, {**room, **charge}, **STEP)
        await workflow.sleep(2)
        await workflow.wait_condition(lambda: bool(self._complaint))
        statement: list[Json] = await workflow.execute_activity(read_statement, "Mia", **STEP)
        return str(await workflow.execute_activity(write_answer, statement, **STEP))

    @workflow.signal
    def complaint(self, text: str) -> None:
        """The guest is not content."""
        self._complaint = text


ACTIVITIES = (plan_trip, find_room, charge_card, send_confirmation, read_statement, write_answer)


async def work(name: str) -> None:
    """A worker, until it is killed."""
    client = await connect(identity=name)
    await Worker(
        client,
        task_queue=QUEUE,
        workflows=[TripBooking],
        activities=ACTIVITIES,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        max_heartbeat_throttle_interval=timedelta(seconds=0.5),
        build_id="trips",
    ).run()


async def staffed() -> None:
    """A worker as long as this is awaited: when one is gone, the next comes."""
    number = 0
    while True:
        number += 1
        command = sys.executable, __file__, f"desk-{number}"
        process = await asyncio.create_subprocess_exec(*command)
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def record(folder: Path) -> str:
    """Let it all happen; returns the history as JSON."""
    found = await asyncio.to_thread(server.ensure_server, in_memory=True)
    await ensure_namespaces(found)
    os.environ["TEMPORAL_ADDRESS"] = found.address
    client = await connect(identity="front-door")
    staff = asyncio.create_task(staffed())
    try:
        async with asyncio.timeout(SECONDS):
            trip: WorkflowHandle[Any, str] = await client.start_workflow(
                "TripBooking", "Two nights by the sea", id="trip-1138", task_queue=QUEUE
            )
            # Until the guest has been told.
            while SENT not in (await trip.fetch_history()).to_json():  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            await asyncio.sleep(3)
            await trip.signal("complaint", "Why is my card charged twice?")
            print(await trip.result())
            return cleaned((await trip.fetch_history()).to_json(), str(folder))
    finally:
        staff.cancel()
        await asyncio.gather(staff, return_exceptions=True)


def main() -> None:
    """Record it, or be one of its workers."""
    if sys.argv[1:]:
        asyncio.run(work(sys.argv[1]))
        return
    forget_learners_settings()
    with isolated_state() as folder:
        reload_settings()
        history = asyncio.run(record(folder))
    CASE.write_text(history, encoding="utf-8")


if __name__ == "__main__":
    main()
