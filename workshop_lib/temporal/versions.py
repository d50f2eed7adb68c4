"""Versions of a worker's code: which one new runs get, which one a run is on, and how to move it.

A run is pinned: it stays with the version that it began on. What a run may last for, a chat say, goes on from
run to run, and takes the version that is current with the next one. Who starts a version makes it current, as
here or as the controller for Kubernetes does it. Left out: the code of a version, which is a worker's spec
(`temporal.worker`), and what the server does with one that nobody serves any more.
"""

import asyncio
from datetime import timedelta
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.deployment.v1 import WorkerDeploymentVersion as DeploymentVersion
from temporalio.api.workflow.v1 import WorkflowExecutionOptions, WorkflowExecutionVersioningInfo
from temporalio.api.workflowservice.v1 import (
    SetWorkerDeploymentCurrentVersionRequest,
    UpdateWorkflowExecutionOptionsRequest,
)
from temporalio.client import Client, WorkflowHandle
from temporalio.common import (
    OneTimeVersioningOverride,
    PinnedVersioningOverride,
    VersioningOverride,
    WorkerDeploymentVersion,
)
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import ContinueAsNewVersioningBehavior

from workshop_lib.errors import WorkshopError
from workshop_lib.temporal.lookup import WORKFLOW, describe_queue

# Of a run that continues as new: the next is on the version that is current, which may be another.
UPGRADE = ContinueAsNewVersioningBehavior.AUTO_UPGRADE
# Seconds until the server knows a version that polls, and sends runs to it: one or two, and where it has
# missed the first polls, as that of a busy machine may, a minute more.
CURRENT_LIMIT = 90.0
CALL = timedelta(seconds=10)
# As long as the first polls of a version have not arrived.
_NOT_YET = RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION


def version_of(deployment: str, build_id: str) -> WorkerDeploymentVersion:
    """A version's name.

    Raises:
        WorkshopError: the server would not take it, and would not say so to whoever starts it.
    """
    if not build_id or not deployment or {*deployment} & {*".:"}:
        raise WorkshopError(
            f"There can be no version {build_id!r} of {deployment!r}.",
            expected="a version such as '2', of a worker whose name has no dot and no colon.",
            fix="choose another name.",
        )
    return WorkerDeploymentVersion(deployment, build_id)


def in_words(version: WorkerDeploymentVersion) -> str:
    """As in "version 2 of orchestrator"."""
    return f"version {version.build_id} of {version.deployment_name}"


async def make_current(
    client: Client, version: WorkerDeploymentVersion, queue: str, limit: float = CURRENT_LIMIT
) -> None:
    """New runs go to this version from now on, and so do chats when they go on in a new run.

    Waits for a worker of it to poll, and until the queue knows.

    Args:
        queue: where its workflows run.

    Raises:
        WorkshopError: none of it polls there, within `limit` seconds.
        RPCError: the server does not answer, or does not let this client do that.
    """
    set_current = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace,
        deployment_name=version.deployment_name,
        build_id=version.build_id,
        ignore_missing_task_queues=True,  # where a lesson has had versions on another queue
    )
    try:
        async with asyncio.timeout(limit):
            # The server has no event for a version that begins to poll, or for a queue that knows it.
            while True:
                try:
                    await client.workflow_service.set_worker_deployment_current_version(
                        set_current, timeout=CALL
                    )
                    break
                except RPCError as error:
                    if error.status not in _NOT_YET:
                        raise
                await asyncio.sleep(0.1)
            # The queue's own word: what the deployment says of its queues (1.32) stays "in progress" where
            # one is made known in that moment.
            while await current(client, queue) != version:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise WorkshopError(
            f"{in_words(version).capitalize()} is not current: no worker of it polls {queue}.",
            expected=f"one that polls within {limit:g} s.",
            fix="start a worker of that version, and try again.",
        ) from None


async def current(client: Client, queue: str) -> WorkerDeploymentVersion | None:
    """The version that a queue's new runs go to. None: those go to workers without a version.

    Raises:
        RPCError: the server does not answer.
    """
    described = await describe_queue(client, client.namespace, queue, WORKFLOW)
    return named(described.versioning_info.current_deployment_version)


def named(version: DeploymentVersion) -> WorkerDeploymentVersion | None:
    """A version as the SDK names it, from what the server says; None where it names none."""
    if not version.build_id:
        return None
    return WorkerDeploymentVersion(version.deployment_name, version.build_id)


async def of_run(handle: WorkflowHandle[Any, Any]) -> WorkerDeploymentVersion | None:
    """The version that a run is on, or is moved to. None: its code has no version.

    Raises:
        RPCError: the server does not answer, or has no such run.
    """
    described = await handle.describe(rpc_timeout=CALL)
    return wanted(described.raw_description.workflow_execution_info.versioning_info)


def wanted(info: WorkflowExecutionVersioningInfo) -> WorkerDeploymentVersion | None:
    """The version whose workers get a run's tasks, from what the server keeps about it."""
    override = info.versioning_override
    return named(
        override.one_time.target_deployment_version
        if override.HasField("one_time")
        else override.pinned.version
        if override.HasField("pinned")
        else info.deployment_version
    )


async def move(
    handle: WorkflowHandle[Any, Any], version: WorkerDeploymentVersion, *, stay: bool = False
) -> None:
    """Let another version go on with a run, whose history its code must be able to replay.

    Args:
        stay: the runs that go on from it are this version's too; otherwise they are the current one's.

    Raises:
        RPCError: the server does not answer, has no such run under way, or no such version.
    """
    override: VersioningOverride = (
        PinnedVersioningOverride(version) if stay else OneTimeVersioningOverride(version)
    )
    client = handle._client
    await client.workflow_service.update_workflow_execution_options(
        UpdateWorkflowExecutionOptionsRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=handle.run_id or ""),
            workflow_execution_options=WorkflowExecutionOptions(
                versioning_override=override._to_proto()
            ),
            update_mask=FieldMask(paths=["versioning_override"]),
        ),
        timeout=CALL,
    )
