"""The database behind the order store: how it is opened, and what its trouble means.

An SQLite file; what PostgreSQL needs apart from it stands in `postgres`. A database that is locked, full or
restarting is waited for (`StoreUnavailable`). One that is no database, lacks a table or holds a row that is
none stays so however often it is asked: whoever asks is told at once (`StoreDamaged`), and `workshop repair
reset` begins anew. Left out: what is kept there (`tables`, `store`), and mending it.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError
from workshop_lib.machine.environment import require_python

WAIT_SECONDS = 10  # for a lock that another repair holds, and for the database to answer

# SQLite's codes of what passes: busy, locked, no memory, read-only, interrupted, I/O, full, cannot be opened,
# changed meanwhile, protocol, no permission. Every other one is damage.
_PASSES = {3, 5, 6, 7, 8, 9, 10, 13, 14, 15, 17, 23}


class StoreUnavailable(WorkshopError):
    """The database does not answer, or not in time; asking again may help. Nothing was changed."""


class StoreDamaged(WorkshopError):
    """The store cannot be used as it is, and asking again does not help. Nothing was changed."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            expected="the tables and rows that the workshop has written.",
            fix="`workshop repair reset` begins anew from data/ and keeps a damaged file aside.",
        )


class Duplicate(StoreDamaged):
    """A row of the same key is there already. Where no key is given, tables hold rows that are not ours."""

    def __init__(self) -> None:
        super().__init__("The order store holds rows where there must be none.")


class Database:
    """An SQLite file.

    Args:
        url: its address.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self.engine = self._open()

    @contextlib.contextmanager
    def transaction(self, *, writing: bool) -> Iterator[Connection]:
        """A transaction; trouble with the database is said without the URL's password.

        Raises:
            StoreUnavailable: the database does not answer.
            StoreDamaged: it cannot be used; `Duplicate` where a row of that key is there already.
        """
        try:
            options = self._options(writing)
            with (
                self.engine.connect().execution_options(**options) as connection,
                connection.begin(),
            ):
                yield connection
        except IntegrityError:
            raise Duplicate from None
        except SQLAlchemyError as error:
            original = getattr(error, "orig", None) or error
            if damage := self._damage(original):
                raise StoreDamaged(
                    f"The order store at {place_of(self._url)} is damaged: {damage}."
                ) from None
            raise StoreUnavailable(
                f"The order store at {place_of(self._url)} does not answer: {self._reason(original)}.",
                expected="a database that can be written, and no other program that holds it for long.",
                fix="check ORDERS_DATABASE_URL, or unset it to use the file in the state folder.",
            ) from None

    def lock_creation(self, connection: Connection) -> None:
        """One creator at a time. SQLite has locked the whole file when a writing transaction began."""

    def lock_all(self, connection: Connection) -> None:
        """Keep everybody away from what is about to be replaced.

        Raises:
            StoreDamaged: the file is no sound database.
        """
        result = connection.execute(text("PRAGMA quick_check(1)")).scalar()
        if result != "ok":
            raise StoreDamaged(f"{place_of(self._url)} is damaged: {harmless.line(result)}.")

    def put_aside(self) -> Path | None:
        """Move a damaged file out of the way, with what SQLite keeps beside it.

        Returns:
            Where it lies; None where there is no file to move.
        """
        path = Path(self._url.database or "")
        if not path.exists():
            return None
        when = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        kept = path.with_name(f"{path.stem}.damaged-{when}{path.suffix}")
        for end in ("-wal", "-shm", "-journal"):
            beside = path.with_name(path.name + end)
            if beside.exists():
                beside.replace(kept.with_name(kept.name + end))
        return path.replace(kept)

    def _open(self) -> Engine:
        require_python()
        import sqlite3

        class ClosesCursors(sqlite3.Connection):
            """Its cursors end with it. One that was not read to its end holds its lock on the file otherwise,
            for as long as somebody has the traceback, as a notebook does."""

            def cursor(self, *factory: Any) -> Any:
                made = super().cursor(*factory)
                self.__dict__.setdefault("cursors", WeakSet()).add(made)
                return made

            def close(self) -> None:
                for cursor in self.__dict__.get("cursors", ()):
                    cursor.close()
                super().close()

        engine = create_engine(
            self._url,
            poolclass=NullPool,  # the file may be removed and come back while this process lives
            connect_args={"timeout": WAIT_SECONDS, "factory": ClosesCursors},
            hide_parameters=True,
        )

        @event.listens_for(engine, "connect")
        def _no_implicit_begin(dbapi_connection: Any, _record: Any) -> None:
            dbapi_connection.isolation_level = None  # Python's driver would begin too late
            dbapi_connection.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # A writer takes its lock before it reads: two that read first could both go on from the same
            # stock, and one of them would have to fail.
            writing = connection.get_execution_options().get("workshop_writing")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

        return engine

    def _options(self, writing: bool) -> dict[str, Any]:
        return {"workshop_writing": writing}

    def _damage(self, original: BaseException) -> str | None:
        """What is broken, in words without a secret, or None where the database only does not answer."""
        if type(original).__module__ != "sqlite3":  # by its name: there are Pythons without it
            return None
        path = Path(self._url.database or "")
        if path.exists() and not path.is_file():
            return "it is no file"
        code = getattr(original, "sqlite_errorcode", 1) & 0xFF  # none: a text that is no UTF-8
        return None if code in _PASSES else harmless.line(original, 200)

    def _reason(self, original: BaseException) -> str:
        plain = type(original).__module__ == "sqlite3"
        return harmless.line(original) if plain else type(original).__name__


def database_at(written: str) -> Database:
    """The database that an SQLAlchemy URL names.

    Raises:
        WorkshopError: it names none that the store can be on, or its driver is not installed.
    """
    try:
        url = make_url(written)
    except (ArgumentError, ValueError):  # the text would quote the URL; ValueError: a bad port
        raise WorkshopError(
            "ORDERS_DATABASE_URL is no database URL.",
            expected="sqlite:///file or postgresql://user:password@host/database.",
            fix="correct it in .env, or unset it to use the file in the state folder.",
        ) from None
    if url.get_backend_name() in ("postgresql", "postgres"):
        from workshop_lib.repair.postgres import Postgres  # hardly anybody needs it

        return Postgres(url.set(drivername="postgresql+psycopg"))
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        return Database(url)
    raise WorkshopError(
        f"The order store cannot be a database of {url.get_backend_name()!r} at {place_of(url)}.",
        expected="an SQLite file or PostgreSQL.",
        fix="correct ORDERS_DATABASE_URL, or unset it.",
    )


def place_of(url: URL) -> str:
    """A database in words that hold no secret."""
    return f"{url.get_backend_name()} {url.host or ''}{'/' if url.host else ''}{url.database or ''}"
