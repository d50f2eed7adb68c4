"""How a check runs and what it says.

A check is an async function in `lab/checks/nbNN.py`. It looks at what the learner made, returns one
sentence of evidence when that is right, and raises `NotYet` when it is not:

    @check(expects="a greeting that holds the name.", hint="Use the argument `name`.")
    async def greeting(greet: Callable[[str], str]) -> str:
        words = greet("Ada")
        if "Ada" not in words:
            raise NotYet(saw=f"greet('Ada') returned {words!r}")
        return f"greet('Ada') says {words!r}"

Whatever an unsolved exercise makes a check run into (a NotImplementedError, a None, a failed workflow, no
answer in time) is said in the same three lines. Call the learner's code inside the body: what is raised
while the arguments of `await check.greeting(…)` are worked out is out of reach here.
Left out: what is checked, and where progress is kept (`lab.jupyter.progress`).
"""

import asyncio
import functools
import inspect
import re
import signal
import sys
import sysconfig
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from temporalio.client import (
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import FailureError
from temporalio.service import RPCError

from workshop_lib import harmless
from workshop_lib.edge import log_error
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.jupyter import progress
from workshop_lib.lab.watching.cell_files import outdated
from workshop_lib.lab.watching.failures import SAME_RUN, root_cause
from workshop_lib.lab.watching.waiting import GOES_ON
from workshop_lib.settings import PROJECT_ROOT
from workshop_lib.temporal.failures import chain

MAX_LINE = 400  # characters of one of the three lines
SAY_AFTER = 4.0  # seconds after which a check that has not announced it says that it takes its time
CALL = 2.0  # seconds that a plain function of a learner's may take
STOPPED = "the check stopped with"  # opens the line that a crash of the check itself gives

_FROM_TEMPORAL = {
    WorkflowFailureError: "the workflow failed",
    WorkflowUpdateFailedError: "the update failed",
    WorkflowUpdateRPCTimeoutOrCancelledError: "the update got no answer in time",
    WorkflowQueryFailedError: "the query failed",
    WorkflowQueryRejectedError: "the query was rejected",
    RPCError: "the server refused",
    FailureError: "a step failed",
}
# What Python says where a stub left None or `...` in the place of a value.
_MISSING_VALUE = re.compile(r"\b(NoneType|ellipsis)\b")
# What Python and the SDK say where a coroutine was left in the place of what it would have returned.
_NOT_AWAITED = re.compile(r"'coroutine' object|<coroutine |type coroutine|coroutine is not")
AWAIT_IT = "an `await` is missing, before the call whose result is used there."

P = ParamSpec("P")
T = TypeVar("T")


class NotYet(Exception):
    """Raised by a check's body: the exercise is not solved yet.

    Args:
        saw: what there was instead, as a phrase that can follow "Saw:".
        expected, hint: replace the check's own where this case can be said better.
    """

    def __init__(self, saw: str, *, expected: str | None = None, hint: str | None = None) -> None:
        super().__init__(saw)
        self.saw = saw
        self.expected = expected
        self.hint = hint


class CheckNotMet(WorkshopError):
    """An unmet check, in exactly three lines and without a traceback; *Run All* stops at it."""

    def __init__(self, name: str, *, expected: str, saw: str, hint: str) -> None:
        super().__init__(f"Not yet: {name}.", expected=expected, fix=hint)
        self.name = name
        self.saw = saw
        self.hint = hint

    @property
    def lines(self) -> list[str]:
        """What was expected, what was seen, and a hint."""
        return [
            harmless.line(f"{self.what} Expected {self.expected}", MAX_LINE),
            harmless.line(f"Saw: {self.saw}", MAX_LINE),
            harmless.line(f"Hint: {self.hint}", MAX_LINE),
        ]


@dataclass(frozen=True)
class CheckInfo:
    """What a check says about itself.

    Attributes:
        notebook: the two digits of the notebook it belongs to, from its module's name.
        expects: what is expected, as a phrase that can follow "Expected".
        hint: one sentence that helps.
        timeout: seconds that it may take.
        takes: how long it takes and why, where that is more than a moment; said before it begins.
    """

    name: str
    notebook: str
    expects: str
    hint: str
    timeout: float
    takes: str


def check(
    *, expects: str, hint: str, timeout: float = 15.0, takes: str = ""
) -> Callable[[Callable[P, Coroutine[Any, Any, str]]], Callable[P, Awaitable[None]]]:
    """Make a check of an async function that returns its evidence or raises `NotYet`.

    The check prints one line and records progress; its arguments are those of `CheckInfo`.

    Raises:
        CheckNotMet: from the check, whenever it is not met.
    """

    def decorate(body: Callable[P, Coroutine[Any, Any, str]]) -> Callable[P, Awaitable[None]]:
        notebook = body.__module__.rpartition(".")[2].removeprefix("nb")
        info = CheckInfo(body.__name__, notebook, expects, hint, timeout, takes)

        @functools.wraps(body)
        async def run(*args: P.args, **kwargs: P.kwargs) -> None:
            for cell in outdated():
                print(f"Cell `{cell}` has an error; this check sees its version before that.")
            if takes:
                print(f"This check takes {takes}.", flush=True)
            try:
                evidence = await _evidence(info, functools.partial(body, *args, **kwargs))
            except CheckNotMet:
                progress.record(info.notebook, info.name, False)
                raise
            progress.record(info.notebook, info.name, True)
            print(f"Check passed: {info.name} — {harmless.line(evidence, MAX_LINE)}")

        # the notebook shows a signature and a docstring, not a return type that is no longer true
        run.__annotations__ = {**body.__annotations__, "return": None}
        run.__dict__["check_info"] = info
        return run

    return decorate


def all_checks(module: ModuleType) -> dict[str, Callable[..., Awaitable[None]]]:
    """The checks defined in a module, by name, in the order of its text."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(getattr(value, "check_info", None), CheckInfo)
        and value.__module__ == module.__name__
    }


def plain(returned: T) -> T:
    """What a learner's function has returned, where nothing is to be awaited.

    Raises:
        NotYet: it is an `async def`.
    """
    if not inspect.iscoroutine(returned):
        return returned
    returned.close()
    raise NotYet(saw="a coroutine", hint="nothing is awaited here: `def`, not `async def`.")


def called(function: Callable[..., T], *arguments: Any) -> T:
    """What a learner's plain function returns. One that never does is ended: nothing else runs meanwhile.

    Raises:
        NotYet: it is an `async def`, or it takes longer than `CALL` seconds.
    """

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, CALL)
    try:
        return plain(function(*arguments))
    except TimeoutError:
        saw = f"your function did not return within {CALL:g} seconds"
        raise NotYet(saw=saw, hint="look at its loops: what ends them?") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)  # whoever else had set it


async def awaited(returned: Awaitable[T]) -> T:
    """What a learner's coroutine function returns.

    Raises:
        NotYet: it is a plain `def`.
    """
    if inspect.isawaitable(returned):
        return await returned
    raise NotYet(saw=f"{returned!r} at once: it awaits nothing", hint="it is an `async def`.")


async def _evidence(info: CheckInfo, body: "functools.partial[Coroutine[Any, Any, str]]") -> str:
    """Run the body within its time limit.

    Raises:
        CheckNotMet: whatever the body ran into, except that the learner interrupted it.
    """

    def not_met(saw: str, hint: str | None = None, expected: str | None = None) -> CheckNotMet:
        return CheckNotMet(
            info.name, expected=expected or info.expects, saw=saw, hint=hint or info.hint
        )

    limit = asyncio.timeout(info.timeout)
    word = "" if info.takes else f"Still looking, for {info.timeout:g} seconds at the most."
    later = asyncio.get_running_loop().call_later(SAY_AFTER, lambda: word and print(word))
    try:
        async with limit:
            evidence = await body()
        if not isinstance(evidence, str) or not evidence.strip():
            raise TypeError(f"a check returns a sentence of evidence, not {evidence!r}")
    except NotYet as error:
        raise not_met(error.saw, error.hint, error.expected) from error
    except CheckNotMet:
        raise
    except WorkshopError as error:
        # The lab knows what to do about this one: its own advice is the better hint.
        fix = AWAIT_IT if _NOT_AWAITED.search(error.what) else _in_a_check(error.fix)
        raise not_met(error.what, fix) from error
    except Exception as error:
        if isinstance(error, TimeoutError) and limit.expired():
            raise not_met(f"no answer within {info.timeout:g} seconds") from error
        saw = _seen(error, body.func.__code__.co_filename)
        if saw is None:
            log = log_error(error)
            where = f" (full text in {log})" if log else ""
            saw = f"{STOPPED} {type(error).__name__}: {error}{where}"
        raise not_met(saw, AWAIT_IT if _NOT_AWAITED.search(str(error)) else None) from error
    finally:
        later.cancel()
    return evidence


def _in_a_check(fix: str | None) -> str | None:
    """The lab's advice, where a check has ended the run that it was about."""
    if fix is None:
        return None
    again = "change the cell, run it, and then this check again."
    return fix.replace(SAME_RUN, again).replace(GOES_ON, "").strip() or None


def _seen(error: Exception, check_file: str) -> str | None:
    """What an unsolved exercise did, in words; None for what looks like a bug of the check."""
    for kind, what in _FROM_TEMPORAL.items():
        if isinstance(error, kind):  # at the bottom is what an activity raised, for one
            return f"{what} ({root_cause(error)})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    leaf = chain(error)[0]
    text = f"{leaf.kind}: {leaf.message}" if leaf.message else leaf.kind
    files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)} - {check_file}
    if any(_is_learners(file) for file in files):  # a cell, or a module that a cell has written
        return f"your code raised {text}"
    if isinstance(error, (NotImplementedError, NameError)):
        return text
    if isinstance(error, (TypeError, AttributeError)) and _MISSING_VALUE.search(str(error)):
        return f"nothing where a value is needed ({error})"
    return None


def _is_learners(filename: str) -> bool:
    """True for code that is neither Python's, nor a package's, nor the workshop's."""
    if filename.startswith("<ipython-input"):
        return True
    if filename.startswith("<"):  # generated code: dataclasses, frozen modules
        return False
    path = Path(filename).resolve()
    folders = (
        PROJECT_ROOT / "workshop_lib",
        Path(sys.prefix),
        Path(sysconfig.get_path("stdlib")),
        Path(sysconfig.get_path("purelib")),
    )
    return not any(path.is_relative_to(folder.resolve()) for folder in folders)
