"""Checks of notebook 10: what makes a run slow, a worker that leaves in time, the log lines of one turn."""

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from temporalio.client import Client, WorkflowHandle

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.checks.framework import NotYet, awaited, called, check
from workshop_lib.lab.checks.trial import running
from workshop_lib.lab.classroom import new_id, spec
from workshop_lib.lab.history import (
    ACTIVITY,
    COMPLETED,
    RETRYING,
    TIMER,
    WAITING,
    History,
    Step,
    history_of,
)
from workshop_lib.lab.lessons.leaving import MODEL_STEP, until_at_work
from workshop_lib.lab.lessons.thinking import Thinking, think
from workshop_lib.lab.registry import stop_worker
from workshop_lib.lab.watching.waiting import result
from workshop_lib.lab.workers.threads import start_worker

RUNS = 90
CAUSES = ("queue", "work", "retries")
SHORT, LONG = (
    2.0,
    60.0,
)  # seconds that two calls take, in the middle of which a worker is told to stop
GONE_IN = 5.0  # seconds that it has
AGAIN = 10.0  # seconds until a call that was handed back is begun elsewhere
_BUSY = 5.0  # seconds more that a busy machine may take
_LOGS = 40

Serve = Callable[[Client, str, asyncio.Event], Awaitable[Any]]


# --- what is slow -----------------------------------------------------------------------------------


def _slow_run(seed: int) -> tuple[History, str]:
    """A run that mostly waits for a worker, works, or is tried again; and which of them it is."""
    dice = random.Random(seed)
    cause = CAUSES[seed % 3]
    run = History(workflow_id=f"chat-{seed}")
    now = 0.0

    def spend(what: str) -> float:
        return dice.uniform(3, 6) if what == cause else dice.uniform(0.01, 0.3)

    count = dice.randint(1, 4)
    for number in range(count):
        again = cause == "retries" and (number == 0 or dice.random() < 0.5)
        name = dice.choice([MODEL_STEP, MODEL_STEP, "execute_tool"])
        step = Step(kind=ACTIVITY, name=name, scheduled=now, attempts=3 if again else 1)
        run.steps.append(step)
        now += spend("retries") if again else spend("queue")
        open_at = dice.choice(["", "", "waits", "works"]) if number == count - 1 else ""
        if open_at == "waits" and cause != "work":  # nobody has begun it yet
            step.state = RETRYING if again else WAITING
            step.attempts = 2 if again else 0
            break
        step.started = now
        now += spend("work")
        if open_at != "works":
            step.ended, step.state = now, COMPLETED
        # What no activity does is neither: a person who has not decided yet, say.
        timer = Step(kind=TIMER, name="timer of 9 s", scheduled=now, started=now)
        if not open_at and dice.random() < 0.4:
            now += 9
            timer.ended, timer.state = now, COMPLETED
            run.steps.append(timer)
    run.end = now
    return run, cause


@check(
    expects='"queue", "work" or "retries": whichever has taken most of the time of the activities.',
    hint="add up, over `history.activities`: scheduled to started, started to ended. What has not come yet "
    "lasts until `history.end`.",
)
async def culprit(what_is_slow: Callable[[History], str]) -> str:
    """Does it tell a queue where nobody works from a model that takes its time?"""
    for run, cause in map(_slow_run, range(RUNS)):
        found = called(what_is_slow, run)
        if found != cause:
            raise NotYet(
                saw=f"{found!r} for a run of {run.end:.1f} s where it is {cause!r}: {_in_words(run)}",
                hint=_hint(run, found, cause),
            )
    return f"{RUNS} runs, and of each what made it slow"


def _in_words(run: History) -> str:
    def at(time: float | None) -> str:
        return "not yet" if time is None else f"{time:.1f}"

    return "; ".join(
        f"{step.name}: scheduled {at(step.scheduled)}, started {at(step.started)}, ended {at(step.ended)}"
        + (f", attempt {step.attempts}" if step.attempts > 1 else "")
        for step in run.steps
    )


def _hint(run: History, found: Any, cause: str) -> str | None:
    if found not in CAUSES:
        return 'return one of the three words: "queue", "work", "retries".'
    if any(step.started is None for step in run.steps):
        return "a step that nobody has started waits until `history.end`: that is the worst queue of all."
    if (found, cause) == ("queue", "retries"):
        return (
            "`started` is when the *last* attempt began. Of a step with `attempts` above 1 the time before "
            "went into the attempts that failed, and not into the queue."
        )
    if any(step.ended is None for step in run.steps):
        return "a step that has not ended has been at work until `history.end`."
    if len(run.activities) < len(run.steps):
        return "count the activities only: a timer waits for nobody."
    return None


