"""What the server knows besides runs: where a Nexus endpoint leads, and who has polled a task queue lately.

Left out: what to make of it. The server lists a worker for minutes after its end (`lab.watching.queues`).
"""

from datetime import timedelta
from typing import TypeAlias

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.nexus.v1 import Endpoint
from temporalio.api.operatorservice.v1 import ListNexusEndpointsRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
)
from temporalio.client import Client

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
