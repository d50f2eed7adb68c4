"""An activity that takes its time, and a run that has it done: for lessons on workers that are stopped.

Left out: models. What thinks here only waits, and heartbeats as a call of a model does.
"""

import asyncio

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.temporal.steps import heartbeating, step_options


@activity.defn
async def think(seconds: float) -> str:
    """Take so many seconds. A repeated attempt takes them again, and changes nothing."""
    async with heartbeating():
        await asyncio.sleep(seconds)
    return "a thought"


@workflow.defn
class Thinking:
    """Has somebody think."""

    @workflow.run
    async def run(self, call: tuple[str, float]) -> str:
        """Have whoever polls this queue think for so many seconds."""
        queue, seconds = call
        options = step_options(attempt=90, total=120, longest_pause=1)
        options["task_queue"] = queue
        return await workflow.execute_activity(think, seconds, **options)