# --- a worker that is told to stop ------------------------------------------------------------------


@check(
    expects=f"a call of {SHORT:g} s finished, one of {LONG:g} s handed back, and `serve` over {GONE_IN:g} s "
    "after `stop`.",
    hint="`graceful_shutdown_timeout` is what a worker gives its activities: more than 2 s, less than 5 s.",
    timeout=75,
    takes="some ten seconds",
)
async def leaving(client: Client, serve: Serve) -> str:
    """Told to stop in the middle of two calls, does it finish the one and hand back the other?"""
    queue, stop = new_id("leaving"), asyncio.Event()
    serving: asyncio.Future[Any] = asyncio.ensure_future(_told(serve, client, queue, stop))
    try:
        async with (
            running(client, Thinking, (queue, SHORT)) as short,
            running(client, Thinking, (queue, LONG)) as long,
        ):
            await _both_begun(serving, short, long)
            stop.set()
            done, _ = await asyncio.wait({serving}, timeout=GONE_IN + _BUSY)
            if not done:
                raise NotYet(
                    saw=f"it still served {GONE_IN + _BUSY:g} s after it was told to stop",
                    hint="a grace without an end is none: whoever has asked will use SIGKILL.",
                )
            await serving
            following = replace(spec(queue, activities=[think]), task_queue=queue)
            await start_worker(following, announce=False)
            await result(short, timeout=20, patient=False)
            await _begun_again(long)
            return _judged(await history_of(short), await _attempts(long))
    finally:
        await asyncio.to_thread(stop_worker, queue)
        serving.cancel()
        with contextlib.suppress(BaseException):
            await asyncio.wait({serving}, timeout=GONE_IN)


async def _told(serve: Serve, client: Client, queue: str, stop: asyncio.Event) -> None:
    await awaited(serve(client, queue, stop))


