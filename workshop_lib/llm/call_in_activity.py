"""A model call inside an activity: heartbeats while it waits, and errors that Temporal understands.

Every activity that asks a model goes through here, so that all of them treat a bad day of the provider the
same way: transient errors are retried (after the pause that the provider asks for), permanent ones are not.
Left out: what is asked, and what is done with the answer.
"""

from collections.abc import Sequence
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from workshop_lib.errors import WorkshopError
from workshop_lib.llm import gateway
from workshop_lib.llm.messages import Completion, Message, ToolSpec
from workshop_lib.temporal.steps import heartbeating


async def ask_model(
    messages: Sequence[Message], tools: Sequence[ToolSpec] = (), max_tokens: int | None = None
) -> Completion:
    """Ask the model once, from within an activity.

    What an attempt before this one has cost, whose worker died or whose provider failed, nobody knows: each
    counts as much as the one that answers.

    Raises:
        ApplicationError: type `ModelUnavailable` (retried) or `ModelRefused` (not retried).
    """
    async with heartbeating():
        try:
            answer = await gateway.complete(messages, tools, max_tokens=max_tokens)
            usage = answer.usage.times(activity.info().attempt)
            return answer.model_copy(update={"usage": usage})
        except WorkshopError as error:
            raise as_application_error(error) from None


def as_application_error(error: WorkshopError) -> ApplicationError:
    """A failed model call as what an activity raises.

    Args:
        error: `ModelUnavailable` is retried, after the pause that the provider asks for; `ModelRefused`,
            or settings that name no usable model, are not.
    """
    if isinstance(error, gateway.ModelUnavailable):
        delay = timedelta(seconds=error.retry_after) if error.retry_after else None
        return ApplicationError(str(error), type="ModelUnavailable", next_retry_delay=delay)
    return ApplicationError(str(error), type="ModelRefused", non_retryable=True)
