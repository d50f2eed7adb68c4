"""The proactive agent seen from outside: start it, look at its cycles, wake it, ask it to leave.

Its status, its plan and the decision on it are those of any repair, so all of `RepairClient` works here too.
Left out: the agent itself (`proactive`).
"""

from datetime import date, timedelta

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.repair.client import RPC_LIMIT, RepairClient, start_run
from workshop_lib.repair.states import (
    REQUEST_EXIT,
    STOP_WAITING,
    Callback,
    CycleRecord,
    ProactiveOutcome,
    ProactiveStart,
)
from workshop_lib.settings import get_settings
from workshop_lib.temporal.names import check_name

DEFAULT_ID = "proactive-order-repair"  # one agent is enough for a shop


class ProactiveClient(RepairClient):
    """One proactive agent.

    Args:
        client: connected to the orchestrator's namespace.
        workflow_id: its id.
    """

    def __init__(self, client: Client, workflow_id: str = DEFAULT_ID) -> None:
        super().__init__(client, workflow_id)

    @classmethod
    async def start_agent(
        cls,
        client: Client,
        *,
        today: date | None = None,
        callback: Callback | None = None,
        workflow_id: str = DEFAULT_ID,
        task_queue: str | None = None,
    ) -> "ProactiveClient":
        """Start an agent.

        Args:
            today: the day of its first cycle; the settings' one when left out.

        Raises:
            WorkshopError: there is one of that name under way, or the name is none.
        """
        settings = get_settings()
        start = ProactiveStart(
            today=today or settings.today, user=settings.user_name, callback=callback
        )
        await start_run(client, "proactive", check_name(workflow_id, "agent"), start, task_queue)
        return cls(client, workflow_id)

    async def cycles(self) -> list[CycleRecord]:
        """Its past cycles, oldest first."""
        answer: list[CycleRecord] = await self._query("cycles", list[CycleRecord])
        return answer

    async def stop_waiting(self) -> None:
        """Have it begin its next cycle now.

        Raises:
            WorkshopError: there is no such agent under way.
        """
        await self._signal(STOP_WAITING)

    async def request_exit(self) -> None:
        """Ask it to leave; repairs under way are made first.

        Raises:
            WorkshopError: there is no such agent under way.
        """
        await self._signal(REQUEST_EXIT)

    async def stopped(self, timeout: timedelta = timedelta(minutes=5)) -> ProactiveOutcome:
        """Wait for its end.

        Raises:
            WorkshopError: it has not left within `timeout`, or it was cancelled or terminated.
        """
        return await self._result(ProactiveOutcome, timeout)

    async def _signal(self, name: str) -> None:
        try:
            await self.handle.signal(name, rpc_timeout=RPC_LIMIT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:  # said of one that has left, too
                raise WorkshopError(
                    f"No proactive agent {self.workflow_id} is under way.", fix="start one."
                ) from None
            raise self._no_answer("was reached") from None
