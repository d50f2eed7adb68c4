"""What a turn and an operation cannot be cheaper than: the same steps, each of them empty.

A module of its own, since the worker's process imports it by name. Left out: the measuring (`turn`).
"""

import time
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import nexusrpc
from nexusrpc.handler import StartOperationContext, service_handler, sync_operation
from pydantic import BaseModel
from temporalio import activity, nexus, workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.chat import ChatStart
    from workshop_lib.agents.conversation.policy import ContextPolicy
    from workshop_lib.agents.conversation.state import Conversation
    from workshop_lib.agents.loops.manual import ManualChat
    from workshop_lib.llm.messages import Message
    from workshop_lib.settings import get_settings
    from workshop_lib.teams.finance.contract import FinanceService, StockPriceInput
    from workshop_lib.teams.finance.dispatcher import SlowPriceInput, SynchronousFinance

LIMIT = timedelta(seconds=20)


class Empty(BaseModel):
    """Nothing, as a pydantic model."""


@nexusrpc.service
class EmptyService:
    """Two operations that do nothing: one answers, one starts a workflow."""

    answer: nexusrpc.Operation[Empty, Empty]
    start: nexusrpc.Operation[Empty, Empty]


@workflow.defn(name="ManualChat")
class EverythingChat(ManualChat):
    """The manual loop without a policy: a model is sent all that was said, and nothing is summed up."""

    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)
        everything = ContextPolicy(max_parts=1_000_000)
        self.conversation = Conversation(Message, policy=everything)

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        """As the manual loop."""
        return await self.until_ended()


@activity.defn
async def nothing() -> None:
    """Take nothing, do nothing, return nothing."""


@workflow.defn
class EmptyRun:
    """What an empty workflow-backed operation starts: one empty activity."""

    @workflow.run
    async def run(self, request: Empty) -> Empty:
        """Run the activity."""
        await workflow.execute_activity(nothing, start_to_close_timeout=LIMIT)
        return request


@service_handler(service=EmptyService)
class EmptyHandler:
    """Serves `EmptyService`."""

    @sync_operation
    async def answer(self, ctx: StartOperationContext, request: Empty) -> Empty:
        """Answer at once."""
        return request

    @nexus.workflow_run_operation
    async def start(
        self, ctx: nexus.WorkflowRunOperationContext, request: Empty
    ) -> nexus.WorkflowHandle[Empty]:
        """Start an empty run."""
        return await ctx.start_workflow(EmptyRun.run, request, id=f"empty-{ctx.request_id}")


@workflow.defn
class Floor:
    """Runs empty activities on request, one after the other, and operations, empty and real."""

    @workflow.run
    async def run(self) -> None:
        """Live until terminated, or until its server is gone."""
        await workflow.wait_condition(lambda: False)

    @workflow.update
    async def run_empty(self, count: int) -> list[float]:
        """Run so many empty activities. Returns the seconds each took, as the workflow sees it."""
        return [
            await _timed(workflow.execute_activity(nothing, start_to_close_timeout=LIMIT))
            for _ in range(count)
        ]

    @workflow.update
    async def run_operation(self, kind: str) -> list[float]:
        """Call an operation of the finance team, and the empty one of its kind.

        Args:
            kind: "synchronous" or "workflow-backed".

        Returns:
            Seconds of the real one and of the empty one.
        """
        endpoint = get_settings().finance_endpoint
        empty = workflow.create_nexus_client(service=EmptyService, endpoint=endpoint)
        if kind == "synchronous":
            simple = workflow.create_nexus_client(service=SynchronousFinance, endpoint=endpoint)
            price = SlowPriceInput(ticker="AAPL", seconds=0)
            real = simple.execute_operation(
                SynchronousFinance.slow_price, price, schedule_to_close_timeout=LIMIT
            )
            floor = empty.execute_operation(
                EmptyService.answer, Empty(), schedule_to_close_timeout=LIMIT
            )
        else:
            finance = workflow.create_nexus_client(service=FinanceService, endpoint=endpoint)
            asked = StockPriceInput(ticker="AAPL")
            real = finance.execute_operation(
                FinanceService.stock_price, asked, schedule_to_close_timeout=LIMIT
            )
            floor = empty.execute_operation(
                EmptyService.start, Empty(), schedule_to_close_timeout=LIMIT
            )
        return [await _timed(real), await _timed(floor)]


async def _timed(work: Awaitable[Any]) -> float:
    """Seconds until it is done.

    The clock is read around the sandbox: it decides nothing, so a replay runs the same commands.
    """
    begun = _clock()
    await work
    return _clock() - begun


def _clock() -> float:
    with workflow.unsafe.sandbox_unrestricted():
        return time.perf_counter()
