"""The process of a worker that `lab.workers.process` starts. Not for anyone else to run.

It is a fork where it needs a model (`lab.workers.forking`), and else imports only what it needs, since a
learner waits for it. Left out: everything that its parent does.
"""

import asyncio
import contextlib
import json
import logging
import os
import pickle
import select
import signal
import sys
import threading
from typing import Any

from temporalio.worker import Worker

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.failures import start_failure
from workshop_lib.lab.watching.listening import track, tracking_threads
from workshop_lib.lab.workers.kill_points import (
    Executioner,
    KillPoint,
    interceptors_for,
    runner_for,
)
from workshop_lib.lab.workers.threads import STOP_GENTLY
from workshop_lib.llm.large_imports import large_import
from workshop_lib.temporal.service import client_for, serve_until
from workshop_lib.temporal.worker import WorkerSpec


def main() -> None:
    """Serve what the standard input orders, until SIGTERM or until the parent is gone."""
    pipe = int(sys.argv[1])
    os.set_inheritable(pipe, False)
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    order = pickle.load(sys.stdin.buffer)  # noqa: S301 - it comes from the process that started us
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    sys.path += [folder for folder in order["path"] if folder not in sys.path]
    try:
        with large_import():
            spec: WorkerSpec = pickle.loads(order["spec"])  # noqa: S301
        asyncio.run(serve(spec, order["kill_at"], pipe))
    except Exception as error:
        logging.exception("the worker process ends")
        failure = error if isinstance(error, WorkshopError) else _as_failure(order["name"], error)
        _say(pipe, {"what": failure.what, "expected": failure.expected, "fix": failure.fix})
        os._exit(1)
    # Threads of the SDK may still hold on to the interpreter; all is done and flushed.
    sys.stdout.flush()
    os._exit(0)


async def serve(spec: WorkerSpec, kill_at: str | None, pipe: int) -> None:
    """Serve a spec until SIGTERM; says on the pipe that it polls."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    options: dict[str, Any] = {}
    if kill_at:
        point = KillPoint.parse(kill_at)
        executioner = Executioner(point)
        options["interceptors"] = interceptors_for(point, executioner)
        options["workflow_runner"] = runner_for(point, executioner)
    options |= STOP_GENTLY
    # Before it says that it is ready, so that a lesson sees the work and not the import.
    for warm_up in spec.warm_ups:
        await warm_up()
    track()
    options["activity_executor"] = tracking_threads(100, spec.name)
    options["workflow_task_executor"] = tracking_threads(500, f"{spec.name} workflows")

    async def make() -> Worker:
        return spec.build(await client_for(spec), **options)

    untold = [pipe]  # on a server that comes later it polls again, and its parent has heard already

    def polls() -> None:
        if untold:
            _say(untold.pop(), {"ready": spec.banner()})

    await serve_until(stop, spec, polls, make=make)


def _leave_with(parent: int) -> None:
    """End this process once its parent is gone. A thread: the loop may be busy with code of a learner."""
    stdin = sys.stdin.buffer
    while os.getppid() == parent:
        # The end of the input is the event; a copy of the parent's end may be open elsewhere.
        if select.select([stdin], [], [], 1.0)[0] and not stdin.read(1):
            break
    logging.info("the process that started this worker is gone; leaving")
    os._exit(0)


def _as_failure(name: str, error: Exception) -> WorkshopError:
    """What kept this worker from running, for the person who started it."""
    if isinstance(error, (ImportError, AttributeError)):
        return WorkshopError(
            f"The worker process cannot import what it serves: {error}",
            fix="run the `%%workflow` cell that defines it again, and start again.",
        )
    return start_failure(name, error)


def _say(pipe: int, message: dict[str, Any]) -> None:
    """One line to the parent. It may have lost patience, and that is no error here."""
    with contextlib.suppress(OSError):
        os.write(pipe, json.dumps(message).encode() + b"\n")
        os.close(pipe)


if __name__ == "__main__":
    main()
