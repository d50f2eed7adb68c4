"""What to do about an error of workflow code, in a sentence or two.

Pure text: an error's class and message in, advice out. Left out: noticing that there is an error
(`lab.watching.waiting`, `lab.workers.threads`).
"""

import re
from collections.abc import Iterator

from temporalio.api.failure.v1 import Failure
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, NexusOperationError
from temporalio.service import RPCError
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.cell_files import CellLine, locate_in_exception, locate_in_stack
from workshop_lib.temporal.failures import ABOUT_COROUTINE, MISSING, chain

SAME_RUN = (
    "change the cell and run it again: its worker is restarted and this same run goes on, "
    "at the latest ten seconds later."
)

# What the sandbox refuses, by a part of its qualified name, and what a workflow uses instead.
ALTERNATIVES = (
    (("datetime", "date.today"), "`workflow.now()`: the time that is in the history"),
    (("time.sleep",), "`await asyncio.sleep(…)`: a durable timer"),
    (("time.",), "`workflow.time()`: the time that is in the history"),
    (("uuid",), "`workflow.uuid4()`"),
    (("random.", "secrets."), "`workflow.random()`: seeded by the run"),
    (("open", "os.", "pathlib", "socket", "http", "urllib", "requests", "subprocess", "input"),
     "an activity: whatever reaches outside the workflow belongs there"),
)  # fmt: skip


def advice(kind: str, message: str) -> str:
    """What to do about an error that workflow code raised.

    Args:
        kind: the exception's class name.
        message: what it says.
    """
    if MISSING in message or ABOUT_COROUTINE.search(message):
        return f"write `await` before the call whose result is used there. Then {SAME_RUN}"
    if "TMPRL1100" in message:
        return (
            "the changed code takes other steps than this run's history holds. Put the change behind "
            "`if workflow.patched('my-change'):` and run the cell again, or start a new run."
        )
    if "TMPRL1101" in message:
        return (
            f"workflow code may not compute or block for seconds: an activity may. Then {SAME_RUN}"
        )
    if kind == "RestrictedWorkflowAccessError" and "urllib.request.Request" in message:
        # What the Agents SDK's import comes to where the plugin does not let it through.
        return (
            "a worker whose workflows use `agents` needs its plugin: `client_plugins=[agents_plugin]`."
            " Start it with that."
        )
    if kind == "RestrictedWorkflowAccessError":
        return f"use {alternative(message)}. Then {SAME_RUN}"
    if kind in ("NameError", "UnboundLocalError"):
        return (
            "a workflow cell is a module of its own and sees no variable of the notebook: import or "
            f"define it in the cell. Then {SAME_RUN}"
        )
    return SAME_RUN


def alternative(message: str) -> str:
    """What a workflow uses in place of what the sandbox refused, from the sandbox's message."""
    refused = message.removeprefix("Cannot access ").split(" ", 1)[0]
    for parts, instead in ALTERNATIVES:
        if any(refused == part.rstrip(".") or refused.startswith(part) for part in parts):
            return f"{instead}, in place of {refused.removesuffix('.__call__')}"
    return (
        f"an activity for {refused.removesuffix('.__call__')}; or, for a library without side effects, "
        "import it in `with workflow.unsafe.imports_passed_through():`"
    )


def start_failure(name: str, error: BaseException) -> WorkshopError:
    """Why a worker did not start, for a person: a bug in a cell by its line, a server that is not there."""
    if isinstance(error, WorkshopError):
        return error
    root = chain(error)[-1].error
    if namespace := re.search(r"Namespace (\S+) was not found", str(root)):
        return WorkshopError(
            f"Worker {name} did not start: there is no namespace {namespace[1]} on this server.",
            fix="run the first cell of the notebook again, or `workshop up`.",
        )
    said = f"{type(root).__name__}: {root}" if str(root) else type(root).__name__
    if isinstance(root, RestrictedWorkflowAccessError) or locate_in_exception(error):
        line = locate_in_exception(error)
        where = f" In {line}" if line else ""
        return WorkshopError(
            f"Worker {name} did not start.{where}\n{plain(said)}",
            fix=advice(type(root).__name__, str(root)),
        )
    if isinstance(error, TimeoutError):
        said = "no answer from the server in time"
    if isinstance(root, (RPCError, RuntimeError, TimeoutError)):
        fix = "run `workshop doctor`, or the first cell of the notebook again."
    else:
        fix = "change what the worker is given, and start it again."
    return WorkshopError(f"Worker {name} did not start: {said}", fix=fix)


def plain(message: str) -> str:
    """A message without the advice for owners of a whole code base that the SDK adds to it."""
    message = message.split(" If this is code from a module", 1)[0]
    before, missing, _ = message.partition(", available activities:")
    return f"{before}: add it to `activities=[…]` of the worker" if missing else message


def root_failure(failure: Failure) -> tuple[str, str, CellLine | None]:
    """Class, message and cell line of what is at the bottom of a failure as the server keeps it."""
    links = [failure]
    while links[-1].HasField("cause"):
        links.append(links[-1].cause)
    root = links[-1]
    line = locate_in_stack(*(link.stack_trace for link in reversed(links)))
    return root.application_failure_info.type, root.message, line


def failed_for_good(error: WorkflowFailureError | WorkflowUpdateFailedError) -> str:
    """Why a workflow or an update failed: the steps down to the root cause, and its cell line."""
    links = causes(error)
    steps = [step for link in links if (step := _step(link))]
    root = links[-1]
    stacks = [
        link.failure.stack_trace
        for link in reversed(links)
        if isinstance(link, FailureError) and link.failure
    ]
    line = locate_in_stack(*stacks) or locate_in_exception(root)
    said = kind_and_message(root)
    return "\n".join(filter(None, [", ".join([*steps, said]), f"In {line}" if line else ""]))


def causes(error: BaseException) -> list[BaseException]:
    """A failure and what it was caused by, from the outside to the root; the outermost is left out."""
    links = list(_causes(error)) or [error]
    # A wait that is over cancels what it waited for; the TimeoutError above is what was raised.
    if [_kind(link) for link in links[-2:]] == ["TimeoutError", "CancelledError"]:
        links.pop()
    return links


def kind_and_message(failure: BaseException) -> str:
    """Its class and what it says, as in `ValueError: too small`; for remote ones, the class over there."""
    message = chain(failure)[0].message
    told = message not in ("", "Application error")  # as the SDK says where nothing was said
    return f"{_kind(failure)}: {plain(message)}" if told else _kind(failure)


def _kind(failure: BaseException) -> str:
    remote = failure.type if isinstance(failure, ApplicationError) else None
    return remote or chain(failure)[0].kind


def _causes(error: BaseException) -> Iterator[BaseException]:
    link = getattr(error, "cause", None)
    while isinstance(link, BaseException):
        yield link
        link = getattr(link, "cause", None) or link.__cause__


def _step(link: BaseException) -> str | None:
    if isinstance(link, ActivityError):
        return f"activity {link.activity_type}"
    if isinstance(link, NexusOperationError):
        return f"operation {link.operation} of endpoint {link.endpoint}"
    return None
