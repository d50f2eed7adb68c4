"""Processes of this machine: whether one lives, when it ends, and ending it.

A process that has ended, and that its parent has not looked at yet (a zombie), lives no more. Left out: which
processes are ours (`machine.records`).
"""

import contextlib
import os
import select
import time
from collections.abc import Iterable

import psutil


def living(pid: int | None, *, held: bool = True) -> psutil.Process | None:
    """The process of this id, if it lives.

    Args:
        held: one that is held (stopped) counts too.
    """
    gone = {psutil.STATUS_ZOMBIE} if held else {psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED}
    try:
        process = psutil.Process(-1 if pid is None else pid)
        return None if process.status() in gone else process
    except (psutil.Error, ValueError, OverflowError):
        return None


class End:
    """The end of a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._event: int | None = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not Linux, a sandbox without it, or no such process
            self._event = None

    def __del__(self) -> None:
        if self._event is not None:
            os.close(self._event)

    def has_come(self, within: float | None = 0) -> bool:
        """Whether it has ended, or ends within so many seconds; None waits for ever."""
        if self._event is not None:
            ends = select.poll()
            ends.register(self._event, select.POLLIN)
            return bool(ends.poll(None if within is None else within * 1000))
        process = living(self._pid)
        if process and within != 0:
            with contextlib.suppress(psutil.Error):  # TimeoutExpired is one
                process.wait(within)
        return process is None or living(self._pid) is None or not process.is_running()


def end(pids: Iterable[int], timeout: float = 10) -> None:
    """End processes: ask each to leave, wait for it and its children, and insist after so many seconds."""
    ends: dict[psutil.Process, End] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has left by itself
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                ends[one] = End(one.pid)
            process.terminate()
    last = time.monotonic() + timeout
    for process, ended in ends.items():
        if not ended.has_come(max(0.0, last - time.monotonic())):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                ended.has_come(timeout)
