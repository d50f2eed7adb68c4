"""For runs that are stopped: an activity that takes long, and a wait for the right moment.

Left out: the stop itself, which is the lesson.
"""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ActivityConfig

from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.errors import WorkshopError
from workshop_lib.llm.tools import ToolInputError
from workshop_lib.temporal.steps import heartbeating

ENDLESS = "Tokyo"
TIMER = "timer"
LOOK_OPTIONS = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=1), heartbeat_timeout=timedelta(seconds=2)
)


@activity.defn
async def look(city: str) -> str:
    """The weather in a city. In `ENDLESS` it takes a minute; a city that is unknown is an error at once.

    May run twice, when its worker dies before the result is recorded: it only looks something up.
    """
    async with heartbeating():
        if city == ENDLESS:
            await asyncio.sleep(50)
        try:
            return LOCAL_TOOLS["weather"].run({"city": city})
        except ToolInputError as error:
            raise ApplicationError(str(error), type="UnknownCity", non_retryable=True) from None


async def until_begun(
    handle: WorkflowHandle[Any, Any], step: str, times: int = 1, *, timeout: float = 20
) -> None:
    """Wait until a run has scheduled a step so many times, or has ended.

    Args:
        step: the type of an activity, or `TIMER`.
        timeout: seconds to wait at most.

    Raises:
        WorkshopError: it has not by then.
    """
    try:
        async with asyncio.timeout(timeout):
            async for event in handle.fetch_history_events(wait_new_event=True):
                scheduled = event.activity_task_scheduled_event_attributes.activity_type.name
                times -= (
                    scheduled or (event.HasField("timer_started_event_attributes") and TIMER)
                ) == step
                if not times:
                    return
    except TimeoutError:
        raise WorkshopError(
            f"{step} has not begun within {timeout:g} s.",
            expected="a worker that serves the run.",
            fix="`lab.waits_for(handle)` says what it waits for; then run the cell again.",
        ) from None
