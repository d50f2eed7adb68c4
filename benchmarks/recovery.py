"""How long a chat stands still when its worker is killed with SIGKILL in the middle of a model call.

    uv run python benchmarks/recovery.py [--runs 5]

Two cases, each measured from the kill to the completion of the next step in the event history: another
worker is polling already, and another worker has to be started. The time is ruled by the heartbeat timeout
(1.5 s, `heartbeat.py`) and the sticky queue (1 s, `temporal.worker.py`), and in the second case by the start
of a process, which on Linux is a fork of one that has loaded all it needs.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

TARGETS = {"another worker polls": 3.0, "another worker is started": 8.0}  # seconds


async def measure(client: Client, standing_by: bool) -> float:
    """Seconds from the kill of a worker to the next completed activity."""
    from workshop_lib.agents.sessions import ChatClient
    from workshop_lib.agents.worker import orchestrator
    from workshop_lib.lab.workers.process import start_process

    spec = replace(orchestrator(), name="first", task_queue=f"recovery-{time.time_ns()}")
    # The first worker's model is slow, so that it dies in the middle of its call.
    doomed = await start_process(spec, env={"OFFLINE_LATENCY_MS": "60000"})
    chat = ChatClient(client, task_queue=spec.task_queue)
    talking = asyncio.create_task(chat.send("What is 125 * 8?"))
    other = None
    try:
        await _begun(chat)
        if standing_by:
            other = await start_process(replace(spec, name="second"))
            await asyncio.sleep(8)  # it has been there for a while
        killed = time.time()
        await asyncio.to_thread(doomed.kill)
        if not standing_by:
            other = await start_process(replace(spec, name="second"))
        async with asyncio.timeout(60):
            await talking
        history = await chat.handle.fetch_history()
        completed = [
            event.event_time.ToMicroseconds() / 1e6
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
        ]
        return next(moment for moment in completed if moment > killed) - killed
    finally:
        talking.cancel()
        await chat.end()
        if other is not None:
            await asyncio.to_thread(other.stop)


async def _begun(chat: "object") -> None:
    """Wait until the model call is under way: its activity is pending and has been started."""
    async with asyncio.timeout(30):
        while True:
            try:
                described = await chat.handle.describe()  # type: ignore[attr-defined]
                pending = described.raw_description.pending_activities
                calls = [one for one in pending if one.activity_type.name == "plan_next_action"]
                if calls and calls[0].HasField("last_heartbeat_time"):
                    return
            except Exception as error:
                if "not found" not in str(error):
                    raise
            await asyncio.sleep(0.1)


async def main() -> int:
    """Measure both cases and print a table; returns 1 where a median misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    from workshop_lib.lab.server.lifecycle import ensure_server, stop
    from workshop_lib.lab.server.namespaces import ensure_namespaces
    from workshop_lib.temporal.connect import connect

    server = await asyncio.to_thread(ensure_server, in_memory=True)
    missed = 0
    try:
        await ensure_namespaces(server)
        client = await connect()
        print(f"{'case':<28}{'median s':>10}{'max s':>8}{'target s':>10}")
        for case, target in TARGETS.items():
            times = []
            for number in range(runs):
                print(f"{case}: run {number + 1} of {runs}", file=sys.stderr)
                times.append(await measure(client, standing_by=case.endswith("polls")))
            middle = statistics.median(times)
            missed += middle > target
            print(f"{case:<28}{middle:>10.2f}{max(times):>8.2f}{target:>10.1f}")
    finally:
        await asyncio.to_thread(stop)
    return 1 if missed else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "WORKSHOP_STATE_DIR": str(Path(folder) / "state"),
            "LLM_MODEL": "offline/rules",
        }
        os.environ["WORKSHOP_ENV_FILE"] = str(Path(folder) / "no.env")
        status = asyncio.run(main())
    sys.exit(status)
