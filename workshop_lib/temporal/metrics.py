"""Metrics of a service, for Prometheus: Temporal's own and ours, on 127.0.0.1 at `WORKSHOP_METRICS_PORT`.

Ours are what Temporal cannot know: turns (`workshop_turns`), messages refused before anything was recorded
(`workshop_refused`), tokens that a model has charged for (`workshop_model_tokens`). Temporal has the rest:
how often a step failed and was tried again (`temporal_activity_execution_failed`), how long it took
(`temporal_activity_execution_latency`), and how long it lay in its queue before a worker took it
(`temporal_activity_schedule_to_start_latency`), which tells a stalled queue from a slow model.
A replay counts nothing. Left out: prices, which change; a port is one service's, and no two can share it.
"""

import logging
from typing import Any

from temporalio import activity, workflow
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

logger = logging.getLogger(__name__)

TURN = "send_message"  # the update that a turn is
# Where an answer of a model says what it cost: ours, and the Agents SDK's.
_TOKENS = {
    "prompt": ("prompt_tokens", "input_tokens"),
    "completion": ("completion_tokens", "output_tokens"),
}


class Counted(Interceptor):
    """Put around a worker: counts turns, refusals and tokens."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _CountedActivity(next)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002
    ) -> type[WorkflowInboundInterceptor]:
        return _CountedWorkflow


class _CountedActivity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        result = await super().execute_activity(input)
        if usage := getattr(result, "usage", None):
            counter = activity.metric_meter().create_counter("workshop_model_tokens")
            for kind, names in _TOKENS.items():
                found = (getattr(usage, name, None) for name in names)
                counter.add(next((n for n in found if isinstance(n, int)), 0), {"kind": kind})
        return result


class _CountedWorkflow(WorkflowInboundInterceptor):
    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:  # noqa: A002
        result = await super().handle_update_handler(input)
        if input.update == TURN:
            workflow.metric_meter().create_counter("workshop_turns").add(1)
        return result

    def handle_update_validator(self, input: HandleUpdateInput) -> None:  # noqa: A002
        try:
            super().handle_update_validator(input)
        except Exception:
            if input.update == TURN:
                workflow.metric_meter().create_counter("workshop_refused").add(1)
            raise
