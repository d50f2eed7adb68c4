"""The tools of other teams, called through Temporal Nexus.

All that is known of a team is its contract. The tools are made from it: an operation's name, the docstring
of its input and the input's JSON schema are what a model gets to read. A session asks the server once where
each team's endpoint leads (`discover_teams`), so that a call that fails can name endpoint, namespace and
queue, and a call to an endpoint that does not exist fails with a sentence instead of stopping the workflow.

Left out: what stands behind a contract. Whether the operation takes a millisecond or a week, this side is
the same.
"""

from datetime import timedelta
from typing import Any

import nexusrpc
from nexusrpc import HandlerError, get_service_definition
from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.exceptions import NexusOperationError
from temporalio.exceptions import TimeoutError as OutOfTime
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.llm.messages import ToolSpec
from workshop_lib.llm.tools import ToolInputError, changes_of, checked, spec_of
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.contract import FinanceService
from workshop_lib.teams.it.contract import ITService
from workshop_lib.temporal.lookup import find_endpoint
from workshop_lib.temporal.steps import heartbeating, step_options

CONTRACTS: dict[str, type] = {"it": ITService, "finance": FinanceService}

DISCOVERY_OPTIONS = step_options(attempt=10, total=180, longest_pause=2)
# How long a team that did not answer the last call may take to begin the next one. The server knows, too, and
# may hold the call back for half of it.
PATIENCE = timedelta(seconds=10)


class TeamOutOfReach(Exception):
    """No worker of the team did what was asked. The text names team, endpoint, namespace and queue."""


class TeamEndpoint(BaseModel):
    """Where a team is reached.

    Attributes:
        exists: False where the server knows no such endpoint.
        namespace, task_queue: where the endpoint leads; as the settings have it where the server does
            not let us look.
    """

    team: str
    endpoint: str
    namespace: str
    task_queue: str
    exists: bool = True

    def __str__(self) -> str:
        return f"endpoint {self.endpoint}, namespace {self.namespace}, task queue {self.task_queue}"


class TeamRequest(BaseModel):
    """Input of `discover_teams`: names of teams, keys of `CONTRACTS`."""

    teams: list[str] = list(CONTRACTS)


@activity.defn
async def discover_teams(request: TeamRequest) -> list[TeamEndpoint]:
    """Ask the server where the teams' endpoints lead. Only reads, so a second run does no harm."""
    async with heartbeating():
        return [await _look_up(team) for team in request.teams]


async def _look_up(team: str) -> TeamEndpoint:
    """A team's endpoint as the server has it, or as the settings have it where it does not say."""
    settings = get_settings()
    configured = TeamEndpoint(
        team=team,
        endpoint=getattr(settings, f"{team}_endpoint"),
        namespace=getattr(settings, f"{team}_namespace"),
        task_queue=getattr(settings, f"{team}_queue"),
    )
    try:
        endpoint = await find_endpoint(activity.client(), configured.endpoint)
    except RPCError as error:
        if error.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED):
            return configured  # as on Temporal Cloud, where a worker may call and not look
        raise
    if endpoint is None:
        return configured.model_copy(update={"exists": False})
    target = endpoint.spec.target.worker
    return configured.model_copy(
        update={"namespace": target.namespace, "task_queue": target.task_queue}
    )


