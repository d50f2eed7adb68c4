"""What a notebook need not show: tracebacks of an interrupt, and of what was left half done.

A cell that is interrupted while it awaits ends with a traceback through the SDK, though nothing is wrong.
And a run that was given up leaves coroutines behind; when Python collects them, their complaints land in
whatever cell runs then, a correct one perhaps.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

INTERRUPTED = (
    "Interrupted. What runs on the server goes on, and nothing is lost: run the cell again to wait."
)
# What Python says of a coroutine that was collected before its end.
_COMPLAINTS = ("coroutine ignored GeneratorExit", "was created in a different Context")
_hooks: list[Callable[[Any], object]] = []  # the one that we have put ours in the place of


def register(ip: Any) -> None:
    """Keep these out of an IPython shell's cells."""
    ip.set_custom_exc((asyncio.CancelledError,), _interrupted)
    if not _hooks:
        _hooks.append(sys.unraisablehook)
        sys.unraisablehook = _unraisable


def _interrupted(
    shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None
) -> None:
    shell._showtraceback(kind, error, [INTERRUPTED])


def _unraisable(error: Any) -> None:
    if not any(complaint in str(error.exc_value) for complaint in _COMPLAINTS):
        _hooks[0](error)
