"""Namespaces, search attributes and Nexus endpoints of the workshop, made where missing, mended where wrong.

Idempotent, so every notebook calls it: on a server in memory they go with the server. On a server that is
the user's, a wrong endpoint is reported and mended only on request.

Left out: on Temporal Cloud an administrator makes both, since a client may not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.nexus.v1 import Endpoint, EndpointSpec
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    CreateNexusEndpointRequest,
    ListSearchAttributesRequest,
    UpdateNexusEndpointRequest,
)
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server.dev_server import Server
from workshop_lib.settings import get_settings
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.lookup import CALL, WORKFLOW, describe_queue, find_endpoint
from workshop_lib.temporal.search_attributes import KEYS

T = TypeVar("T")

RETENTION = timedelta(days=7)  # how long a finished workflow can be looked at
# What a server that is just up, or has just heard of a namespace, may answer for a moment; the last where
# another notebook does the same at the same time.
_PASSING = {
    RPCStatusCode.NOT_FOUND,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.ABORTED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.ALREADY_EXISTS,
}
_NOT_ALLOWED = {
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNAUTHENTICATED,
    RPCStatusCode.UNIMPLEMENTED,
}


async def ensure_namespaces(
    server: Server, *, repair: bool | None = None, timeout: float = 20
) -> list[str]:
    """The three namespaces and two Nexus endpoints, ready for use.

    Args:
        repair: mend an endpoint with a wrong target; None means on our own server only.
        timeout: seconds that the whole may take.

    Returns:
        One line for each thing made, mended or found wrong; empty when all was right.

    Raises:
        WorkshopError: the server does not answer, does not let us make them, or takes longer than `timeout`.
    """
    mend = server.adopted != "user" if repair is None else repair
    try:
        async with asyncio.timeout(timeout):
            client = await connect()
            # At once, because each new one takes the server a second to make known.
            made = [_ensure_namespace(client, namespace) for namespace in wanted_namespaces()]
            messages = [line for line in await asyncio.gather(*made) if line]
            messages += await _patiently(partial(_ensure_attributes, client))
            for spec in wanted_endpoints():
                messages += await _patiently(partial(_ensure_endpoint, client, spec, mend))
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


def wanted_namespaces() -> list[str]:
    """The orchestrator's, IT's and Finance's namespaces, in this order, each once."""
    settings = get_settings()
    names = (settings.orchestrator_namespace, settings.it_namespace, settings.finance_namespace)
    return list(dict.fromkeys(names))


def wanted_endpoints() -> list[EndpointSpec]:
    """The two teams' endpoints with their targets."""
    of = get_settings()
    return [
        _spec(of.it_endpoint, of.it_namespace, of.it_queue),
        _spec(of.finance_endpoint, of.finance_namespace, of.finance_queue),
    ]


async def namespace_exists(client: Client, namespace: str) -> bool:
    """Whether the server knows a namespace."""
    request = DescribeNamespaceRequest(namespace=namespace)
    try:
        await client.workflow_service.describe_namespace(request, timeout=CALL)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


async def missing_attributes(client: Client) -> list[str]:
    """Names of the search attributes that the orchestrator's namespace lacks."""
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace), timeout=CALL
    )
    return [key.name for key in KEYS if key.name not in known.custom_attributes]


async def known_endpoint(client: Client, name: str) -> Endpoint:
    """The endpoint of this name.

    Raises:
        WorkshopError: there is none.
    """
    endpoint = await find_endpoint(client, name)
    if endpoint is None:
        raise WorkshopError(
            f"There is no endpoint {name!r}.", fix="`await lab.start()` makes the workshop's own."
        )
    return endpoint


async def point_endpoint(client: Client, name: str, namespace: str, task_queue: str) -> str:
    """Let an existing endpoint lead somewhere else. Returns a line that says from where to where.

    Raises:
        WorkshopError: there is no such endpoint, or it cannot be changed with these credentials.
    """
    try:
        return await _point(client, await known_endpoint(client, name), namespace, task_queue)
    except RPCError as error:
        raise WorkshopError(
            f"The endpoint {name!r} could not be changed: {error.message.rstrip('.')}.",
            fix="check namespace and task queue, then run the cell again.",
        ) from None


def target_of(spec: EndpointSpec) -> str:
    """An endpoint's target, for a message: `it-namespace/it-task-queue`."""
    worker = spec.target.worker
    return f"{worker.namespace}/{worker.task_queue}" if worker.namespace else "an external address"


def _spec(name: str, namespace: str, task_queue: str) -> EndpointSpec:
    spec = EndpointSpec(name=name)
    spec.target.worker.namespace, spec.target.worker.task_queue = namespace, task_queue
    return spec


async def _point(client: Client, endpoint: Endpoint, namespace: str, task_queue: str) -> str:
    wanted = _spec(endpoint.spec.name, namespace, task_queue)
    await client.operator_service.update_nexus_endpoint(
        UpdateNexusEndpointRequest(id=endpoint.id, version=endpoint.version, spec=wanted),
        timeout=CALL,
    )
    return f"{wanted.name}: {target_of(wanted)} instead of {target_of(endpoint.spec)}"


async def _ensure_namespace(client: Client, namespace: str) -> str | None:
    if await _patiently(lambda: namespace_exists(client, namespace)):
        return None
    made: str | None = f"created namespace {namespace}"
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
        made = None  # another notebook was quicker
    # Known is not yet usable: parts of the server hear of it a moment later. A question to the part
    # that hands out tasks tells.
    await _patiently(lambda: describe_queue(client, namespace, "workshop-probe", WORKFLOW))
    return made


async def _ensure_attributes(client: Client) -> list[str]:
    """Without them everything runs, and nobody can ask whose it is."""
    try:
        if not (missing := await missing_attributes(client)):
            return []
        kinds = dict.fromkeys(missing, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD)
        request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=kinds)
        await client.operator_service.add_search_attributes(request, timeout=CALL)
    except RPCError as error:
        if error.status not in _NOT_ALLOWED:
            raise
        return [f"search attributes of {client.namespace} cannot be made with these credentials"]
    return [f"created search attributes {', '.join(missing)} in {client.namespace}"]


async def _ensure_endpoint(client: Client, wanted: EndpointSpec, mend: bool) -> list[str]:
    try:
        endpoint = await find_endpoint(client, wanted.name)
    except RPCError as error:
        if error.status in _NOT_ALLOWED:
            return [f"endpoint {wanted.name} cannot be looked at with these credentials"]
        raise
    if endpoint is None:
        request = CreateNexusEndpointRequest(spec=wanted)
        await client.operator_service.create_nexus_endpoint(request, timeout=CALL)
        return [f"created endpoint {wanted.name} → {target_of(wanted)}"]
    if endpoint.spec.target == wanted.target:
        return []
    if not mend:
        return [
            f"endpoint {wanted.name} points to {target_of(endpoint.spec)} instead of "
            f"{target_of(wanted)}; `workshop doctor --fix` mends it"
        ]
    target = wanted.target.worker
    mended = await _point(client, endpoint, target.namespace, target.task_queue)
    return [f"mended endpoint {mended}"]


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """A call, tried again while the server says what a server says that is just starting."""
    while True:
        try:
            return await call()
        except RPCError as error:
            if error.status not in _PASSING:
                raise
        await asyncio.sleep(0.05)
