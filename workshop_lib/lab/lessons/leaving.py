"""Workers that are told to stop (SIGTERM) in the middle of a turn, and what their histories say of it.

Left out: how a service stops well (`temporal.service`), and kills, of which nobody is told.
"""

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowHandle
from temporalio.plugin import SimplePlugin
from temporalio.service import RPCError
from temporalio.worker import WorkerConfig

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import history_of
from workshop_lib.lab.registry import stop_worker
from workshop_lib.lab.watching.waiting import watch
from workshop_lib.lab.workers.process import start_process
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.settings import reload_settings
from workshop_lib.temporal.worker import WorkerSpec

MODEL_STEP = "plan_next_action"
CALL_MS = (
    "1500"  # of a model call; long enough to be told to stop in the middle, on a busy machine too
)
_LIMIT = 40.0  # seconds for a turn


class _Options(SimplePlugin):
    """Builds a worker with other options than its spec would choose."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__("options")
        self._options = options

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        changed: Any = {**super().configure_worker(config), **self._options}
        return changed  # type: ignore[no-any-return]


def with_options(spec: WorkerSpec, **options: Any) -> WorkerSpec:
    """The same worker with other options of `temporalio.worker.Worker`."""
    return replace(spec, client_plugins=[*spec.client_plugins, partial(_Options, options)])


class _Unprepared(SimplePlugin):
    """Leaves SIGTERM to the system, as a program does that has never thought of it."""

    def __init__(self) -> None:
        super().__init__("unprepared", run_context=self._unprepared)

    @contextlib.asynccontextmanager
    async def _unprepared(self) -> AsyncIterator[None]:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        yield


def unprepared(spec: WorkerSpec) -> WorkerSpec:
    """The same worker in a process that SIGTERM ends on the spot."""
    return replace(spec, client_plugins=[*spec.client_plugins, _Unprepared])


@dataclass(frozen=True)
class Ending:
    """What came of a worker that was told to stop while it called a model.

    Attributes:
        calls: how often that call was made, by the old worker or by the next one.
        first: how the first of them ended: "finished", "handed back", "lost".
        seconds: from the time when the call was asked for until its answer was recorded.
    """

    calls: int
    first: str
    seconds: float


class Endings(dict[str, Ending]):
    """What came of each worker, as a table."""

    def __repr__(self) -> str:
        rows = [f"{'':<14}{'its call':<14}{'made':>10}   its answer came after"]
        rows += [
            f"{name:<14}{one.first:<14}{f'{one.calls} ×':>10}   {one.seconds:.1f} s"
            for name, one in self.items()
        ]
        return "\n".join(rows)


async def stop_in_mid_turn(client: Client, workers: Mapping[str, WorkerSpec]) -> Endings:
    """Tell each of these to stop while it calls a model, and see its turn through with another worker.

    Args:
        workers: specs that serve `ManualChat`, by what they are called. Each runs as a service of its own.

    Raises:
        WorkshopError: one does not start, or a turn is not answered in time.
    """
    queues = {}
    for name, spec in workers.items():  # one after the other: their beginnings keep a machine busy
        queues[name] = f"{name}-{uuid.uuid4().hex[:6]}".replace(" ", "-")
        own = replace(spec, name=name, task_queue=queues[name])
        await start_process(own, as_service=True, env={"OFFLINE_LATENCY_MS": CALL_MS})
    with _slow_models():
        ends = await asyncio.gather(*(_ended(client, *one) for one in queues.items()))
    return Endings(zip(workers, ends, strict=True))


@contextlib.contextmanager
def _slow_models() -> Iterator[None]:
    """The model of this process, which takes over, is as slow as theirs."""
    before = os.environ.get("OFFLINE_LATENCY_MS")
    os.environ["OFFLINE_LATENCY_MS"] = CALL_MS
    reload_settings()
    try:
        yield
    finally:
        del os.environ["OFFLINE_LATENCY_MS"]
        if before is not None:
            os.environ["OFFLINE_LATENCY_MS"] = before
        reload_settings()


async def _ended(client: Client, name: str, queue: str) -> Ending:
    chat = ChatClient(client, task_queue=queue)
    turn = asyncio.create_task(chat.send("What is 15 * 23?"))
    following = replace(orchestrator(), name=f"after {name}", task_queue=queue)
    try:
        await until_at_work(chat.handle, MODEL_STEP)
        stopping = asyncio.to_thread(stop_worker, name)
        await asyncio.gather(stopping, start_worker(following, announce=False))
        await watch(turn, chat.handle, timeout=_LIMIT, quiet=True)
        step = (await history_of(chat.handle)).named(MODEL_STEP)[0]
    finally:
        turn.cancel()
        await chat.end()
        await asyncio.to_thread(stop_worker, following.name)
    first = "lost" if step.lost else "handed back" if step.attempts > 1 else "finished"
    return Ending(step.attempts, first, (step.ended or 0) - step.scheduled)


async def until_at_work(
    handle: WorkflowHandle[Any, Any], step: str, *, timeout: float = 30
) -> None:
    """Wait until a worker has begun an activity of a run.

    Args:
        step: its type.
        timeout: seconds to wait at most.

    Raises:
        WorkshopError: nobody has by then.
    """
    try:
        async with asyncio.timeout(timeout):
            while True:  # the history says so only when it has ended, and there is no event for it
                with contextlib.suppress(RPCError):  # the run is just being started
                    description = await handle.describe()
                    if any(
                        one.activity_type.name == step
                        and one.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
                        for one in description.raw_description.pending_activities
                    ):
                        return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise WorkshopError(
            f"Nobody has begun {step} of {handle.id} within {timeout:g} s.",
            expected="a worker that serves the run.",
            fix="run the cell again.",
        ) from None
