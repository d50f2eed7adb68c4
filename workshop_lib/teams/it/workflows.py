"""The IT team's workflows: one for each operation of its contract, each around one activity."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.teams.it.activities import count_issues, look_up_ip
    from workshop_lib.teams.it.contract import IpAddress, IpInput, JiraMetrics, JiraMetricsInput
    from workshop_lib.temporal.steps import step_options

_OPTIONS = step_options(attempt=10, total=300, longest_pause=5)


@workflow.defn
class JiraMetricsWorkflow:
    """The figures of one Jira project."""

    @workflow.run
    async def run(self, request: JiraMetricsInput) -> JiraMetrics:
        """Count its issues."""
        return await workflow.execute_activity(count_issues, request, **_OPTIONS)


@workflow.defn
class IpWorkflow:
    """The address of the user's machine."""

    @workflow.run
    async def run(self, request: IpInput) -> IpAddress:
        """Look it up."""
        return await workflow.execute_activity(look_up_ip, request, **_OPTIONS)
