"""An order store that answers and cannot be used: told from one that does not answer, and put aside.

A database that is locked, full or restarting is waited for (`store.StoreUnavailable`). One that is no
database, lacks a table or holds a row that is none stays so however often it is asked: whoever asks is told
at once, with the row, and `workshop repair reset` begins anew. Left out: mending it.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import URL, Date, DateTime, Select, String, Table, select, type_coerce
from sqlalchemy.exc import SQLAlchemyError

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError

Model = TypeVar("Model", bound=BaseModel)

# SQLite's codes of what passes: busy, locked, no memory, read-only, interrupted, I/O, full, cannot be opened,
# changed meanwhile, protocol, no permission. Every other one is damage.
_PASSES = {3, 5, 6, 7, 8, 9, 10, 13, 14, 15, 17, 23}


class StoreDamaged(WorkshopError):
    """The store cannot be used as it is, and asking again does not help. Nothing was changed."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            expected="the tables and rows that the workshop has written.",
            fix="`workshop repair reset` begins anew from data/ and keeps a damaged file aside.",
        )


def damage_of(error: SQLAlchemyError, url: URL) -> str | None:
    """What is broken, in words without a secret, or None where the database only does not answer."""
    original = getattr(error, "orig", None)
    if type(original).__module__ == "sqlite3":  # by its name: there are Pythons without it
        path = Path(url.database or "")
        if path.exists() and not path.is_file():
            return "it is no file"
        code = getattr(original, "sqlite_errorcode", 1) & 0xFF  # none: a text that is no UTF-8
        return None if code in _PASSES else harmless.line(original, 200)
    # PostgreSQL: class 42 is a table or column that is not there. The text may quote the statement.
    state = str(getattr(original, "sqlstate", None) or "")
    return f"a table or column is missing ({state})" if state.startswith("42") else None


def rows_of(table: Table) -> Select[Any]:
    """A query of a whole table, in which dates are left as they are written until they are validated."""
    return select(
        *(
            type_coerce(column, String).label(column.name)
            if isinstance(column.type, Date | DateTime)
            else column
            for column in table.columns
        )
    )


def validated(kind: type[Model], row: Mapping[Any, Any], table: Table) -> Model:
    """A row as what it must be.

    Raises:
        StoreDamaged: it is not; the row and what is wrong with it are named.
    """
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        key = ", ".join(str(row.get(column.name)) for column in table.primary_key)
        where = ".".join(str(part) for part in fault["loc"])
        raise StoreDamaged(
            f"The row {harmless.line(key, 100)!r} of {table.name} cannot be used: "
            + harmless.line(f"{where}: {fault['msg']}.", 200)
        ) from None


def put_aside(path: Path) -> Path:
    """Move a damaged database out of the way, with what SQLite keeps beside it. Returns where it lies."""
    when = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    kept = path.with_name(f"{path.stem}.damaged-{when}{path.suffix}")
    for end in ("-wal", "-shm", "-journal"):
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.replace(kept.with_name(kept.name + end))
    return path.replace(kept)
