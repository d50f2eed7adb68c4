"""Teams of its own for a test: endpoints and queues that no other test uses, and what histories say of them.

Left out: the chat that calls the teams, and when a team's worker runs; both are the test's business.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from lab_environment import LIMIT, fresh
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.nexus.v1 import EndpointSpec, EndpointTarget
from temporalio.api.operatorservice.v1 import (
    CreateNexusEndpointRequest,
    DeleteNexusEndpointRequest,
    UpdateNexusEndpointRequest,
)
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowHandle,
)

from workshop_lib.lab.workers.kill_points import KillPoint
from workshop_lib.lab.workers.process import WorkerProcess, start_process
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.worker import it
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.lookup import find_endpoint
from workshop_lib.temporal.worker import WorkerSpec


def new_names() -> dict[str, str]:
    """The environment variables of teams of one's own."""
    names = ("IT_ENDPOINT", "FINANCE_ENDPOINT", "IT_QUEUE", "FINANCE_QUEUE")
    return {name: fresh(name.lower().replace("_", "-")) for name in names}


async def runs_on(queue: str, namespace: str) -> list[WorkflowExecution]:
    """The runs that a queue has been asked for, as the list has them, a moment after the facts."""
    client = await connect(namespace)
    return [run async for run in client.list_workflows(f"TaskQueue = '{queue}'")]


class Teams:
    """The two teams of one test, as the settings name them when this is made.

    Attributes:
        it, finance: what their workers serve.
        it_endpoint, finance_endpoint: names of the endpoints that lead to them.
        processes: workers that were started as processes.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.it = _own_name(it())
        self.finance = _own_name(finance())
        self.it_endpoint = get_settings().it_endpoint
        self.finance_endpoint = get_settings().finance_endpoint
        self.processes: list[WorkerProcess] = []

    async def open(self) -> None:
        """Make both endpoints."""
        for spec in (self.it, self.finance):
            await self.make_endpoint(spec)

    async def close(self) -> None:
        """End the processes and take the endpoints away."""
        for process in self.processes:
            if process.alive:
                process.kill()
        for spec in (self.it, self.finance):
            await self.delete_endpoint(spec)

    def endpoint_of(self, spec: WorkerSpec) -> str:
        """The name of the endpoint that leads to a team."""
        own = spec.namespace == self.finance.namespace
        return self.finance_endpoint if own else self.it_endpoint

    async def make_endpoint(self, spec: WorkerSpec, queue: str | None = None) -> None:
        """Make a team's endpoint, or let the one that there is lead to another queue."""
        target = spec.with_queue(queue) if queue else spec
        await self.point(self.endpoint_of(spec), target)

    async def point(self, endpoint: str, spec: WorkerSpec) -> None:
        """Let an endpoint lead to where a worker polls; it is made where it is missing."""
        target = EndpointTarget.Worker(namespace=spec.namespace, task_queue=spec.task_queue)
        wanted = EndpointSpec(name=endpoint, target=EndpointTarget(worker=target))
        service = self._client.operator_service
        if found := await find_endpoint(self._client, endpoint):
            await service.update_nexus_endpoint(
                UpdateNexusEndpointRequest(id=found.id, version=found.version, spec=wanted)
            )
        else:
            await service.create_nexus_endpoint(CreateNexusEndpointRequest(spec=wanted))

    async def delete_endpoint(self, spec: WorkerSpec) -> None:
        """Take a team's endpoint away."""
        if found := await find_endpoint(self._client, self.endpoint_of(spec)):
            await self._client.operator_service.delete_nexus_endpoint(
                DeleteNexusEndpointRequest(id=found.id, version=found.version)
            )

    @asynccontextmanager
    async def serving(self, *specs: WorkerSpec) -> AsyncIterator[None]:
        """Workers of these specs run in this process during the block."""
        async with AsyncExitStack() as workers:
            for spec in specs:
                client = await connect(spec.namespace)
                await workers.enter_async_context(spec.build(client))
            yield

    async def start_finance(self, kill_at: KillPoint | None = None) -> WorkerProcess:
        """The finance team's worker as a process, in place of the one before."""
        worker = await start_process(self.finance, kill_at=kill_at)
        self.processes.append(worker)
        return worker

    async def stop_finance(self) -> None:
        """Stop that process in good order."""
        await asyncio.to_thread(self.processes[-1].stop)

    async def runs_of(self, spec: WorkerSpec, at_least: int = 1) -> list["TeamRun"]:
        """The runs on a team's queue, once the list has that many and all are over."""
        async with asyncio.timeout(LIMIT):
            while True:
                found = await runs_on(spec.task_queue, spec.namespace)
                over = all(run.status != WorkflowExecutionStatus.RUNNING for run in found)
                if over and len(found) >= at_least:
                    return [TeamRun(run.id, run.run_id or "") for run in found]
                await asyncio.sleep(0.05)  # lists follow a moment later, without an event

    async def history_of(self, call: "TeamCall") -> list[HistoryEvent]:
        """The history at the other end of a call's link."""
        client = await connect(call.namespace)
        return await events(client.get_workflow_handle(call.run.workflow_id))


@dataclass(frozen=True, order=True)
class TeamRun:
    """A workflow run in a team's namespace."""

    workflow_id: str
    run_id: str


@dataclass(frozen=True)
class TeamCall:
    """A Nexus call as the caller's history has it.

    Attributes:
        scheduled: id of the event that asked for it.
        namespace, run: where its link leads.
    """

    operation: str
    endpoint: str
    request_id: str
    scheduled: int
    namespace: str
    run: TeamRun


async def events(handle: WorkflowHandle[Any, Any]) -> list[HistoryEvent]:
    """A workflow's history."""
    async with asyncio.timeout(LIMIT):
        return list((await handle.fetch_history()).events)


async def calls_of(handle: WorkflowHandle[Any, Any]) -> list[TeamCall]:
    """The Nexus calls in a history that were started at the other end, in order."""
    history = await events(handle)
    by_id = {event.event_id: event for event in history}
    calls = []
    for event in history:
        if event.event_type != EventType.EVENT_TYPE_NEXUS_OPERATION_STARTED:
            continue
        started = event.nexus_operation_started_event_attributes
        asked = by_id[started.scheduled_event_id].nexus_operation_scheduled_event_attributes
        [link] = event.links
        there = link.workflow_event
        calls.append(
            TeamCall(
                operation=asked.operation,
                endpoint=asked.endpoint,
                request_id=asked.request_id,
                scheduled=started.scheduled_event_id,
                namespace=there.namespace,
                run=TeamRun(there.workflow_id, there.run_id),
            )
        )
    return calls


def _own_name(spec: WorkerSpec) -> WorkerSpec:
    """A process takes the place of the one that has its name: another test's must not."""
    return replace(spec, name=fresh(spec.name))
