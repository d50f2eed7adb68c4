"""The learner's own copies of the notebooks.

Learners open copies in `workspace/`, which nothing here ever overwrites: a copy is made where there is
none, and a reset keeps what it replaces. Left out: how the notebooks come about (`tools/build_notebooks`).
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from workshop_lib.errors import WorkshopError
from workshop_lib.machine.files import write_whole
from workshop_lib.settings import PROJECT_ROOT

NOTEBOOKS = PROJECT_ROOT / "notebooks"


def prepare_workspace(workspace: Path, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Copy the notebooks that the workspace lacks. Returns the copies made, in order.

    Raises:
        WorkshopError: there is no notebook to copy, or the workspace cannot be written.
    """
    editions = _editions(notebooks)
    with _writing(workspace, notebooks):
        # A link that leads nowhere is the learner's too.
        missing = [e for e in editions if not os.path.lexists(workspace / e.name)]
        for edition in missing:
            write_whole(workspace / edition.name, edition.read_bytes())
    return [workspace / edition.name for edition in missing]


def reset_notebook(number: str, workspace: Path, notebooks: Path = NOTEBOOKS) -> Path | None:
    """Replace a learner's copy by the fresh edition.

    Args:
        number: "01", or "1".

    Returns:
        Where the replaced copy is kept: `workspace/backups/`. None when there was no copy.

    Raises:
        WorkshopError: there is no notebook with this number, or the workspace cannot be written.
    """
    editions = {edition.name[:2]: edition for edition in _editions(notebooks)}
    edition = editions.get(number.zfill(2)) if number else None
    if edition is None:
        raise WorkshopError(
            f"There is no notebook {number}.",
            expected=f"one of {', '.join(editions)}.",
            fix="run `workshop notebook reset NN` with one of these.",
        )
    copy, backup = workspace / edition.name, None
    with _writing(workspace, notebooks):
        if copy.exists():
            # A name that no backup has yet: the time, to the microsecond, is in it.
            when = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
            backup = workspace / "backups" / f"{copy.stem}.{when}.ipynb"
            backup.parent.mkdir(exist_ok=True)
            shutil.copy2(copy, backup)
        write_whole(copy, edition.read_bytes())
    return backup


@contextlib.contextmanager
def _writing(workspace: Path, notebooks: Path) -> Iterator[None]:
    """The workspace, made where it is missing, for as long as the block writes to it.

    Raises:
        WorkshopError: it holds the originals, or cannot be written.
    """
    if workspace.resolve() in (notebooks.resolve(), (PROJECT_ROOT / "solutions").resolve()):
        raise WorkshopError(
            f"{workspace} holds the project's own notebooks, not copies of them.",
            fix="set WORKSHOP_WORKSPACE to another folder, or unset it.",
        )
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise WorkshopError(
            f"{workspace} cannot be written: {error.strerror}.",
            fix="free the space or the permission, and run the command again.",
        ) from None


def _editions(notebooks: Path) -> list[Path]:
    """The learner's editions as they are published.

    Raises:
        WorkshopError: there is none.
    """
    editions = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not editions:
        raise WorkshopError(
            f"{notebooks} holds no notebook.",
            expected="NN_verb_object.ipynb, as in the project's repository.",
            fix="run `git restore notebooks`, or `uv run python tools/build_notebooks.py`.",
        )
    return editions
