"""What the processes of a state folder say of themselves: a file each, believed while its process lives.

`server.json` is the dev server's. Below `services/` every worker, MCP server and JupyterLab has one of its
own, `<name>-<pid>.json`, so that nobody takes another's away. Left out: whether what lives also works
(`lab.watching.queues` asks the server who polls).
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NotRequired

import psutil
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from workshop_lib.machine import state_folder
from workshop_lib.machine.files import write_whole
from workshop_lib.machine.processes import living

SERVER = "server.json"
SERVICES = "services"


class Record(TypedDict):
    """What a process says of itself.

    The first four tell which process of which folder it is. A dev server has addresses. What is below
    `services/` has a name and a kind: "service", "worker" (of a notebook), "command", "mcp" or "jupyter". A
    worker says where and as whom it polls and what decides how it answers, an MCP server its address,
    JupyterLab the process of its command.
    """

    pid: int
    create_time: float
    command: NotRequired[list[str]]
    folder: NotRequired[list[int]]
    address: NotRequired[str]
    http_address: NotRequired[str]
    ui_url: NotRequired[str | None]
    name: NotRequired[str]
    kind: NotRequired[str]
    identity: NotRequired[str]
    namespace: NotRequired[str]
    queue: NotRequired[str]
    answers_with: NotRequired[dict[str, str]]
    url: NotRequired[str]
    owner: NotRequired[int]


_RECORD = TypeAdapter(Record)


def live_record(state_dir: Path, name: str = SERVER) -> Record | None:
    """What a record says of a process, if that process lives, else None.

    Args:
        name: of the file in the state folder; the dev server's by default.
    """
    record = read_record(state_dir / name)
    if record and name == SERVER and not record.keys() >= {"address", "ui_url"}:
        return None
    process = living(record["pid"]) if record else None
    if not record or not process:
        return None
    with contextlib.suppress(OSError, psutil.Error):
        # A folder that was copied holds records of processes that work for another one.
        if record.get("folder", _mark(state_dir)) != _mark(state_dir):
            return None
        # A pid is reused. The start time tells, except where the clock was set since (a laptop or WSL
        # that slept): there the command line does.
        same_start = abs(process.create_time() - record["create_time"]) < 2
        if same_start or process.cmdline() == record.get("command"):
            return record
    return None


def read_record(path: Path) -> Record | None:
    """What a record says, of the living or the dead; None where there is none, or none of ours."""
    try:
        return _RECORD.validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError):
        return None


def write_record(state_dir: Path, file: str, pid: int | None = None, **facts: Any) -> Path:
    """Record a process, in one step. Returns the file.

    Args:
        file: its name in the state folder.
        pid: of the process; this one by default.
        facts: what else there is to say: fields of `Record`.
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
    write_whole(path, json.dumps(record, indent=1))
    return path


def record_service(state_dir: Path, name: str, pid: int | None = None, **facts: Any) -> Path:
    """Record a process below `services/`, under its name and its id."""
    file = f"{SERVICES}/{name}-{pid or os.getpid()}.json"
    return write_record(state_dir, file, pid, name=name, **facts)


def services(state_dir: Path, kind: str | None = None) -> list[Record]:
    """The records below `services/` whose processes live, the latest last.

    Args:
        kind: as `Record` says; all when left out.
    """
    files = (state_dir / SERVICES).glob("*.json")
    records = [live_record(state_dir, f"{SERVICES}/{file.name}") for file in files]
    alive = [record for record in records if record and record.keys() >= {"name", "kind"}]
    wanted = [record for record in alive if kind in (None, record["kind"])]
    return sorted(wanted, key=lambda record: record["create_time"])


def of_the_dead(state_dir: Path) -> dict[Path, Record]:
    """The records below `services/` whose processes have ended. What is no record of ours is none of them."""
    files = {path: read_record(path) for path in (state_dir / SERVICES).glob("*.json")}
    return {
        path: record
        for path, record in files.items()
        if record and not live_record(state_dir, f"{SERVICES}/{path.name}")
    }


def remove_record(path: Path) -> None:
    """Take a record back; harmless where it is gone, with its folder perhaps."""
    with contextlib.suppress(OSError):
        path.unlink()


def _mark(folder: Path) -> list[int]:
    """What a folder keeps when it is moved, and a copy of it does not have."""
    found = folder.stat()
    return [found.st_dev, found.st_ino]
