"""Waiting for a workflow without ever hanging a cell.

The server retries for ever what can still succeed: a workflow task whose code has a bug, an activity that
keeps failing, a task in a queue that nobody polls. So while a cell waits, `watch` looks at the run once
a second and says what is wrong, with the line of the cell. Giving up loses nothing: the run goes on.

A message to a chat, a decision, a result may be awaited without `watch`. So the clients of notebooks and
commands have the interceptor `Notices`: once a call has taken some seconds it looks at the run, and says once
what `watch` would raise; the call goes on.

Left out: what is looked at (`lab.watching.pending`) and what the advice is (`lab.watching.failures`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from temporalio.client import (
    Client,
    FetchWorkflowHistoryEventsInput,
    Interceptor,
    OutboundInterceptor,
    QueryWorkflowInput,
    StartWorkflowUpdateInput,
    StartWorkflowUpdateWithStartInput,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.cell_files import locate_in_stack
from workshop_lib.lab.watching.failures import advice, failed_for_good, plain
from workshop_lib.lab.watching.pending import Situation, look
from workshop_lib.temporal.versions import in_words

T = TypeVar("T")
_watched: ContextVar[bool] = ContextVar("watched", default=False)

# A running cell is interrupted only when its loop wakes: five times a second makes the stop button work.
TICK = 0.2
LOOK_EVERY = 1.0  # seconds
GOES_ON = "The run goes on meanwhile, and nothing is lost."
# Seconds until a call's run is looked at: a task in its queue is called unserved after two.
NOTICE_AFTER = 2.5
NOTICE_AGAIN = 2.0  # seconds until the next look
LOOK_LIMIT = 5.0  # seconds that a look may take


class StuckWorkflow(WorkshopError):
    """A workflow task fails again and again: the workflow's code has a bug."""


class NobodyPolls(WorkshopError):
    """A task lies in a queue, and no worker is there to take it."""


class KeepsFailing(WorkshopError):
    """An activity or an operation fails each time it is tried."""


class NoAnswer(WorkshopError):
    """It did not come in time. The run goes on."""


class WorkflowFailed(WorkshopError):
    """The workflow, or an update of it, ended with a failure. `__cause__` is Temporal's own error."""


async def result(handle: WorkflowHandle[Any, T], *, timeout: float = 60, patient: bool = True) -> T:
    """The result of a workflow, or what keeps it from having one.

    Args:
        handle: of the run.
        timeout: seconds to wait at most; the run goes on after that.
        patient: as for `watch`.

    Raises:
        WorkflowFailed, StuckWorkflow, NobodyPolls: each says what to do.
        NoAnswer: there is no result within `timeout`; it says what is pending.
    """
    return await watch(handle.result, handle, timeout=timeout, patient=patient)


