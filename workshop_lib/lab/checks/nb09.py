"""Checks of notebook 09: a circuit breaker, a change that old runs survive, a history that is read."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.exceptions import ApplicationError

from workshop_lib.lab.checks.framework import NotYet, called, check
from workshop_lib.lab.checks.trial import running
from workshop_lib.lab.history import history_of
from workshop_lib.lab.lessons.forensic import Truth, steps_of, truth_of
from workshop_lib.lab.lessons.outage import PEOPLE, Breaker, live_through_outage
from workshop_lib.lab.lessons.refunds import STEPS
from workshop_lib.lab.lessons.replaying import replay
from workshop_lib.lab.watching.waiting import result

MOST, PAUSE = 3, 0.5  # failures in a row and seconds, as the first part of the check has them
DOWN_PAUSE = 1.0  # seconds, as the outage has it
ROUNDS = 3  # how often it is looked at, where this machine was too slow to tell
_RESET = "a success begins the count anew, and only failures in a row count."


class _TooSlow(Exception):
    """The pause was over before it could be seen whether it is kept."""


@check(
    expects="three failures in a row to open it for the pause, then one request to try, and others refused.",
    hint="`allow` raises `ApplicationError(…, next_retry_delay=timedelta(seconds=left))` while it is open.",
    timeout=60,
    takes="some six seconds: the model is down for three of them",
)
async def breaker(client: Client, make: Callable[[int, float], Breaker]) -> str:
    """Does it open, tell when to come again, let one try, and spare a model that is down?"""
    for _ in range(ROUNDS):
        with contextlib.suppress(_TooSlow):
            _opens(_made(make, PAUSE))
            await _tries(_made(make, PAUSE))
            break
    else:
        raise NotYet(
            saw="`allow` returned when the pause was over: it waits, where it should refuse",
            hint="raise at once. Waiting is Temporal's part, and costs no worker.",
        )
    outage = await live_through_outage(client, _made(make, DOWN_PAUSE))
    most = PEOPLE + MOST + int(outage.seconds / DOWN_PAUSE) + 1
    if outage.answered < PEOPLE:
        raise NotYet(
            saw=f"{outage.answered} of {PEOPLE} people answered, long after the model was back",
            hint="closed again after a success? And `next_retry_delay` is what is left, no more?",
        )
    if outage.while_down > most:
        raise NotYet(saw=repr(outage), expected=f"at most {most} requests at a model that is down.")
    return repr(outage)


def _made(make: Callable[[int, float], Breaker], pause: float) -> Breaker:
    """A learner's breaker, which has to have its three methods."""
    one = called(make, MOST, pause)
    for name in ("allow", "succeeded", "failed"):
        if not callable(getattr(one, name, None)):
            raise NotYet(saw=f"no method `{name}`", hint="the class has all three methods.")
    return one


def _opens(one: Breaker) -> None:
    """It counts failures in a row, and nothing else."""
    begun = time.monotonic()
    for failures in (MOST - 1, MOST - 1, MOST):
        for count in range(failures):
            if _refusal(one):
                raise NotYet(saw=f"a refusal after {count} failures in a row", hint=_RESET)
            begun = time.monotonic()
            called(one.failed)
        if failures < MOST:
            if _refusal(one):
                raise NotYet(saw=f"a refusal after {failures} failures in a row; {MOST} open it")
            called(one.succeeded)
    refusal = _must_refuse(one, begun, f"a request let through after {MOST} failures in a row")
    _judge(refusal)


async def _tries(one: Breaker) -> None:
    """Once the pause is over one may try; what comes of it closes it, or opens it again."""
    begun = time.monotonic()
    for _ in range(MOST):
        called(one.allow)
        begun = time.monotonic()
        called(one.failed)
    for outcome in (one.failed, one.succeeded):
        _must_refuse(one, begun, "a request let through although the latest one has just failed")
        await asyncio.sleep(PAUSE * 1.1)
        begun = time.monotonic()
        if _refusal(one):
            raise NotYet(saw="a refusal although the pause is over: nobody may ever try")
        _must_refuse(
            one,
            begun,
            "two requests let through after the pause, the second before the first was answered",
            "who is let through after the pause is the probe. For all others the pause begins anew there.",
        )
        begun = time.monotonic()
        called(outcome)
    if any(_refusal(one) for _ in range(MOST)):
        raise NotYet(saw="a refusal after the one that tried has succeeded", hint=_RESET)


def _must_refuse(one: Breaker, begun: float, saw: str, hint: str | None = None) -> ApplicationError:
    """The refusal that has to come, since the pause that began at `begun` is not over."""
    refusal = _refusal(one)
    if refusal is None and time.monotonic() - begun >= PAUSE:
        raise _TooSlow
    if refusal is None:
        raise NotYet(saw=saw, hint=hint)
    return refusal


def _refusal(one: Breaker) -> ApplicationError | None:
    """What `allow` raises, if that is meant for Temporal."""
    try:
        called(one.allow)
    except ApplicationError as error:
        return error
    return None


def _judge(refusal: ApplicationError) -> None:
    if refusal.non_retryable:
        raise NotYet(
            saw="a refusal that is `non_retryable`: the step fails for good",
            hint="leave it retryable: the next attempt is the one that tries.",
        )
    delay = refusal.next_retry_delay
    if not isinstance(delay, timedelta):
        raise NotYet(saw=f"a refusal with `next_retry_delay={delay!r}`")
    if not timedelta(0) < delay <= timedelta(seconds=PAUSE * 1.05):
        raise NotYet(
            saw=f"`next_retry_delay` of {delay.total_seconds():.2f} s with a pause of {PAUSE:g} s",
            hint="what is left of the pause: its end less `time.monotonic()`, in seconds.",
        )


