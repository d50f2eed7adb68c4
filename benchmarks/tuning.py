"""What the options of a worker are worth: pollers, slots, cache, sticky queue, eager starts.

    uv run python benchmarks/tuning.py [--rounds 8]

For each option two workers on one server of the workshop's, in processes of their own, that differ in it
alone. They take turns, each round in another order, and the ratio is taken round by round: what else the
machine does slows both. A round is one message to each of 24 sessions at the same moment, three empty
activities each: all that is measured is Temporal's. For slots each activity takes 0.1 s instead, as a quick
model would. Each ratio is a median, with its quartiles.

Left out: a server across a network, where a poll that waits costs nothing and a round trip costs more.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from floor import Empty, EmptyRun, Floor, nothing
from ground import own_environment, tuned_server
from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum

from workshop_lib.lab.lessons.leaving import with_options
from workshop_lib.lab.lessons.thinking import Thinking, think
from workshop_lib.lab.workers.process import start_process
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.worker import WorkerSpec

SESSIONS = 24
STEPS = 3  # empty activities of a message, as a turn with one tool has them
THINKS = 0.1  # seconds
LIMIT = timedelta(seconds=60)

Round = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Option:
    """An option, what the workshop chooses for it, and what it is held against.

    Attributes:
        ours, other: options of `Worker`; empty for what `WorkerSpec.build` chooses.
        thinks: each message has one activity that takes `THINKS` seconds.
    """

    name: str
    other_name: str
    other: dict[str, Any]
    ours: dict[str, Any] | None = None
    thinks: bool = False


def pollers(count: int) -> dict[str, Any]:
    behaviour = PollerBehaviorSimpleMaximum(count)
    return {"workflow_task_poller_behavior": behaviour, "activity_task_poller_behavior": behaviour}


OPTIONS = [
    Option("pollers: autoscaling", "five, the SDK's own choice", pollers(5)),
    Option("pollers: autoscaling", "two", pollers(2)),
    Option("slots: 100 activities", "4", {"max_concurrent_activities": 4}, thinks=True),
    Option("slots: 100 activities", "1", {"max_concurrent_activities": 1}, thinks=True),
    Option("cache: 2000 runs", "12, half the sessions", {"max_cached_workflows": SESSIONS // 2}),
    Option("cache: 2000 runs", "0", {"max_cached_workflows": 0}),
    Option("activities start eagerly", "not", {"disable_eager_activity_execution": True}),
]


def spec(**options: Any) -> WorkerSpec:
    """A worker on a queue of its own."""
    name = f"tuning-{uuid.uuid4().hex[:6]}"
    plain = WorkerSpec(
        name=name,
        namespace="default",
        task_queue=name,
        workflows=[Floor, Thinking],
        activities=[nothing, think],
    )
    return with_options(plain, **options) if options else plain


@asynccontextmanager
async def sessions(client: Client, thinks: bool, **options: Any) -> AsyncIterator[Round]:
    """A worker with sessions on it, and a function that asks all of them at once. It returns the seconds."""
    worker = await start_process(spec(**options))
    queue = worker.spec.task_queue
    runs = [
        await client.start_workflow(Floor.run, id=f"{queue}-{n}", task_queue=queue)
        for n in range(SESSIONS)
    ]

    async def think_once(number: int) -> None:
        await client.execute_workflow(
            Thinking.run,
            (queue, THINKS),
            id=f"think-{uuid.uuid4().hex}",
            task_queue=queue,
            rpc_timeout=LIMIT,
        )

    async def ask(number: int) -> None:
        await runs[number].execute_update(Floor.run_empty, STEPS, rpc_timeout=LIMIT)

    async def one_round() -> float:
        begun = time.perf_counter()
        await asyncio.gather(*(map(think_once if thinks else ask, range(SESSIONS))))
        return time.perf_counter() - begun

    try:
        await one_round()  # not counted
        yield one_round
    finally:
        for run in runs:
            await run.terminate(rpc_timeout=LIMIT)
        await asyncio.to_thread(worker.stop)


async def compare(client: Client, option: Option, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round, as we have it and with the other option."""
    async with (
        sessions(client, option.thinks, **(option.ours or {})) as ours,
        sessions(client, option.thinks, **option.other) as other,
    ):
        times: dict[Round, list[float]] = {ours: [], other: []}
        for number in range(rounds):
            for one in (ours, other) if number % 2 else (other, ours):
                times[one].append(await one())
        return times[ours], times[other]


