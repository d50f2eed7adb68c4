"""Deletes a session: what a person has told an agent, as far as the server can forget it.

The server keeps a session's words in the histories of its runs, and removes these at once when it is asked
to; large results of tools are in the state folder of the machine that the worker runs on, which is this one.
What cannot be removed from here is said: other namespaces belong to other teams. Left out: who may ask.
Whoever may delete runs in the namespace can delete sessions.
"""

from datetime import timedelta

from pydantic import BaseModel
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    DescribeNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.agents.conversation.results import delete_results
from workshop_lib.errors import WorkshopError
from workshop_lib.settings import get_settings

CALL = timedelta(seconds=10)


class Deletion(BaseModel):
    """What became of a session that was deleted.

    Attributes:
        runs: how many of its runs the server has been told to remove.
        results: how many large results of its tools were kept, and are not any more.
        remains: what is kept elsewhere and until when, a sentence each.
    """

    runs: int
    results: int
    remains: list[str]


async def delete_session(client: Client, workflow_id: str) -> Deletion:
    """End a session, whatever it is doing, and remove its runs. Done twice, it does no harm.

    Raises:
        WorkshopError: there is no such session.
    """
    found = await find_runs(client, workflow_id)
    for run_id in found:  # the latest first: one that is open is ended, and no other follows it
        try:
            await client.workflow_service.delete_workflow_execution(
                DeleteWorkflowExecutionRequest(
                    namespace=client.namespace,
                    workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
                ),
                timeout=CALL,
            )
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # somebody else was faster
                raise
    settings = get_settings()
    teams = [(name, getattr(settings, f"{name}_namespace")) for name in ("it", "finance")]
    return Deletion(
        runs=len(found),
        results=delete_results(workflow_id),
        remains=[
            *[await _kept_by(client, team, namespace) for team, namespace in teams],
            "A session that was forked from this one keeps what it goes on from, until it is deleted too.",
        ],
    )


async def find_runs(client: Client, workflow_id: str) -> list[str]:
    """The ids of the session's runs that the server has, the latest first.

    Raises:
        WorkshopError: there is no such session.
    """
    found: list[str] = []
    try:
        run_id = (await client.get_workflow_handle(workflow_id).describe(rpc_timeout=CALL)).run_id
        while run_id:
            handle = client.get_workflow_handle(workflow_id, run_id=run_id)
            first = await anext(handle.fetch_history_events(page_size=1, rpc_timeout=CALL))
            found.append(run_id)
            run_id = first.workflow_execution_started_event_attributes.continued_execution_run_id
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        if not found:
            raise WorkshopError(
                f"There is no session {workflow_id}.",
                expected="one that `workshop sessions` lists.",
            ) from None
    return found


async def _kept_by(client: Client, team: str, namespace: str) -> str:
    """What a team keeps of the calls that it was sent."""
    try:
        found = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=namespace), timeout=CALL
        )
        days = found.config.workflow_execution_retention_ttl.ToTimedelta() / timedelta(days=1)
        until = f"{days:g} days after each call has ended"
    except RPCError:
        until = "as long as that namespace keeps what has ended"
    return f"What the {team} team was asked for stays in {namespace}, {until}."
