"""What the processes of a state folder say of themselves: a file each, believed while its process lives.

`server.json` is the dev server's. Below `services/` every worker, MCP server and JupyterLab has one of its
own, `<name>-<pid>.json`, so that nobody takes another's away. Left out: whether what lives also works
(`lab.watching.queues` asks the server who polls).
"""

import contextlib
import json
import os
import select
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from workshop_lib.machine import state_folder

Record: TypeAlias = dict[str, Any]

SERVER = "server.json"
SERVICES = "services"


def live_record(state_dir: Path, name: str = SERVER) -> Record | None:
    """What a record says of a process, if that process lives, else None.

    Args:
        name: of the file in the state folder; the dev server's by default.
    """
    record = read_record(state_dir / name)
    try:
        # A folder that was copied holds records of processes that work for another one.
        if not record or record.get("folder", _mark(state_dir)) != _mark(state_dir):
            return None
        process = psutil.Process(record["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # A pid is reused. The start time tells, except where the clock was set since (a laptop or WSL
        # that slept): there the command line does.
        same_start = abs(process.create_time() - record["create_time"]) < 2
        if same_start or process.cmdline() == record["command"]:
            return record
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        pass  # no such process, or not what we write
    return None


def read_record(path: Path) -> Record | None:
    """What a record says, of the living or the dead; None where there is none, or half of one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if isinstance(record, dict) else None
    except (OSError, ValueError):
        return None


def write_record(state_dir: Path, file: str, pid: int | None = None, **facts: Any) -> Path:
    """Record a process, in one step. Returns the file.

    Args:
        file: its name in the state folder.
        pid: of the process; this one by default.
        facts: what else there is to say, as JSON can.
    """
    path = state_dir / file
    state_folder.made(state_dir, *Path(file).parent.parts)
    process = psutil.Process(pid)
    record = facts | {
        "pid": process.pid,
        "create_time": process.create_time(),
        "command": process.cmdline(),
        "folder": _mark(state_dir),
    }
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.write_text(json.dumps(record, indent=1), encoding="utf-8")
    draft.replace(path)
    return path


def record_service(state_dir: Path, name: str, pid: int | None = None, **facts: Any) -> Path:
    """Record a process below `services/`, under its name and its id."""
    file = f"{SERVICES}/{name}-{pid or os.getpid()}.json"
    return write_record(state_dir, file, pid, name=name, **facts)


def services(state_dir: Path, kind: str | None = None) -> list[Record]:
    """The records below `services/` whose processes live, the latest last.

    Args:
        kind: "service", "worker" (of a notebook), "command", "mcp" or "jupyter"; all when left out.
    """
    files = (state_dir / SERVICES).glob("*.json")
    found = [live_record(state_dir, f"{SERVICES}/{file.name}") for file in files]
    living = [record for record in found if record and kind in (None, record.get("kind"))]
    return sorted(living, key=lambda record: float(record["create_time"]))


def remove_record(path: Path) -> None:
    """Take a record back; harmless where it is gone, with its folder perhaps."""
    with contextlib.suppress(OSError):
        path.unlink()


class End:
    """The end of a process: one that its parent has not looked at yet (a zombie) has ended too."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._event: int | None = os.pidfd_open(pid)
        except (
            AttributeError,
            OSError,
        ):  # not Linux, a sandbox that does not know it, or no such process
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
        try:
            process = psutil.Process(self._pid)
            if within != 0:
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(within)
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True


def _mark(folder: Path) -> list[int]:
    """What a folder keeps when it is moved, and a copy of it does not have."""
    found = folder.stat()
    return [found.st_dev, found.st_ino]
