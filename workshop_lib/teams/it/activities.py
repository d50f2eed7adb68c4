"""The IT team's work: count a project's issues, look up an address.

Both only read, so an activity that runs twice, because its worker died before it could report, does no
harm. Errors say by their type who can do something about them: `UnknownProject` the model that wrote the
arguments, `Forbidden` nobody who asks again, `ServiceDown` nobody but time, so that one is retried.
"""

from temporalio import activity
from temporalio.exceptions import ApplicationError

from workshop_lib.teams.it.contract import IpAddress, IpInput, JiraMetrics, JiraMetricsInput
from workshop_lib.teams.records import read_records
from workshop_lib.temporal.caller import FORBIDDEN, lacks, may
from workshop_lib.temporal.steps import heartbeating

CONFIDENTIAL = "it:confidential"  # the scope of those who may see such figures


@activity.defn
async def count_issues(request: JiraMetricsInput) -> JiraMetrics:
    """The figures of one Jira project.

    Raises:
        ApplicationError: `UnknownProject` or `Forbidden`, not retried; `ServiceDown`, retried.
    """
    async with heartbeating():
        projects = read_records("it")["jira_projects"]
        key = request.project.strip().upper()
        found = projects.get(key)
        if found is None:
            public = ", ".join(name for name, p in projects.items() if not p.get("confidential"))
            raise ApplicationError(
                f"unknown project {request.project!r}; known are {public}",
                type="UnknownProject",
                non_retryable=True,
            )
        if found.get("confidential") and not may(CONFIDENTIAL):
            raise ApplicationError(
                f"project {key} is confidential; its owners do not share figures{lacks(CONFIDENTIAL)}",
                type=FORBIDDEN,
                non_retryable=True,
            )
        counts = {"open": found["open"], "closed": found["closed"]}
        return JiraMetrics(project=key, total=sum(counts.values()), **counts)


@activity.defn
async def look_up_ip(request: IpInput) -> IpAddress:
    """The address of the user's machine.

    Raises:
        ApplicationError: `ServiceDown`, retried.
    """
    async with heartbeating():
        return IpAddress(ip_address=read_records("it")["ip_address"])
