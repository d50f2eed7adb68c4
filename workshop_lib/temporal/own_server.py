"""The dev server of a state folder, and nobody else that comes to listen at its address.

The SDK reconnects in silence to whoever listens where its server was: after that server's end, another lab's
perhaps. So a client of ours watches the *process* that the state folder's record names. When it ends, calls
under way end with UNAVAILABLE, workers stop polling, and the next call asks the record again: it fails while
there is no server, and goes to the new one, wherever that listens, once there is.

Left out: servers that a person names (`TEMPORAL_ADDRESS`, a profile), which are taken at their word.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from temporalio.plugin import SimplePlugin
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode, ServiceClient
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    Worker,
    WorkerConfig,
)

from workshop_lib.errors import WorkshopError
from workshop_lib.machine.processes import End
from workshop_lib.machine.records import live_record

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.3  # seconds
PATIENCE = 4.0  # seconds that a call waits for a server that comes back
LONG_PATIENCE = 60.0  # and one that waits for somebody's work in any case
LONG_POLLS = {"get_workflow_execution_history", "poll_workflow_execution_update"}


class NoServer(WorkshopError):
    """The state folder's dev server does not run."""

    def __init__(self) -> None:
        super().__init__(
            "This project's dev server does not run.",
            fix="start it with `workshop up`, or run the set-up cell of the notebook.",
        )


class Life:
    """The life of a server's process. Ends what depends on it when it ends."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._end = End(pid)
        self._last_acts: set[Callable[[], object]] = set()
        threading.Thread(target=self._watch, name=f"server {pid}", daemon=True).start()

    @property
    def over(self) -> bool:
        """True from the process's end on; asked of the system, which knows before we are told."""
        return self._end.has_come()

    @contextmanager
    def ends_with(self, last_act: Callable[[], object]) -> Iterator[None]:
        """Call something from another thread when the process ends during the block."""
        self._last_acts.add(last_act)
        try:
            if self.over:
                last_act()
            yield
        finally:
            self._last_acts.discard(last_act)

    def cancels(self, future: "asyncio.Future[Any]") -> AbstractContextManager[None]:
        """Cancel a future or a task of this loop when the process ends during the block."""
        return self.ends_with(partial(future.get_loop().call_soon_threadsafe, future.cancel))

    def _watch(self) -> None:
        self._end.has_come(within=None)
        for last_act in self._last_acts.copy():
            with contextlib.suppress(RuntimeError):  # its loop has closed
                last_act()
        with contextlib.suppress(OSError):  # where it was a child of this process
            os.waitpid(self._pid, os.WNOHANG)


@lru_cache(maxsize=16)
def _life(pid: int, create_time: float) -> Life:
    """One watch a process, however many clients it has."""
    return Life(pid)


class OwnServer(SimplePlugin):
    """Connects a client, and the workers made with it, to a state folder's dev server.

    Args:
        state_dir: the folder.
    """

    def __init__(self, state_dir: Path) -> None:
        super().__init__("own-server")
        self._state_dir = state_dir
        self._service: _OwnServiceClient | None = None

    async def connect_service_client(
        self,
        config: ConnectConfig,
        next: Callable[[ConnectConfig], Awaitable[ServiceClient]],  # noqa: A002
    ) -> ServiceClient:
        """Connect to the server that the record names.

        Raises:
            NoServer: it does not live, or has ended meanwhile.
            RuntimeError: as the SDK raises it where the server does not answer.
        """
        self._service = _OwnServiceClient(config, self._state_dir, next)
        await self._service.alive()
        return self._service

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Put the guard around activities, outermost."""
        assert self._service
        config["interceptors"] = [_Guard(self._service), *config.get("interceptors", ())]
        return super().configure_worker(config)

    async def run_worker(
        self,
        worker: Worker,
        next: Callable[[Worker], Awaitable[None]],  # noqa: A002
    ) -> None:
        """Run a worker for as long as its server lives.

        Raises:
            NoServer: the server has ended. What the worker has begun is told to nobody.
        """
        assert self._service
        life = await self._service.alive()
        worker.client = worker.client  # the connection may have been made anew since it was built
        running = asyncio.ensure_future(next(worker))
        lives: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def stop_polling() -> None:
            # From another thread, though the SDK offers it in the worker's loop only: that may be busy for a
            # second, and somebody else's server is up in less.
            with contextlib.suppress(AttributeError):  # it has stopped in this moment
                worker._bridge_worker.initiate_shutdown()

        with life.cancels(lives), life.ends_with(stop_polling):
            try:
                await asyncio.wait({running, lives}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                running.cancel()
                await running
                raise
        if running.done() and not life.over:
            return running.result()
        # It stops to poll at once. To be done takes it ten seconds, in which it tries to tell the server.
        leaving = asyncio.gather(running, worker.shutdown(), return_exceptions=True)
        _in_background.add(leaving)
        leaving.add_done_callback(_in_background.discard)
        raise NoServer


_in_background: set["asyncio.Future[Any]"] = set()


class _Guard(Interceptor):
    """Runs no activity that came after the server's end: it is somebody else's."""

    def __init__(self, service: "_OwnServiceClient") -> None:
        self._service = service

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Look before each activity: a busy process may take one before it hears of the end."""
        guarded = _GuardedActivity(next)
        guarded.service = self._service
        return guarded