async def _both_begun(serving: "asyncio.Future[Any]", *runs: WorkflowHandle[Any, Any]) -> None:
    """Wait until both calls are under way.

    Raises:
        NotYet: the function has ended before, or nobody works.
    """
    begun: asyncio.Future[Any] = asyncio.gather(
        *(until_at_work(run, think.__name__, timeout=15) for run in runs)
    )
    try:
        await asyncio.wait([serving, begun], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # what it raises is said
            raise NotYet(
                saw="it ended before it was told to stop",
                hint="`await stop.wait()` while the worker polls.",
            )
        await begun
    except WorkshopError:
        raise NotYet(
            saw="nobody has begun the calls within 15 s",
            hint="a worker polls from `async with worker:` on, or from `worker.run()`; is it at `queue`?",
        ) from None
    finally:
        begun.cancel()
        await asyncio.gather(begun, return_exceptions=True)


async def _attempts(run: WorkflowHandle[Any, Any]) -> tuple[int, str]:
    """How often a call that is pending was begun, and why the attempt before has ended."""
    (one,) = (await run.describe()).raw_description.pending_activities
    return one.attempt, one.last_failure.application_failure_info.type or one.last_failure.message


async def _begun_again(run: WorkflowHandle[Any, Any]) -> None:
    """Wait until another attempt of its call is under way.

    Raises:
        NotYet: whoever has it keeps it.
    """
    try:
        async with asyncio.timeout(AGAIN):
            while (await _attempts(run))[0] < 2:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise NotYet(
            saw=f"`serve` was over, and its worker still had the call of {LONG:g} s {AGAIN:g} s later",
            hint="end the worker with `await worker.shutdown()`, or by leaving its `async with`.",
        ) from None


def _judged(short: History, long: tuple[int, str]) -> str:
    (step,) = short.named(think.__name__)
    if step.attempts > 1:
        how = "lost" if step.lost else "cut and handed back"
        raise NotYet(
            saw=f"the call of {SHORT:g} s was {how}, and made again by the next worker",
            hint="`Worker(…, graceful_shutdown_timeout=…)`: without it a worker that stops gives no time."
            if not step.lost
            else "end the worker with `await worker.shutdown()`, or by leaving its `async with`.",
        )
    if long[1] != "WorkerShutdown":
        raise NotYet(
            saw=f"the call of {LONG:g} s was lost ({long[1]}): the server had to miss a heartbeat first",
            hint="end the worker with `await worker.shutdown()`, or by leaving its `async with`.",
        )
    return (
        f"{SHORT:g} s were waited for, {LONG:g} s were handed back: attempt {long[0]} is elsewhere"
    )


# --- the lines of one turn --------------------------------------------------------------------------


def _log(seed: int) -> tuple[list[str], str, list[dict[str, Any]]]:
    """Log lines of several chats and teams, whose latest turn is looked for, and its lines."""
    dice = random.Random(seed)
    chats = [f"chat-manual-{seed}-{name}" for name in "abc"]
    asked_for = dice.choice(chats)
    turns = [
        (chat, f"{dice.getrandbits(128):032x}") for chat in chats for _ in range(dice.randint(1, 3))
    ]
    last = dict(turns)[asked_for]
    # Of one chat, one turn comes after the other; turns of several chats overlap.
    queues: dict[str, list[dict[str, Any]]] = {chat: [] for chat in chats}
    for chat, trace in turns:
        for step in range(dice.randint(1, 4)):
            theirs = step and dice.random() < 0.5
            queues[chat].append(
                {
                    "message": "look_up_price done" if theirs else f"{MODEL_STEP} done",
                    "namespace": "finance-namespace" if theirs else "default",
                    "workflow_id": f"stock-price-{trace[:6]}" if theirs else chat,
                    "trace_id": trace,
                }
            )
    lines: list[str] = []
    wanted: list[dict[str, Any]] = []
    while waiting := [queue for queue in queues.values() if queue]:
        line = dice.choice(waiting).pop(0)
        lines.append(json.dumps(line))
        wanted += [line] if line["trace_id"] == last else []
        if dice.random() < 0.2:
            lines.append(dice.choice(["Warning: a library prints", "", '{"cut": tr']))
    # What a run does between turns belongs to no trace.
    idle = {"message": "chat goes on", "namespace": "default", "workflow_id": asked_for}
    lines.append(json.dumps(idle))
    return lines, asked_for, wanted


@check(
    expects="all lines of the chat's latest turn, other teams' too, in their order.",
    hint="first the trace id of the latest of the chat's own lines that has one; then all lines with it.",
)
async def found(lines_of_turn: Callable[[list[str], str], Any]) -> str:
    """Does it find one turn, and all of it, among other people's?"""
    for lines, workflow_id, wanted in map(_log, range(_LOGS)):
        returned = called(lines_of_turn, list(lines), workflow_id)
        kept = _read(returned)
        if kept is None:
            raise NotYet(
                saw=f"{returned!r}",
                hint="return a list of the lines, as text or as dictionaries.",
            )
        if kept == wanted:
            continue
        raise NotYet(
            saw=_difference(kept, wanted, workflow_id), hint=_advice(kept, wanted, workflow_id)
        )
    return f"{_LOGS} logs, and of each the lines of one turn"


def _read(returned: Any) -> list[Any] | None:
    """What was returned, as dictionaries; None where it is no list of lines."""
    if isinstance(returned, str | dict) or not hasattr(returned, "__iter__"):
        return None
    try:
        return [json.loads(line) if isinstance(line, str) else line for line in returned]
    except ValueError:
        return [line for line in returned if not isinstance(line, str) or line.startswith("{")]


def _difference(kept: list[Any], wanted: list[dict[str, Any]], workflow_id: str) -> str:
    missing = [line for line in wanted if line not in kept]
    more = [line for line in kept if line not in wanted]
    parts = [f"{len(missing)} of {len(wanted)} lines are missing"] if missing else []
    parts += [f"{len(more)} lines are of no such turn"] if more else []
    shown = (missing or more or [None])[0]
    words = f", such as {json.dumps(shown, default=str)}" if shown else ""
    return f"for {workflow_id} {' and '.join(parts) or 'the right lines in another order'}{words}"


def _advice(kept: list[Any], wanted: list[dict[str, Any]], workflow_id: str) -> str | None:
    missing = [line for line in wanted if line not in kept]
    if not kept:
        return None
    if all(line["workflow_id"] != workflow_id for line in missing) and missing:
        return "another team's line has another workflow id, and the same `trace_id`."
    if any(isinstance(line, dict) and "trace_id" not in line for line in kept):
        return 'some lines have no `trace_id`: `line.get("trace_id")` is None there, and None is no trace.'
    return "a chat has several turns, and each has a trace of its own: take the latest."
