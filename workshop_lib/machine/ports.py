"""Ports of this machine: which are free, and who holds the others."""

import contextlib
import socket
import sys
from typing import Any

import psutil

LOCALHOST = "127.0.0.1"


def is_listening(port: int, host: str = LOCALHOST, timeout: float = 0.5) -> bool:
    """True when something accepts connections there."""
    with contextlib.suppress(OSError, OverflowError):
        socket.create_connection((host, port), timeout=timeout).close()
        return True
    return False


def is_free(port: int) -> bool:
    """True when a server could listen on this port of 127.0.0.1."""
    # Two looks, since neither is enough: some systems let two programs bind the same port on different
    # addresses, and a program may hold a port without accepting connections.
    if is_listening(port):
        return False
    with socket.socket() as probe:
        if sys.platform != "win32":  # as servers do: connections of a past server may linger
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
    return True


def next_free(port: int) -> int:
    """The first free port from this one upwards: the same answer as long as the same ones are taken."""
    candidates = range(port, min(port + 200, 65536))
    return next((port for port in candidates if is_free(port)), None) or any_free()


def any_free() -> int:
    """A free port that the system chooses."""
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


def holder(port: int) -> str:
    """Who listens on a port, for a message: `python3 (pid 4711)`, or `a process of another user`."""
    unknown = "a process of another user"
    try:
        connections = psutil.net_connections(kind="tcp")
        pids = [c.pid for c in connections if _holds(c, port)]
    except psutil.AccessDenied:  # macOS shows only one's own processes, one by one
        pids = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(_holds(c, port) for c in process.net_connections(kind="tcp")):
                    pids.append(process.pid)
    pid = next((pid for pid in pids if pid), None)
    if pid is None:
        return unknown
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return unknown


def is_held_by(pid: int, port: int) -> bool:
    """True when it is this process of ours that listens on a port."""
    try:
        return any(_holds(c, port) for c in psutil.Process(pid).net_connections(kind="tcp"))
    except psutil.Error:  # it has left
        return False


def _holds(connection: Any, port: int) -> bool:
    listening = connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    return bool(connection.laddr) and connection.laddr.port == port and listening
