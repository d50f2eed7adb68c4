"""The IT team's side of its contract: each operation starts one of the team's workflows.

As with every team: the server may send a start again when it got no answer. The workflow's id is made of
the request's id, which stays the same, so the second start finds the first run.
"""

from nexusrpc.handler import service_handler
from temporalio import nexus

from workshop_lib.teams.it.contract import (
    IpAddress,
    IpInput,
    ITService,
    JiraMetrics,
    JiraMetricsInput,
)
from workshop_lib.teams.it.workflows import IpWorkflow, JiraMetricsWorkflow
from workshop_lib.teams.run_ids import run_id
from workshop_lib.temporal.steps import TASK_TIMEOUT


@service_handler(service=ITService)
class ITHandler:
    """Serves `ITService`."""

    @nexus.workflow_run_operation
    async def jira_metrics(
        self, ctx: nexus.WorkflowRunOperationContext, request: JiraMetricsInput
    ) -> nexus.WorkflowHandle[JiraMetrics]:
        """Start, or find, the run that counts a project's issues."""
        return await ctx.start_workflow(
            JiraMetricsWorkflow.run,
            request,
            id=run_id("jira_metrics", request.project, ctx.request_id),
            task_timeout=TASK_TIMEOUT,
        )

    @nexus.workflow_run_operation
    async def get_ip(
        self, ctx: nexus.WorkflowRunOperationContext, request: IpInput
    ) -> nexus.WorkflowHandle[IpAddress]:
        """Start, or find, the run that looks up the address."""
        return await ctx.start_workflow(
            IpWorkflow.run,
            request,
            id=run_id("get_ip", "", ctx.request_id),
            task_timeout=TASK_TIMEOUT,
        )
