"""Hears in this process why workflow tasks and Nexus handlers fail: from the SDK's log, a line about each.

The server keeps the first failure of a workflow task only: at the second attempt the SDK stays silent and
lets the attempt time out. What a changed workflow does wrong is therefore known to its worker alone; for
workers elsewhere the history is read. Of a handler the SDK says at each attempt that a start has failed, and
neither why nor where; the server tells the caller what was raised, and not in which line.

A forgotten `await` is the commonest slip, and Python says of it what helps nobody: that a coroutine has no
such attribute, or, whenever it is collected, that it "was never awaited". Errors that hold a coroutine are
named where all failures are made (`workshop_lib.temporal.failures`). Here Python is told to keep track of
where a coroutine was made, and each cell is looked after for what it has left behind.

Left out: what is said about a failure to whoever waits (`failures`, `waiting`).
"""

import asyncio
import contextlib
import inspect
import logging
import re
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client

from workshop_lib.lab.registry import THREAD_PREFIX, identity, identity_alive, registered
from workshop_lib.lab.watching.cell_files import (
    CellLine,
    locate,
    locate_in_exception,
    locate_in_stack,
)
from workshop_lib.lab.watching.failures import plain
from workshop_lib.temporal.caller import refusal_of
from workshop_lib.temporal.failures import (
    ABOUT_COROUTINE,
    FRAME,
    MISSING,
    chain,
    chain_of,
    forgotten,
    origin_of,
    small_stack,
    without_await,
)

RUNS_KEPT = 500
AGAIN = 60.0  # seconds after which the same failure of a handler is news
_EVICTED = "Evicting workflow with run ID"
_FAILED = "Failed activation on workflow"
_HANDLER_FAILED = "Failed to execute Nexus"

FRAMES = 4  # from the call of a coroutine function up to the first line of a learner's
_NEVER = re.compile(r"coroutine '(?P<name>[^']+)' was never awaited")
_hooks: list[Callable[..., Any]] = []  # what ours stands in the place of
_named: set[tuple[str, int]] = (
    set()
)  # where coroutines were made that Python may yet complain about
_NOWHERE = "", 0


@dataclass(frozen=True)
class TaskFailure:
    """One failure of a workflow task.

    Attributes:
        kind: the exception's class, or "" where the server names none.
        message: what it says.
        stack: its stack trace as text, innermost frame last.
        when: Unix seconds.
        identity: the worker, as in histories: "name@pid@host".
    """

    kind: str
    message: str
    stack: str
    when: float
    identity: str


_seen: dict[str, TaskFailure] = {}  # by run id
_heard: dict[str, float] = {}  # of handlers: when each failure was heard last
_ears: list[Callable[[str], None]] = []  # who wants to hear of each failure of a handler


def listen() -> None:
    """Hear of failures in this process from now on. Called again, a handler's old ones are news again."""
    _heard.clear()
    sdk = {name: logging.getLogger(f"temporalio.{name}") for name in ("nexus", "activity")}
    sdk["nexus"].addFilter(_handler_heard)
    # A failing activity is explained by whoever waits for it (`lab.watching.waiting`), once and in a line.
    sdk["activity"].setLevel(logging.ERROR)
    worker = logging.getLogger("temporalio.worker")
    for name in ("_workflow", "_workflow_instance"):
        worker.getChild(name).addFilter(_task_heard)
    # It says the same as the failure that follows, without the line.
    worker.getChild("workflow_sandbox._restrictions").setLevel(logging.ERROR)
    # Evictions are told at this level; the filter lets none of that through.
    worker.getChild("_workflow").setLevel(logging.DEBUG)


def _task_heard(record: logging.LogRecord) -> bool:
    """Note a workflow task's failure, and make one line of the SDK's twenty about it."""
    # It is heard where workflow code runs, whose sandbox would hold against that code what we look at.
    with workflow.unsafe.sandbox_unrestricted(), workflow.unsafe.imports_passed_through():
        return _task_told(record)


def _task_told(record: logging.LogRecord) -> bool:
    text = record.msg if isinstance(record.msg, str) else ""
    if text.startswith(_EVICTED) and isinstance(record.args, tuple):
        run_id, reason = str(record.args[0]), str(record.args[1])
        if "TMPRL1100" in reason:  # found by the SDK's core, which logs nothing else in Python
            name = threading.current_thread().name.removeprefix(THREAD_PREFIX)
            _note(run_id, "NondeterminismError", reason, "", name)
        return False
    if not (text.startswith(_FAILED) and record.exc_info and record.exc_info[1]):
        return record.levelno >= logging.INFO
    run: dict[str, Any] = getattr(record, "temporal_workflow", {})
    place = (run.get("namespace"), run.get("task_queue"))
    serving = (w.name for w in registered().values() if w.place == place)
    links = chain(record.exc_info[1])
    kind, message = links[0].kind, plain(links[0].message)
    stack = "\n".join(small_stack(link.stack) for link in links)
    news = _note(str(run.get("run_id")), kind, message, stack, next(serving, ""))
    line = locate_in_stack(stack)
    where = f", in {line}" if line else ""
    record.msg = (
        f"A workflow task of {run.get('workflow_id')} failed: {kind}: {message.rstrip('.')}{where}"
    )
    record.args, record.exc_info = (), None
    return news


