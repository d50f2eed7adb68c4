"""A circuit breaker: while something outside fails again and again, calls to it stay here.

Temporal's own retry is the half-open probe: who is held back is told when to come again, and the first that
comes after the pause may try. State is a process's, on purpose: each worker finds out by itself, and none has
to ask another. Left out: how the server is told (`tries`), and its own breaker, which is of Nexus endpoints.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

THRESHOLD = 3  # failures in a row
# Seconds until one may try: by default, and at most where a provider asks for more.
PAUSE, LONGEST = 1.0, 20.0
PROBE = 10.0  # seconds until another may try, while the one that does has heard nothing
SLOT, LAP = 0.05, 6.0  # seconds between two that come again, and in which all of them do


class HeldBack(Exception):
    """The breaker is open, and nothing has left this process."""


class Breaker:
    """The breaker of one target; `failures` are those in a row, and `reason` is the last one's."""

    def __init__(self, target: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.target, self.failures, self.reason = target, 0, ""
        self._clock, self._lock, self._probing = clock, threading.Lock(), False
        self._since = self._until = self._slot = 0.0

    @property
    def state(self) -> str:
        """closed, open (calls are held back) or half-open (one tries, or the next one may)."""
        if self.failures < THRESHOLD:
            return "closed"
        return "half-open" if self._probing or self.pause_left == 0 else "open"

    @property
    def pause_left(self) -> float:
        """Seconds until one may try."""
        return max(self._until - self._clock(), 0.0)

    @property
    def down_for(self) -> float:
        """Seconds since the first failure of the row; 0 where the last call was answered."""
        return self._clock() - self._since if self.failures else 0.0

    def wait(self) -> float:
        """Seconds until who has failed or was held back should come again: one after the other."""
        with self._lock:
            now = self._clock()
            first = max(now, now + PAUSE if self._probing else self._until)
            slot = max(first, self._slot + SLOT)
            self._slot = slot if slot < first + LAP else first
            return PAUSE / 2 if self.failures < THRESHOLD else self._slot - now

    @contextmanager
    def call(self, *failures: type[BaseException]) -> Iterator[None]:
        """Around a call. What it raises counts as an answer, unless it is one of `failures`.

        Raises:
            HeldBack: the call must not be made.
        """
        with self._lock:
            now, probes = self._clock(), self.failures >= THRESHOLD
            if probes and now < self._until:
                raise HeldBack(self.target)
            if probes:
                self._probing, self._until = True, now + PROBE
        try:
            yield
        except BaseException as error:
            if isinstance(error, (*failures, Exception)):
                self._over(probes, error if isinstance(error, failures) else None)
            elif probes:  # it was cancelled, and nobody knows
                self._probing, self._until = False, self._clock()
            raise
        self._over(probes, None)

    def _over(self, probes: bool, failure: BaseException | None) -> None:
        with self._lock:
            now, pause = self._clock(), getattr(failure, "retry_after", None) or PAUSE
            self._since = self._since if self.failures else now
            self.failures, self.reason = (self.failures + 1, str(failure)) if failure else (0, "")
            # What left before it opened, and fails after, says nothing new.
            if probes or self.failures <= THRESHOLD:
                self._probing, self._until = False, now + min(max(pause, PAUSE), LONGEST)


_all: dict[str, Breaker] = {}


def breaker_of(target: str) -> Breaker:
    """This process's breaker of a target."""
    return _all.setdefault(target, Breaker(target))


def breakers() -> list[Breaker]:
    """Those of this process."""
    return list(_all.values())


def forget() -> None:
    """Begin anew, as a new process does."""
    _all.clear()
