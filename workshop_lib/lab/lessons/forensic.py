"""A case for notebook 09: the recorded history of a run whose code is not at hand, and what is true of it.

What is true is read from the history itself: of one step some attempts were lost with their worker, and
another has read a statement on which something stands twice. Left out: how answers are judged.
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from temporalio.client import WorkflowHistory

from workshop_lib.lab.history import ACTIVITY, SIGNAL, Step, read_history
from workshop_lib.settings import PROJECT_ROOT

_FILE = PROJECT_ROOT / "data" / "forensic.json"


@dataclass(frozen=True)
class Truth:
    """What a reader of the case can know.

    Attributes:
        lost: the step whose attempts nobody reported.
        times: how many of its attempts were lost.
        retried: steps that failed too, and were tried again because a worker said so.
        twice: what stands on the statement of which something stands there twice, as text.
    """

    lost: Step
    times: int
    retried: list[str]
    twice: list[str]


def open_case() -> WorkflowHistory:
    """The history."""
    text = _FILE.read_text(encoding="utf-8")
    started = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(started["workflowId"], text)


def steps_of(case: WorkflowHistory) -> list[Step]:
    """What the run has done, and what it was told."""
    return [step for step in read_history(case.events).steps if step.kind in (ACTIVITY, SIGNAL)]


def truth_of(case: WorkflowHistory) -> Truth:
    """What is true of the case."""
    history = read_history(case.events)
    [lost] = history.lost
    return Truth(
        lost=lost,
        times=lost.attempts - 1,
        retried=[step.name for step in history.activities if step.attempts > 1 and not step.lost],
        twice=next(found for step in history.activities if (found := _repeated(step.result))),
    )


def _repeated(result: Any) -> list[str]:
    """What stands in those rows of a list that have something in common."""
    rows = [row for row in result if isinstance(row, dict)] if isinstance(result, list) else []
    counts = Counter(str(value) for row in rows for value in row.values())
    return list(counts) if any(count > 1 for count in counts.values()) else []
