"""Which checks have passed, kept in `<state_dir>/progress.json`.

A check that has passed once stays passed: breaking things afterwards is what the notebooks ask for. Two
notebooks may record at once. A file that cannot be read is put aside and a new one begun; no check fails
because of it. Left out: how progress is shown (`workshop progress`).
"""

import logging
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from workshop_lib.machine import state_folder
from workshop_lib.machine.files import write_whole
from workshop_lib.settings import get_settings

logger = logging.getLogger(__name__)


class CheckRecord(BaseModel):
    """One check's history.

    Attributes:
        passed_at: when it first passed, UTC; None until then.
        tries: how often it was run, met or not.
    """

    passed_at: datetime | None = None
    tries: int = 0

    @property
    def passed(self) -> bool:
        """True once it has passed."""
        return self.passed_at is not None


class Progress(BaseModel):
    """Records by notebook ("00") and check."""

    version: int = 1
    notebooks: dict[str, dict[str, CheckRecord]] = {}


def record(notebook: str, check: str, passed: bool) -> None:
    """Write one run of a check down. What keeps it from being written is logged, not raised."""
    path = _path()
    try:
        state_folder.made(path.parent)
        with FileLock(path.with_suffix(".lock"), timeout=5):
            progress = _load(path, put_aside=True)
            entry = progress.notebooks.setdefault(notebook, {}).setdefault(check, CheckRecord())
            entry.tries += 1
            if passed and not entry.passed:
                entry.passed_at = datetime.now(UTC)
            write_whole(path, progress.model_dump_json(indent=1) + "\n")
    except (OSError, Timeout) as error:
        logger.warning("progress was not written to %s: %s", path, error)


def read() -> dict[str, dict[str, CheckRecord]]:
    """All records: `read()["00"]["greeting"].passed`. Empty where there is no file, or a damaged one."""
    return _load(_path()).notebooks


def _path() -> Path:
    return get_settings().state_dir / "progress.json"


def _load(path: Path, *, put_aside: bool = False) -> Progress:
    try:
        return Progress.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Progress()
    except (OSError, ValidationError):
        logger.warning("%s cannot be read; progress begins anew", path)
        if put_aside:
            path.replace(path.with_name("progress.damaged.json"))
        return Progress()
