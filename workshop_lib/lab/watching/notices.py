"""Says what a call waits for, wherever a notebook or a command awaits a workflow.

A message to a chat, a decision, a result: where no worker takes them, or where workflow code fails again and
again, the server waits for ever and says nothing. So the clients of notebooks and commands have this
interceptor. Once a call has taken some seconds it looks at the run, and says once what is wrong; the call
goes on. Left out: giving up (`lab.watching.waiting` raises what is said here).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

from temporalio.client import (
    Client,
    FetchWorkflowHistoryEventsInput,
    Interceptor,
    OutboundInterceptor,
    QueryWorkflowInput,
    StartWorkflowUpdateInput,
    StartWorkflowUpdateWithStartInput,
)
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.lab.watching.pending import look
from workshop_lib.lab.watching.waiting import Once, needs_a_person, watched

# Seconds until a call's run is looked at: a task in its queue is called unserved after two.
FIRST = 2.5
AGAIN = 2.0  # seconds until the next look
LIMIT = 5.0  # seconds that a look may take

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
        if not watched():
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
        await asyncio.sleep(FIRST)
        while True:
            notes: dict[str, str] = {}
            try:
                async with asyncio.timeout(LIMIT):
                    situation = await look(self._client, workflow_id, doors=doors, asks=asks)
                notes = situation.troubles if doors else {}
                if error := needs_a_person(handle, situation):
                    notes |= {error.what: str(error)}
            except TimeoutError:
                notes = {"server": "the server does not answer"}
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    notes = {"server": f"the server does not answer: {error.message}"}
            for key, text in notes.items():
                say(key, text)
            await asyncio.sleep(AGAIN)  # the server has no event for "nobody is there"
