"""The database file of the dev server: which version wrote it, and whether this one can go on with it.

The server itself neither migrates the file nor says that it does not fit: it starts, and then workflows
hang. Left out: what is in it; only the server reads that.
"""

import re
import tempfile
from contextlib import closing
from pathlib import Path

from workshop_lib.errors import WorkshopError
from workshop_lib.machine.surroundings import require_python

DATABASE = "temporal.db"
VERSION_FILE = "temporal.db.version"

_COLUMNS = "SELECT name FROM pragma_table_info(?)"
Layout = dict[str, set[str]]  # table → its columns


def supports_wal(folder: Path) -> bool:
    """Whether SQLite's write-ahead log works there: not on network and Windows-mounted file systems."""
    require_python()
    import sqlite3

    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as probe:
            file = Path(probe, "probe.db")
            with closing(sqlite3.connect(file)) as writer, closing(sqlite3.connect(file)) as reader:
                mode = writer.execute("PRAGMA journal_mode=WAL").fetchone()
                writer.execute("CREATE TABLE probe (n)")
                writer.execute("INSERT INTO probe VALUES (1)")
                writer.commit()
                seen = reader.execute("SELECT n FROM probe").fetchone()
                return bool(mode == ("wal",) and seen == (1,))
    except (OSError, sqlite3.Error):
        return False


def check_version(state_dir: Path, version: str | None) -> bool:
    """True when there is no database, or this very version used it last: then its layout is right.

    Raises:
        WorkshopError: it was last used by a newer server, or it is no database.
    """
    database = state_dir / DATABASE
    if not database.exists() or database.stat().st_size == 0:
        return True
    clean = "`workshop clean` to begin with an empty one"
    with database.open("rb") as file:
        if not file.read(16).startswith(b"SQLite format 3"):
            raise WorkshopError(f"{database} is not a database.", fix=f"run {clean}.")
    try:
        last = (state_dir / VERSION_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return False  # not recorded
    if version and _numbers(last) > _numbers(version):
        raise WorkshopError(
            f"{database} was last used by Temporal server {last}, and this one is {version}.",
            expected="the same version or a newer one.",
            fix=f"run `uv sync` to update, or {clean}.",
        )
    return last == version


def layout(database: Path) -> Layout:
    """Tables and columns of a database."""
    require_python()
    import sqlite3

    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: {row[0] for row in connection.execute(_COLUMNS, (name,))}
            for (name,) in tables.fetchall()
        }


def check_layout(database: Path, wanted: Layout, version: str | None) -> None:
    """Refuse a database that lacks what this version of the server works with.

    Args:
        wanted: the layout of a database that this version has just made.

    Raises:
        WorkshopError: a table or a column is missing, or the file cannot be read.
    """
    require_python()
    import sqlite3  # here, since there are Pythons without it, which the doctor can then say

    try:
        here = layout(database)
    except sqlite3.Error as error:
        raise WorkshopError(
            f"{database} is damaged: {error}.",
            fix="run `workshop clean` to begin with an empty one.",
        ) from None
    missing = [name for name, columns in wanted.items() if not columns <= here.get(name, set())]
    if missing:
        raise WorkshopError(
            f"{database} was made by another Temporal server, and {version or 'this one'} cannot go on "
            f"with it ({missing[0]} is missing or incomplete).",
            fix="run `workshop clean` to begin with an empty one; or move the file away to keep it.",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
