"""An outage for notebook 09: the model fails for some seconds, and each request that reaches it is counted.

Twenty runs ask at the same time, and Temporal tries their steps again, once a second. What stands between
these retries and the model is a learner's circuit breaker, or nothing. It is the offline model, whatever the
settings say: nobody's key pays for knocking. Left out: the breaker of the library's own calls.
"""

import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

with workflow.unsafe.imports_passed_through():
    from workshop_lib.lab.workers.threads import start_worker
    from workshop_lib.llm import gateway
    from workshop_lib.llm.journal import read_journal
    from workshop_lib.llm.messages import Message
    from workshop_lib.settings import OFFLINE_MODEL, reload_settings
    from workshop_lib.temporal.worker import WorkerSpec

PEOPLE = 20
SECONDS = 3.0  # that the model is down
RETRY_EVERY = 1.0  # seconds; the server's timers do not go off sooner after a failure
PATIENCE = 15.0  # seconds after the outage, in which everybody should be answered
_FAULTS, _JOURNAL = "OFFLINE_FAULTS", "WORKSHOP_MODEL_JOURNAL"


class Breaker(Protocol):
    """What stands before the model."""

    def allow(self) -> None:
        """Called before each request; raises where the request may not be made."""

    def succeeded(self) -> None:
        """Called after a request that was answered."""

    def failed(self) -> None:
        """Called after a request that failed."""


class NoBreaker:
    """Lets everything through."""

    def allow(self) -> None:
        """See `Breaker`."""

    succeeded = failed = allow


@dataclass(frozen=True)
class Outage:
    """What came of an outage.

    Attributes:
        answered: how many of the `PEOPLE` had their answer in the end.
        while_down: requests that reached the model while it was down.
        afterwards: those that reached it when it was back.
        late: seconds from its recovery to the first answer; None where there was none.
        seconds: that it was down.
    """

    answered: int
    while_down: int
    afterwards: int
    late: float | None
    seconds: float = SECONDS

    def __repr__(self) -> str:
        first = "no answer" if self.late is None else f"first answer {self.late:.1f} s later"
        return (
            f"{self.while_down} requests while the model was down, {self.afterwards} when it was back; "
            f"{first}; {self.answered} of {PEOPLE} answered"
        )


@workflow.defn
class Question:
    """One question, asked until it is answered."""

    @workflow.run
    async def run(self, text: str) -> str:
        """The answer."""
        answer: str = await workflow.execute_activity(
            "ask_in_an_outage",
            text,
            start_to_close_timeout=timedelta(seconds=5),
            schedule_to_close_timeout=timedelta(minutes=1),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=RETRY_EVERY), backoff_coefficient=1.0
            ),
        )
        return answer


def asking_through(breaker: Breaker) -> Callable[[str], Any]:
    """The activity of `Question`, with a breaker before the model."""

    @activity.defn(name="ask_in_an_outage")
    async def ask(text: str) -> str:
        breaker.allow()
        try:
            answer = await gateway.complete([Message.user(text)], model=OFFLINE_MODEL)
        except gateway.ModelUnavailable as error:
            breaker.failed()
            raise ApplicationError(str(error), type="ModelUnavailable") from None
        breaker.succeeded()
        return answer.message.content or ""

    return ask


async def live_through_outage(
    client: Client, breaker: Breaker | None = None, *, patience: float = PATIENCE
) -> Outage:
    """Let twenty people ask a model that is down for three seconds, and count.

    Args:
        breaker: what stands before the model; nothing where it is left out.
        patience: seconds after the outage, after which nobody waits any more.
    """
    name = f"outage-{uuid.uuid4().hex[:6]}"
    spec = WorkerSpec(
        name=name,
        namespace=client.namespace,
        task_queue=name,
        workflows=[Question],
        activities=[asking_through(breaker or NoBreaker())],
        warm_ups=[gateway.warm_up],
    )
    await gateway.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "requests.jsonl"
        worker = await start_worker(spec, announce=False)
        try:
            began = time.time()
            async with _model_down(journal) as back:
                asked = [
                    await client.start_workflow(
                        Question.run, f"What is {n} * 7?", id=f"{name}-{n}", task_queue=name
                    )
                    for n in range(PEOPLE)
                ]
                ended = await _ends(asked, SECONDS + patience)
                recovery = back.result() if back.done() else time.time()
        finally:
            await asyncio.to_thread(worker.stop)
        times = [entry.time for entry in read_journal(journal)]
    down = sum(moment < recovery for moment in times)
    late = max(0.0, min(ended) - recovery) if ended else None
    return Outage(len(ended), down, len(times) - down, late, recovery - began)


@contextlib.asynccontextmanager
async def _model_down(journal: Path) -> "AsyncIterator[asyncio.Future[float]]":
    """The model fails for `SECONDS` from now on, and counts. Yields when it was back, once it is."""
    before = {name: os.environ.get(name) for name in (_FAULTS, _JOURNAL)}
    loop = asyncio.get_running_loop()
    back: asyncio.Future[float] = loop.create_future()

    def recover() -> None:
        _set({_FAULTS: ""})
        back.set_result(time.time())

    _set({_FAULTS: "server_error=1", _JOURNAL: str(journal)})
    recovery = loop.call_later(SECONDS, recover)
    try:
        yield back
    finally:
        recovery.cancel()
        _set(before)


def _set(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    reload_settings()


async def _ends(runs: list[WorkflowHandle[Any, str]], seconds: float) -> list[float]:
    """When the runs were answered that are within so many seconds; the others are ended."""

    async def end(run: WorkflowHandle[Any, str]) -> float:
        await run.result()
        return time.time()

    waiting = [asyncio.create_task(end(run)) for run in runs]
    done, late = await asyncio.wait(waiting, timeout=seconds)
    for task in late:
        task.cancel()
    for run, task in zip(runs, waiting, strict=True):
        if task in late:
            with contextlib.suppress(RPCError):
                await run.terminate("nobody waits any more", rpc_timeout=timedelta(seconds=5))
    return [task.result() for task in done if not task.exception()]
