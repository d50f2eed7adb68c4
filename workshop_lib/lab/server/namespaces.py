"""The namespaces and Nexus endpoints of the workshop, made where missing and mended where wrong.

Idempotent, so every notebook calls it: on a server in memory they go with the server. On a server that is
the user's, a wrong endpoint is reported and mended only on request.

Left out: on Temporal Cloud an administrator makes both, since a client may not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from temporalio.api.nexus.v1 import EndpointSpec, EndpointTarget
from temporalio.api.operatorservice.v1 import (
    CreateNexusEndpointRequest,
    UpdateNexusEndpointRequest,
)
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.settings import get_settings
from workshop_lib.temporal import connect
from workshop_lib.temporal.lookup import CALL, WORKFLOW, describe_queue, find_endpoint

if TYPE_CHECKING:
    from workshop_lib.lab.server.dev_server import Server

T = TypeVar("T")

RETENTION = timedelta(days=7)  # how long a finished workflow can be looked at
# What a server that is just up, or has just heard of a namespace, may answer for a moment.
_PASSING = {
    RPCStatusCode.NOT_FOUND,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.ABORTED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
}
_NOT_ALLOWED = {
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNAUTHENTICATED,
    RPCStatusCode.UNIMPLEMENTED,
}


async def ensure_namespaces(
    server: "Server", *, repair: bool | None = None, timeout: float = 20
) -> list[str]:
    """The three namespaces and two Nexus endpoints, ready for use.

    Args:
        repair: mend an endpoint with a wrong target; None means on our own server only.
        timeout: seconds that the whole may take.

    Returns:
        One line for each thing made, mended or found wrong; empty when all was right.

    Raises:
        WorkshopError: the server does not let us make them, or takes longer than `timeout`.
    """
    ours = server.adopted != "user"
    messages: list[str] = []
    try:
        async with asyncio.timeout(timeout):
            client = await client_of(server)
            # At once, because each new one takes the server a second to make known.
            made = [_ensure_namespace(client, namespace) for namespace in wanted_namespaces()]
            messages = [line for lines in await asyncio.gather(*made) for line in lines]
            for spec in wanted_endpoints():
                messages += await _ensure_endpoint(client, spec, ours if repair is None else repair)
    except TimeoutError:
        raise WorkshopError(
            f"Namespaces and endpoints were not ready on {server.address} within {timeout:g} s.",
            fix="run `workshop doctor` to see what is missing, then try again.",
        ) from None
    except RPCError as error:
        raise WorkshopError(
            f"The server at {server.address} refused to show or make namespaces and endpoints: "
            f"{error.status.name.lower().replace('_', ' ')}.",
            fix="check the credentials in TEMPORAL_*; "
            "on Temporal Cloud an administrator makes them.",
        ) from None
    return messages


async def client_of(server: "Server") -> Client:
    """A client for questions about the server itself."""
    try:
        return await connect.connect()
    except WorkshopError:
        if server.adopted == "user":
            raise
        raise WorkshopError(
            f"The dev server at {server.address} does not answer any more.",
            fix="run the set-up cell again, or `workshop up`.",
        ) from None


def wanted_namespaces() -> list[str]:
    """The orchestrator's, IT's and Finance's namespaces, in this order, each once."""
    settings = get_settings()
    names = (settings.orchestrator_namespace, settings.it_namespace, settings.finance_namespace)
    return list(dict.fromkeys(names))


def wanted_endpoints() -> list[EndpointSpec]:
    """The two teams' endpoints with their targets."""
    settings = get_settings()
    return [
        EndpointSpec(
            name=name,
            target=EndpointTarget(
                worker=EndpointTarget.Worker(namespace=namespace, task_queue=task_queue)
            ),
        )
        for name, namespace, task_queue in (
            (settings.it_endpoint, settings.it_namespace, settings.it_queue),
            (settings.finance_endpoint, settings.finance_namespace, settings.finance_queue),
        )
    ]


async def namespace_exists(client: Client, namespace: str) -> bool:
    """Whether the server knows a namespace."""
    try:
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=namespace), timeout=CALL
        )
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