CHANGED = "check_fraud"
NEW = ["look_up", CHANGED, "ask_clerk", "pay_back"]


@check(
    expects="the old run to replay as it was, and a new run with `check_fraud` before the clerk is asked.",
    hint="`if workflow.patched('check-fraud'):` before the new step, and nothing else.",
    timeout=40,
)
async def patched(client: Client, workflow: type, old: WorkflowHandle[Any, Any]) -> str:
    """Do runs of yesterday go on, and do runs of today have the new step?"""
    async with running(client, workflow, "ORD-NEW", activities=STEPS) as handle:
        await handle.signal("approve", rpc_timeout=timedelta(seconds=5))
        await result(handle, timeout=10, patient=False)
        steps = [step.name for step in (await history_of(handle)).activities]
        green = await replay(handle, workflow)
    replayed = await replay(old, workflow)
    if not replayed.green:
        raise NotYet(saw=f"the old run: {replayed!r}")
    if CHANGED not in steps:
        raise NotYet(
            saw=f"a new run without it: {', '.join(steps)}",
            hint="where `workflow.patched(…)` is true, as in runs that begin today: the step, with `await`.",
        )
    if steps != NEW:
        raise NotYet(saw=f"a new run that does {', '.join(steps)}")
    if not green.green:
        raise NotYet(
            saw=f"the new run: {green!r}", hint="the same history, the same way, each time."
        )
    return "the old run replays, and a new one checks for fraud"


# What an answer has to hold one of, and what it may not hold.
SERVER = r"server|temporal|cluster|service|heart ?beat|time ?out"
NOT_THE_SERVER = r"worker|workflow|desk|guest|mia|customer|client|nobody|no one|agent|model"
BOUGHT = ("charg", "room", "hotel", "trip", "night", "stay", "booking")
CHANGES = (
    r"key|idempot|transact|dedup|unique|same id|once|token|ledger|"
    r"(look|ask|check|read|query|list|search|see).*(statement|before|first|whether|if)"
)
NUMBERS = {
    **{"none": 0, "zero": 0, "one": 1, "once": 1, "first": 1, "two": 2, "twice": 2, "both": 2},
    **{"second": 2, "three": 3, "thrice": 3, "third": 3, "four": 4, "five": 5},
}


@check(
    expects="five answers that the history bears out.",
    hint="the timeline, and the lines below it: attempts, notes, inputs and results.",
)
async def forensic(
    case: WorkflowHistory, step: Any, lost: Any, noticed: Any, twice: Any, change: Any
) -> str:
    """Which step, how many attempts, who noticed, what was paid twice, and what is to be done?"""
    truth = truth_of(case)
    for number, (answer, problem) in enumerate(
        (
            (step, _problem_with_step(_text(step), truth, steps_of(case))),
            (lost, _problem_with_count(_text(lost), truth)),
            (noticed, _problem_with_who(_text(noticed))),
            (twice, _problem_with_payment(_text(twice), truth)),
            (change, _problem_with_change(_text(change))),
        ),
        start=1,
    ):
        if problem:
            said = repr(answer) if _text(answer) else "no answer"
            raise NotYet(saw=f"question {number}: {said}", hint=problem)
    return (
        f"{truth.lost.name}, {truth.times} attempts lost and noticed by the server; "
        "one charge in the history, two in the world"
    )


def _text(answer: Any) -> str:
    """An answer as plain words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", "" if answer is None else str(answer))
    return " ".join(re.sub(r"[_\-,.;:!?()'\"\[\]{}$]+", " ", spaced).lower().split())


def _problem_with_step(answer: str, truth: Truth, steps: list[Any]) -> str:
    others = [name for name in truth.retried if _names(answer, name)]
    if any(word in answer for word in _text(truth.lost.name).split()):
        return "one step is asked for: of the other a worker has told." if others else ""
    if others:
        return (
            "that one failed, a worker said so, and it was tried again: nothing is wrong with that."
        )
    if any(_names(answer, step.name) for step in steps):
        return "did that one not go well at once? Look at the attempts."
    return "the name of a step, as in the lines above."


def _names(answer: str, name: str) -> bool:
    """Whether an answer names a step: by its verb, with which the name begins."""
    return _text(name).split()[0] in answer.split()


def _problem_with_count(answer: str, truth: Truth) -> str:
    found = [int(n) for n in re.findall(r"\d+", answer)]
    found += [NUMBERS[word] for word in answer.split() if word in NUMBERS]
    counted = [*range(1, truth.times + 1)], [truth.lost.attempts, truth.times]
    if truth.times in found[:1] or found in counted:
        return ""
    if truth.lost.attempts in found[:1]:
        return "so many attempts began. One of them was answered in the end."
    return "the number of the last attempt, less the one that was answered."


def _problem_with_who(answer: str) -> str:
    if re.search(SERVER, answer):
        return ""
    if re.search(NOT_THE_SERVER, answer):
        return "that one was gone, or came later. Who waits for a sign of life, and for how long?"
    return "who writes the history, and gives a step to another worker?"


def _problem_with_payment(answer: str, truth: Truth) -> str:
    words = _text(truth.lost.name).split() + [_text(value) for value in truth.twice]
    if not re.search(r"\bplan", answer) and any(word in answer for word in [*words, *BOUGHT]):
        return ""
    return "what stands twice on the statement that the run has read in the end?"


def _problem_with_change(answer: str) -> str:
    if re.search(CHANGES, answer):
        return ""
    if re.search(r"retr|attempt|time ?out|heart ?beat", answer):
        return "a step that is never tried again may stay undone. What makes a second attempt harmless?"
    return "what made an order happen once in 05, however often its step was tried?"