class _GuardedActivity(ActivityInboundInterceptor):
    service: "_OwnServiceClient"

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        if not self.service.lives:
            raise NoServer
        return await super().execute_activity(input)


class _Gone(RPCError):
    """A call that could not be made, or was cut off, because the server is gone."""

    def __init__(self, why: object) -> None:
        super().__init__(str(why), RPCStatusCode.UNAVAILABLE, b"")


class _OwnServiceClient(ServiceClient):
    """Passes calls on while the server lives, by a connection that was made to this very process."""

    def __init__(self, config: ConnectConfig, state_dir: Path, connect: Any) -> None:
        super().__init__(config)
        self._state_dir = state_dir
        self._connect = connect
        self._life: Life | None = None
        self._there: Any = None
        self._waits = False

    @property
    def worker_service_client(self) -> Any:
        """What the SDK's workers poll through."""
        return self._there.worker_service_client

    def update_rpc_metadata(self, metadata: Any) -> None:
        """As the SDK's own."""
        self._there.update_rpc_metadata(metadata)

    def update_api_key(self, api_key: str | None) -> None:
        """As the SDK's own."""
        self._there.update_api_key(api_key)

    @property
    def lives(self) -> bool:
        """Whether the server of the connection that there is does."""
        return self._life is not None and not self._life.over

    async def alive(self) -> Life:
        """The server's life; connects anew where the one before is over."""
        if self._life and self.lives:
            return self._life
        record = live_record(self._state_dir)
        if not record:
            raise NoServer
        life = _life(record["pid"], record["create_time"])
        there = await self._connect(replace(self.config, target_host=record["address"]))
        if life.over:  # and who has answered there is not known
            raise NoServer
        self._there, self._life, self._waits = there, life, False
        return life

    async def _rpc_call(
        self, rpc: str, req: Any, resp_type: Any, *, retry: bool, **options: Any
    ) -> Any:
        now = asyncio.get_running_loop().time
        missed: Life | None = None
        end = 0.0
        while True:
            try:
                return await self._once(rpc, req, resp_type, retry=retry, **options)
            except _Gone as gone:
                if not end or missed is not self._life:  # one more server that has ended
                    missed = self._life
                    end = now() + (LONG_PATIENCE if rpc in LONG_POLLS else PATIENCE)
                if not retry or now() > end:
                    raise
                if not self._waits:
                    self._waits = True
                    logger.warning("%s Waiting for it.", gone.message)
            await asyncio.sleep(LOOK_EVERY)

    async def _once(self, *what: Any, **options: Any) -> Any:
        try:
            life = await self.alive()
        except (NoServer, RuntimeError):
            raise _Gone(NoServer().what) from None
        call = asyncio.ensure_future(self._there._rpc_call(*what, **options))
        with life.cancels(call):
            try:
                answer = await call
                if not life.over:  # else nobody knows whose answer it is
                    return answer
            except (asyncio.CancelledError, RPCError):
                task = asyncio.current_task()
                if (task and task.cancelling()) or not life.over:
                    raise
        raise _Gone("This project's dev server has ended.")


async def wait_for_server(state_dir: Path, stop: asyncio.Event) -> None:
    """Wait until a state folder's dev server runs, or `stop` is set."""
    # Python has no event for a file that appears.
    while not stop.is_set():
        try:
            async with asyncio.timeout(LOOK_EVERY):
                await stop.wait()
        except TimeoutError:
            if await asyncio.to_thread(live_record, state_dir):
                return
