"""Workers in background threads of the notebook, one a name.

A cell starts a worker and goes on; the worker polls in a daemon thread with an event loop of its own, so
a busy cell does not stall it and the Interrupt button does not stop it. Starting a name again replaces
the old worker: old and new code never both poll.

Left out: workers that a lesson kills. Those are processes of their own (`lab.workers.process`), kept in the
same registry.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio.worker import Worker

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import (
    THREAD_PREFIX,
    StartedWorker,
    give_back,
    identity,
    registered,
    stop_all,
    take_over,
)
from workshop_lib.lab.watching import listening
from workshop_lib.lab.watching.failures import start_failure
from workshop_lib.lab.watching.listening import track, tracking_threads
from workshop_lib.lab.watching.waiting import within
from workshop_lib.logs import Logged
from workshop_lib.settings import get_settings
from workshop_lib.temporal.chaos.experiment import Experiment
from workshop_lib.temporal.chaos.plan import ChaosPlan
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.service import client_for, serve_until
from workshop_lib.temporal.versions import CURRENT_LIMIT, in_words, make_current
from workshop_lib.temporal.worker import WorkerSpec

logger = logging.getLogger(__name__)

START_LIMIT = 40.0  # seconds until a worker must poll, on a busy machine too
STOP_LIMIT = 2.0  # seconds that activities get to finish when their worker stops
STOP_GENTLY: dict[str, Any] = {"graceful_shutdown_timeout": timedelta(seconds=STOP_LIMIT)}


class RunningWorker(StartedWorker):
    """A worker in a daemon thread of this process.

    Attributes:
        spec: what it serves.
        identity: how it appears in histories and among a queue's pollers: "name@pid@host".
        started_at: Unix seconds when it began to poll.
        failure: what ended it, if it was not `stop()`.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        listening.listen()  # from here on, why its workflow tasks and handlers fail is known
        self.spec = spec
        self.identity = identity(spec.name)
        self.started_at = 0.0
        self.failure: BaseException | None = None
        self._polls: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = threading.Event()  # asked to stop
        self._stop: asyncio.Event | None = None  # the same, for the worker's own loop
        self._thread = threading.Thread(
            target=self._run, name=THREAD_PREFIX + spec.name, daemon=True
        )

    def __repr__(self) -> str:
        return f"<{self.spec.banner()}{'' if self.alive else ' · stopped'}>"

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    @property
    def alive(self) -> bool:
        """True until it has stopped or failed."""
        return self._thread.is_alive()

    def abandon(self) -> None:
        """Stop without waiting for the end."""
        self._stopped.set()
        if self._loop and self._stop:
            with contextlib.suppress(RuntimeError):  # its loop has closed: it is over
                self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        """Stop polling, let running activities finish for some seconds, and wait for the end."""
        self.abandon()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_LIMIT + 3)
        if self.alive:
            logger.warning("worker %s does not stop: code of its own blocks it", self.name)

    def start(self) -> Future[None]:
        """Run the thread. The future is done once the worker polls, or holds what kept it from it."""
        self._thread.start()
        return self._polls

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.failure = error
            if not self._polls.done():
                self._polls.set_exception(error)
            elif not self._stopped.is_set():
                logger.error("worker %s ended: %s", self.name, error)

    async def _serve(self) -> None:
        track()
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # Threads for activities that are plain functions; the worker refuses them without.
        threads = tracking_threads(100, self.name)
        steps = tracking_threads(500, f"{self.name} workflows")
        options: dict[str, Any] = {"activity_executor": threads, "workflow_task_executor": steps}
        if get_settings().log == "json":  # as a service does
            options["interceptors"] = [Logged()]
        stop = self._stop

        async def make() -> Worker:
            client = await client_for(self.spec)
            worker = self.spec.build(client, **options, **STOP_GENTLY)
            # Only now, when the new one is known to be sound, does the old one go.
            await asyncio.to_thread(take_over, self)
            if self._stopped.is_set():  # a third one has replaced this one meanwhile
                stop.set()
            self.started_at = time.time()
            return worker

        try:
            await serve_until(stop, self.spec, self._say_that_it_polls, make=make)
        finally:
            for pool in (threads, steps):  # an activity that blocks must not block the replacement
                pool.shutdown(wait=False)

    def _say_that_it_polls(self) -> None:
        with contextlib.suppress(InvalidStateError):  # the one who waited has given up
            self._polls.set_result(None)