def _note(run_id: str, kind: str, message: str, stack: str, worker: str) -> bool:
    """Keep a failure as the latest of its run. False if the one before said the same."""
    old = _seen.pop(run_id, None)
    _seen[run_id] = TaskFailure(kind, message, stack, time.time(), identity(worker))
    while len(_seen) > RUNS_KEPT:
        _seen.pop(next(iter(_seen)))
    return old is None or old.stack != stack


async def last_task_failure(client: Client, workflow_id: str, run_id: str) -> TaskFailure | None:
    """The latest failure of a run's pending workflow task; None if none is known, or it is mended.

    A failure of a worker that has been restarted since is no news: its code may be another by now.
    """
    known = [f for f in (_seen.get(run_id), await _in_history(client, workflow_id, run_id)) if f]
    newest = max(known, key=lambda failure: failure.when, default=None)
    return newest if newest and identity_alive(newest.identity, since=newest.when) else None


async def _in_history(client: Client, workflow_id: str, run_id: str) -> TaskFailure | None:
    """The failure that the history ends with; None where a later workflow task was completed."""
    answer = await client.workflow_service.get_workflow_execution_history_reverse(
        GetWorkflowExecutionHistoryReverseRequest(
            namespace=client.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            maximum_page_size=30,
        )
    )
    for event in answer.history.events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return None
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
            attributes = event.workflow_task_failed_event_attributes
            failure = attributes.failure
            return TaskFailure(
                failure.application_failure_info.type,
                failure.message,
                "\n".join(link.stack_trace for link in chain_of(failure)),
                event.event_time.ToNanoseconds() / 1e9,
                attributes.identity,
            )
    return None


def _handler_heard(record: logging.LogRecord) -> bool:
    """Put error and line into the SDK's record, and let a failure that repeats itself through once."""
    error = sys.exc_info()[1]  # the SDK logs while it handles it
    if error is None or not str(record.msg).startswith(_HANDLER_FAILED):
        return True
    if refusal_of(error):
        return False  # it works: whoever asks may not have that, and is told so
    text = _handler_failure(error)
    for tell in _ears.copy():
        tell(text)
    record.msg, record.args = text, ()
    before, now = _heard.get(text), time.monotonic()
    _heard[text] = now
    return before is None or now - before > AGAIN


def _handler_failure(error: BaseException) -> str:
    if "<coroutine object" in str(error):
        # The SDK's own text speaks of clients, which is not what is wrong here.
        return (
            "A Nexus handler failed: it returned a coroutine. An `await` is missing, before "
            "`ctx.start_workflow(…)` for one"
        )
    line, where = locate_in_exception(error), ""
    if line:
        plain_cell = f"line {line.line} of the handler's cell: {line.source}"
        where = f", in {line if line.cell else plain_cell}"
    leaf = chain(error)[0]
    return f"A Nexus handler failed: {leaf.kind}: {plain(leaf.message)}{where}"


@contextlib.contextmanager
def first_handler_failure() -> Iterator["asyncio.Future[str]"]:
    """What the first handler that fails in this process from now on says, as soon as it does."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[str] = loop.create_future()

    def note(text: str) -> None:
        if not first.done():
            first.set_result(text)

    def tell(text: str) -> None:  # in the worker's thread
        loop.call_soon_threadsafe(note, text)

    _ears.append(tell)
    try:
        yield first
    finally:
        _ears.remove(tell)
        first.cancel()


# --- a forgotten await -----------------------------------------------------------------------------


def track() -> None:
    """Keep track, in this thread, of where coroutines are made. Costs next to nothing."""
    sys.set_coroutine_origin_tracking_depth(FRAMES)


def tracking_threads(number: int, name: str) -> ThreadPoolExecutor:
    """Threads for a worker's tasks that do so too."""
    return ThreadPoolExecutor(number, thread_name_prefix=name, initializer=track)


def look_after_cells(ip: Any) -> None:
    """Look after each cell of an IPython shell, and put Python's complaints into words. Once will do."""
    track()
    if _hooks:
        return
    named: weakref.WeakSet[Any] = weakref.WeakSet()

    def look(result: Any) -> None:
        error = result.error_in_exec
        if error is not None and ABOUT_COROUTINE.search(str(error)):
            link = chain(error)[0]
            _say(link.message.rpartition(": ")[2], locate_in_stack(link.stack))
            if coroutine := forgotten(error):
                named.add(coroutine)
                _named.add(_place(coroutine))
        for value in (result.result, *ip.user_ns.copy().values()):
            new = inspect.iscoroutine(value) and value not in named
            if new and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
                named.add(value)
                _named.add(_place(value))
                _say(without_await(value), locate(*_place(value)))

    ip.events.register("post_run_cell", look)
    _hooks.append(warnings.showwarning)
    warnings.showwarning = _in_words


def _in_words(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
    """Python's warning of a coroutine that nobody has awaited, or any other as it is."""
    never = _NEVER.match(str(message))
    if not never:
        _hooks[0](message, category, *where, **more)
        return
    made = [(m["file"], int(m["line"])) for m in FRAME.finditer(str(message))]
    place = next((one for one in reversed(made) if locate(*one)), _NOWHERE)
    if place in _named:
        _named.remove(place)
    else:
        _say(f"{MISSING}, before `{never['name']}(…)`", locate(*place))


def _place(coroutine: Any) -> tuple[str, int]:
    made = origin_of(coroutine)
    return (made.filename, made.lineno or 0) if made else _NOWHERE


def _say(what: str, line: CellLine | None) -> None:
    where = f" In {line}" if line else ""
    print(f"{what[0].upper()}{what[1:]}.{where}", file=sys.stderr)
