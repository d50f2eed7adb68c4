"""Where workflow cells lie on disk, and which cell a line of code belongs to.

A workflow cell is a file `<state_dir>/cells/<name>_<hash>.py`. Line 1 of the file stands for the magic
line, so line numbers of the file are line numbers of the cell. Left out: how a cell becomes a file and
a module (`lab.workers.cells`).
"""

import linecache
import re
import sys
from pathlib import Path
from typing import NamedTuple

from workshop_lib.machine import state_folder
from workshop_lib.settings import get_settings
from workshop_lib.temporal.failures import FRAME, chain

# Two underscores, so that a name with an underscore of its own cannot be mistaken for another's.
_FILE = re.compile(r"(?P<name>[A-Za-z]\w*?)__(?P<digest>[0-9a-f]{12})\.py$")


class CellLine(NamedTuple):
    """A line of a cell; an ordinary one has no name. Its text: "cell `greeting`, line 5: return 1 / 0"."""

    cell: str
    line: int
    source: str

    def __str__(self) -> str:
        source = f": {self.source}" if self.source else ""
        where = f"cell `{self.cell}`" if self.cell else "a cell"
        return f"{where}, line {self.line}{source}"


_loaded: dict[str, bool] = {}  # cells that have been loaded: whether their latest text was


def note_loaded(name: str, loads: bool) -> None:
    """Note whether a cell's latest text could be loaded."""
    if loads or name in _loaded:
        _loaded[name] = loads


def outdated() -> list[str]:
    """The cells whose latest text could not be loaded, so that the one before it is still in use."""
    return [name for name, loads in _loaded.items() if not loads]


def cells_dir() -> Path:
    """The folder that the files of workflow cells lie in. It may not exist yet."""
    return get_settings().state_dir / "cells"


def file_name(name: str, digest: str) -> str:
    """The file of one version of a cell; `digest` is 12 hexadecimal digits."""
    return f"{name}__{digest}.py"


def cell_of(filename: str) -> str | None:
    """The name of the cell that a file or a module's name stands for; None for any other."""
    base = Path(filename).name
    found = _FILE.match(base if base.endswith(".py") else f"{base}.py")
    return found["name"] if found else None


def put_on_path() -> Path:
    """Make the cells' folder, and make its modules importable. Returns the folder."""
    folder = state_folder.made(get_settings().state_dir, "cells")
    if str(folder) not in sys.path:
        # Last: a cell's name must never hide an installed module.
        sys.path.append(str(folder))
    return folder


def locate(filename: str, lineno: int) -> CellLine | None:
    """The cell and the source of a line; None where the file is no cell's.

    Args:
        filename: its whole path, or the end of it, as failures on the server have it.
    """
    path, name = Path(filename), cell_of(filename)
    if path.parent.name.startswith("ipykernel_") or filename.startswith("<ipython-input"):
        known = next(
            (key for key in linecache.cache if key.endswith("/".join(path.parts[-2:]))), ""
        )
        return CellLine("", lineno, linecache.getline(known, lineno).strip())
    if name is None or path.parent.name != "cells":
        return None
    whole = path if path.is_absolute() else cells_dir() / path.name
    return CellLine(name, lineno, linecache.getline(str(whole), lineno).strip())


def locate_in_stack(*stacks: str) -> CellLine | None:
    """The innermost cell line of a stack trace's text, from the first of the stacks that has one."""
    for stack in stacks:
        for frame in reversed([*FRAME.finditer(stack)]):
            if line := locate(frame["file"], int(frame["line"])):
                return line
    return None


def locate_in_exception(error: BaseException) -> CellLine | None:
    """The innermost cell line that an exception, or what caused it, passed through."""
    for link in reversed(chain(error, implicit=True)):
        wrong = link.error  # a line that is no Python is in no stack trace
        line = isinstance(wrong, SyntaxError) and locate(wrong.filename or "", wrong.lineno or 0)
        if line := line or locate_in_stack(link.stack):
            return line
    return None
