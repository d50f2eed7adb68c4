"""The breaker: who is let through while something is down, and who is told to come when."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from workshop_lib.llm.failures import ModelRefused, ModelUnavailable
from workshop_lib.temporal.breaker import (
    LAP,
    LONGEST,
    PAUSE,
    PROBE,
    THRESHOLD,
    Breaker,
    HeldBack,
)


@dataclass
class Target:
    """Something that is called, with a clock that only the test moves."""

    down: bool = True
    now: float = 0.0
    reached: int = 0
    breaker: Breaker = field(init=False)

    def __post_init__(self) -> None:
        self.breaker = Breaker("it", clock=lambda: self.now)

    def call(self, error: Callable[[], Exception] = lambda: ModelUnavailable("down")) -> str:
        """What a call comes to."""
        try:
            with self.breaker.call(ModelUnavailable):
                self.reached += 1
                if self.down:
                    raise error()
                return "answered"
        except HeldBack:
            return "held back"
        except Exception:
            return "failed"

    def open(self) -> "Target":
        """The same, after enough failures."""
        while self.breaker.state == "closed":
            self.call()
        return self


def test_it_opens_after_a_row_of_failures_and_an_answer_ends_the_row() -> None:
    target = Target()
    assert [target.call() for _ in range(THRESHOLD - 1)] == ["failed"] * (THRESHOLD - 1)
    target.down = False
    assert target.call() == "answered" and target.breaker.failures == 0
    target.down = True
    assert [target.call() for _ in range(THRESHOLD + 2)] == ["failed"] * 3 + ["held back"] * 2
    assert target.breaker.state == "open" and target.breaker.reason == "down"


@pytest.mark.parametrize("error", [lambda: ModelRefused("key"), lambda: ValueError("a bug")])
def test_what_was_answered_with_a_refusal_is_no_failure(error: Callable[[], Exception]) -> None:
    target = Target()
    assert [target.call(error) for _ in range(20)] == ["failed"] * 20
    assert target.breaker.state == "closed"


def test_thirty_seconds_down_reach_it_once_a_pause_and_the_first_answer_comes_within_two() -> None:
    """A hundred turns that wait, each of which comes again when it was told to."""
    target = Target()
    again = dict.fromkeys(range(100), 0.0)
    answered: list[float] = []
    came: Counter[int] = Counter()
    opened = 0.0
    while again:
        turn = min(again, key=lambda one: again[one])
        target.now = max(target.now, again[turn])
        target.down = target.now < 30
        came[int(target.now)] += 1
        if target.call() == "answered":
            answered.append(target.now)
            del again[turn]
        else:
            opened = opened or (target.now if target.breaker.state == "open" else 0.0)
            again[turn] = target.now + target.breaker.wait()
    probes = target.reached - len(answered) - THRESHOLD
    assert 0 < probes <= 30 / PAUSE
    assert answered[0] < 32 and answered[-1] < 30 + PAUSE + LAP + 2
    # They come one by one: nowhere near a hundred a second, as they did at first.
    assert max(count for second, count in came.items() if second > LAP) <= 30


def test_of_a_single_turn_every_attempt_is_a_probe() -> None:
    target = Target()
    while target.now < 30:
        assert target.call() == "failed"  # it is never held back: it comes when it was told to
        target.now += target.breaker.wait()
    target.down = False
    assert target.call() == "answered" and target.now < 32


def test_one_tries_at_a_time_and_the_others_are_told_when() -> None:
    target = Target().open()
    target.now += PAUSE
    assert target.breaker.state == "half-open"
    with target.breaker.call(ModelUnavailable):
        assert target.call() == "held back" and target.breaker.state == "half-open"
        assert 0 < target.breaker.wait() < 2 * PAUSE
        target.now += PROBE  # it hears nothing: the next may try
        target.down = False
        assert target.call() == "answered"
    assert target.breaker.state == "closed"


def test_one_that_is_cancelled_leaves_its_turn_to_the_next() -> None:
    target = Target().open()
    target.now += PAUSE
    with pytest.raises(asyncio.CancelledError), target.breaker.call(ModelUnavailable):
        raise asyncio.CancelledError
    assert target.breaker.state == "half-open" and target.call() == "failed"
    assert target.breaker.state == "open"


def test_what_left_before_it_opened_does_not_keep_it_open() -> None:
    target = Target()
    late = target.breaker.call(ModelUnavailable)
    late.__enter__()
    target.open()
    target.now += PAUSE
    error = ModelUnavailable("late")
    with pytest.raises(ModelUnavailable):
        late.__exit__(ModelUnavailable, error, None)
        raise error
    assert target.breaker.state == "half-open"


@pytest.mark.parametrize(("asked", "kept"), [(0.1, PAUSE), (7, 7), (3600, LONGEST)])
def test_a_provider_may_ask_for_a_longer_pause(asked: float, kept: float) -> None:
    target = Target()
    for _ in range(THRESHOLD):
        target.call(lambda: ModelUnavailable("busy", retry_after=asked))
    target.now += kept - 0.01
    assert target.breaker.state == "open"
    target.now += 0.02
    assert target.breaker.state == "half-open"


def test_many_threads_let_one_try() -> None:
    target = Target().open()
    target.now += PAUSE
    reached, together = [0], threading.Barrier(16)
    done = threading.Event()

    def work() -> None:
        together.wait()
        try:
            with target.breaker.call(ModelUnavailable):
                reached[0] += 1
                done.wait(20)
        except HeldBack:
            pass

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    while sum(thread.is_alive() for thread in threads) > 1:
        threads[0].join(0.01)
    done.set()
    for thread in threads:
        thread.join(20)
    assert reached == [1]
