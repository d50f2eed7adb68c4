"""The process that others are forked from, so that they find loaded what takes seconds to load.

Each order comes with open files on a socket (`lab.workers.forking` sends it) and is forked for twice: the
first child stays behind and tells how the second, which does the work, has ended. Nothing here starts a
thread, which a fork would not take along. Left out: what the work is; an order names a module with a `main`.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from workshop_lib.lab.workers.forking import LARGEST_ORDER, NUMBER
from workshop_lib.llm.large_imports import large_import
from workshop_lib.settings import get_settings

MOST_FILES = 32


def main() -> None:
    """Load, then fork whenever it is asked for, until the one who asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that stay behind
    control = socket.socket(fileno=int(sys.argv[1]))
    _load()
    while True:
        order, files, _, _ = socket.recv_fds(control, LARGEST_ORDER, MOST_FILES)
        if not order:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            _stay_behind(json.loads(order), files)
        for number in files:
            os.close(number)


def _load() -> None:
    """Import what workers that call models need."""
    with large_import():
        import workshop_lib.agents.worker
        import workshop_lib.lab.workers.child
        import workshop_lib.repair.worker  # noqa: F401
        from workshop_lib.llm.gateway import load_now

        load_now()  # loads LiteLLM
    # What is loaded stays, and forks share its memory for as long as nobody writes to it.
    gc.freeze()


def _stay_behind(order: dict[str, Any], files: Sequence[int]) -> None:
    """Fork the one that does the work, and tell its id and how it ended. Does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told, *given = files
    worker = os.fork()
    if worker == 0:
        os.close(told)
        _work(order, given)
    for number in given:  # an end that is held open here would never be seen to end
        os.close(number)
    with contextlib.suppress(OSError):  # the one who asked may be gone
        os.write(told, NUMBER.pack(worker))
    # Not reaped before it is told: its id belongs to nobody else until then.
    ended = os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with contextlib.suppress(OSError):
        os.write(told, NUMBER.pack(status))
    os._exit(0)


def _work(order: dict[str, Any], given: Sequence[int]) -> None:
    """Be the process that was asked for. Does not return."""
    status = 1
    try:
        os.setsid()
        _take_files(given, order["files"])
        os.environ.clear()
        os.environ.update(order["env"])
        get_settings.cache_clear()
        sys.argv = [order["module"], *order["arguments"]]
        import_module(order["module"]).main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else bool(ended.code)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)


def _take_files(given: Sequence[int], numbers: Sequence[int]) -> None:
    """Give open files the numbers that the one who asked knows them by, the three standard ones first."""
    import fcntl  # not everywhere, and this module is imported everywhere

    free = max(numbers) + 1
    aside = [fcntl.fcntl(number, fcntl.F_DUPFD, free) for number in given]
    for number in given:
        os.close(number)
    for number, wanted in zip(aside, numbers, strict=True):
        os.dup2(number, wanted)
        os.close(number)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


if __name__ == "__main__":
    main()
