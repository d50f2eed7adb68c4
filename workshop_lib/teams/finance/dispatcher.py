"""Two simpler ways to offer the finance team's tools, and why this team uses neither.

A **synchronous handler** does the work while the caller's server waits. It must answer within ten seconds.
When its worker dies, or takes longer, the work begins anew, and the team has no history of it: nothing to
look at, nothing to find again. A **dispatcher** offers two operations for any number of tools. Its contract
says nothing: arguments are a dict, a typing error travels to the other team and back, and what changes
there is seen here only when it breaks.

Kept for comparison. Nothing of ours calls them but the notebook and the benchmark that measure them.
"""

import asyncio
from dataclasses import replace
from typing import Any

import nexusrpc
from nexusrpc.handler import StartOperationContext, service_handler, sync_operation
from pydantic import BaseModel, Field, ValidationError
from temporalio.exceptions import ApplicationError

from workshop_lib.teams.finance.activities import compute_roi, look_up_price
from workshop_lib.teams.finance.contract import RoiInput, StockPrice, StockPriceInput
from workshop_lib.teams.finance.worker import finance
from workshop_lib.temporal.worker import WorkerSpec


class SlowPriceInput(BaseModel):
    """A price that takes a while to find.

    Attributes:
        seconds: how long the handler works before it answers.
    """

    ticker: str
    seconds: float = Field(0, ge=0, le=60)


class ToolList(BaseModel):
    """What the dispatcher offers: names, and not a word on their arguments."""

    tools: list[str]


class AnyToolCall(BaseModel):
    """A call of any tool with any arguments."""

    tool: str
    arguments: dict[str, Any] = {}


class Nothing(BaseModel):
    """No arguments."""


@nexusrpc.service
class SynchronousFinance:
    """Prices, while the caller's server waits."""

    slow_price: nexusrpc.Operation[SlowPriceInput, StockPrice]


@nexusrpc.service
class FinanceDispatcher:
    """All tools behind two operations."""

    list_tools: nexusrpc.Operation[Nothing, ToolList]
    execute_tool: nexusrpc.Operation[AnyToolCall, dict[str, Any]]


@service_handler(service=SynchronousFinance)
class SynchronousHandler:
    """Does the work in the handler. A try that is repeated does all of it again."""

    @sync_operation
    async def slow_price(self, ctx: StartOperationContext, request: SlowPriceInput) -> StockPrice:
        """Work for some seconds, then look the price up."""
        await asyncio.sleep(request.seconds)
        return await _price({"ticker": request.ticker})


@service_handler(service=FinanceDispatcher)
class DispatcherHandler:
    """Finds out at the last moment whether a call makes sense."""

    @sync_operation
    async def list_tools(self, ctx: StartOperationContext, request: Nothing) -> ToolList:
        """Names, and nothing that a model could go by."""
        return ToolList(tools=sorted(_TOOLS))

    @sync_operation
    async def execute_tool(
        self, ctx: StartOperationContext, request: AnyToolCall
    ) -> dict[str, Any]:
        """Run a tool by name."""
        if request.tool not in _TOOLS:
            raise nexusrpc.HandlerError(
                f"no tool {request.tool!r}", type=nexusrpc.HandlerErrorType.NOT_FOUND
            )
        try:
            output: BaseModel = await _TOOLS[request.tool](request.arguments)
        except ValidationError as error:
            fields = ", ".join(str(e["loc"][0]) for e in error.errors() if e["loc"])
            raise nexusrpc.HandlerError(
                f"wrong arguments: {fields}", type=nexusrpc.HandlerErrorType.BAD_REQUEST
            ) from None
        return output.model_dump()


async def _price(arguments: dict[str, Any]) -> StockPrice:
    try:
        # Called as a plain function: no retry, no timeout of its own, no trace in any history.
        return await look_up_price(StockPriceInput.model_validate(arguments))
    except ApplicationError as error:
        raise nexusrpc.HandlerError(
            error.message, type=nexusrpc.HandlerErrorType.NOT_FOUND
        ) from None


async def _roi(arguments: dict[str, Any]) -> BaseModel:
    return await compute_roi(RoiInput.model_validate(arguments))


_TOOLS: dict[str, Any] = {"stock_price": _price, "calculate_roi": _roi}


def finance_the_simple_way() -> WorkerSpec:
    """The finance team's worker, with the two simpler services beside the real one."""
    real = finance()
    return replace(
        real, nexus_handlers=[*real.nexus_handlers, SynchronousHandler, DispatcherHandler]
    )
