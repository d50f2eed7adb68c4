"""Updates: sent again under the same id, so a message that was interrupted or lost is still one message."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import (
    Client,
    Interceptor,
    OutboundInterceptor,
    StartWorkflowUpdateInput,
    StartWorkflowUpdateWithStartInput,
)
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.agents.sessions import LOOPS, ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import history_of
from workshop_lib.repair.worker import repair
from workshop_lib.temporal import client_retries
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = 100  # seconds for each thing that is waited for
QUESTION = "What is 25 + 17?"


@pytest.mark.parametrize("served", [*orchestrator().workflows, *repair().workflows])
def test_every_update_is_validated_before_it_is_recorded(served: type) -> None:
    updates = workflow._Definition.must_from_class(served).updates
    assert updates and all(update.validator for update in updates.values())


async def begun(chat: ChatClient) -> "asyncio.Task[Any]":
    """A message that has reached the server."""
    sending = asyncio.create_task(chat.send(QUESTION))
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await chat.handle.describe()
            except RPCError:
                await asyncio.sleep(0.05)
            else:
                return sending


async def interrupted(sending: "asyncio.Task[Any]") -> None:
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


@pytest.mark.parametrize("again_by", ["the same object", "another object"])
@pytest.mark.parametrize("loop", LOOPS)
async def test_a_message_that_was_interrupted_is_found_again(
    client: Client, spec: WorkerSpec, loop: str, again_by: str
) -> None:
    chat = ChatClient(client, loop, task_queue=spec.task_queue)
    await interrupted(await begun(chat))
    if again_by == "another object":
        chat = ChatClient(client, loop, chat.session, task_queue=spec.task_queue)
    async with asyncio.timeout(LIMIT), spec.build(client):
        reply = await chat.send(QUESTION)
        assert "42" in reply.text and reply.turn == 1
        assert (await history_of(chat.handle)).asked == 1
        # On purpose: it has been answered, so it is another message.
        assert (await chat.send(QUESTION)).turn == 2
        assert (await history_of(chat.handle)).asked == 2


async def test_also_where_it_was_answered_meanwhile(client: Client, worker: WorkerSpec) -> None:
    chat = ChatClient(client, task_queue=worker.task_queue)
    await chat.send("What is 2 + 2?")
    sending = asyncio.create_task(chat.send(QUESTION))
    async with asyncio.timeout(LIMIT):
        while (await history_of(chat.handle)).asked < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    if sending.done():
        pytest.fail("it was too fast to be interrupted")
    await interrupted(sending)
    async with asyncio.timeout(LIMIT):
        while (await history_of(chat.handle)).answered < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await chat.send(QUESTION)).turn == 2
    assert (await chat.send(QUESTION)).turn == 3


async def test_after_another_message_the_same_words_are_a_new_one(
    client: Client, spec: WorkerSpec
) -> None:
    chat = ChatClient(client, task_queue=spec.task_queue)
    await interrupted(await begun(chat))
    async with asyncio.timeout(LIMIT), spec.build(client):
        other = await chat.send("What is 2 * 3?")
        assert (await chat.send(QUESTION)).turn == other.turn + 1


async def test_the_same_words_twice_at_once_are_two_messages(
    client: Client, worker: WorkerSpec
) -> None:
    chat = ChatClient(client, task_queue=worker.task_queue)
    replies = await asyncio.gather(chat.send(QUESTION), chat.send(QUESTION))
    assert sorted(reply.turn for reply in replies) == [1, 2]


async def test_a_message_whose_time_was_over_is_found_again(
    client: Client, spec: WorkerSpec
) -> None:
    chat = ChatClient(client, task_queue=spec.task_queue)
    with pytest.raises(WorkshopError, match="Nothing is lost"):
        await chat.send(QUESTION, timeout=timedelta(seconds=1))
    async with asyncio.timeout(LIMIT), spec.build(client):
        assert (await chat.send(QUESTION)).turn == 1


# What the server cannot do for the moment


class Refuses(Interceptor):
    """The answers of the first updates are lost, and the server says so."""

    def __init__(self, status: RPCStatusCode, message: str = "was aborted", times: int = 3) -> None:
        self.status, self.message, self.left = status, message, times

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Refuses(next, self)


class _Refuses(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, refuses: Refuses) -> None:
        super().__init__(following)
        self._refuses = refuses

    def _answer(self, answer: Any) -> Any:
        if not self._refuses.left:
            return answer
        self._refuses.left -= 1
        raise RPCError(self._refuses.message, self._refuses.status, b"")

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> Any:  # noqa: A002
        return self._answer(await super().start_workflow_update(input))

    async def start_update_with_start_workflow(
        self,
        input: StartWorkflowUpdateWithStartInput,  # noqa: A002
    ) -> Any:
        return self._answer(await super().start_update_with_start_workflow(input))


@pytest.mark.parametrize("status", sorted(client_retries.PASSING), ids=lambda status: status.name)
async def test_what_is_lost_on_the_way_is_one_message(
    client: Client, worker: WorkerSpec, status: RPCStatusCode
) -> None:
    refuses = Refuses(status)
    chat = ChatClient(await connect(interceptors=[refuses]), task_queue=worker.task_queue)
    async with asyncio.timeout(LIMIT):
        assert (await chat.send(QUESTION)).turn == 1
        refuses.left = 2
        assert (await chat.send("What is 2 * 3?")).turn == 2
    assert refuses.left == 0 and (await history_of(chat.handle)).asked == 2


async def test_a_server_that_stays_busy_is_said_in_words(worker: WorkerSpec) -> None:
    refuses = Refuses(RPCStatusCode.ABORTED, times=1_000)
    chat = ChatClient(await connect(interceptors=[refuses]), task_queue=worker.task_queue)
    with pytest.raises(WorkshopError, match="No reply within 2 s"):
        await chat.send(QUESTION, timeout=timedelta(seconds=2))


async def test_what_is_refused_for_good_is_not_asked_again(worker: WorkerSpec) -> None:
    refuses = Refuses(RPCStatusCode.PERMISSION_DENIED, "no", times=1_000)
    chat = ChatClient(await connect(interceptors=[refuses]), task_queue=worker.task_queue)
    with pytest.raises(RPCError):
        await chat.send(QUESTION)
    assert refuses.left == 999
