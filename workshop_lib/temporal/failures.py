"""What a failure carries to the server: what a person needs to mend it, in a bounded number of bytes.

The server keeps 4,096 bytes of an activity's failure. A larger one it replaces, its type included, by
"Failure exceeds size limit."; and the SDK sends the whole stack trace of an exception and of each of its
causes, so that a long path is enough. Here a failure keeps its first causes and its root, and of the stack
traces a few lines of code that somebody here can change. Of a group of exceptions it is the leaf that says
what happened. A forgotten `await` is named.

Left out: what a person is told about a failure (`lab.watching.failures`).
"""

import inspect
import re
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import CoroutineType
from typing import Any, NamedTuple

from nexusrpc import HandlerError
from temporalio import workflow
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError, FailureError

from workshop_lib.temporal.compressed import Compressed

# Bytes. All together stays below 3,600, whatever is raised.
MESSAGE, INNER_MESSAGE, STACKS, DETAILS, NAME = 1_000, 200, 1_100, 400, 60
CAUSES = 4  # links of the chain: the outermost three and the root
FRAMES = 3  # of a link
MISSING = "an `await` is missing"
# What Python, pydantic and the SDK say of a coroutine that stands where its result should.
ABOUT_COROUTINE = re.compile(
    r"'coroutine'|<coroutine object|\btype:? coroutine|input_type=coroutine"
)

_OWN = str(Path(__file__).parent.parent)
_FOREIGN = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
_PACKAGES = re.compile(r"[\\/](site|dist)-packages[\\/]|^<(?!ipython-input)")
_CELL = re.compile(
    r"[\\/](cells|ipykernel_\d+)[\\/]|^<ipython-input"
)  # a learner's, whatever called it
FRAME = re.compile(
    r'File "(?P<file>.+?)", line (?P<line>\d+)(, in (?P<name>.*))?(\n {4}(?P<source>\S.*))?'
)


class Link(NamedTuple):
    """One exception of a chain: its class, what it says, and its stack trace, innermost frame last."""

    error: BaseException
    kind: str
    message: str
    stack: str


def chain(error: BaseException, *, implicit: bool = False) -> list[Link]:
    """An exception and what it was caused by, outermost first; in the place of a group its leaf.

    Args:
        implicit: where nothing is named as its cause, what was being handled when it was raised.
    """
    links: list[Link] = []
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        links.append(_link(following))
        inner = links[-1].error
        following = inner.__cause__
        meant = isinstance(inner, FailureError) and not inner.__suppress_context__
        if following is None and (implicit or meant):
            following = inner.__context__
    return links


def chain_of(failure: Failure) -> list[Failure]:
    """A failure as the server keeps it, and what it was caused by, outermost first."""
    links = [failure]
    while links[-1].HasField("cause"):
        links.append(links[-1].cause)
    return links


def forgotten(error: BaseException) -> "CoroutineType[Any, Any, Any] | None":
    """The coroutine that an error is about, where somebody has forgotten to await it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    held = [getattr(error, "obj", None), *(v for f in frames[::-1] for v in f.f_locals.values())]
    return next((found for value in held for found in _coroutines(value)), None)


def without_await(coroutine: "CoroutineType[Any, Any, Any] | None") -> str:
    """The sentence about it."""
    return f"{MISSING}, before `{coroutine.cr_code.co_qualname}(…)`" if coroutine else MISSING


def origin_of(coroutine: "CoroutineType[Any, Any, Any]") -> traceback.FrameSummary | None:
    """Where it was called, in threads that keep track of that (`sys.set_coroutine_origin_tracking_depth`)."""
    origin = getattr(coroutine, "cr_origin", None) or ()
    ours = [traceback.FrameSummary(*place) for place in origin if not _is_foreign(place[0])]
    return ours[0] if ours else None


class SmallFailures(DefaultFailureConverter):
    """The SDK's converter, of which each failure is small by construction."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """See base class."""
        links = [
            made for link in _kept(chain(exception)) for made in _protos(link, payload_converter)
        ]
        links, left = _kept(links), STACKS
        for link in reversed(links):  # the root's lines are the ones that matter most
            _trim(link, MESSAGE if link is links[0] else INNER_MESSAGE)
            link.stack_trace = small_stack(link.stack_trace, left)
            left -= len(link.stack_trace.encode())
        for outer, inner in reversed(list(pairwise(links))):
            outer.cause.CopyFrom(inner)
        failure.CopyFrom(links[0])


# Understands pydantic models, and what was written compressed. Both sides of a call need the same.
DATA_CONVERTER = replace(
    pydantic_data_converter, failure_converter_class=SmallFailures, payload_codec=Compressed()
)