async def watch(
    awaitable: Awaitable[T] | Callable[[], Awaitable[T]],
    handle: WorkflowHandle[Any, Any],
    *,
    timeout: float = 60,
    expect_no_worker: bool = False,
    quiet: bool = False,
    patient: bool = True,
) -> T:
    """Await something that a workflow has to do: an update, a query, a result.

    Args:
        awaitable: what is awaited; it is cancelled when this gives up. A function that makes one is called
            again where the run has ended and the answer has not come: now and then a dev server does not
            tell those who wait, and knows it when it is asked.
        handle: of the run that has to do it.
        timeout: seconds to wait at most.
        expect_no_worker: a lesson has killed the worker; that nobody polls is said and not raised.
        quiet: what keeps failing is not said before the end: it has just been mended.
        patient: False where nothing that keeps failing will be mended meanwhile, as in a check.

    Raises:
        WorkflowFailed, StuckWorkflow, NobodyPolls: each says what to do.
        NoAnswer: none within `timeout`; it says what is pending.
    """
    token = _watched.set(True)
    awaited = asyncio.ensure_future(awaitable() if callable(awaitable) else awaitable)
    _watched.reset(token)
    looking: asyncio.Task[Situation] | None = None
    now = asyncio.get_running_loop().time
    end, next_look = now() + timeout, now() + LOOK_EVERY / 2
    say, latest = Once(), Situation()
    try:
        while not awaited.done():
            if now() >= end:
                raise _no_answer(handle, timeout, latest)
            # There is no event for "it is stuck": the server is asked, once a second.
            if looking is None and now() >= next_look:
                asked = look(handle._client, handle.id, handle.run_id or "", doors=True)
                looking, next_look = asyncio.create_task(asked), now() + LOOK_EVERY
            waited: set[asyncio.Future[Any]] = {awaited, *([looking] if looking else [])}
            await asyncio.wait(waited, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
            if looking is None or not looking.done() or awaited.done():
                continue
            latest, looking = _seen(looking, say), None
            if latest.failing and not patient:
                raise KeepsFailing(latest.failing, fix="mend what fails, and try again.")
            for key, text in () if quiet else latest.troubles.items():
                say(key, text)
            error = _needs_a_person(handle, latest)
            if isinstance(error, NobodyPolls) and expect_no_worker:
                say("unserved", f"{_nobody_polls(latest)} The run waits on the server.")
            elif error:
                raise error
            if latest.ended and callable(awaitable):
                awaited.cancel()
                awaited = asyncio.ensure_future(awaitable())
        return awaited.result()
    except (WorkflowFailureError, WorkflowUpdateFailedError) as error:
        title = "failed" if isinstance(error, WorkflowFailureError) else "refused the update"
        raise WorkflowFailed(f"Workflow {handle.id} {title}: {failed_for_good(error)}") from error
    finally:
        _abandon(awaited)
        if looking:
            looking.cancel()


async def within(
    awaitable: Awaitable[T], timeout: float, what: str, fix: str = "run `workshop doctor`."
) -> T:
    """Await anything for at most `timeout` seconds.

    Args:
        what: what did not come: "the model's answer".
        fix: what to do about that.

    Raises:
        WorkshopError: it did not come in time.
    """
    awaited = asyncio.ensure_future(awaitable)
    now = asyncio.get_running_loop().time
    end = now() + timeout
    try:
        while not awaited.done() and now() < end:
            await asyncio.wait({awaited}, timeout=min(TICK, max(0.0, end - now())))
        if awaited.done():
            return awaited.result()
    finally:
        _abandon(awaited)
    raise WorkshopError(f"{what} did not come within {timeout:g} s.", fix=fix)


def _abandon(awaited: "asyncio.Future[Any]") -> None:
    """Wait no longer. What it raises at its end is nobody's business; unlooked at, asyncio would complain."""
    awaited.cancel()
    awaited.add_done_callback(lambda over: over.cancelled() or over.exception())


def _seen(looking: "asyncio.Task[Situation]", say: "Once") -> Situation:
    """What a look has found. A server that is away for a moment is said once, and waited for."""
    try:
        return looking.result()
    except RPCError as error:
        say("server", f"the server does not answer: {error.message}")
        return Situation(waits_for=["the server, which does not answer"])


def _needs_a_person(
    handle: WorkflowHandle[Any, Any], situation: Situation
) -> StuckWorkflow | NobodyPolls | None:
    """What is wrong with a run that will not mend itself."""
    if failure := situation.stuck:
        kind = f"{failure.kind}: " if failure.kind else ""
        line = locate_in_stack(failure.stack)
        return StuckWorkflow(
            f"Workflow {handle.id} is stuck, not failed: {kind}{plain(failure.message)}"
            + (f"\nIn {line}" if line else ""),
            fix=advice(failure.kind, failure.message, situation.pinned),
        )
    if unserved := situation.unserved:
        which = f" a worker of {in_words(unserved.version)}" if unserved.version else " its worker"
        return NobodyPolls(
            f"{_nobody_polls(situation)} Workflow {handle.id} waits there, and nothing is lost.",
            fix=f"run the cell that starts{which} (`await start_worker(…)`), or `workshop up`; "
            "then wait again.",
        )
    return None


def _nobody_polls(situation: Situation) -> str:
    unserved = situation.unserved
    assert unserved
    return f"Nobody polls task queue {unserved.what} in namespace {unserved.namespace}."


def _no_answer(handle: WorkflowHandle[Any, Any], timeout: float, latest: Situation) -> NoAnswer:
    pending = "; ".join(latest.waits_for) or "a signal, an update or a timer"
    troubles = "".join(f"\n{text}" for text in latest.unsaid_troubles)
    return NoAnswer(
        f"Workflow {handle.id} gave no answer within {timeout:g} s. It waits for {pending}.{troubles}",
        fix=(
            f"mend what fails: waiting longer will not help. {GOES_ON}"
            if latest.troubles
            else "run the cell again to wait longer: the run goes on on the server, and nothing is lost."
        ),
    )


class Once:
    """Says each thing once. Much of it is what others have written.

    Args:
        say: prints a text.
    """

    def __init__(self, say: Callable[[str], object] = print) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, key: str, text: str) -> None:
        """Say what has not been said under this key."""
        if key not in self._said:
            self._said.add(key)
            self._say(harmless.block(text))

    def forget(self) -> None:
        """All of it is news again."""
        self._said.clear()


