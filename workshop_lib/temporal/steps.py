"""What the steps of our workflows have in common: limits, heartbeats, and why one has failed for good.

Without heartbeats and short limits a killed worker is noticed only when an activity's whole time is over, or
after the ten seconds that a workflow task may take by default. Left out: how much time a step gets, which
stands where it is called.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

from temporalio import activity
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ActivityConfig

# The server waits this long for a sign of life before it gives the activity to another worker. Short, so
# that a killed agent goes on at once; long enough for a worker whose two cores are busy.
HEARTBEAT_TIMEOUT = timedelta(seconds=1.5)
# How often a worker passes an activity's heartbeats on to the server. The SDK's own choice, four fifths of
# the timeout, leaves 0.3 s for a late one, and an activity given up is a model call paid for twice.
HEARTBEAT_INTERVAL = HEARTBEAT_TIMEOUT / 2
# How long a worker may hold a workflow task before another gets it. Ours take milliseconds, and one that is
# lost with its worker should not keep a person waiting.
TASK_TIMEOUT = timedelta(seconds=4)


def step_options(
    *,
    attempt: float | None = None,
    total: float,
    first_pause: float = 0.5,
    longest_pause: float,
) -> ActivityConfig:
    """The limits and retries of an activity that heartbeats, as keyword arguments of its call.

    A worker that is very busy misses a heartbeat all the same. A step must not fail for it: there is no bound
    to its attempts but `total`, which should be minutes where the pauses are short.

    Args:
        attempt: seconds that one attempt may take; as long as `total` when left out.
        total: seconds until the step has failed, all attempts and waiting for a worker included.
        first_pause, longest_pause: seconds before the second attempt, and at most before a later one.
    """
    options = ActivityConfig(
        schedule_to_close_timeout=timedelta(seconds=total),
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=first_pause),
            maximum_interval=timedelta(seconds=longest_pause),
        ),
    )
    if attempt is not None:
        options["start_to_close_timeout"] = timedelta(seconds=attempt)
    return options


@contextlib.asynccontextmanager
async def heartbeating(every: float = 0.4) -> AsyncIterator[None]:
    """Heartbeat in the background while the block runs.

    Args:
        every: seconds between heartbeats; well below `HEARTBEAT_TIMEOUT`.
    """

    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    # A timer and no task: most activities are over before the first heartbeat, and a task for each
    # would be a measurable part of a turn.
    def beat() -> None:
        nonlocal timer
        activity.heartbeat()
        timer = loop.call_later(every, beat)

    timer = loop.call_later(every, beat)
    try:
        yield
    finally:
        timer.cancel()


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """A failure and what it was caused by, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__


def reason_of(error: BaseException) -> str:
    """The text of the innermost failure, or of the first one that an application raised on purpose.

    Temporal wraps a failure once for every border that it has crossed: an activity's in an `ActivityError`,
    an operation's in a `NexusOperationError` around that. People and models are told what stands inside.
    """
    chain = list(causes(error))
    cause = next((link for link in chain if isinstance(link, ApplicationError)), chain[-1])
    return str(getattr(cause, "message", None) or cause or error)
