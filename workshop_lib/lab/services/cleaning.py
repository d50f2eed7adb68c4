"""`workshop clean`: what runs in the state folder is stopped, and what is ours there is deleted.

What `workshop down` would stop is stopped. A lab that somebody works with (JupyterLab, a kernel, a chat in
another terminal) is not: its folder stays as it is. Left out: which files are ours (`machine.state_folder`).
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from workshop_lib.edge import say
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server.lifecycle import stop
from workshop_lib.lab.services.background import one_at_a_time, running_services, stop_services
from workshop_lib.machine import records, state_folder
from workshop_lib.machine.environment import PROJECT_ROOT, absolute
from workshop_lib.machine.processes import living

_OUR_PROGRAMS = re.compile(r"workshop_lib|[/\\]workshop(\.exe)? |jupyter|ipykernel|start-dev")


def clean(folder: Path) -> list[str]:
    """Stop the services and the dev server of a state folder, and delete what is ours in it.

    Returns:
        What stayed: each path with the reason.

    Raises:
        WorkshopError: somebody works with it; nothing was stopped or deleted.
    """
    with one_at_a_time(say):
        if others := list(_others(folder)):
            raise WorkshopError(
                f"{folder} is in use by {', '.join(others[:5])}. Nothing was stopped or deleted.",
                expected="a state folder that nobody works with.",
                fix="end that first: Ctrl-C in its terminal, *Shut Down* for a kernel, `workshop down` for"
                " what was left behind.",
            )
        stop_services()
        if records.live_record(folder):  # else what is called like its record need not be one
            stop(folder)
        return state_folder.delete(folder)


def _others(folder: Path) -> Iterator[str]:
    """The processes that work with a state folder and that `workshop down` would not stop."""
    ours = {service.pid for service in running_services()}
    if record := records.live_record(folder):
        ours.add(record["pid"])
    with contextlib.suppress(psutil.Error):
        here = psutil.Process()
        ours |= {here.pid, *(parent.pid for parent in here.parents())}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid in ours or not living(process.pid):
                continue
            command = " ".join(process.cmdline()) + " "
            if not _OUR_PROGRAMS.search(command):
                continue
            named = process.environ().get("WORKSHOP_STATE_DIR", "").strip()
            theirs = Path(absolute(named)) if named else PROJECT_ROOT / ".workshop"
            if theirs.resolve() == folder.resolve() and (named or str(PROJECT_ROOT) in command):
                yield f"{process.name()} (pid {process.pid})"