# What was said where the present task comes from: a query that is asked again need not say it again.
_say: ContextVar[Once | None] = ContextVar("say", default=None)


class Notices(Interceptor):
    """Tells a person what a client's calls wait for.

    Args:
        say: prints a text.
        in_front: whether the call of the moment is one that a person waits for; of others, which go on
            beside it, only what concerns their own worker is said.
    """

    def __init__(
        self, say: Callable[[str], object] = print, in_front: Callable[[], bool] = lambda: True
    ) -> None:
        self.say = say
        self.in_front = in_front

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        """See base class."""
        return _Noticing(next, self)


class _Noticing(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, notices: Notices) -> None:
        super().__init__(following)
        self._notices = notices
        root: Any = following
        while isinstance(root, OutboundInterceptor) and hasattr(root, "next"):
            root = root.next
        self._client: Client = root._client

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002
        async with self.noticing(input.id, asks=True):
            return await super().query_workflow(input)

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> Any:  # noqa: A002
        async with self.noticing(input.id, asks=True):
            return await super().start_workflow_update(input)

    async def start_update_with_start_workflow(
        self,
        input: StartWorkflowUpdateWithStartInput,  # noqa: A002
    ) -> Any:
        async with self.noticing(input.start_workflow_input.id, asks=True):
            return await super().start_update_with_start_workflow(input)

    def fetch_workflow_history_events(self, input: FetchWorkflowHistoryEventsInput) -> Any:  # noqa: A002
        events: Any = super().fetch_workflow_history_events(input)
        fetch = events.fetch_next_page

        async def fetch_next_page(**options: Any) -> None:
            async with self.noticing(input.id, asks=False):
                await fetch(**options)

        if input.wait_new_event:
            events.fetch_next_page = fetch_next_page
        return events

    @contextlib.asynccontextmanager
    async def noticing(self, workflow_id: str, *, asks: bool) -> AsyncIterator[None]:
        """Look at a run while the block waits for it, unless `lab.watch` does.

        Args:
            asks: the block wants an answer of the run's worker, whatever the run itself waits for.
        """
        say, doors = _say.get(), self._notices.in_front()
        if say is None:
            _say.set(say := Once(self._notices.say))
        looking = None
        if not _watched.get():
            looking = asyncio.create_task(self._look(workflow_id, asks, doors, say))
        try:
            yield
            if asks:  # it was answered: the next time is another
                say.forget()
        finally:
            if looking:
                looking.cancel()

    async def _look(self, workflow_id: str, asks: bool, doors: bool, say: Once) -> None:
        handle = self._client.get_workflow_handle(workflow_id)
        await asyncio.sleep(NOTICE_AFTER)
        while True:
            notes: dict[str, str] = {}
            try:
                async with asyncio.timeout(LOOK_LIMIT):
                    situation = await look(self._client, workflow_id, doors=doors, asks=asks)
                notes = situation.troubles if doors else {}
                if error := _needs_a_person(handle, situation):
                    notes |= {error.what: str(error)}
            except TimeoutError:
                notes = {"server": "the server does not answer"}
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    notes = {"server": f"the server does not answer: {error.message}"}
            for key, text in notes.items():
                say(key, text)
            await asyncio.sleep(NOTICE_AGAIN)  # the server has no event for "nobody is there"
