"""Who works in this lab: what processes say of themselves, held against whom the server sees polling.

Neither is believed alone. A process may live and not poll, because its server is gone; and the server lists
a worker that was killed for five minutes. Left out: what to make of it (`doctor_server`, `services`).
"""

import asyncio
import socket
from dataclasses import dataclass, field

import psutil
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from workshop_lib.lab.server.namespaces import CALL
from workshop_lib.settings import get_settings

KINDS = (
    TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    TaskQueueType.TASK_QUEUE_TYPE_NEXUS,
)


@dataclass(frozen=True)
class Poller:
    """A worker as the server sees it; our workers call themselves "name@pid@host"."""

    identity: str

    @property
    def local_pid(self) -> int | None:
        """Its process, when it says so and is on this machine."""
        parts = self.identity.split("@")
        # A client without a name of its own is "pid@host".
        pid, host = (parts[-2], parts[-1]) if len(parts) > 1 else ("", "")
        return int(pid) if pid.isdigit() and host == socket.gethostname() else None

    @property
    def process(self) -> psutil.Process | None:
        """Its process, if it lives here and is not held."""
        try:
            process = psutil.Process(self.local_pid or -1)
            held = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
            return None if held else process
        except (psutil.Error, ValueError):
            return None

    @property
    def may_live(self) -> bool:
        """False where its process is known to have ended, or to be held."""
        return self.local_pid is None or self.process is not None


@dataclass
class Queue:
    """What the server knows of one task queue.

    Attributes:
        pollers: who has asked it for work in the last minutes, each once; the dead too.
        waiting: how many tasks lie in it.
    """

    namespace: str
    name: str
    pollers: list[Poller] = field(default_factory=list)
    waiting: int = 0

    @property
    def living(self) -> list[Poller]:
        """The pollers that are not known to be gone."""
        return [poller for poller in self.pollers if poller.may_live]

    def is_polled_by(self, identity: str) -> bool:
        """Whether a worker of this name polls, and lives."""
        return any(poller.identity == identity for poller in self.living)


def places() -> dict[str, tuple[str, str]]:
    """The workshop's workers: name, and namespace and task queue."""
    settings = get_settings()
    return {
        "orchestrator": (settings.orchestrator_namespace, settings.orchestrator_queue),
        "it": (settings.it_namespace, settings.it_queue),
        "finance": (settings.finance_namespace, settings.finance_queue),
        "repair": (settings.orchestrator_namespace, settings.repair_queue),
    }


async def look_at(client: Client, *queues: tuple[str, str]) -> list[Queue]:
    """Ask the server about queues, each given as namespace and name; one it does not know is empty."""
    return await asyncio.gather(*(_queue(client, *queue) for queue in queues))


async def _queue(client: Client, namespace: str, name: str) -> Queue:
    queue = Queue(namespace, name)
    identities: set[str] = set()

    async def ask(kind: TaskQueueType.ValueType) -> None:
        request = DescribeTaskQueueRequest(
            namespace=namespace,
            task_queue=TaskQueue(name=name),
            task_queue_type=kind,
            report_stats=True,
        )
        reply = await client.workflow_service.describe_task_queue(request, timeout=CALL)
        identities.update(poller.identity for poller in reply.pollers)
        queue.waiting += reply.stats.approximate_backlog_count

    try:
        await asyncio.gather(*(ask(kind) for kind in KINDS))
    except RPCError:
        return queue
    queue.pollers = [Poller(identity) for identity in sorted(identities)]
    return queue
