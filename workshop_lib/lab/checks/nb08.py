"""Checks of notebook 08: a window, a run that goes on as another, a run that is stopped."""

import asyncio
import random
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import is_cancelled_exception
from temporalio.service import RPCError
from temporalio.workflow import UnfinishedUpdateHandlersWarning

from workshop_lib.lab.checks.framework import NotYet, check, plain
from workshop_lib.lab.checks.trial import running
from workshop_lib.lab.history import COMPLETED, History, history_of
from workshop_lib.lab.lessons.growth import SessionRun, runs_of_session
from workshop_lib.lab.lessons.stopping import ENDLESS, TIMER, look, until_begun
from workshop_lib.lab.watching.waiting import NoAnswer, watch
from workshop_lib.llm.messages import Message, ToolCall
from workshop_lib.temporal import client_retries

Window = Callable[[list[Message], int], list[Message]]

TALKS = 60
PEOPLE, A_RUN = 9, 3


def _talk(seed: int) -> list[Message]:
    """A conversation of a few turns, with tools in some of them; the last may still be under way."""
    pick = random.Random(seed)
    talk: list[Message] = []
    turns = pick.randint(1, 6)
    for turn in range(1, turns + 1):
        talk.append(Message.user(f"question {turn}"))
        for step in range(pick.choice((0, 0, 1, 1, 2, 5))):
            calls = [
                ToolCall(id=f"call-{turn}-{step}-{n}", name="weather", arguments="{}")
                for n in range(pick.randint(1, 2))
            ]
            talk.append(Message(role="assistant", tool_calls=calls))
            talk += [Message.tool_result(call, "rain") for call in calls]
        if turn < turns or pick.random() < 0.5:
            talk.append(Message.assistant(f"answer {turn}"))
    return talk


@check(
    expects="the latest messages, at most so many, from a user's message on; the last turn always whole.",
    hint="where may it begin? At a user's message. Take the earliest from which all the rest fits.",
)
async def windowed(window: Window) -> str:
    """Does every window begin with a turn, and hold as many as fit?"""
    for talk, most in [(_talk(seed), 1 + seed % 16) for seed in range(TALKS)]:
        given = [message.model_copy(deep=True) for message in talk]
        begins = [n for n, message in enumerate(talk) if message.role == "user"]
        longer = len(talk) - begins[-1] > most
        hint = "the last turn is kept whole, though it alone may be longer." if longer else None
        try:
            kept = plain(window(given, most))
        except NotYet:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise NotYet(
                saw=f"of {_roles(talk)}, at most {most}: your code raised {what}",
                hint=hint if isinstance(error, LookupError | ValueError | StopIteration) else None,
            ) from error
        if given != talk:
            raise NotYet(
                saw="a conversation that the window has changed",
                hint="return a slice of it: `messages[start:]`.",
            )
        if problem := _problem_with_window(talk, kept, most):
            raise NotYet(
                saw=f"of {_roles(talk)}, at most {most}: {_roles(kept)}, {problem}",
                hint=hint if kept == [] else None,
            )
    return f"{TALKS} conversations, each cut where a turn begins"


def _problem_with_window(talk: list[Message], kept: Any, most: int) -> str:
    """What is wrong with what was kept, or nothing."""
    if not isinstance(kept, Sequence) or not all(isinstance(one, Message) for one in kept):
        return "which is no list of messages"
    if not kept or list(kept) != talk[len(talk) - len(kept) :]:
        return (
            "which are not the latest messages, in their order and all of them up to the last one"
        )
    if kept[0].role != "user":
        return "which begins in the middle of a turn: a provider refuses a result without its call"
    begins = [n for n, message in enumerate(talk) if message.role == "user"]
    right = min((n for n in begins if len(talk) - n <= most), default=begins[-1])
    if len(kept) > len(talk) - right:
        return "which is more than fits"
    return "where one turn more would fit" if len(kept) < len(talk) - right else ""


def _roles(messages: Any) -> str:
    """A conversation in short: who speaks, one letter a message."""
    if not isinstance(messages, Sequence):
        return repr(messages)
    letters = {"user": "U", "assistant": "A", "tool": "T"}
    return "".join(letters.get(getattr(one, "role", ""), "?") for one in messages) or "nothing"


@check(
    expects=f"the numbers 1 to {PEOPLE} for {PEOPLE} people, in runs of at most {A_RUN}.",
    hint="in `run`: wait until there are three, then until all handlers have finished, then go on as new.",
    timeout=40,
)
async def lasting(client: Client, workflow: type) -> str:
    """Nine people at once: is each answered once, and does no run take more than it may?"""
    # A run that leaves somebody unanswered is told so below, in words.
    with warnings.catch_warnings(action="ignore", category=UnfinishedUpdateHandlersWarning):
        numbers, runs = await _numbers_and_runs(client, workflow)
    continued = len(runs) > 1  # the last one may have taken nobody
    runs = [run for run in runs if run.messages]
    if most := max((run.messages for run in runs if run.messages > A_RUN), default=0):
        who = "everybody" if most == PEOPLE else "too many"
        raise NotYet(
            saw=f"a run that answered {most}" + ("" if continued else ", and no other run"),
            hint=f"`check_draw` lets {who} in: refuse once there are three." if continued else None,
        )
    if sorted(numbers) != [*range(1, PEOPLE + 1)]:
        raise NotYet(
            saw=f"the numbers {', '.join(map(str, numbers))}",
            hint="a run begins with what it is given: hand `self.n` on.",
        )
    return f"{PEOPLE} numbers from {len(runs)} runs, each given out once"


