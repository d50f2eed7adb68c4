"""What a worker does in the process that `lab.workers.process` starts for it.

It is a fork where it needs a model (`lab.workers.forking`), and else imports only what it needs, since a
learner waits for it. Left out: everything that its parent does.
"""

import asyncio
import contextlib
import logging
import os
import pickle
import signal
from multiprocessing.connection import Connection
from typing import Any

from temporalio.worker import Worker

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.failures import start_failure
from workshop_lib.lab.watching.listening import track, tracking_threads
from workshop_lib.lab.workers.kill_points import Executioner, KillPoint
from workshop_lib.lab.workers.threads import STOP_GENTLY
from workshop_lib.llm.large_imports import large_import
from workshop_lib.temporal import service
from workshop_lib.temporal.places import watched
from workshop_lib.temporal.service import client_for, serve_until
from workshop_lib.temporal.worker import WorkerSpec


def work(
    name: str,
    pickled: bytes,
    kill_at: KillPoint | None,
    news: Connection,
    as_service: bool = False,
) -> None:
    """Serve until SIGTERM.

    Args:
        pickled: the spec.
        news: told once: {} when it polls, or what, expected and fix of what keeps it from that.
        as_service: be what `python -m` of a worker is, with its logs, metrics and grace.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not as_service:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
    try:
        with large_import():
            spec: WorkerSpec = pickle.loads(pickled)  # noqa: S301 - of the process that started us
        asyncio.run(
            service.serve(spec, lambda: _say(news, {}))
            if as_service
            else serve(spec, kill_at, news)
        )
    except Exception as error:
        logging.exception("the worker process ends")
        failure = error if isinstance(error, WorkshopError) else _as_failure(name, error)
        _say(news, {"what": failure.what, "expected": failure.expected, "fix": failure.fix})
        os._exit(1)


async def serve(spec: WorkerSpec, kill_at: KillPoint | None, news: Connection) -> None:
    """Serve a spec until SIGTERM; says that it polls."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    options = dict(STOP_GENTLY)
    if kill_at:
        options |= watched(Executioner(kill_at))
    # Before it says that it is ready, so that a lesson sees the work and not the import.
    for warm_up in spec.warm_ups:
        await warm_up()
    track()
    options["activity_executor"] = tracking_threads(100, spec.name)
    options["workflow_task_executor"] = tracking_threads(500, f"{spec.name} workflows")

    async def make() -> Worker:
        return spec.build(await client_for(spec), **options)

    # On a server that comes later it polls again, and its parent has heard already.
    await serve_until(stop, spec, lambda: _say(news, {}), make=make)


def _as_failure(name: str, error: Exception) -> WorkshopError:
    """What kept this worker from running, for the person who started it."""
    if isinstance(error, (ImportError, AttributeError)):
        return WorkshopError(
            f"The worker process cannot import what it serves: {error}",
            fix="run the `%%workflow` cell that defines it again, and start again.",
        )
    return start_failure(name, error)


def _say(news: Connection, message: dict[str, Any]) -> None:
    """Tell the parent, once. It may have lost patience, and that is no error here."""
    if not news.closed:
        with contextlib.suppress(OSError):
            news.send(message)
        news.close()
