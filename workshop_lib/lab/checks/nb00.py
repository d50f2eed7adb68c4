"""Checks of notebook 00: what the learner's first workflows left in their histories."""

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio.client import Client

from workshop_lib.errors import WorkshopError
from workshop_lib.lab import classroom
from workshop_lib.lab.checks.framework import NotYet, check
from workshop_lib.lab.checks.trial import trial
from workshop_lib.lab.history import history_of
from workshop_lib.lab.watching.waiting import result
from workshop_lib.lab.workers.kill_points import KillPoint, Where
from workshop_lib.lab.workers.process import start_process
from workshop_lib.temporal.worker import WorkerSpec

NAMES = ["Grace", "Edsger"]
RESTART_LIMIT = 20.0  # seconds: the activity's limit of two, and the start of a process


@check(
    expects="two completed `compose` activities, and both greetings as the result.",
    hint="call `workflow.execute_activity` once for each name and put what it returns into the list.",
    timeout=20,
)
async def two_greetings(client: Client, workflow: type, compose: Callable[..., Any]) -> str:
    """The workflow greets each of two people with an activity of its own."""
    handle, greetings = await trial(client, workflow, NAMES, [compose])
    done = [run for run in (await history_of(handle)).named("compose") if run.completed]
    if len(done) != len(NAMES):
        raise NotYet(saw=f"{len(done)} completed `compose` activities")
    if not isinstance(greetings, list) or len(greetings) != len(NAMES):
        raise NotYet(saw=f"the result {greetings!r}", hint="return a list of the two greetings.")
    if missing := [run.result for run in done if not any(run.result in str(g) for g in greetings)]:
        raise NotYet(
            saw=f"the result {greetings!r}, without {missing[0]!r}, which `compose` has returned",
            hint="put what each `await workflow.execute_activity(…)` returns into the list.",
        )
    if {str(run.input) for run in done} != set(NAMES):
        raise NotYet(saw=f"`compose` called for {', '.join(str(run.input) for run in done)}")
    return "two activities in the history, two greetings in the result"


@check(
    expects="box 3 handed out twice, boxes 1 and 2 once, and all three packed in the end.",
    hint='a kill point such as "activity-inside@pack#2"; which places come after the packing?',
    timeout=60,
    takes="some ten seconds: two processes start, and one dies",
)
async def kill_third(client: Client, spec: WorkerSpec, workflow: type, kill_at: str | None) -> str:
    """The worker dies at the learner's kill point, and another finishes the run."""
    if not kill_at:
        raise NotYet(saw="`kill_at` is not set")
    try:
        point = KillPoint.parse(str(kill_at))
    except WorkshopError as error:
        raise NotYet(saw=error.what, hint=f"it is {error.expected}") from None
    doomed = await start_process(spec, kill_at=point)
    handle = await client.start_workflow(
        workflow.__name__, id=classroom.new_id("check-packing"), task_queue=spec.task_queue
    )
    if await doomed.exited(timeout=20, unless=handle) is None:
        await asyncio.to_thread(doomed.stop)
        raise NotYet(saw=f"the run completed and nobody died at {kill_at}")
    helper = await start_process(spec)
    try:
        await result(handle, timeout=RESTART_LIMIT)
    finally:
        await asyncio.to_thread(helper.stop)
    attempts = {run.input: run.attempts for run in (await history_of(handle)).named("pack")}
    if attempts != {1: 1, 2: 1, 3: 2}:
        attempted = ", ".join(f"box {box} handed out {n}×" for box, n in sorted(attempts.items()))
        raise NotYet(saw=attempted)
    if point.where not in (Where.ACTIVITY_RESULT, Where.ACTIVITY_REPORT):
        raise NotYet(
            saw=f"the worker died at {point}: nothing says that box 3 was packed by then",
            hint="which two places come after `pack` has returned?",
        )
    return "box 3 was packed, its report was lost, and a new worker packed it again"
