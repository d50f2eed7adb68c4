"""Why something failed, in a sentence or two, and what to do about it.

Pure text: an exception, or a failure as the server keeps it, in; words out. Left out: noticing that something
fails (`listening` in this process, `pending` on the server) and waiting for it (`waiting`).
"""

import re

from temporalio.api.failure.v1 import Failure
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.common import WorkerDeploymentVersion
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, NexusOperationError
from temporalio.service import RPCError
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.cell_files import CellLine, locate_in_exception, locate_in_stack
from workshop_lib.temporal.failures import ABOUT_COROUTINE, MISSING, Link, chain, chain_of
from workshop_lib.temporal.versions import in_words

SAME_RUN = (
    "change the cell and run it again: its worker is restarted and this same run goes on, "
    "at the latest ten seconds later."
)

# What the SDK says of code that does not fit a run's history, and what that means.
_MISMATCHES = (
    (r"type of scheduled event '(.+?)' does not match \w+ type of \w+ command '(.+?)'",
     "where the history holds {0}, the code calls {1}"),
    (r"(\w+?) ?[Mm]achine does not handle (?:this event: )?HistoryEvent\(id: (\d+), (\w+)\)",
     "at event {1} the history holds '{2}', and the code asks for something else: {0}"),
    (r"No command scheduled for event HistoryEvent\(id: (\d+), (\w+)\)",
     "at event {0} the history holds '{1}', and the code asks for nothing there"),
    (r"[Nn]on-deprecated patch marker encountered for change ([^\s,]+)",
     "the run passed `workflow.patched('{0}')`, which the code does not know"),
)  # fmt: skip

# Where the SDK's core names one of its errors, up to the end of what it says about it.
_CORE = re.compile(r'(\[TMPRL\d+\])[^"]*')

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


def advice(kind: str, message: str, pinned: WorkerDeploymentVersion | None = None) -> str:
    """What to do about an error that workflow code raised.

    Args:
        kind: the exception's class name.
        message: what it says.
        pinned: the version of the code that the run stays with.
    """
    if pinned:
        return (
            f"no other version gets this run, which is pinned to {in_words(pinned)}. Move it to one that can"
            " replay what it has done, `await lab.move_run(handle, …)`, and it goes on."
        )
    refused = kind == "RestrictedWorkflowAccessError"
    if MISSING in message or ABOUT_COROUTINE.search(message):
        first = "write `await` before the call whose result is used there"
    elif "TMPRL1100" in message:
        return (
            "put the change behind `if workflow.patched('my-change'):` and run the cell again, or start a "
            "new run."
        )
    elif "TMPRL1101" in message:
        first = "workflow code may not compute or block for seconds: an activity may"
    elif refused and "urllib.request.Request" in message:
        # What the Agents SDK's import comes to where the plugin does not let it through.
        return (
            "a worker whose workflows use `agents` needs its plugin: `client_plugins=[agents_plugin]`."
            " Start it with that."
        )
    elif refused:
        first = f"use {alternative(message)}"
    elif kind in ("NameError", "UnboundLocalError"):
        first = (
            "a workflow cell is a module of its own and sees no variable of the notebook: import or "
            "define it in the cell"
        )
    else:
        return SAME_RUN
    return f"{first}. Then {SAME_RUN}"


def mismatch(message: str) -> str:
    """Where code and history part, from what the SDK says about it; "" where it says something else.

    A worker that takes a run over runs its code from the beginning and compares each step with the history.
    """
    for pattern, words in _MISMATCHES:
        if found := re.search(pattern, message):
            return words.format(*map(_in_words, found.groups()))
    return ""


def from_core(message: str) -> str:
    """What the SDK's core means, in a sentence after its code; "" where it is not the core that speaks.

    Its own text is a Rust structure, in the middle of which the sentence stands in quotes.
    """
    said = _CORE.search(message)
    if not said:
        return ""
    words = mismatch(said[0])
    return f"{said[1]} {words}" if words else said[0].rstrip(" \\")


