"""The databases that the order store may be on: SQLite and PostgreSQL, and how each is opened.

Left out: what is kept there (`tables`, `store`).
"""

from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from workshop_lib.errors import WorkshopError
from workshop_lib.machine.surroundings import require_python

WAIT_SECONDS = 10  # for a lock that another repair holds, and for the database to answer


def url_of(written: str) -> URL:
    try:
        url = make_url(written)
    except (ArgumentError, ValueError):  # the text would quote the URL; ValueError: a bad port
        raise WorkshopError(
            "ORDERS_DATABASE_URL is no database URL.",
            expected="sqlite:///file or postgresql://user:password@host/database.",
            fix="correct it in .env, or unset it to use the file in the state folder.",
        ) from None
    if url.get_backend_name() in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    raise WorkshopError(
        f"The order store cannot be a database of {url.get_backend_name()!r} at {place_of(url)}.",
        expected="an SQLite file or PostgreSQL.",
        fix="correct ORDERS_DATABASE_URL, or unset it.",
    )


def engine_of(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        limit = WAIT_SECONDS * 1000
        try:
            return create_engine(
                url,
                pool_pre_ping=True,  # the server may have been restarted
                pool_timeout=WAIT_SECONDS,
                connect_args={
                    "connect_timeout": WAIT_SECONDS,
                    "options": f"-c lock_timeout={limit} -c statement_timeout={limit}",
                },
                hide_parameters=True,
            )
        except ModuleNotFoundError:
            raise WorkshopError(
                "The order store is on PostgreSQL, and its driver is not installed.",
                fix="uv sync --extra postgres",
            ) from None
    assert url.database
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
        url,
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


def place_of(url: URL) -> str:
    """A database in words that hold no secret."""
    return f"{url.get_backend_name()} {url.host or ''}{'/' if url.host else ''}{url.database or ''}"
