"""Why a workflow task failed: from the worker that ran it, or from the run's history.

The server keeps the first failure of a workflow task only: at the second attempt the SDK stays silent and
lets the attempt time out. What a changed workflow does wrong is therefore known to its worker alone. So
this module listens to the SDK's log in this process, and reads the history for workers elsewhere.

Left out: what is said about a failure (`lab.watching.waiting`, `lab.watching.explaining`).
"""

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client

from workshop_lib.lab.registry import THREAD_PREFIX, identity, identity_alive, registered
from workshop_lib.lab.watching.cell_files import locate_in_stack
from workshop_lib.lab.watching.explaining import plain
from workshop_lib.temporal.failures import chain, small_stack

RUNS_KEPT = 500
_EVICTED = "Evicting workflow with run ID"
_FAILED = "Failed activation on workflow"


@dataclass(frozen=True)
class TaskFailure:
    """One failure of a workflow task.

    Attributes:
        kind: the exception's class, or "" where the server names none.
        message: what it says.
        stack: its stack trace as text, innermost frame last.
        when: Unix seconds.
        identity: the worker, as in histories: "name@pid@host".
    """

    kind: str
    message: str
    stack: str
    when: float
    identity: str


_seen: dict[str, TaskFailure] = {}  # by run id


class _Listener(logging.Filter):
    """Notes failures, and makes one line of the SDK's twenty about each."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.msg if isinstance(record.msg, str) else ""
        if text.startswith(_EVICTED) and isinstance(record.args, tuple):
            run_id, reason = str(record.args[0]), str(record.args[1])
            if "TMPRL1100" in reason:  # found by the SDK's core, which logs nothing else in Python
                name = threading.current_thread().name.removeprefix(THREAD_PREFIX)
                _note(run_id, "NondeterminismError", reason, "", name)
            return False
        if text.startswith(_FAILED) and record.exc_info and record.exc_info[1]:
            return _failed_activation(record, record.exc_info[1])
        return record.levelno >= logging.INFO


def _failed_activation(record: logging.LogRecord, error: BaseException) -> bool:
    """Note a failure and shorten its record. False if the same was logged before."""
    run: dict[str, Any] = getattr(record, "temporal_workflow", {})
    place = (run.get("namespace"), run.get("task_queue"))
    serving = (w.name for w in registered().values() if w.place == place)
    links = chain(error)
    kind, message = links[0].kind, plain(links[0].message)
    stack = "\n".join(small_stack(link.stack) for link in links)
    news = _note(str(run.get("run_id")), kind, message, stack, next(serving, ""))
    line = locate_in_stack(stack)
    where = f", in {line}" if line else ""
    record.msg = (
        f"A workflow task of {run.get('workflow_id')} failed: {kind}: {message.rstrip('.')}{where}"
    )
    record.args, record.exc_info = (), None
    return news


def listen() -> None:
    """Hear of failures in this process from now on. Harmless when called again."""
    for name in ("temporalio.worker._workflow", "temporalio.worker._workflow_instance"):
        sdk = logging.getLogger(name)
        if not any(isinstance(known, _Listener) for known in sdk.filters):
            sdk.addFilter(_Listener())
    # A failing activity is explained by whoever waits for it (`lab.watching.waiting`), once and in a line.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
    # It says the same as the failure that follows, without the line.
    logging.getLogger("temporalio.worker.workflow_sandbox._restrictions").setLevel(logging.ERROR)
    # Evictions are told at this level; the filter lets none of that through.
    logging.getLogger("temporalio.worker._workflow").setLevel(logging.DEBUG)


def _note(run_id: str, kind: str, message: str, stack: str, worker: str) -> bool:
    """Keep a failure as the latest of its run. False if the one before said the same."""
    old = _seen.pop(run_id, None)
    _seen[run_id] = TaskFailure(kind, message, stack, time.time(), identity(worker))
    while len(_seen) > RUNS_KEPT:
        _seen.pop(next(iter(_seen)))
    return old is None or old.stack != stack


async def last_task_failure(client: Client, workflow_id: str, run_id: str) -> TaskFailure | None:
    """The latest failure of a run's pending workflow task; None if none is known, or it is mended.

    A failure of a worker that has been restarted since is no news: its code may be another by now.
    """
    known = [f for f in (_seen.get(run_id), await _in_history(client, workflow_id, run_id)) if f]
    newest = max(known, key=lambda failure: failure.when, default=None)
    return newest if newest and identity_alive(newest.identity, since=newest.when) else None


async def _in_history(client: Client, workflow_id: str, run_id: str) -> TaskFailure | None:
    """The failure that the history ends with; None where a later workflow task was completed."""
    answer = await client.workflow_service.get_workflow_execution_history_reverse(
        GetWorkflowExecutionHistoryReverseRequest(
            namespace=client.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            maximum_page_size=30,
        )
    )
    for event in answer.history.events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return None
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
            attributes = event.workflow_task_failed_event_attributes
            failure = attributes.failure
            return TaskFailure(
                failure.application_failure_info.type,
                failure.message,
                _stack(failure),
                event.event_time.ToNanoseconds() / 1e9,
                attributes.identity,
            )
    return None


def _stack(failure: Failure) -> str:
    """The stack traces of a failure and its causes, innermost cause last."""
    stacks = []
    link: Failure | None = failure
    while link:
        stacks.append(link.stack_trace)
        link = link.cause if link.HasField("cause") else None
    return "\n".join(stacks)
