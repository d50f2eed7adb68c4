"""Lets time pass for one run: hours and days in a moment, on the real dev server.

Each run has a clock of its own. It jumps to the next timer wherever the run waits for nothing but timers, as
far as it is told; activities take the time they take. An experimental feature of the server, switched on by
a flag of the workshop's own one. A run that has continued as new more than once may find a whole stretch
skipped at the next time: the server gives its new run no task before that.
"""

from datetime import datetime, timedelta
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import FastForwardPollingResult
from temporalio.api.workflowservice.v1 import PollWorkflowExecutionTimeSkippingRequest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError
from temporalio.testing import TimeSkipper, TimeSkippingConfig

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.waiting import NoAnswer, watch


async def pass_time(
    handle: WorkflowHandle[Any, Any], *, days: float = 0, hours: float = 0, timeout: float = 60
) -> datetime:
    """Let days and hours pass for a run. Returns what its clock says then.

    Where time is passing for it already, in a cell that was interrupted, that is waited for and no more is
    added: a server that is told twice forgets the timers in between.

    Args:
        timeout: seconds that this may take; a run that has steps to take on the way takes them.

    Raises:
        WorkshopError: the run is over or stuck, nobody serves it, the server cannot skip time, or the run
            takes too long on the way.
    """
    duration = timedelta(days=days, hours=hours)
    if duration <= timedelta():
        raise WorkshopError(
            f"{duration / timedelta(hours=1):g} hours cannot pass.",
            expected="`days=` or `hours=`, above 0.",
        )
    if not isinstance(handle, WorkflowHandle):
        raise WorkshopError(
            f"Time passes for a run, and this is a {type(handle).__name__}.",
            fix="give the run's handle, such as `agent.handle`.",
        )
    skipper = TimeSkipper(handle._client, config=TimeSkippingConfig(enabled=False))
    try:
        await watch(_skip(skipper, handle, duration), handle, timeout=timeout)
        return await skipper.get_current_time(handle)
    except NoAnswer as late:
        raise WorkshopError(
            f"{handle.id} has not come {duration} further within {timeout:g} s.\n{late.what}",
            fix="run the cell again: time goes on passing, and this waits for it.",
        ) from None
    except RPCError as error:
        raise WorkshopError(
            f"No time can pass for {handle.id}: {error.message}.",
            expected="a run that is under way, on the workshop's own dev server.",
            fix="a server of an older version has to be restarted: `workshop down`.",
        ) from None


async def _skip(
    skipper: TimeSkipper, handle: WorkflowHandle[Any, Any], duration: timedelta
) -> None:
    described = await handle.describe()
    if described.close_time:
        raise WorkshopError(
            f"No time can pass for {handle.id}: it is over.", fix="start a run, and try again."
        )
    config = described.raw_description.workflow_extended_info.time_skipping_info.effective_config
    if config.enabled:
        print(f"Time is passing for {handle.id} already; that is waited for, and no more is added.")
        await _passed(handle, config.fast_forward_config.id)
    else:
        await skipper.fast_forward(handle, duration)


async def _passed(handle: WorkflowHandle[Any, Any], fast_forward_id: str) -> None:
    """Wait until what somebody else has begun is done."""
    request = PollWorkflowExecutionTimeSkippingRequest(
        namespace=handle._client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=handle.id),
        fast_forward_id=fast_forward_id,
    )
    done = (
        FastForwardPollingResult.FAST_FORWARD_POLLING_RESULT_FAST_FORWARD_COMPLETED,
        FastForwardPollingResult.FAST_FORWARD_POLLING_RESULT_FAST_FORWARD_FAILED,  # the run is over
    )
    service = handle._client.workflow_service
    while True:  # the server answers now and then, done or not
        answer = await service.poll_workflow_execution_time_skipping(request, retry=True)
        if answer.fast_forward_polling_result in done:
            return
