"""A worker in which several runs stand still, each at a place of its own, until something dies.

A kill of a process hits every run that it serves, and so does a kill of the server. Where each of them stands
at another place at that moment, one kill tries many. A run that has come to its place says so by a file, and
waits for another one; an activity heartbeats meanwhile, as it would on a slow day.

Left out: which places there are (`lattice_points`), and the kill (`test_crash_lattice`).
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from workshop_lib.lab.workers.kill_points import KillPoint
from workshop_lib.repair import tools
from workshop_lib.repair.store import OrderStore
from workshop_lib.temporal.places import Step, Where, watched
from workshop_lib.temporal.steps import heartbeating
from workshop_lib.temporal.worker import WorkerSpec

GO_ON = "go-on"  # the file that lets all go on
LOOKS = 0.02  # seconds between two looks for it
IN_A_THREAD = (Where.TASK_BEFORE, Where.TASK_AFTER)


@dataclass(frozen=True, kw_only=True)
class StandingSpec(WorkerSpec):
    """A worker's spec, and where its runs stand still.

    Attributes:
        stands: the place by workflow id, or by what the id begins with.
        folder: where the runs say that they have arrived, and where each repair has a shop of its own.
    """

    stands: Mapping[str, KillPoint] = field(default_factory=dict)
    folder: Path

    @classmethod
    def of(cls, spec: WorkerSpec, folder: Path, stands: Mapping[str, KillPoint]) -> "StandingSpec":
        """That of a worker as it is."""
        return cls(**vars(spec), folder=folder, stands=stands)

    def build(self, client: Client, **options: Any) -> Worker:
        """As ever, with the places."""
        tools.open_store = self._own_store  # settings name one shop a process
        options |= watched(self)
        worker = super().build(client, **options)
        # A thread that stands still is no deadlock.
        worker._workflow_worker._deadlock_timeout_seconds = None  # type: ignore[union-attr]
        return worker

    def awaits(self, where: Where, name: str) -> bool:
        """Whether a run stands still at such a place."""
        return any(point.where is where and point.name == name for point in self.stands.values())

    def pass_by(self, where: Where, step: Step) -> Awaitable[None] | None:
        """Stand still, where this is the place. Who has gone on from it does not come back to it."""
        for run, point in self.stands.items():
            arrival = self.arrival(run)
            if (
                step.workflow_id.startswith(run)
                and point.is_at(where, step)
                and not arrival.exists()
            ):
                arrival.touch()
                if where not in IN_A_THREAD:
                    return self._stand()
                while not self._may_go_on():
                    time.sleep(LOOKS)
        return None

    def arrival(self, run: str) -> Path:
        """The file that says that a run stands at its place."""
        return self.folder / f"{run}.arrived"

    def _may_go_on(self) -> bool:
        return (self.folder / GO_ON).exists()

    async def _stand(self) -> None:
        async with heartbeating() if activity.in_activity() else contextlib.nullcontext():
            while not self._may_go_on():  # noqa: ASYNC110 - another process says so
                await asyncio.sleep(LOOKS)

    def _own_store(self) -> OrderStore:
        return shop(self.folder, activity.info().workflow_id or "")


@lru_cache(maxsize=200)
def shop(folder: Path, run: str) -> OrderStore:
    """The orders of one repair."""
    return OrderStore(f"sqlite:///{folder / run}.db")
