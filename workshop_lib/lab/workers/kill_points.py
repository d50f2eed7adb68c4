"""Kill points: named places in a worker's work where its process kills itself with SIGKILL.

Left out: the hooks at these places (`temporal.places`), and starting the process that dies (`process`).
"""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from workshop_lib.errors import WorkshopError
from workshop_lib.temporal.places import Step
from workshop_lib.temporal.places import Where as Where


@dataclass(frozen=True)
class KillPoint:
    """Where a worker process dies.

    Attributes:
        where: the place.
        name: type of the workflow or activity, or the operation; "*" for any.
        occurrence: 1 for the first time that this process passes the place.
        step: the id of the activity in its run, or what the workflow task is told (`temporal.places.Step`);
            empty for any.

    Written as `activity-inside@plan_next_action#2`, or `workflow-task-after@ManualChat/activity 3#1`.
    """

    where: Where
    name: str = "*"
    occurrence: int = 1
    step: str = ""

    def __str__(self) -> str:
        step = f"/{self.step}" if self.step else ""
        return f"{self.where}@{self.name}{step}#{self.occurrence}"

    def is_at(self, where: Where, step: Step) -> bool:
        """Whether this is the place that the step passes."""
        steps = ("", step.step, *step.told)
        return where is self.where and self.name in ("*", step.name) and self.step in steps

    @classmethod
    def parse(cls, text: str) -> "KillPoint":
        """Read the written form; name and occurrence may be left out.

        Raises:
            WorkshopError: there is no such place, or the occurrence is not a number from 1.
        """
        place, _, number = text.strip().partition("#")
        where, _, named = place.partition("@")
        name, _, step = named.partition("/")
        try:
            occurrence = int(number or "1")
            if occurrence < 1:
                raise ValueError
            return cls(Where(where), name or "*", occurrence, step)
        except ValueError:
            raise WorkshopError(
                f"{text!r} is not a kill point.",
                expected=f"one of {', '.join(Where)}, as in {Where.ACTIVITY_INSIDE}@plan_next_action#1.",
            ) from None


class Executioner:
    """Counts how often the place is passed and kills the process when it is time.

    Args:
        kill: what happens then; by default SIGKILL to this very process.
    """

    def __init__(self, point: KillPoint, kill: Callable[[], None] | None = None) -> None:
        self._point = point
        self._kill = kill or (lambda: os.kill(os.getpid(), signal.SIGKILL))
        self._passed = 0
        self._lock = threading.Lock()  # workflow tasks run in threads

    def awaits(self, where: Where, name: str) -> bool:
        """True where this place matters at all."""
        return where is self._point.where and self._point.name in ("*", name)

    def pass_by(self, where: Where, step: Step) -> None:
        """Say that a place is passed. Does not return if this was the one."""
        if not self._point.is_at(where, step):
            return
        with self._lock:
            self._passed += 1
            now = self._passed == self._point.occurrence
        if now:
            self._kill()