def _in_words(name: str) -> str:
    """ActivityTaskScheduled: activity task scheduled. Names that code has given stay as they are."""
    camels = re.findall(r"[A-Z][a-z]+", name)
    return " ".join(camels).lower() if "".join(camels) == name else name


def alternative(message: str) -> str:
    """What a workflow uses in place of what the sandbox refused, from the sandbox's message."""
    refused = message.removeprefix("Cannot access ").split(" ", 1)[0]
    name = refused.removesuffix(".__call__")
    for parts, instead in ALTERNATIVES:
        if any(refused == part.rstrip(".") or refused.startswith(part) for part in parts):
            return f"{instead}, in place of {name}"
    return (
        f"an activity for {name}; or, for a library without side effects, "
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
    kind = type(root).__name__
    words = f"{kind}: {root}" if str(root) else kind
    line = locate_in_exception(error)
    if line or isinstance(root, RestrictedWorkflowAccessError):
        where = f" In {line}" if line else ""
        return WorkshopError(
            f"Worker {name} did not start.{where}\n{plain(words)}", fix=advice(kind, str(root))
        )
    if isinstance(error, TimeoutError):
        words = "no answer from the server in time"
    if isinstance(root, (RPCError, RuntimeError, TimeoutError)) or isinstance(error, TimeoutError):
        fix = "run `workshop doctor`, or the first cell of the notebook again."
    else:
        fix = "change what the worker is given, and start it again."
    return WorkshopError(f"Worker {name} did not start: {words}", fix=fix)


def plain(message: str) -> str:
    """A message without what the SDK adds to it: advice for owners of a whole code base, Rust structures."""
    if said := from_core(message):
        return said
    message = message.split(" If this is code from a module", 1)[0]
    before, missing, _ = message.partition(", available activities:")
    return f"{before}: add it to `activities=[…]` of the worker" if missing else message


def root_failure(failure: Failure) -> tuple[str, str, CellLine | None]:
    """Class, message and cell line of what is at the bottom of a failure as the server keeps it."""
    links = chain_of(failure)
    line = locate_in_stack(*(link.stack_trace for link in reversed(links)))
    return links[-1].application_failure_info.type, links[-1].message, line


def failed_for_good(error: WorkflowFailureError | WorkflowUpdateFailedError) -> str:
    """Why a workflow or an update failed: the steps down to the root cause, and its cell line."""
    links = _below(error)
    steps = [step for link in links if (step := _step(link.error))]
    remote = [
        link.error.failure for link in reversed(links) if isinstance(link.error, FailureError)
    ]
    line = locate_in_stack(*(failure.stack_trace for failure in remote if failure))
    line = line or locate_in_exception(links[-1].error)
    return ", ".join([*steps, _words(links[-1])]) + (f"\nIn {line}" if line else "")


def root_cause(error: BaseException) -> str:
    """What was at the bottom of a failure, as in `ValueError: too small`."""
    return _words(_below(error)[-1])


def _below(error: BaseException) -> list[Link]:
    """What a failure was caused by, from the outside to the root; itself where that is not known."""
    links = chain(error)
    links = links[1:] or links
    # A wait that is over cancels what it waited for; the TimeoutError above is what was raised.
    if [_kind(link) for link in links[-2:]] == ["TimeoutError", "CancelledError"]:
        links.pop()
    return links


def _words(link: Link) -> str:
    """Its class and what it says; for remote ones, the class over there."""
    says_nothing = link.message in (
        "",
        "Application error",
    )  # as the SDK says where nothing was said
    return _kind(link) if says_nothing else f"{_kind(link)}: {plain(link.message)}"


def _kind(link: Link) -> str:
    remote = link.error.type if isinstance(link.error, ApplicationError) else None
    return remote or link.kind


def _step(error: BaseException) -> str | None:
    if isinstance(error, ActivityError):
        return f"activity {error.activity_type}"
    if isinstance(error, NexusOperationError):
        return f"operation {error.operation} of endpoint {error.endpoint}"
    return None
