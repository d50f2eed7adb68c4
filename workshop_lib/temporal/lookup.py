"""What the server knows: lists of runs, where a Nexus endpoint leads, and who has polled a task queue lately.

Left out: what to make of it. The server lists a worker for minutes after its end (`lab.watching.queues`).
"""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import TypeAlias

from pydantic import BaseModel
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.nexus.v1 import Endpoint
from temporalio.api.operatorservice.v1 import ListNexusEndpointsRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.temporal.search_attributes import KEYS

WAITS = "waits"  # in the memo of a run: what it waits for, where the server cannot know, in words
CALL = timedelta(seconds=5)  # that the server may take for an answer
Kind: TypeAlias = TaskQueueType.ValueType
WORKFLOW = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
ACTIVITY = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
NEXUS = TaskQueueType.TASK_QUEUE_TYPE_NEXUS


async def find_endpoint(client: Client, name: str) -> Endpoint | None:
    """The endpoint of this name, or None.

    Raises:
        RPCError: the server does not answer, or does not let this client look.
    """
    response = await client.operator_service.list_nexus_endpoints(
        ListNexusEndpointsRequest(name=name, page_size=1), timeout=CALL
    )
    return response.endpoints[0] if response.endpoints else None


async def describe_queue(
    client: Client, namespace: str, name: str, kind: Kind
) -> DescribeTaskQueueResponse:
    """Who has polled a queue for tasks of one kind in the last minutes, and how many tasks lie in it.

    Raises:
        RPCError: the server does not answer, or knows no such namespace.
    """
    request = DescribeTaskQueueRequest(
        namespace=namespace,
        task_queue=TaskQueue(name=name),
        task_queue_type=kind,
        report_stats=True,
    )
    return await client.workflow_service.describe_task_queue(request, timeout=CALL)


class RunInfo(BaseModel):
    """A line of a list of workflows.

    Attributes:
        kind: what people call its workflow type.
        status: of the workflow, in words.
        started: its run; where that goes on from others, what the memo `begun` says.
    """

    workflow_id: str
    kind: str
    status: str
    started: datetime | None


async def list_runs(
    client: Client, kinds: Mapping[str, str], where: str = ""
) -> AsyncIterator[RunInfo]:
    """The workflows that the server knows, latest first. Of one that has gone on in new runs, the last run.

    Args:
        kinds: workflow types, by what people call them.
        where: a list filter that they pass as well; see `temporal.search_attributes`.

    Raises:
        WorkshopError: the server does not know what the filter asks for.
    """
    names = {workflow_type: kind for kind, workflow_type in kinds.items()}
    types = ", ".join(f"'{workflow_type}'" for workflow_type in names)
    query = f"WorkflowType IN ({types}) AND ExecutionStatus != 'ContinuedAsNew'"
    try:
        async for run in client.list_workflows(query + (f" AND {where}" if where else "")):
            begun = (await run.memo()).get("begun")
            yield RunInfo(
                workflow_id=run.id,
                kind=names[run.workflow_type],
                status=run.status.name.lower().replace("_", " ") if run.status else "unknown",
                started=datetime.fromisoformat(begun) if begun else run.start_time,
            )
    except RPCError as error:
        if not where or error.status != RPCStatusCode.INVALID_ARGUMENT:
            raise
        raise WorkshopError(
            f"The server cannot list that: {error.message}.",
            expected=f"the search attributes {' and '.join(key.name for key in KEYS)} (Keyword) in"
            f" namespace {client.namespace}.",
            fix="`workshop doctor --fix` makes them; on Temporal Cloud an administrator does.",
        ) from None