def small_stack(stack: str, limit: int = STACKS) -> str:
    """Of a stack trace the innermost lines of this project and of learners, with short paths.

    Args:
        limit: bytes.
    """
    ours = [found for found in FRAME.finditer(stack) if not _is_foreign(found["file"])]
    kept = ours[-FRAMES:]
    cells = [found for found in ours if _CELL.search(found["file"])]
    theirs = cells or [found for found in ours if not found["file"].startswith(_OWN)]
    if theirs and theirs[-1] not in kept:
        kept[0] = theirs[-1]
    text = ""
    for found in reversed(kept):
        entry = f'  File "{_short(found["file"])}", line {found["line"]}'
        entry += f", in {cut(found['name'], NAME)}" if found["name"] else ""
        entry += f"\n    {cut(found['source'], 2 * NAME)}\n" if found["source"] else "\n"
        if len((entry + text).encode()) > limit:
            break
        text = entry + text
    return text


def cut(text: str, limit: int) -> str:
    """Text of at most so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 3].decode("utf-8", "ignore") + "…"


def _link(error: BaseException) -> Link:
    """An exception, or the leaf of a group; one that was only cancelled because of another is none."""
    stacks = []
    while isinstance(error, BaseExceptionGroup):
        stacks.append(_stack_of(error))
        inner = error.exceptions
        error = next((one for one in inner if isinstance(one, Exception)), inner[0])
    stacks.append(_stack_of(error))
    message = _text_of(error)
    if ABOUT_COROUTINE.search(message) and MISSING not in message:
        coroutine = forgotten(error)
        message = f"{message.rstrip('.')}: {without_await(coroutine)}"
        if coroutine is not None and (place := origin_of(coroutine)):
            stacks += traceback.format_list(traceback.StackSummary.from_list([place]))
    return Link(error, type(error).__name__, message, "".join(stacks))


def _stack_of(error: BaseException) -> str:
    return "".join(traceback.format_tb(error.__traceback__, limit=-200))


def _text_of(error: BaseException) -> str:
    try:
        return error.message if isinstance(error, FailureError | HandlerError) else str(error)
    except Exception:  # its own code is what is broken
        return ""


def _coroutines(value: object) -> "Iterator[CoroutineType[Any, Any, Any]]":
    inside = list(value.values()) if isinstance(value, dict) else value
    for one in (value, *(inside if isinstance(inside, list | tuple) else ())):
        if inspect.iscoroutine(one) and inspect.getcoroutinestate(one) == inspect.CORO_CREATED:
            yield one


def _kept(links: list[Any]) -> list[Any]:
    return links if len(links) <= CAUSES else [*links[: CAUSES - 1], links[-1]]


class _Alone(DefaultFailureConverter):
    """Converts an exception without its causes, for which the base class calls `to_failure`."""

    def to_failure(self, exception: Any, payload_converter: Any, failure: Any) -> None:
        pass

    def convert(self, error: BaseException, payload_converter: PayloadConverter) -> Failure:
        failure = Failure()
        super().to_failure(error, payload_converter, failure)
        return failure


def _protos(link: Link, payload_converter: PayloadConverter) -> Iterator[Failure]:
    """A link as the server keeps it; one that came from there brings its causes along."""
    error = link.error
    if not isinstance(error, FailureError | HandlerError):
        error = ApplicationError(cut(link.message, MESSAGE), type=link.kind)
    try:
        made = _Alone().convert(error, payload_converter)
    except Exception:  # half a character, or details that cannot be encoded
        kind, final = getattr(error, "type", None), bool(getattr(error, "non_retryable", False))
        plain = ApplicationError(
            cut(link.message, MESSAGE), type=str(kind or link.kind), non_retryable=final
        )
        made = _Alone().convert(plain, payload_converter)
    if not (isinstance(error, FailureError) and error.failure):
        made.stack_trace = link.stack.encode("utf-8", "replace").decode()
    for whole in chain_of(made):
        alone = Failure()
        alone.CopyFrom(whole)
        alone.ClearField("cause")
        yield alone


def _trim(failure: Failure, limit: int) -> None:
    failure.message = cut(failure.message, limit)
    info = failure.application_failure_info
    if failure.HasField("application_failure_info"):
        info.type = cut(info.type, NAME)
        # Of a workflow's failure there is room for its result so far.
        if info.details.ByteSize() > DETAILS and not workflow.in_workflow():
            info.ClearField("details")


def _is_foreign(file: str) -> bool:
    return not file.startswith(_OWN) and bool(_PACKAGES.search(file) or file.startswith(_FOREIGN))


def _short(file: str) -> str:
    """The last two parts of a path: which file it is, whatever folder this project lies in."""
    parts = Path(file).parts[-2:]
    return cut("/".join(parts) if len(Path(file).parts) < 3 else "/".join(("…", *parts)), 4 * NAME)
