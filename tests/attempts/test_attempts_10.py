"""Attempts at notebook 10: other ways to find what is slow, to leave in time, to find one turn's lines."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from attempts_ground import Attempt, assert_judged, cases, right, wrong
from lab_cells import Notebook

from workshop_lib.lab.checks import CheckNotMet, nb10
from workshop_lib.lab.classroom import start
from workshop_lib.lab.history import History


def with_sums(history: History) -> str:
    def until(time: float | None) -> float:
        return history.end if time is None else time

    steps = history.activities
    waited = sum(until(s.started) - s.scheduled for s in steps if s.attempts < 2)
    again = sum(until(s.started) - s.scheduled for s in steps if s.attempts > 1)
    worked = sum(until(s.ended) - until(s.started) for s in steps)
    return max((waited, "queue"), (worked, "work"), (again, "retries"))[1]


def by_the_worst_step(history: History) -> str:
    worst: dict[str, float] = defaultdict(float)
    for step in history.activities:
        started = step.started if step.started is not None else history.end
        ended = step.ended if step.ended is not None else history.end
        what = "retries" if step.attempts > 1 else "queue"
        worst[what] = max(worst[what], started - step.scheduled)
        worst["work"] = max(worst["work"], ended - started)
    return max(worst, key=lambda what: worst[what])


def with_percentages(history: History) -> str:
    end = history.end
    steps = [s for s in history.steps if s.kind == "activity"]
    total = sum((s.ended or end) - s.scheduled for s in steps)
    work = sum((s.ended or end) - (end if s.started is None else s.started) for s in steps)
    if work / total > 0.5:
        return "work"
    return "retries" if any(s.attempts > 1 for s in steps) else "queue"


@pytest.mark.parametrize("attempt", [with_sums, by_the_worst_step, with_percentages])
async def test_another_way_to_find_what_is_slow(attempt: Callable[[History], str]) -> None:
    await nb10.culprit(attempt)


def without_retries(history: History) -> str:
    return with_sums(history).replace("retries", "queue")


def never_started(history: History) -> str:
    begun = [step for step in history.activities if step.started is not None]
    return with_sums(History(steps=begun, end=history.end))


def never_ended(history: History) -> str:
    return with_sums(History(steps=[s for s in history.activities if s.ended], end=history.end))


def timers_too(history: History) -> str:
    steps = [replace(step, kind="activity") for step in history.steps]
    return with_sums(History(steps=steps, end=history.end))


def hangs(*_: Any) -> str:
    while True:
        pass


async def later(history: History) -> str:
    return with_sums(history)


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (lambda history: None, "return one of the three words"),
        (lambda history: "model", "return one of the three words"),
        (lambda history: "queue", "where it is 'work'"),
        (without_retries, "when the *last* attempt began"),
        (never_started, "waits until `history.end`"),
        (never_ended, "until `history.end`"),
        (timers_too, "a timer waits for nobody"),
        (lambda history: history.activities[0].started + None, "your code raised TypeError"),
        (lambda history: history.activities[9], "your code raised IndexError"),
        (hangs, "did not return within"),
        (later, "`def`, not `async def`"),
    ],
)
async def test_what_is_slow_nearly_found(attempt: Any, why: str) -> None:
    with pytest.raises(CheckNotMet) as refused:
        await nb10.culprit(attempt)
    assert why in " ".join(refused.value.lines)


GRACE = "graceful_shutdown_timeout=grace"
SECONDS = "lab.seconds(3.5)"
SERVED = "    async with worker:\n        await stop.wait()"
BY_HAND = """    running = asyncio.create_task(worker.run())
    await stop.wait()
    await worker.shutdown()
    await running
"""
CANCELLED = """    running = asyncio.create_task(worker.run())
    await stop.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
