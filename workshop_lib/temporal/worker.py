"""What a worker serves, as a value.

A `WorkerSpec` names a namespace, a task queue and the code behind them, and holds nothing that lives
(no client, no thread). So the same spec runs in a notebook's background thread, in a process of its own
that a lesson kills, and in a service that has never heard of notebooks.

Left out: how the worker runs. `lab.workers.threads` does that in a classroom, `temporal.service` in
production.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexusrpc import get_service_definition
from temporalio import activity, workflow
from temporalio.client import Client, Plugin
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.converter import (
    DataConverter,
    StorageDriverStoreContext,
    WithSerializationContext,
)
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    Interceptor,
    PollerBehaviorAutoscaling,
    Worker,
    WorkerDeploymentConfig,
    WorkflowInstance,
    WorkflowInstanceDetails,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workshop_lib.temporal.bounded import Bounded
from workshop_lib.temporal.steps import HEARTBEAT_INTERVAL
from workshop_lib.temporal.tries import CarriesTries
from workshop_lib.temporal.versions import in_words, version_of

if TYPE_CHECKING:
    from workshop_lib.temporal.chaos.experiment import Experiment

# What workflow code may do. Where FastMCP's client was imported, beartype looks at every import of the
# process, also at those that the sandbox makes for each run: let through, it is not loaded anew each time,
# which would take most of a second.
RESTRICTIONS = SandboxRestrictions.default.with_passthrough_modules("beartype")


@dataclass(frozen=True)
class ContextFreeRunner(SandboxedWorkflowRunner):
    """The sandboxed runner, for a data converter that does not ask what a payload belongs to.

    The SDK (1.35) enters the sandbox once for each payload to find that out, and tells it the codec and the
    external storage. Where neither is there to be told, that was a fifth of a worker's time.
    """

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """A run, about whose payloads nothing is said."""
        nowhere = StorageDriverStoreContext(target=None)
        instance = super().create_instance(det)
        instance.get_serialization_context = lambda command_info: None  # type: ignore[method-assign]
        instance.get_external_store_context = lambda command_info: nowhere  # type: ignore[method-assign]
        return instance


def runner_for(converter: DataConverter) -> SandboxedWorkflowRunner:
    """The runner for workers with a data converter."""
    # Converters of payloads are given their contexts within the sandbox, by either runner.
    asks = converter.external_storage or isinstance(
        converter.payload_codec, WithSerializationContext
    )
    return (SandboxedWorkflowRunner if asks else ContextFreeRunner)(restrictions=RESTRICTIONS)


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """One worker: where it polls and what it runs.

    Attributes:
        name: what people call it ("orchestrator"); a classroom runs one worker a name.
        workflows, activities, nexus_handlers: importable classes and functions, so that another process
            can be told about them by name. Nexus handlers are classes, made anew for each worker.
        client_plugins, interceptors: factories of what its client is connected with. The interceptors go
            around the worker too.
        warm_ups: run in the background when the worker starts, such as the import of a large library
            that its first activity would otherwise wait for.
        chaos: faults that happen in its work.
        version: of its code (`temporal.versions`); None for the only one there is. A run stays with the
            version that it began on.
    """

    name: str
    namespace: str
    task_queue: str
    workflows: Sequence[type] = ()
    activities: Sequence[Callable[..., Any]] = ()
    nexus_handlers: Sequence[type] = ()
    client_plugins: Sequence[Callable[[], Plugin]] = ()
    interceptors: Sequence[Callable[[], ClientInterceptor]] = ()
    warm_ups: Sequence[Callable[[], Awaitable[None]]] = ()
    chaos: "Experiment | None" = None
    version: WorkerDeploymentVersion | None = None

    def with_queue(self, task_queue: str) -> "WorkerSpec":
        """The same worker on another task queue."""
        return replace(self, task_queue=task_queue)

    def with_version(self, build_id: str) -> "WorkerSpec":
        """The same worker as a version of its code. Several of them run beside each other, so each has a
        name of its own: "orchestrator-2".

        Raises:
            WorkshopError: there can be no such version.
        """
        deployment = self.version.deployment_name if self.version else self.name
        version = version_of(deployment, build_id)
        return replace(self, name=f"{deployment}-{build_id}", version=version)

    @property
    def workflow_names(self) -> list[str]:
        """Workflow types as they appear in histories."""
        found = [(cls, workflow._Definition.must_from_class(cls).name) for cls in self.workflows]
        return [name or cls.__name__ for cls, name in found]

    @property
    def activity_names(self) -> list[str]:
        """Activity types as they appear in histories."""
        return _activity_names(self.activities)

    @property
    def plugin_activity_names(self) -> list[str]:
        """Activity types that its plugins add, such as the Agents SDK's model call."""
        added: list[Callable[..., Any]] = []
        for make in self.client_plugins:
            activities = getattr(make(), "activities", None)
            added += activities([]) if callable(activities) else activities or []
        return _activity_names(added)

    @property
    def operation_names(self) -> list[str]:
        """Nexus operations as they appear in histories."""
        services = [get_service_definition(handler) for handler in self.nexus_handlers]
        return sorted(
            name for service in services if service for name in service.operation_definitions
        )

    def banner(self) -> str:
        """What this worker serves, in one line, for the log and the notebook."""
        served = [
            f"{title}: {', '.join(names)}"
            for title, names in (
                ("workflows", self.workflow_names),
                ("activities", self.activity_names),
                ("operations", self.operation_names),
            )
            if names
        ]
        which = [in_words(self.version)] if self.version else []
        place = f"{self.namespace}/{self.task_queue}"
        return " · ".join([f"worker {self.name}", place, *which, *served])

    def build(
        self,
        client: Client,
        *,
        interceptors: Sequence[Interceptor] = (),
        workflow_runner: WorkflowRunner | None = None,
        **options: Any,
    ) -> Worker:
        """A `temporalio.worker.Worker` for this spec on a client of its namespace.

        Args:
            client: connected to `self.namespace`, as `temporal.service.client_for` does it.
            interceptors: put around workflows and activities, in addition to the client's.
            workflow_runner: replaces the sandboxed runner, for a lab that hooks into workflow tasks.
            options: further options of `Worker`, which win over the ones chosen here.

        Raises:
            ValueError: the client lacks one of this spec's interceptors, such as a check of who is asking.
        """
        present = [type(one) for one in client.config()["interceptors"]]
        if missing := [kind for make in self.interceptors if (kind := type(make())) not in present]:
            raise ValueError(f"the client of worker {self.name} was made without {missing}")
        if self.chaos:
            # Not above: the places that it watches are in workers like this one.
            from workshop_lib.temporal.chaos.injection import chaos_options

            faults = chaos_options(self.chaos, self)
            interceptors = [*faults["interceptors"], *interceptors]
            workflow_runner = faults["workflow_runner"]
            options["plugins"] = [*options.get("plugins", ()), *faults["plugins"]]
        chosen: dict[str, Any] = {
            "workflow_runner": workflow_runner or runner_for(client.data_converter),
            # A worker that is killed must not hold its workflows back: after one second the server
            # gives their tasks to another worker (the default waits ten).
            "sticky_queue_schedule_to_start_timeout": timedelta(seconds=1),
            "max_heartbeat_throttle_interval": HEARTBEAT_INTERVAL,
            # Above the number of chats alive at once; below it every turn replays its history.
            "max_cached_workflows": 2000,
            "workflow_task_poller_behavior": PollerBehaviorAutoscaling(),
            "activity_task_poller_behavior": PollerBehaviorAutoscaling(),
        }
        if not self.version:
            # What histories call the code. The SDK would hash the bytecode of every module of the process,
            # which takes seconds where a model's library is among them.
            chosen["build_id"] = code_hash()
        else:
            # On the workflow's class the server would refuse every worker without a version.
            chosen["deployment_config"] = WorkerDeploymentConfig(
                version=self.version,
                use_worker_versioning=True,
                default_versioning_behavior=VersioningBehavior.PINNED,
            )
        if self.warm_ups:
            options["plugins"] = [
                *options.get("plugins", ()),
                SimplePlugin("warm-up", run_context=self._warming_up),
            ]
        return Worker(
            client,
            task_queue=self.task_queue,
            workflows=list(self.workflows),
            activities=list(self.activities),
            nexus_service_handlers=[handler() for handler in self.nexus_handlers],
            interceptors=[Bounded(), CarriesTries(), *interceptors],
            **(chosen | options),
        )

    @contextlib.asynccontextmanager
    async def _warming_up(self) -> AsyncIterator[None]:
        """Run the warm-ups beside the worker; one that fails is the first activity's business."""
        tasks = [asyncio.ensure_future(warm_up()) for warm_up in self.warm_ups]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def identity(name: str) -> str:
    """How a worker of this process is called on the server: "name@pid@host"."""
    return f"{name}@{os.getpid()}@{socket.gethostname()}"


def _activity_names(activities: Sequence[Callable[..., Any]]) -> list[str]:
    found = [(fn, activity._Definition.must_from_callable(fn).name) for fn in activities]
    return [name or fn.__name__ for fn, name in found]


@lru_cache(maxsize=1)
def code_hash() -> str:
    """A hash of the library's code, as it is when this process asks for the first time."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
