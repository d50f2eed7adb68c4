"""Runs workers: until told to stop, on the state folder's server, whichever process that is by now.

`serve` is what `python -m workshop_lib.….worker` calls. While a worker polls, a record in the state folder
says so, with what whoever wants to use it has to know: which model it calls, which faults, which code it
runs.

A service that is told to stop takes no more work, and has `WORKSHOP_GRACE` seconds. What is done by then is
reported, so nobody does it again. What is not is cancelled and handed back: the server gives it to another
worker at once, without waiting for a heartbeat to be missed. Whatever hangs, the process is gone in time.
Left out: threads and processes of a classroom (`lab.workers.threads`, `lab.workers.process`).
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.runtime import PrometheusConfig
from temporalio.worker import Worker

from workshop_lib.errors import WorkshopError
from workshop_lib.logs import Logged, log_to_stderr
from workshop_lib.machine.ports import LOCALHOST, holder, is_free
from workshop_lib.machine.records import record_service, remove_record
from workshop_lib.settings import get_settings
from workshop_lib.temporal import tracing
from workshop_lib.temporal.connect import connect, quiet_runtime
from workshop_lib.temporal.metrics import Counted
from workshop_lib.temporal.own_server import NoServer, wait_for_server
from workshop_lib.temporal.versions import version_of
from workshop_lib.temporal.worker import WorkerSpec, code_hash, identity

logger = logging.getLogger(__name__)

REPORTS = 2.0  # seconds of the grace that are kept for handing back what is not done
SETTLES = 15.0  # seconds that a server which has come back may take until a worker can poll
# What makes one worker answer otherwise than another, besides model, faults and code.
_ALSO = {
    "llm_api_base",
    "llm_timeout",
    "offline_latency_ms",
    "model_journal",
    "orders_database_url",
    "today",
    "it_endpoint",
    "finance_endpoint",
    "identity",
}


async def serve(spec: WorkerSpec, polls: Callable[[], object] = lambda: None) -> None:
    """Serve as a service until SIGTERM, then end the process. Waits for a server that is not there.

    Args:
        polls: called each time when it begins to poll.

    Raises:
        WorkshopError: a server that the user names does not answer, or refuses the credentials.
    """
    log_to_stderr(logging.INFO)
    spec = replace(spec, version=version_of_services())
    stop = asyncio.Event()
    _stop_in_time(stop)
    _offer_metrics()
    # First: while a library loads, the process is too busy to notice in time that its server has ended.
    for warm_up in spec.warm_ups:
        await warm_up()

    async def make() -> Worker:
        return spec.build(await client_for(spec), **_service_options())

    def begun() -> None:
        logger.info(spec.banner())
        polls()

    await serve_until(stop, spec, begun, make=make, kind="service")
    logger.info("worker %s · stopped", spec.name)
    await asyncio.to_thread(tracing.flush)
    # Threads of the SDK may still hold on to the interpreter; all is done.
    logging.shutdown()
    os._exit(0)


def _stop_in_time(stop: asyncio.Event) -> None:
    """Set `stop` at SIGTERM or Ctrl-C; end the process where it has not ended by itself within its grace."""
    loop, grace = asyncio.get_running_loop(), get_settings().grace

    def end() -> None:
        logger.warning("not done within %g s: the server hands over what is left", grace)
        logging.shutdown()
        os._exit(1)

    def asked(*_: object) -> None:
        loop.call_soon_threadsafe(stop.set)
        # A thread: a tool that hangs may hold the loop.
        timer = threading.Timer(grace, end)
        timer.daemon = True
        timer.start()

    # Not the loop's own handlers, which wait for the loop.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)


def _offer_metrics() -> None:
    """Let Prometheus read this process's metrics, where the settings say. A taken port stops no worker."""
    port = get_settings().metrics_port
    if port and is_free(port):
        quiet_runtime(
            PrometheusConfig(bind_address=f"{LOCALHOST}:{port}", durations_as_seconds=True)
        )
    elif port:
        logger.warning("no metrics: port %s is taken by %s", port, holder(port))


