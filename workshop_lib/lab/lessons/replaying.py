"""An old run under new code: its recorded history, replayed by the workflow as it is now.

Nothing is run: activities are not called, and the run itself does not notice. Left out: many histories under
many versions, and what a worker says when it meets the same (`lab.watching.failures`).
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer

from workshop_lib.lab.watching.failures import from_core
from workshop_lib.temporal.failures import DATA_CONVERTER


@dataclass(frozen=True)
class Replayed:
    """How a replay went.

    Attributes:
        problem: why it did not go through; empty where it did.
    """

    problem: str = ""

    @property
    def green(self) -> bool:
        """Whether the code takes the steps that the history holds."""
        return not self.problem

    def __repr__(self) -> str:
        return (
            f"red: {self.problem}" if self.problem else "green: the code takes the recorded steps"
        )


async def replay(
    run: WorkflowHandle[Any, Any] | WorkflowHistory, workflow: type, *, timeout: float = 10
) -> Replayed:
    """Replay a run, ended or not, with a workflow class.

    Args:
        run: its handle, or a history that is at hand.
        timeout: seconds that fetching and replaying may take.
    """
    async with asyncio.timeout(timeout):
        history = run if isinstance(run, WorkflowHistory) else await run.fetch_history()
        # In debug mode nothing is held against a machine that is slow.
        replayer = Replayer(workflows=[workflow], data_converter=DATA_CONVERTER, debug_mode=True)
        outcome = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    return outcome_of(outcome.replay_failure)


def outcome_of(failure: Exception | None) -> Replayed:
    """How a replay went, from what it failed with."""
    if failure is None:
        return Replayed()
    text = str(failure)
    return Replayed(from_core(text) or text)
