"""A forgotten `await`, said in a line: which call, and where.

It is the commonest slip, and Python says of it what helps nobody: that a coroutine has no such attribute,
or, whenever it is collected, that it "was never awaited". Errors that hold a coroutine are named where all
failures are made (`workshop_lib.temporal.failures`). This module has Python keep track of where a coroutine
was made, and looks after each cell at what it has left behind.
"""

import inspect
import re
import sys
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workshop_lib.lab.watching.cell_files import CellLine, locate, locate_in_stack
from workshop_lib.temporal.failures import (
    ABOUT_COROUTINE,
    FRAME,
    MISSING,
    chain,
    forgotten,
    origin_of,
    without_await,
)

FRAMES = 4  # from the call of a coroutine function up to the first line of a learner's
_NEVER = re.compile(r"coroutine '(?P<name>[^']+)' was never awaited")
_hooks: list[Callable[..., Any]] = []  # what ours stands in the place of
_told: set[tuple[str, int]] = set()  # where coroutines were made that Python may yet complain about
_NOWHERE = "", 0


def track() -> None:
    """Keep track, in this thread, of where coroutines are made. Costs next to nothing."""
    sys.set_coroutine_origin_tracking_depth(FRAMES)


def tracking_threads(number: int, name: str) -> ThreadPoolExecutor:
    """Threads for a worker's tasks that do so too."""
    return ThreadPoolExecutor(number, thread_name_prefix=name, initializer=track)


def register(ip: Any) -> None:
    """Look after each cell of an IPython shell, and put Python's complaints into words. Once will do."""
    track()
    if _hooks:
        return
    said: weakref.WeakSet[Any] = weakref.WeakSet()

    def look(result: Any) -> None:
        error = result.error_in_exec
        if error is not None and ABOUT_COROUTINE.search(str(error)):
            link = chain(error)[0]
            _say(link.message.rpartition(": ")[2], locate_in_stack(link.stack))
            if coroutine := forgotten(error):
                said.add(coroutine)
                _told.add(_place(coroutine))
        for value in (result.result, *ip.user_ns.copy().values()):
            new = inspect.iscoroutine(value) and value not in said
            if new and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
                said.add(value)
                _told.add(_place(value))
                _say(without_await(value), locate(*_place(value)))

    ip.events.register("post_run_cell", look)
    _hooks.append(warnings.showwarning)
    warnings.showwarning = _in_words


def _in_words(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
    """Python's warning of a coroutine that nobody has awaited, or any other as it is."""
    found = _NEVER.match(str(message))
    if not found:
        _hooks[0](message, category, *where, **more)
        return
    made = [(m["file"], int(m["line"])) for m in FRAME.finditer(str(message))]
    place = next((one for one in reversed(made) if locate(*one)), _NOWHERE)
    if place in _told:
        _told.remove(place)
    else:
        _say(f"{MISSING}, before `{found['name']}(…)`", locate(*place))


def _place(coroutine: Any) -> tuple[str, int]:
    made = origin_of(coroutine)
    return (made.filename, made.lineno or 0) if made else _NOWHERE


def _say(what: str, line: CellLine | None) -> None:
    where = f" In {line}" if line else ""
    print(f"{what[0].upper()}{what[1:]}.{where}", file=sys.stderr)
