"""Why a Nexus handler failed, in one line of the notebook's log.

The SDK says at each attempt that a start has failed, and neither why nor where. The server tells the
caller what was raised, and not in which line. Left out: what a caller that waits is told
(`lab.watching.waiting`).
"""

import asyncio
import contextlib
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator

from workshop_lib.lab.watching.cell_files import locate_in_exception
from workshop_lib.lab.watching.explaining import plain
from workshop_lib.temporal.failures import chain

AGAIN = 60.0  # seconds after which the same failure is news
_FAILED = "Failed to execute Nexus"
_ears: list[Callable[[str], None]] = []  # who wants to hear of each failure


class _Listener(logging.Filter):
    """Puts error and line into the SDK's record, and lets a failure that repeats itself through once."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = sys.exc_info()[1]  # the SDK logs while it handles it
        if error is None or not str(record.msg).startswith(_FAILED):
            return True
        text = _in_words(error)
        for tell in _ears.copy():
            tell(text)
        record.msg, record.args = text, ()
        before, now = self.said.get(text), time.monotonic()
        self.said[text] = now
        return before is None or now - before > AGAIN


@contextlib.contextmanager
def first_failure() -> Iterator["asyncio.Future[str]"]:
    """What the first handler that fails in this process from now on says, as soon as it does."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[str] = loop.create_future()

    def note(text: str) -> None:
        if not first.done():
            first.set_result(text)

    def tell(text: str) -> None:  # in the worker's thread
        loop.call_soon_threadsafe(note, text)

    _ears.append(tell)
    try:
        yield first
    finally:
        _ears.remove(tell)
        first.cancel()


def listen() -> None:
    """Hear of failures in this process from now on. Called again, old failures are news again."""
    sdk = logging.getLogger("temporalio.nexus")
    for known in sdk.filters.copy():
        if isinstance(known, _Listener):
            sdk.removeFilter(known)
    sdk.addFilter(_Listener())


def _in_words(error: BaseException) -> str:
    if "<coroutine object" in str(error):
        # The SDK's own text speaks of clients, which is not what is wrong here.
        return (
            "A Nexus handler failed: it returned a coroutine. An `await` is missing, before "
            "`ctx.start_workflow(…)` for one"
        )
    line = _plain_cell_line(error) or locate_in_exception(error)
    where = f", in {line}" if line else ""
    leaf = chain(error)[0]
    return f"A Nexus handler failed: {leaf.kind}: {plain(leaf.message)}{where}"


def _plain_cell_line(error: BaseException) -> str | None:
    """The innermost line of an ordinary cell that an exception passed through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "ipykernel_" in frame.filename or frame.filename.startswith("<ipython-input"):
            return f"line {frame.lineno} of the handler's cell: {frame.line}"
    return None
