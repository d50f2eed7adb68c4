"""What the commands of `workshop` share: talking to people, starting the server, serving in this process.

Left out: the commands themselves (`cli`, `cli.repair`).
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from workshop_lib import harmless
from workshop_lib.edge import say
from workshop_lib.temporal.names import check_name

if TYPE_CHECKING:
    from temporalio.client import Client

    from workshop_lib.lab.server.dev_server import Server
    from workshop_lib.temporal.worker import WorkerSpec

T = TypeVar("T")

_for_programs = False  # this command's stdout is read by a program


def _remember(as_json: bool) -> bool:
    global _for_programs
    _for_programs = as_json
    return as_json


Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout.", callback=_remember)
]


def show(text: str, end: str = "\n") -> None:
    """Print what was asked for, on stdout."""
    print(harmless.block(text), end=end, flush=True)


def show_json(document: Any, indent: int | None = None) -> None:
    """Print what was asked for as one JSON document, in ASCII: no terminal obeys it or lacks a letter."""
    print(json.dumps(document, indent=indent), flush=True)


def name_of(what: str, *, known: bool = False) -> Callable[[str | None], str | None]:
    """A callback for an option or argument that is a name: checked before anything is started."""
    return lambda given: None if given is None else check_name(given, what, known=known)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine to its end. With `--json` nothing that it does reaches stdout."""
    with stdout_to_stderr() if _for_programs else contextlib.nullcontext():
        return asyncio.run(work)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """While the block runs, what anybody writes on stdout goes to stderr: a library, in Python or not, or a
    child process."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
            os.dup2(2, 1)
        except OSError:  # one of them is closed
            yield
            return
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def leave_in_order() -> None:
    """From here on SIGTERM and a closed terminal end the command by way of its clean-up."""

    def leave(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), leave)


def start_server() -> "Server":
    """Find, adopt or start the dev server, and say what a person should know about it."""
    from workshop_lib.lab.server.lifecycle import ensure_server

    server = ensure_server()
    if server.note:
        say(server.note)
    return server


async def prepare(server: "Server") -> None:
    """Ensure namespaces and endpoints."""
    from workshop_lib.lab.server.namespaces import ensure_namespaces

    for message in await ensure_namespaces(server):
        say(message)


@asynccontextmanager
async def patience(text: str, seconds: float = 5) -> AsyncIterator[None]:
    """Say something on stderr where the block takes long."""
    timer = asyncio.get_running_loop().call_later(seconds, say, text)
    try:
        yield
    finally:
        timer.cancel()


@asynccontextmanager
async def connected() -> AsyncIterator["Client"]:
    """A server that is ready for work, and a client of the orchestrator's namespace."""
    from workshop_lib.lab.watching.waiting import Notices
    from workshop_lib.temporal.connect import connect

    server = await asyncio.to_thread(start_server)
    if server.started:
        say("A dev server was started for this; it stays until `workshop down`.")
    await prepare(server)
    yield await connect(interceptors=[Notices(say)])


@asynccontextmanager
async def serving(
    names: Sequence[str],
    specs: Callable[[], "Sequence[WorkerSpec]"],
    *,
    calls_models: bool = True,
) -> AsyncIterator["Client"]:
    """A server, and workers that serve while the block runs: those that poll already, or ones of its own.

    Args:
        names: which workers are needed.
        specs: makes their specs. Called late and where need be, because their modules take long to import.
        calls_models: load the model library first, and say now what is wrong with the model.
    """
    from workshop_lib.lab.services.stand_ins import find_gaps, there_may_be
    from workshop_lib.settings import get_settings

    # What fails is told to the user by the command; a log line for each attempt would be noise here.
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    loading: asyncio.Task[None] | None = None
    if calls_models:
        get_settings().model  # noqa: B018 - says now what is wrong with it, not in the middle of work

    def load() -> "asyncio.Task[None]":
        from workshop_lib.llm.gateway import warm_up

        return asyncio.create_task(warm_up())

    if calls_models and not there_may_be(names):
        # The library takes seconds to load; do it while the server starts. The worker would begin later.
        loading = load()
    async with connected() as client, AsyncExitStack() as workers:
        gaps = await find_gaps(client, names, say)
        if gaps:
            from workshop_lib.temporal.service import polling

            if calls_models:
                await (loading or load())
            for spec in specs():
                for queue in gaps.get(spec.name, []):
                    await workers.enter_async_context(polling(spec.with_queue(queue)))
        yield client