"""
LEAVING = [
    right("leaving", "by hand", (SERVED, BY_HAND)),
    right("leaving", "by a task that is cancelled", (SERVED, CANCELLED)),
    right("leaving", "with a number of its own", (SECONDS, "timedelta(milliseconds=3000)")),
    *(
        wrong("leaving", *case)
        for case in [
            ("nothing", SERVED, "    pass", "it ended before it was told to stop"),
            ("no grace", GRACE, "", "cut and handed back"),
            ("half the grace", SECONDS, "lab.seconds(0.5)", "cut and handed back"),
            ("no end", SECONDS, "lab.seconds(60)", "a grace without an end is none"),
            ("another queue", "task_queue=queue", "task_queue='mine'", "nobody has begun"),
            ("does not wait", "await stop.wait()", "stop.is_set()", "it ended before it was told"),
            ("raises", SERVED, "    raise ValueError('stop')", "your code raised ValueError"),
            (
                "waits for ever",
                SERVED,
                SERVED + "\n    await asyncio.sleep(100)",
                "it still served",
            ),
        ]
    ),
]


@pytest.mark.parametrize("attempt", cases(LEAVING, always=1))
async def test_a_worker_that_leaves(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    nb.run("import asyncio\nfrom datetime import timedelta\nfrom workshop_lib import lab")
    await assert_judged(nb, attempt, lambda: nb10.leaving(client, nb["serve"]))


Lines = list[str]


def parsed(lines: Lines) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def backwards(lines: Lines, workflow_id: str) -> list[dict[str, Any]]:
    ours = parsed(lines)
    for line in reversed(ours):
        if line["workflow_id"] == workflow_id and line.get("trace_id"):
            return [one for one in ours if one.get("trace_id") == line["trace_id"]]
    return []


def as_text(lines: Lines, workflow_id: str) -> Lines:
    (trace, *_) = {line["trace_id"] for line in backwards(lines, workflow_id)}
    return [line for line in lines if trace in line]


def one_by_one(lines: Lines, workflow_id: str) -> Any:
    yield from backwards(lines, workflow_id)


@pytest.mark.parametrize("attempt", [backwards, as_text, one_by_one])
async def test_another_way_to_find_one_turn(attempt: Callable[[Lines, str], Any]) -> None:
    await nb10.found(attempt)


def own_lines(lines: Lines, workflow_id: str) -> list[dict[str, Any]]:
    return [line for line in parsed(lines) if line["workflow_id"] == workflow_id]


def own_of_the_turn(lines: Lines, workflow_id: str) -> list[dict[str, Any]]:
    return [one for one in backwards(lines, workflow_id) if one["workflow_id"] == workflow_id]


def all_turns(lines: Lines, workflow_id: str) -> list[dict[str, Any]]:
    traces = {line.get("trace_id") for line in own_lines(lines, workflow_id)} - {None}
    return [line for line in parsed(lines) if line.get("trace_id") in traces]


def first_turn(lines: Lines, workflow_id: str) -> list[dict[str, Any]]:
    trace = own_lines(lines, workflow_id)[0].get("trace_id")
    return [line for line in parsed(lines) if line.get("trace_id") == trace]


def last_line(lines: Lines, workflow_id: str) -> list[dict[str, Any]]:
    trace = own_lines(lines, workflow_id)[-1].get("trace_id")
    return [line for line in parsed(lines) if line.get("trace_id") == trace]


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (lambda lines, workflow_id: None, "return a list of the lines"),
        (lambda lines, workflow_id: [], "lines are missing"),
        (own_lines, "Saw: for chat-manual"),
        (own_of_the_turn, "has another workflow id, and the same `trace_id`"),
        (all_turns, "take the latest"),
        (first_turn, "take the latest"),
        (last_line, "None is no trace"),
        (lambda lines, workflow_id: backwards(lines, workflow_id)[::-1], "in another order"),
        (lambda lines, workflow_id: [json.loads(line) for line in lines], "your code raised JSON"),
        (hangs, "did not return within"),
    ],
)
async def test_one_turn_nearly_found(attempt: Any, why: str) -> None:
    with pytest.raises(CheckNotMet) as refused:
        await nb10.found(attempt)
    assert why in " ".join(refused.value.lines)