def _service_options() -> dict[str, Any]:
    """What a worker that is a service is built with, besides what its spec says."""
    settings = get_settings()
    finishing = max(settings.grace - REPORTS, settings.grace / 2)
    options: dict[str, Any] = {"graceful_shutdown_timeout": timedelta(seconds=finishing)}
    options["interceptors"] = [Logged()] if settings.log == "json" else []
    if settings.metrics_port:
        options["interceptors"] += [Counted()]
    return options


def version_of_services() -> WorkerDeploymentVersion | None:
    """The version that the environment gives to services; who deploys them says which one is current.

    Raises:
        WorkshopError: there can be no such version.
    """
    settings = get_settings()
    named = settings.deployment_name and settings.build_id
    return version_of(settings.deployment_name, settings.build_id) if named else None


async def client_for(spec: WorkerSpec) -> Client:
    """A client for a spec's worker, under the name that pollers are known by."""
    plugins = [make() for make in spec.client_plugins]
    interceptors = [make() for make in spec.interceptors]
    return await connect(
        spec.namespace, plugins=plugins, interceptors=interceptors, identity=identity(spec.name)
    )


async def serve_until(
    stop: asyncio.Event,
    spec: WorkerSpec,
    polls: Callable[[], None],
    *,
    make: Callable[[], Awaitable[Worker]] | None = None,
    kind: str = "worker",
) -> None:
    """Run workers of a spec, one after the other where a server ends and another begins, until `stop`.

    Args:
        polls: called each time when one polls.
        make: connects and builds one; the spec alone when left out.
        kind: "service" for one that waits for a server that is not there yet, and that `workshop down` ends;
            "command" for one that ends with a command.

    Raises:
        WorkshopError: the first one cannot be made; what ends a worker otherwise is raised too.
    """
    now = asyncio.get_running_loop().time
    waits, settled = kind == "service", 0.0
    record = announce(spec, kind) if waits else None

    def begun() -> None:
        nonlocal waits, record
        waits, record = True, announce(spec, kind)
        polls()

    try:
        while not stop.is_set():
            try:
                worker = await make() if make else spec.build(await client_for(spec))
                await run_until(worker, stop, begun)
                return
            except NoServer as gone:
                if not waits:
                    raise
                logger.warning("worker %s: %s It waits.", spec.name, gone.what)
            except (RuntimeError, WorkshopError):  # parts of a server that is just up are missing
                if now() > settled:
                    raise
            await wait_for_server(get_settings().state_dir, stop)
            settled = now() + SETTLES
    finally:
        if record:
            remove_record(record)


@contextlib.asynccontextmanager
async def polling(spec: WorkerSpec) -> AsyncIterator[None]:
    """A worker in this process that polls while the block runs, for a command."""
    stop, polls = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve_until(stop, spec, polls.set, kind="command"))
    begun = asyncio.create_task(polls.wait())
    await asyncio.wait({serving, begun}, return_when=asyncio.FIRST_COMPLETED)
    begun.cancel()
    try:
        if not serving.done():
            yield
    finally:
        stop.set()
        await serving


async def run_until(worker: Worker, stop: asyncio.Event, polls: Callable[[], object]) -> None:
    """Run a worker until `stop` is set. Calls `polls` once it polls; raises what ends it otherwise."""
    running = asyncio.create_task(worker.run())
    asked = asyncio.create_task(stop.wait())
    # The worker has no event for "it polls"; it validates its namespace first, in a few milliseconds.
    while not worker.is_running and not running.done():  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    if not running.done():
        polls()
    await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not running.done():
        await worker.shutdown()
    await running


def announce(spec: WorkerSpec, kind: str) -> Path:
    """Record that a worker of this process polls, and what it answers with."""
    return record_service(
        get_settings().state_dir,
        spec.name,
        kind=kind,
        identity=identity(spec.name),
        answers_with=answers_with(),
        namespace=spec.namespace,
        queue=spec.task_queue,
    )


def answers_with() -> dict[str, str]:
    """What decides how a worker of this environment answers; workers that say the same can stand in for each
    other. No key is in it."""
    settings = get_settings()
    try:
        model = settings.model.name
    except WorkshopError:  # a worker that calls none does not mind
        model = "none that can be used"
    also = settings.model_dump_json(include=_ALSO)
    return {
        "model": model,
        "faults": settings.offline_faults,
        "other settings": hashlib.sha256(also.encode()).hexdigest()[:12],
        "code": code_hash(),
    }
