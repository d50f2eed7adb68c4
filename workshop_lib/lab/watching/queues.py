"""Who polls a task queue: the server's list, held against the processes of this machine.

Neither is believed alone. A process may live and not poll, because its server is gone; and the server lists
a worker that was killed for five minutes. Left out: what to make of it (`pending`, the doctor, `services`).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from temporalio.api.enums.v1 import WorkerVersioningMode
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError

from workshop_lib.lab.registry import identity_alive
from workshop_lib.settings import get_settings
from workshop_lib.temporal.lookup import ACTIVITY, NEXUS, WORKFLOW, Kind, describe_queue
from workshop_lib.temporal.versions import named


@dataclass(frozen=True)
class Queue:
    """What the server knows of one task queue.

    Attributes:
        pollers: identities of those who have asked it for work in the last minutes; the dead too.
        waiting: how many tasks lie in it.
        versions: of the pollers whose code has one, by identity.
        current: the version that gets new runs; None where that is whoever has none.
    """

    namespace: str
    name: str
    pollers: tuple[str, ...] = ()
    waiting: int = 0
    versions: Mapping[str, WorkerDeploymentVersion] = field(default_factory=dict)
    current: WorkerDeploymentVersion | None = None

    @property
    def living(self) -> list[str]:
        """The pollers that are not known to be gone, held, or at work elsewhere."""
        place = self.namespace, self.name
        return [one for one in self.pollers if identity_alive(one, place=place)]

    def living_of(self, version: WorkerDeploymentVersion | None) -> list[str]:
        """Those of them whose code is this version, or has none."""
        return [one for one in self.living if self.versions.get(one) == version]


def places() -> dict[str, tuple[str, str]]:
    """The workshop's workers: name, and namespace and task queue."""
    settings = get_settings()
    return {
        "orchestrator": (settings.orchestrator_namespace, settings.orchestrator_queue),
        "it": (settings.it_namespace, settings.it_queue),
        "finance": (settings.finance_namespace, settings.finance_queue),
        "repair": (settings.orchestrator_namespace, settings.repair_queue),
    }


async def look_at_queue(client: Client, namespace: str, name: str, *kinds: Kind) -> Queue:
    """Ask the server about a queue; all kinds of tasks, where none is named.

    Raises:
        RPCError: it does not answer, or knows no such namespace.
    """
    kinds = kinds or (WORKFLOW, ACTIVITY, NEXUS)
    replies = await asyncio.gather(
        *(describe_queue(client, namespace, name, kind) for kind in kinds)
    )
    identities = sorted({poller.identity for reply in replies for poller in reply.pollers})
    waiting = sum(reply.stats.approximate_backlog_count for reply in replies)
    options = {p.identity: p.deployment_options for reply in replies for p in reply.pollers}
    versions = {
        one: WorkerDeploymentVersion(found.deployment_name, found.build_id)
        for one, found in options.items()
        if found.worker_versioning_mode == WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED
    }
    current = named(replies[0].versioning_info.current_deployment_version)
    return Queue(namespace, name, tuple(identities), waiting, versions, current)


async def look_at(client: Client, *queues: tuple[str, str]) -> list[Queue]:
    """Ask about queues, each given as namespace and name; one that cannot be looked at is empty."""

    async def look(namespace: str, name: str) -> Queue:
        try:
            return await look_at_queue(client, namespace, name)
        except RPCError:
            return Queue(namespace, name)

    return await asyncio.gather(*(look(*queue) for queue in queues))