async def _numbers_and_runs(client: Client, workflow: type) -> tuple[list[Any], list[SessionRun]]:
    """What the people have got, and the runs that there are then."""
    async with running(client, workflow, 0) as handle:
        try:
            numbers = await watch(_drawn(handle), handle, timeout=15, patient=False)
        except NoAnswer:
            await _refuse_endless_runs(handle)
            raise
        return numbers, await runs_of_session(handle)


async def _refuse_endless_runs(handle: WorkflowHandle[Any, Any]) -> None:
    """Say so where each run goes on as new as soon as it has begun."""
    found = await handle._client.count_workflows(f"WorkflowId = '{handle.id}'")
    if found.count > PEOPLE:
        raise NotYet(
            saw=f"{found.count} runs, of which the last ones go on as new as soon as they begin",
            hint="count what *this* run has given out, from `self.first` on: `self.n` goes on counting.",
        )


async def _drawn(handle: WorkflowHandle[Any, Any]) -> list[Any]:
    """The answers to people who all come at once, and again where a run says so."""

    async def draw(name: str) -> Any:
        async def attempt(update_id: str, limit: timedelta) -> Any:
            how: dict[str, Any] = {"id": update_id, "rpc_timeout": limit}
            return await handle.execute_update("draw", name, **how)

        return await client_retries.update(handle.id, name, attempt, timedelta(seconds=12))

    try:
        return list(await asyncio.gather(*(draw(f"person {n}") for n in range(PEOPLE))))
    except WorkflowUpdateFailedError as error:
        kind = getattr(error.cause, "type", None) or type(error.cause).__name__
        if kind == "AcceptedUpdateCompletedWorkflow":
            raise await _lost(handle) from None
        raise NotYet(
            saw=f"somebody who was refused for good ({kind}: {error.cause})",
            hint='only a refusal of `type="Rollover"` says: send it again.',
        ) from None
    except RPCError:
        raise await _lost(handle) from None


async def _lost(handle: WorkflowHandle[Any, Any]) -> NotYet:
    last = (await runs_of_session(handle))[-1]
    if last.status == COMPLETED:
        return NotYet(
            saw=f"a run that ended, with {last.messages} people taken, and no other that goes on",
            hint="`workflow.continue_as_new(self.n)`, after both of its conditions.",
        )
    return NotYet(
        saw="somebody who was accepted, and got no number before the run went on as new",
        hint="`await workflow.wait_condition(workflow.all_handlers_finished)` before it goes on.",
    )


@check(
    expects="what was found before the stop, whether it came during a look or during a rest.",
    hint="a stop has two shapes, of asyncio and in an `ActivityError`. Catch both, around the loop.",
    timeout=40,
)
async def kept(client: Client, workflow: type) -> str:
    """Stopped in an activity and in a timer it keeps what is done; an error stays one."""
    # The second look is endless: a stop that comes late still meets one.
    for place, step, times in (("a look", "look", 2), ("a rest", TIMER, 1)):
        cities = ["Seattle", ENDLESS, "Paris"]
        async with running(client, workflow, cities, activities=[look]) as handle:
            await watch(until_begun(handle, step, times), handle, timeout=15, patient=False)
            await handle.cancel(rpc_timeout=timedelta(seconds=5))
            found = await _found(handle, place)
            history = await history_of(handle)
        _judge(found, place, history)
    async with running(client, workflow, ["Seattle", "Atlantis"], activities=[look]) as handle:
        try:
            found = await handle.result(rpc_timeout=timedelta(seconds=10))
        except WorkflowFailureError as error:
            if not is_cancelled_exception(error.cause):
                return (
                    "stopped in a look and in a rest, it keeps what it has; an error is still one"
                )
            found = "cancelled"
    raise NotYet(
        saw=f"a look that failed, for Atlantis, and a run that ended with {found!r} all the same",
        hint="`if not is_cancelled_exception(error): raise`: an error is no stop.",
    )


async def _found(handle: WorkflowHandle[Any, Any], place: str) -> Any:
    """What a run that is stopped ends with."""

    async def outcome() -> Any:
        try:
            return await handle.result()
        except WorkflowFailureError as error:
            if not is_cancelled_exception(error.cause):
                raise
            raise NotYet(
                saw=f"stopped during {place}, the run ended without a result: what it had found is gone",
            ) from None

    try:
        return await watch(outcome(), handle, timeout=8, patient=False)
    except NoAnswer:
        raise NotYet(
            saw=f"a run that still works, 8 seconds after it was stopped during {place}",
            hint="return what there is: what comes after the stop is not done any more.",
        ) from None


def _judge(found: Any, place: str, history: History) -> None:
    if "Seattle" not in str(found):
        raise NotYet(
            saw=f"stopped during {place} it returned {found!r}",
            hint="`seen` holds what is done: return it.",
        )
    if any(step.input == "Paris" for step in history.named("look")):
        raise NotYet(
            saw=f"stopped during {place} it went on to Paris",
            hint="the `try` goes around the loop, or the loop ends with a `return`.",
        )
