"""Large results of tools: kept whole in the state folder, shown by their first part and a reference.

What a tool has returned would be sent to the model, and recorded, with every call of the turns that follow.
So an activity keeps it in a file (SQLite) and hands on the beginning, which says how to read on. A reference
counts in the session that it was made in and, where it is known who asks, for that person: any other is
refused in the words of one that does not exist. Left out: results of a size that one part holds; and whatever
is beyond `MAX_KEPT`.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field
from temporalio import activity

from workshop_lib.llm.tools import ToolInputError
from workshop_lib.machine import state_folder
from workshop_lib.settings import get_settings
from workshop_lib.temporal.bounded import cut
from workshop_lib.temporal.caller import asker
from workshop_lib.temporal.steps import heartbeating, step_options

if TYPE_CHECKING:
    import sqlite3  # loaded where it is used: there are Pythons without it

FILE = "results.db"
MAX_KEPT = 400_000  # characters; as much as surely fits into what an activity may be given
SHOWN = 2_000  # characters of a result that is shown whole
PART = 1_800  # characters of a part, which its head makes no longer than that
KEEP_OPTIONS = step_options(attempt=5, total=10, longest_pause=2)
REFERENCE = re.compile(r"\bresult (r-[0-9a-f]{12})\b")

_TABLE = """CREATE TABLE IF NOT EXISTS results (
    session TEXT, reference TEXT, subject TEXT, text TEXT, PRIMARY KEY (session, reference))"""


class ReadResultInput(BaseModel):
    """Arguments of the tool that reads on in a large result."""

    model_config = ConfigDict(extra="forbid")

    ref: str = Field(
        description="The reference of the result, such as r-0123456789ab", max_length=40
    )
    part: int = Field(description="Which part of it, 2 for the second one")


def read_result(args: ReadResultInput) -> str:
    """Read one part of a large result that a tool has returned earlier, by its reference."""
    subject = asker()
    with _opened() as file:
        found = file.execute(
            "SELECT text FROM results WHERE session = ? AND reference = ? AND subject = ?",
            (activity.info().workflow_id, args.ref.strip(), subject.name if subject else ""),
        ).fetchone()
    if found is None:
        raise ToolInputError(
            f"there is no result {args.ref!r} in this conversation; a reference stands at the beginning of a"
            " result that is shown in part"
        )
    parts = _parts(found[0])
    if not 1 <= args.part <= len(parts):
        raise ToolInputError(
            f"the result {args.ref.strip()} has the parts 1 to {len(parts)}, and no part {args.part}"
        )
    return _shown(args.ref.strip(), args.part, parts)


@activity.defn
async def keep_result(text: str) -> str:
    """Keep a large result; returns its first part, with the reference.

    May run twice, when a worker dies before its result is recorded. The reference is made of the activity, so
    the second run finds what the first has kept, and changes nothing.
    """
    async with heartbeating():
        return kept(text)


def kept(text: str) -> str:
    """As `keep_result`, from within another activity; a text that is not large comes back as it is."""
    if len(text) <= SHOWN:
        return text
    info, subject = activity.info(), asker()
    made_by = f"{info.workflow_id}/{info.workflow_run_id}/{info.activity_id}"
    reference = f"r-{hashlib.sha256(made_by.encode()).hexdigest()[:12]}"
    row = info.workflow_id, reference, subject.name if subject else "", cut(text, MAX_KEPT)
    import sqlite3

    try:
        with _opened() as file:
            file.execute("INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?)", row)
    except (OSError, sqlite3.Error) as error:  # a full disk should not cost the answer
        activity.logger.warning("A large result could not be kept: %s", error)
        return cut(text, PART)
    return _shown(reference, 1, _parts(row[-1]))


def copy_results(session: str, fork: str) -> None:
    """Keep what is kept of a session for another one too, which goes on from it.

    Args:
        session, fork: their workflow ids.
    """
    if (get_settings().state_dir / FILE).exists():
        with _opened() as file:
            file.execute(
                "INSERT OR IGNORE INTO results"
                " SELECT ?, reference, subject, text FROM results WHERE session = ?",
                (fork, session),
            )


def delete_results(session: str) -> int:
    """Delete what is kept of a session. Returns how many results that were.

    Args:
        session: its workflow id.
    """
    if not (get_settings().state_dir / FILE).exists():
        return 0
    with _opened() as file:
        return file.execute("DELETE FROM results WHERE session = ?", (session,)).rowcount


@contextlib.contextmanager
def _opened() -> Iterator["sqlite3.Connection"]:
    import sqlite3

    path = state_folder.made(get_settings().state_dir) / FILE
    path.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(path, timeout=5)) as file, file:
        file.execute("PRAGMA secure_delete = ON")
        file.execute(_TABLE)
        yield file


def _parts(text: str) -> list[str]:
    return [text[start : start + PART] for start in range(0, len(text), PART)]


def _shown(reference: str, part: int, parts: list[str]) -> str:
    more = ", read_result reads the others" if len(parts) > 1 else ""
    return f"(Part {part} of {len(parts)} of result {reference}{more}.)\n{parts[part - 1]}"
