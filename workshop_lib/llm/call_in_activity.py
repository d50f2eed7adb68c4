"""A model call inside an activity: heartbeats while it waits, and errors that Temporal understands.

Every activity that asks a model goes through here, so that all of them treat a bad day of the provider the
same way: transient errors are retried (after the pause that the provider asks for), permanent ones are not.
While a model fails again and again, a breaker holds the calls back, and one of the retries tries. Left out:
what is asked, and what is done with the answer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from temporalio.exceptions import ApplicationError

from workshop_lib.errors import WorkshopError
from workshop_lib.llm import gateway
from workshop_lib.llm.failures import ModelUnavailable, explain_failure
from workshop_lib.llm.messages import Completion, Message, ToolSpec
from workshop_lib.settings import get_settings
from workshop_lib.temporal.breaker import Breaker, HeldBack, breaker_of
from workshop_lib.temporal.steps import heartbeating
from workshop_lib.temporal.tries import again_after, held_back, leaves, tries


async def ask_model(
    messages: Sequence[Message], tools: Sequence[ToolSpec] = (), max_tokens: int | None = None
) -> Completion:
    """Ask the model once, from within an activity.

    What an attempt before this one has cost, whose worker died or whose provider failed, nobody knows: each
    counts as much as the one that answers. One that was held back has cost nothing.

    Raises:
        ApplicationError: type `ModelUnavailable` (retried) or `ModelRefused` (not retried).
    """
    async with heartbeating():
        with calling():
            answer = await gateway.complete(messages, tools, max_tokens=max_tokens)
        return answer.model_copy(update={"usage": answer.usage.times(tries())})


@contextmanager
def calling(model: str | None = None) -> Iterator[None]:
    """Around a call to a model: what it raises becomes what an activity raises.

    `ModelUnavailable` is retried, after the pause that the provider asks for, or the breaker; so is a call
    that the breaker holds back. `ModelRefused`, or settings that name no usable model, are not. The
    provider's own exception, which may quote a key, is left behind.

    Args:
        model: in LiteLLM's spelling; by default the one of the settings.

    Raises:
        ApplicationError: as `ask_model`.
    """
    name = model or ""
    try:
        name = name or get_settings().model.name
        with breaker_for(name).call(ModelUnavailable):
            leaves()
            try:
                yield
            except ApplicationError:
                raise
            except Exception as error:
                raise explain_failure(error, name) from None
    except HeldBack:
        raise held_back(breaker_for(name), "ModelUnavailable") from None
    except ModelUnavailable as error:
        again = again_after(breaker_for(name).wait())
        if error.retry_after:
            again = timedelta(seconds=error.retry_after)
        raise ApplicationError(
            str(error), type="ModelUnavailable", next_retry_delay=again
        ) from None
    except WorkshopError as error:
        raise ApplicationError(str(error), type="ModelRefused", non_retryable=True) from None


def breaker_for(model: str) -> Breaker:
    """This process's breaker of a model, at the server that the settings name."""
    base = get_settings().llm_api_base
    return breaker_of(f"The model {model}" + (f" at {base}" if base else ""))
