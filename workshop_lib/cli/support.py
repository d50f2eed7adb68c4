"""What the commands of `workshop` share: how they are run, a server that is ready, workers in this process.

Left out: the commands themselves.
"""

import asyncio
import contextlib
import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import typer
from pydantic_core import to_jsonable_python
from temporalio.client import Client

from workshop_lib import harmless
from workshop_lib.auth.outbound import at_the_keyboard
from workshop_lib.edge import say
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.lab.server.lifecycle import ensure_server
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.services.programs import spec_of
from workshop_lib.lab.services.stand_ins import OWN_QUEUES, find_gaps, there_may_be
from workshop_lib.lab.watching.waiting import Notices
from workshop_lib.lab.workers.chaos import chaos
from workshop_lib.llm.gateway import warm_up
from workshop_lib.settings import get_settings, reload_settings
from workshop_lib.temporal.chaos.experiment import Experiment
from workshop_lib.temporal.chaos.plan import ChaosPlan
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.names import check_name
from workshop_lib.temporal.service import polling

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


class Answer(NamedTuple):
    """What a command has to show.

    Attributes:
        document: with `--json`: what JSON can hold, and pydantic models.
        text: without; None where all is said already.
        failed: the exit status is 1.
    """

    document: Any = None
    text: str | None = None
    failed: bool = False


def command(app: typer.Typer, name: str | None = None) -> Callable[[Any], Any]:
    """Make a command of a function, which may be async and returns an `Answer` or None.

    With `--json` nothing but the document reaches stdout, whatever the function does.
    """

    def register(function: Any) -> Any:
        @app.command(name)
        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            as_json = arguments.get("as_json", False)
            with stdout_to_stderr() if as_json else contextlib.nullcontext():
                answer = function(**arguments)
                if inspect.iscoroutine(answer):
                    answer = asyncio.run(answer)
            document, text, failed = answer or Answer()
            if as_json:
                show_json(document)
            elif text is not None:
                show(text)
            raise typer.Exit(int(failed))

        return function

    return register


def show(text: str, end: str = "\n") -> None:
    """Print what was asked for, on stdout."""
    print(harmless.block(text), end=end, flush=True)


def show_json(document: Any, indent: int | None = None) -> None:
    """Print what was asked for as one JSON document, in ASCII: no terminal obeys it or lacks a letter."""
    print(json.dumps(document, indent=indent, default=to_jsonable_python), flush=True)


def name_of(what: str, *, known: bool = False) -> Callable[[str | None], str | None]:
    """A callback for an option or argument that is a name: checked before anything is started."""
    return lambda given: None if given is None else check_name(given, what, known=known)


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """A callback for an option or argument that has to be one of these."""

    def check(given: str) -> str:
        if given in names:
            return given
        raise typer.BadParameter(f"{harmless.line(given, 40)} is none of {', '.join(names)}.")

    return check


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


def start_server() -> Server:
    """Find, adopt or start the dev server, and say what a person should know about it."""
    server = ensure_server()
    if server.note:
        say(server.note)
    return server


async def prepare(server: Server) -> None:
    """Ensure namespaces and endpoints."""
    for message in await ensure_namespaces(server):
        say(message)


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    """A server that is ready for work, and a client of the orchestrator's namespace."""
    person = at_the_keyboard()  # says now that nobody of that name can sign in
    server = await asyncio.to_thread(start_server)
    if server.started:
        say("A dev server was started for this; it stays until `workshop down`.")
    await prepare(server)
    yield await connect(interceptors=[Notices(say), *person])


@asynccontextmanager
async def serving(
    names: Sequence[str], *, calls_models: bool = True, activities: bool = True
) -> AsyncIterator[Client]:
    """A server, and workers that serve while the block runs: those that poll already, or ones of its own.

    Args:
        names: which workers are needed.
        calls_models: load the model library first, and say now what is wrong with the model; otherwise it
            is loaded only when a step turns out to need it.
        activities: False for workers that answer queries and make no step.
    """
    # What fails is told to the user by the command; a log line for each attempt would be noise here.
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    loading: asyncio.Task[None] | None = None
    if calls_models:
        get_settings().model  # noqa: B018 - says now what is wrong with it, not in the middle of work
        if not there_may_be(names):
            # The library takes seconds to load; do it while the server starts. The worker would begin later.
            loading = asyncio.create_task(warm_up())
    async with connected() as client, AsyncExitStack() as workers:
        gaps = await find_gaps(client, names, say)
        if gaps and calls_models:
            await (loading or warm_up())
        for name, queues in gaps.items():
            spec = spec_of(name)
            if not calls_models:
                spec = replace(spec, warm_ups=())
            if not activities:
                spec = replace(spec, activities=())
            for queue in queues:
                await workers.enter_async_context(polling(spec.with_queue(queue)))
        yield client


@asynccontextmanager
async def failing(
    plan: ChaosPlan, first: str, teams: Sequence[str]
) -> AsyncIterator[tuple[Client, Experiment]]:
    """A server, and workers in processes of their own whose work goes wrong as a plan says.

    Args:
        first: the worker that does the command's work, on a queue of this plan's: no other one takes it.
        teams: workers that it calls; those that poll already are used, and nothing goes wrong in them.
    """
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    async with connected() as client:
        gaps = await find_gaps(client, teams, say)
        os.environ[OWN_QUEUES[first]] = f"{spec_of(first).task_queue}-chaos-{plan.digest}"
        reload_settings()
        own = [spec_of(name).with_queue(queue) for name, queues in gaps.items() for queue in queues]
        async with chaos(plan, spec_of(first), *own) as experiment:
            yield client, experiment
