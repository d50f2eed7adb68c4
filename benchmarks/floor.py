"""What a turn cannot be cheaper than: updates whose handler runs empty activities.

A module of its own, since the worker's process imports it by name. Left out: the measuring (`turn`).
"""

import time
from datetime import timedelta

from temporalio import activity, workflow


@activity.defn
async def nothing() -> None:
    """Take nothing, do nothing, return nothing."""


@workflow.defn
class Floor:
    """Runs empty activities on request, one after the other."""

    @workflow.run
    async def run(self) -> None:
        """Live until terminated, or until its server is gone."""
        await workflow.wait_condition(lambda: False)

    @workflow.update
    async def run_empty(self, count: int) -> list[float]:
        """Run so many empty activities. Returns the seconds each took, as the workflow sees it.

        The clock is read around the sandbox: it decides nothing, so a replay runs the same commands.
        """
        seconds = []
        for _ in range(count):
            begun = _clock()
            await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=20))
            seconds.append(_clock() - begun)
        return seconds


def _clock() -> float:
    with workflow.unsafe.sandbox_unrestricted():
        return time.perf_counter()