class NexusTool:
    """One operation of another team, as a tool. Made and called in a workflow.

    Args:
        service: the contract's service class.
        operation: one of its operations.
        endpoint: where the team is reached.
        timeout: for the whole operation, tries and waiting included. Without one, a call to a team that
            is gone would wait for ever.
        silent: names of the teams that did not answer the last call, for all tools of a session.
    """

    def __init__(
        self,
        service: type,
        operation: nexusrpc.OperationDefinition[Any, Any],
        endpoint: TeamEndpoint,
        timeout: timedelta,
        silent: set[str],
    ) -> None:
        self._service = service
        self._operation = operation
        self._endpoint = endpoint
        self._timeout = timeout
        self._silent = silent
        self.spec = operation_spec(operation)
        self.changes = changes_of(operation.input_type)
        self.owner = endpoint.team

    async def call(self, arguments: dict[str, Any]) -> str:
        """Run the operation and return its output as JSON.

        A worker that dies meanwhile runs nothing twice: the call is in the history, and the server makes
        it, under an id by which the team finds the run that it has started already.

        Raises:
            ToolInputError: the arguments do not fit the contract; nothing was called.
            TeamOutOfReach: nobody answered in time, or nobody could take the call.
            NexusOperationError: the team's own workflow failed, or the call was cancelled.
        """
        request = checked(self._operation.input_type, arguments)
        if not self._endpoint.exists:
            # It may have been made since; a call to one that is missing would stop the workflow.
            [self._endpoint] = await _discover([self._endpoint.team])
            if not self._endpoint.exists:
                raise ToolInputError(
                    f"the {self._endpoint.team} team cannot be reached: the server has no"
                    f" {self._endpoint}"
                )
        client: workflow.NexusClient[Any] = workflow.create_nexus_client(
            service=self._service, endpoint=self._endpoint.endpoint
        )
        # The first call that meets an outage waits for its end; whoever comes after is told within seconds.
        begins = self._timeout
        if self.owner in self._silent:
            begins = min(begins, PATIENCE)
        try:
            output: BaseModel = await client.execute_operation(
                self._operation.name,
                request,
                output_type=self._operation.output_type,
                schedule_to_close_timeout=self._timeout,
                schedule_to_start_timeout=begins if begins < self._timeout else None,
                # Whoever stops a turn does not wait for another team.
                cancellation_type=workflow.NexusOperationCancellationType.TRY_CANCEL,
            )
        except NexusOperationError as error:
            if isinstance(error.cause, OutOfTime):
                self._silent.add(self.owner)
            if not isinstance(error.cause, (OutOfTime, HandlerError)):
                raise
            raise await self._out_of_reach(error.cause, begins) from error
        self._silent.discard(self.owner)
        return output.model_dump_json()

    async def _out_of_reach(
        self, cause: OutOfTime | HandlerError, limit: timedelta
    ) -> TeamOutOfReach:
        """Where no workflow of the team says why: that nobody answered, or nobody could, and where."""
        # Where the endpoint leads may have changed since the session began.
        [self._endpoint] = await _discover([self._endpoint.team])
        team = self._endpoint.team
        if isinstance(cause, HandlerError):
            happened = f"did not take the call: {cause.message}"
        else:
            happened = f"did not answer within {limit.total_seconds():.0f} s"
        return TeamOutOfReach(f"the {team} team {happened} ({self._endpoint})")


async def open_team_tools(timeout: timedelta) -> list[NexusTool]:
    """The tools of all teams, in a fixed order: once a session."""
    endpoints = {found.team: found for found in await _discover(list(CONTRACTS))}
    silent: set[str] = set()
    return [
        NexusTool(service, operation, endpoints[team], timeout, silent)
        for team, service in CONTRACTS.items()
        for operation in operations_of(service)
    ]


def operations_of(service: type) -> list[nexusrpc.OperationDefinition[Any, Any]]:
    """A contract's operations by name; the definition itself has them in no stable order."""
    definition = get_service_definition(service)
    assert definition, f"{service.__name__} lacks @nexusrpc.service"
    found = definition.operation_definitions
    return [found[name] for name in sorted(found)]


def operation_spec(operation: nexusrpc.OperationDefinition[Any, Any]) -> ToolSpec:
    """What a model is told of an operation."""
    return spec_of(operation.name, operation.input_type)


async def _discover(teams: list[str]) -> list[TeamEndpoint]:
    return await workflow.execute_activity(
        discover_teams, TeamRequest(teams=teams), **DISCOVERY_OPTIONS
    )
