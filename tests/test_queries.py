"""Queries: asked again where the answer was lost or no worker was there yet."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from lab_environment import LIMIT
from temporalio.client import Client, Interceptor, OutboundInterceptor, QueryWorkflowInput
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.agents.chat import ChatSession
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.errors import WorkshopError
from workshop_lib.temporal import client_retries
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.worker import WorkerSpec


class Loses(Interceptor):
    """The answers of the first queries never arrive."""

    def __init__(self, answers: int, status: RPCStatusCode = RPCStatusCode.CANCELLED) -> None:
        self.left = answers
        self.status = status
        self.asked = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Loses(next, self)


class _Loses(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, loses: Loses) -> None:
        super().__init__(following)
        self._loses = loses

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002
        self._loses.asked += 1
        answer = await super().query_workflow(input)
        if not self._loses.left:
            return answer
        self._loses.left -= 1
        assert input.rpc_timeout  # else it would be waited for for ever
        await asyncio.sleep(input.rpc_timeout.total_seconds())
        raise RPCError("lost", self._loses.status, b"")


async def begun(client: Client, spec: WorkerSpec) -> ChatClient:
    """A session that has begun, as its worker knows."""
    chat = ChatClient(client, task_queue=spec.task_queue)
    await chat.begin()
    return chat


@pytest.mark.parametrize(
    "status",
    [
        RPCStatusCode.CANCELLED,  # the client gave up
        RPCStatusCode.DEADLINE_EXCEEDED,  # the server did
        RPCStatusCode.FAILED_PRECONDITION,  # of an old run, whose queue nobody has polled for a while
    ],
    ids=lambda status: status.name,
)
async def test_an_answer_that_is_lost_is_asked_for_again(
    status: RPCStatusCode, client: Client, spec: WorkerSpec
) -> None:
    loses = Loses(1, status)
    async with asyncio.timeout(LIMIT), spec.build(client):
        chat = await begun(await connect(interceptors=[loses]), spec)
        assert await chat.transcript() == []
    assert loses.left == 0


async def test_answers_that_never_arrive_are_not_waited_for_for_ever(
    client: Client, spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_retries, "ATTEMPTS", (timedelta(seconds=0.2),) * 3)
    loses = Loses(100)
    async with asyncio.timeout(LIMIT), spec.build(client):
        chat = await begun(await connect(interceptors=[loses]), spec)
        with pytest.raises(WorkshopError, match="did not answer"):
            await chat.transcript()
    assert loses.asked == 3


async def test_a_worker_that_is_just_starting_answers(client: Client, spec: WorkerSpec) -> None:
    chat = await begun(client, spec)
    asking = asyncio.ensure_future(chat.transcript())
    await asyncio.sleep(0)  # it has asked
    async with asyncio.timeout(LIMIT), spec.build(client):
        assert await asking == []


@pytest.mark.usefixtures("client")
async def test_who_is_not_there_is_said_at_once() -> None:
    loses = Loses(0)
    nobody = (await connect(interceptors=[loses])).get_workflow_handle("nobody-by-this-name")
    with pytest.raises(RPCError) as refused:
        await client_retries.query(nobody, ChatSession.history)
    assert refused.value.status == RPCStatusCode.NOT_FOUND
    assert loses.asked == 1
