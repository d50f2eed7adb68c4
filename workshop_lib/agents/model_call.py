"""A model call inside an activity: heartbeats while it waits, and errors that Temporal understands.

Every activity that asks a model goes through here, so that all of them treat a bad day of the provider the
same way: transient errors are retried (after the pause that the provider asks for), permanent ones are not.
Left out: what is asked, and what is done with the answer.
"""

from collections.abc import Sequence
from datetime import timedelta

from temporalio.exceptions import ApplicationError

from workshop_lib.agents.heartbeat import heartbeating
from workshop_lib.errors import WorkshopError
from workshop_lib.llm import gateway
from workshop_lib.llm.messages import Completion, Message, ToolSpec


async def ask_model(messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Completion:
    """Ask the model once, from within an activity.

    Raises:
        ApplicationError: type `ModelUnavailable` (retried) or `ModelRefused` (not retried).
    """
    async with heartbeating():
        try:
            return await gateway.complete(messages, tools)
        except gateway.ModelUnavailable as error:
            delay = error.retry_after
            raise ApplicationError(
                str(error),
                type="ModelUnavailable",
                next_retry_delay=timedelta(seconds=delay) if delay else None,
            ) from None
        except WorkshopError as error:  # ModelRefused, or settings that name no usable model
            raise ApplicationError(str(error), type="ModelRefused", non_retryable=True) from None