async def start_worker(
    spec: WorkerSpec,
    *,
    announce: bool = True,
    current: bool = True,
    kill_at: object = None,
    chaos: ChaosPlan | Experiment | None = None,
) -> RunningWorker:
    """Start a worker in a background thread, in place of the one that has its name.

    Args:
        spec: what it serves. Where it is a version (`spec.with_version("2")`), new runs go to it from now on.
        announce: print what it serves, once it polls.
        current: False for a version that is there for the runs which are on it, and gets no new ones.
        kill_at: of `start_process`; refused here, since a thread cannot be killed.
        chaos: faults that happen in its work. Of a plan a new experiment begins, `worker.spec.chaos`.

    Returns:
        The worker, polling.

    Raises:
        WorkshopError: there is no server or namespace, or a workflow's code cannot be used. The worker
            that had the name still runs then.
    """
    if kill_at is not None:
        raise WorkshopError(
            "A worker in a thread of this notebook cannot be killed.",
            fix="give it a process: `await lab.start_process(spec, kill_at=…)`.",
        )
    worker = RunningWorker(with_chaos(check_spec(spec), chaos))
    try:
        await asyncio.wait_for(asyncio.wrap_future(worker.start()), START_LIMIT)
    except Exception as error:
        raise _failed(worker, error) from error
    if announce:
        print(spec.banner())
    if current:
        await becomes_current(spec, say=print if announce else None)
    return worker


async def becomes_current(spec: WorkerSpec, say: Callable[[str], object] | None) -> None:
    """New runs go to a spec whose worker polls, if it is a version. Says so.

    Raises:
        WorkshopError: the server did not send them there in time.
    """
    if spec.version is None:
        return
    making = make_current(await connect(spec.namespace), spec.version, spec.task_queue)
    await within(making, 2 * CURRENT_LIMIT, f"New runs for {in_words(spec.version)}")
    if say:
        say(f"{in_words(spec.version)} is current: new runs go to it")


def check_spec(spec: Any) -> WorkerSpec:
    """The same, if it is a spec.

    Raises:
        WorkshopError: it is a name, or the function that makes one.
    """
    if isinstance(spec, WorkerSpec):
        return spec
    name = getattr(spec, "__name__", spec)
    raise WorkshopError(
        f"{name!r} says which worker, and not what it serves.",
        expected="a worker's spec, as the function of its name makes it.",
        fix=f"write `{name}()` there.",
    )


def with_chaos(spec: WorkerSpec, chaos: ChaosPlan | Experiment | None) -> WorkerSpec:
    """The same, with the faults of an experiment, or of one that begins now with a plan."""
    if chaos is None:
        return spec
    return replace(spec, chaos=Experiment.begin(chaos) if isinstance(chaos, ChaosPlan) else chaos)


def start_worker_now(spec: WorkerSpec) -> RunningWorker:
    """`start_worker` for code that cannot await, such as a cell magic. Announces nothing."""
    worker = RunningWorker(spec)
    try:
        worker.start().result(START_LIMIT)
    except Exception as error:
        raise _failed(worker, error) from error
    return worker


def _failed(worker: RunningWorker, error: Exception) -> WorkshopError:
    worker.abandon()
    give_back(worker)
    return start_failure(worker.name, error)


def _at_exit() -> None:
    if any(isinstance(worker, RunningWorker) for worker in registered().values()):
        stop_all()
        # The SDK's own threads let go of Python a moment after the workers have stopped; an
        # interpreter that is gone by then aborts. There is nothing to wait for.
        time.sleep(0.3)
    stop_all()


atexit.register(_at_exit)
