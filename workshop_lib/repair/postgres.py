"""What PostgreSQL needs that an SQLite file does not: a pool, and locks that are asked for by name.

Left out: everything that both have in common (`database`).
"""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, inspect, text

from workshop_lib.errors import WorkshopError
from workshop_lib.repair import database

_CREATION = 5_077_001  # the lock's name for "somebody is creating the tables"


class Postgres(database.Database):
    """A PostgreSQL database."""

    def lock_creation(self, connection: Connection) -> None:
        """One creator at a time."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _CREATION})

    def lock_all(self, connection: Connection) -> None:
        """After the repairs that are under way, and before the ones to come.

        Everyone else reads this table first, so nobody can hold another that we need while waiting for us.
        """
        self.lock_creation(connection)
        if inspect(connection).has_table("store_info"):
            connection.execute(text("LOCK TABLE store_info IN ACCESS EXCLUSIVE MODE"))

    def put_aside(self) -> Path | None:
        """Nothing: a server's database is not ours to move."""
        return None

    def _open(self) -> Engine:
        limit = database.WAIT_SECONDS * 1000
        try:
            return create_engine(
                self._url,
                pool_pre_ping=True,  # the server may have been restarted
                pool_timeout=database.WAIT_SECONDS,
                connect_args={
                    "connect_timeout": database.WAIT_SECONDS,
                    "options": f"-c lock_timeout={limit} -c statement_timeout={limit}",
                },
                hide_parameters=True,
            )
        except ModuleNotFoundError:
            raise WorkshopError(
                "The order store is on PostgreSQL, and its driver is not installed.",
                fix="uv sync --extra postgres",
            ) from None

    def _options(self, writing: bool) -> dict[str, Any]:
        # All that is read is of one moment.
        return {} if writing else {"isolation_level": "REPEATABLE READ"}

    def _damage(self, original: BaseException) -> str | None:
        # Class 42 is a table or column that is not there. The text may quote the statement.
        state = str(getattr(original, "sqlstate", None) or "")
        return f"a table or column is missing ({state})" if state.startswith("42") else None

    def _reason(self, original: BaseException) -> str:
        return type(original).__name__  # its text may quote the statement and the address