async def recovery(client: Client, seconds: float) -> float:
    """Seconds until a message is answered after the worker that held its run was killed."""
    sticky = timedelta(seconds=seconds)
    doomed = await start_process(spec(sticky_queue_schedule_to_start_timeout=sticky))
    queue = doomed.spec.task_queue
    other = await start_process(replace(doomed.spec, name=f"{queue}-other"))
    run = await client.start_workflow(Floor.run, id=queue, task_queue=queue)
    try:
        # Until the run is in the first one's cache: it may have been the other that took it.
        await run.execute_update(Floor.run_empty, 1, rpc_timeout=LIMIT)
        history = await run.fetch_history()
        began = [e.workflow_task_started_event_attributes.identity for e in history.events]
        held_by = next(filter(None, reversed(began)))
        holder = doomed if held_by.startswith(f"{doomed.spec.name}@") else other
        await asyncio.to_thread(holder.kill)
        begun = time.perf_counter()
        await run.execute_update(Floor.run_empty, 1, rpc_timeout=LIMIT)
        return time.perf_counter() - begun
    finally:
        await run.terminate(rpc_timeout=LIMIT)
        for worker in (doomed, other):
            await asyncio.to_thread(worker.stop)


async def eager_start(client: Client, rounds: int) -> list[tuple[float, float]]:
    """Seconds of a run of one empty activity, started eagerly and not, by the process that also serves it."""
    plain = replace(spec(), workflows=[EmptyRun])

    async def run(eager: bool) -> float:
        begun = time.perf_counter()
        await client.execute_workflow(
            EmptyRun.run,
            Empty(),
            id=f"eager-{uuid.uuid4().hex}",
            task_queue=plain.task_queue,
            request_eager_start=eager,
        )
        return time.perf_counter() - begun

    async with plain.build(client):
        await run(False)
        return [(await run(True), await run(False)) for _ in range(8 * rounds)]


async def measure(rounds: int) -> None:
    """Measure all of it, and print the table."""
    client = await connect("default")
    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors; {SESSIONS} sessions"
    )
    print(
        "| option | against | takes, of the other's time | a round, ours / other's |\n|---|---|---|---|"
    )
    eagerly = Option("runs start eagerly (one session)", "not", {})
    measured = [(option, *await compare(client, option, rounds)) for option in OPTIONS]
    pairs = await eager_start(client, rounds)
    measured.append((eagerly, [one for one, _ in pairs], [other for _, other in pairs]))
    for option, ours, other in measured:
        ratios = [one / two for one, two in zip(ours, other, strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        print(
            f"| {option.name} | {option.other_name} | {middle:.2f} ({low:.2f}–{high:.2f}) |"
            f" {median(ours) * 1e3:.0f} / {median(other) * 1e3:.0f} ms |",
            flush=True,
        )
    for seconds in (1, 10):
        times = [await recovery(client, seconds) for _ in range(3)]
        print(
            f"sticky queue, {seconds} s: {median(times):.1f} s from the kill of its worker to an answer"
        )


def main() -> None:
    """Run it on a server of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8, help="of each option (at least 2)")
    rounds = max(2, parser.parse_args().rounds)
    folder = Path(tempfile.mkdtemp(prefix="benchmark-tuning-"))

    async def run() -> None:
        async with tuned_server("memory", folder):
            await measure(rounds)

    with own_environment(folder):
        asyncio.run(run())
    sys.stdout.flush()
    os._exit(0)  # threads of the SDK may still hold on to the interpreter


if __name__ == "__main__":
    main()
