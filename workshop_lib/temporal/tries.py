"""How an activity is held back by a breaker, and which of its attempts have reached somebody.

The server counts all attempts, and those that a breaker held back cost nothing and prove nothing. So these
are counted here, in the details of the activity's heartbeats, which the server hands to the next attempt on
whatever worker that runs. Where they are lost, an attempt counts as one that has reached somebody. Left out:
when a call is held back (`breaker`).
"""

from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from workshop_lib.temporal.breaker import Breaker

MARGIN = 0.2  # seconds: the last attempt begins so much before the activity's time is over
_HELD_BACK = "held_back"  # key of the details
# Whether something has left in this attempt, which then counts, whatever is held back later.
_left: ContextVar[bool] = ContextVar("left", default=False)


def leaves() -> None:
    """In this attempt a call reaches somebody."""
    _left.set(True)


def tries() -> int:
    """How many attempts of this activity have reached somebody, if this one does; 1 outside activities."""
    return activity.info().attempt - _held_back() if activity.in_activity() else 1


def age() -> float:
    """Seconds since this activity was scheduled, by this machine's clock; 0 outside activities."""
    if not activity.in_activity():
        return 0.0
    return (datetime.now(UTC) - activity.info().scheduled_time).total_seconds()


def held_back(breaker: Breaker, kind: str, *, final: bool = False) -> ApplicationError:
    """What an activity raises whose call was held back. It is no failure of its own, and is not logged.

    Args:
        kind: its type, the same as where the call has failed.
        final: it is not tried again.
    """
    if activity.in_activity() and not _left.get():
        activity.heartbeat({_HELD_BACK: _held_back() + 1})
    return ApplicationError(
        f"{breaker.target} is left alone for a moment, after {breaker.failures} failures in a row. The last:"
        f" {breaker.reason}",
        type=kind,
        non_retryable=final,
        next_retry_delay=again_after(breaker.wait()),
        category=ApplicationErrorCategory.BENIGN,
    )


def again_after(seconds: float) -> timedelta:
    """A pause, as `next_retry_delay`: where there is not as much time left, one that leaves a last attempt.

    The server would end the activity at once otherwise.
    """
    left = time_left()
    return timedelta(seconds=min(seconds, left) if left else seconds)


def time_left() -> float | None:
    """Seconds until shortly before the end of this activity; None where it has none."""
    limit = activity.info().schedule_to_close_timeout if activity.in_activity() else None
    return max(limit.total_seconds() - age() - MARGIN, 0.0) if limit else None


def _held_back() -> int:
    details = activity.info().heartbeat_details
    noted = details[0] if details and isinstance(details[0], dict) else {}
    count = noted.get(_HELD_BACK)
    return count if isinstance(count, int) else 0


class CarriesTries(Interceptor):
    """Put around a worker: a heartbeat without details keeps the count."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Around every activity."""
        return _Activity(next)


class _Activity(ActivityInboundInterceptor):
    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        super().init(_Heartbeats(outbound))

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        _left.set(False)
        return await super().execute_activity(input)


class _Heartbeats(ActivityOutboundInterceptor):
    def heartbeat(self, *details: Any) -> None:
        count = _held_back() if not details else 0
        super().heartbeat(*([{_HELD_BACK: count}] if count else details))