async def point_endpoint(client: Client, name: str, namespace: str, task_queue: str) -> str:
    """Let an existing endpoint lead somewhere else. Returns a line that says from where to where.

    Raises:
        WorkshopError: there is no such endpoint, or it cannot be changed with these credentials.
    """
    target = EndpointTarget(
        worker=EndpointTarget.Worker(namespace=namespace, task_queue=task_queue)
    )
    wanted = EndpointSpec(name=name, target=target)
    try:
        found = await find_endpoint(client, name)
        if found is None:
            raise WorkshopError(
                f"There is no endpoint {name!r}.",
                fix="`await lab.start()` makes the workshop's own.",
            )
        await client.operator_service.update_nexus_endpoint(
            UpdateNexusEndpointRequest(id=found.id, version=found.version, spec=wanted),
            timeout=CALL,
        )
    except RPCError as error:
        raise WorkshopError(
            f"The endpoint {name!r} could not be changed: {error.message.rstrip('.')}.",
            fix="check namespace and task queue, then run the cell again.",
        ) from None
    return f"{name}: {target_of(wanted)} instead of {target_of(found.spec)}"


def target_of(spec: EndpointSpec) -> str:
    """An endpoint's target, for a message: `it-namespace/it-task-queue`."""
    worker = spec.target.worker
    return f"{worker.namespace}/{worker.task_queue}" if worker.namespace else "an external address"


async def _ensure_namespace(client: Client, namespace: str) -> list[str]:
    if await _patiently(lambda: namespace_exists(client, namespace)):
        return []
    made = True
    request = RegisterNamespaceRequest(namespace=namespace)
    request.workflow_execution_retention_period.FromTimedelta(RETENTION)
    try:
        await client.workflow_service.register_namespace(request, timeout=CALL)
    except RPCError as error:
        if error.status in _NOT_ALLOWED:
            raise WorkshopError(
                f"Namespace {namespace} does not exist, and this server does not let us create it.",
                expected=f"the namespaces {', '.join(wanted_namespaces())}.",
                fix="have it made by who runs the server; on Temporal Cloud, by an administrator.",
            ) from None
        if error.status != RPCStatusCode.ALREADY_EXISTS:
            raise
        made = False  # another notebook was quicker
    # Known is not yet usable: parts of the server hear of it a moment later. A question to the part
    # that hands out tasks tells.
    await _patiently(
        lambda: describe_queue(client, namespace, "workshop-probe", WORKFLOW), retry=_PASSING
    )
    return [f"created namespace {namespace}"] if made else []


async def _ensure_endpoint(client: Client, wanted: EndpointSpec, repair: bool) -> list[str]:
    # Another notebook may do the same at the same moment: then we look again.
    while True:
        try:
            found = await _patiently(lambda: find_endpoint(client, wanted.name))
        except RPCError as error:
            if error.status in _NOT_ALLOWED:
                return [f"endpoint {wanted.name} cannot be looked at with these credentials"]
            raise
        try:
            if found is None:
                await client.operator_service.create_nexus_endpoint(
                    CreateNexusEndpointRequest(spec=wanted), timeout=CALL
                )
                return [f"created endpoint {wanted.name} → {target_of(wanted)}"]
            if found.spec.target == wanted.target:
                return []
            if not repair:
                return [
                    f"endpoint {wanted.name} points to {target_of(found.spec)} instead of "
                    f"{target_of(wanted)}; `workshop doctor --fix` mends it"
                ]
            await client.operator_service.update_nexus_endpoint(
                UpdateNexusEndpointRequest(id=found.id, version=found.version, spec=wanted),
                timeout=CALL,
            )
        except RPCError as error:
            if error.status not in _PASSING | {RPCStatusCode.ALREADY_EXISTS}:
                raise
            await asyncio.sleep(0.05)
            continue
        return [
            f"mended endpoint {wanted.name}: {target_of(wanted)} instead of {target_of(found.spec)}"
        ]


async def _patiently(
    call: Callable[[], Awaitable[T]],
    retry: set[RPCStatusCode] = _PASSING - {RPCStatusCode.NOT_FOUND},
) -> T:
    """A call, tried again while the server says what a server says that is just starting."""
    while True:
        try:
            return await call()
        except RPCError as error:
            if error.status not in retry:
                raise
        await asyncio.sleep(0.05)
