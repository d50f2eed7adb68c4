"""Whatever enters is bounded, and is text that can be sent on.

A result of any size or shape (text, JSON, lists, models, bytes) becomes text of bounded length where it
enters: later it would be recorded, sent to a model, or refused by the server again and again. What a worker
would report and the server would refuse fails once, and is not tried again. Left out: what a model is sent
of it (`agents.conversation`).
"""

import json
from typing import Any

from nexusrpc import HandlerError, HandlerErrorType
from nexusrpc.handler import StartOperationResultAsync, StartOperationResultSync
from pydantic import BaseModel
from temporalio import activity, nexus
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteNexusOperationStartInput,
    Interceptor,
    NexusOperationInboundInterceptor,
)

MAX_RESULT = 20_000  # characters of a tool's result that are kept
MAX_PAYLOAD = 2_000_000  # bytes; the server takes 2 MiB and refuses more, however often it is sent


def whole(text: str) -> str:
    """Text that UTF-8 can hold: two halves of a character are joined, a lone one is replaced."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def cut(text: str, most: int = MAX_RESULT) -> str:
    """The beginning of a text, and how much is missing of one that is longer than `most` characters."""
    left_out = len(text) - most
    return text if left_out <= 0 else f"{text[:most]} … ({left_out} characters left out)"


def as_text(value: Any, most: int = MAX_RESULT) -> str:
    """What a tool has returned, of any type, as text of bounded length."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"({len(value)} bytes that are no text)"
    try:
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        if not isinstance(value, str):
            value = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        value = f"(a {type(value).__name__} that cannot be written as JSON)"
    return cut(whole(value), most)


class Bounded(Interceptor):
    """Put around a worker: a result that the server would refuse fails, for good and with its reason."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Around every activity."""
        return _BoundedActivity(next)

    def intercept_nexus_operation(
        self,
        next: NexusOperationInboundInterceptor,  # noqa: A002
    ) -> NexusOperationInboundInterceptor:
        """Around every handler."""
        return _BoundedOperation(next)


class _BoundedActivity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        result = await super().execute_activity(input)
        if problem := _problem_with(result, activity.payload_converter()):
            name = activity.info().activity_type
            raise ApplicationError(
                f"the result of {name} {problem}", type="ResultTooLarge", non_retryable=True
            )
        return result


class _BoundedOperation(NexusOperationInboundInterceptor):
    async def execute_nexus_operation_start(
        self,
        input: ExecuteNexusOperationStartInput,  # noqa: A002
    ) -> StartOperationResultSync[Any] | StartOperationResultAsync:
        result = await super().execute_nexus_operation_start(input)
        if isinstance(result, StartOperationResultSync):
            converter = nexus.client().data_converter.payload_converter
            if problem := _problem_with(result.value, converter):
                raise HandlerError(
                    f"the result of {input.ctx.operation} {problem}",
                    type=HandlerErrorType.INTERNAL,
                    retryable_override=False,
                )
        return result


def _problem_with(result: Any, converter: Any) -> str | None:
    """Why a result cannot be recorded, or None. What cannot be converted at all is left to the SDK."""
    try:
        size = sum(payload.ByteSize() for payload in converter.to_payloads([result]))
    except Exception as error:
        return "holds half a character" if "surrogates not allowed" in str(error) else None
    if size <= MAX_PAYLOAD:
        return None
    return f"has {size:,} bytes; {MAX_PAYLOAD:,} is the most that can be recorded"
