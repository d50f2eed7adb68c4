"""The outermost edge of every program of ours: what ends it is said in words, and its streams never fail.

A person sees what went wrong, at most a few lines and no traceback; the traceback goes to `logs/errors.log`
in the state folder. What a terminal cannot show is replaced, and an output that nobody can take any more
does not end the work. It imports next to nothing, so that it holds while the rest is being imported.
Left out: which errors there are (`errors`), what services log (`logs`), and notebooks, where IPython shows
errors.

Exit status: that of the work. A reader that has gone (`| head`, `>&-`) wants no more, and changes nothing.
What a stdout cannot take for another reason, such as a full disk, goes to stderr instead, and that is said.
"""

import contextlib
import errno
import io
import logging
import os
import sys
import threading
import traceback
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from workshop_lib import harmless
from workshop_lib.errors import WorkshopError

MAX_LOG = 2_000_000  # bytes; a longer log begins anew
_GONE = (errno.EPIPE, errno.EBADF)
_DOCTOR = "`workshop doctor` finds what is wrong."
# What a person or a machine can cause besides our own errors, by the name of the error's class or of one that
# it derives from (so that nothing is imported for it): what to say, and what to do.
_WORDS = (
    ("TimeoutError", "It took too long.", _DOCTOR),
    ("OSError", "{place} cannot be used: {text}.",
     "free the space or mend the permission; WORKSHOP_STATE_DIR can name another folder."),
    ("UnicodeError", "A text cannot be encoded: {text}.", "type it again, or set PYTHONUTF8=1."),
    ("MemoryError", "There is not enough memory.", "end other programs, or ask for less at once."),
    ("ImportError", "A part cannot be loaded: {text}.", f"`uv sync`. {_DOCTOR}"),
    ("RPCError", "The Temporal server did not do it: {text}.", _DOCTOR),
    ("TemporalError", "A workflow did not do it: {text}.", _DOCTOR),
    ("ValidationError", "Something has not the shape that it must have: {text}.",
     "correct it, if it is yours; else report it."),
    ("SQLAlchemyError", "A database cannot be used.", _DOCTOR),
    ("DatabaseError", "A database cannot be used.", _DOCTOR),
)  # fmt: skip


class _Stream(io.TextIOWrapper):
    """A standard stream that takes every text, and tries another place where its own takes none."""

    def write(self, text: str) -> int:
        try:
            written = super().write(text)
            super().flush()
            return written
        except OSError as error:
            _redirect(self.fileno(), error)
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            _redirect(self.fileno(), error)


def begin() -> None:
    """Make streams and hooks so. Called again it changes nothing."""
    if isinstance(sys.stdout, _Stream):
        return
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would take its place
            os.open(os.devnull, os.O_RDWR)
        stream = getattr(sys, name)
        buffer = (
            stream.buffer if stream else os.fdopen(number, "wb" if number else "rb", closefd=False)
        )
        encoding = stream.encoding if stream else "utf-8"
        if number:
            setattr(sys, name, _Stream(buffer, encoding=encoding, errors="replace"))
        elif stream is None:
            sys.stdin = io.TextIOWrapper(buffer, encoding=encoding)
        else:  # what is no text is refused where it is used, in words
            stream.reconfigure(errors="surrogateescape")
    sys.excepthook = _ended_by
    sys.unraisablehook = lambda found: log_error(found.exc_value)
    threading.excepthook = lambda found: log_error(found.exc_value)
    assert logging.lastResort is not None
    logging.lastResort.setFormatter(LogLine())


def say(text: str) -> None:
    """Tell a person something, on stderr."""
    print(harmless.block(text), file=sys.stderr, flush=True)


def say_error(error: BaseException) -> None:
    """Say what went wrong, in a few lines."""
    say(str(in_words(error)))


def end(status: str | int | None) -> None:
    """End this process, if Temporal's SDK is loaded; else return the status for `sys.exit` to do it.

    The SDK's own threads let go of Python a moment after the last word, and crash an interpreter that is
    being torn down by then. All is said and done: it need not be.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    number = status if isinstance(status, int) else int(bool(status))
    if "temporalio" in sys.modules:
        os._exit(number)
    sys.exit(number)


def in_words(error: BaseException) -> WorkshopError:
    """What a person can act on. The traceback of what is not said in words already goes to the log."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, WorkshopError):
        return error
    log = log_error(error)
    details = f" Details: {log}" if log else ""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for kind, what, fix in _WORDS:
        if kind in kinds:
            place = harmless.line(getattr(error, "filename", None) or "A file or a connection")
            return WorkshopError(what.format(place=place, text=_text(error)), fix=fix + details)
    # A fault of ours. Its text is left out, for it might quote a secret.
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" in {Path(frame[0].filename).name}, line {frame[0].lineno}" if frame else ""
    what = f"This is a fault of the workshop, not yours: {type(error).__name__}{where}."
    return WorkshopError(what, fix=f"report it, with the details.{details}")


def _ended_by(_: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's last resort: nothing has caught the error."""
    if isinstance(error, KeyboardInterrupt):
        end(130)
    say_error(error.with_traceback(trace))
    end(1)


def _redirect(number: int, error: OSError) -> None:
    """Have a stream that takes no more write to where it does no harm."""
    gone = error.errno in _GONE or number != 1
    place = os.open(os.devnull, os.O_WRONLY) if gone else 2
    if not gone:
        say(f"stdout cannot be written: {error.strerror}. What belongs there follows here.")
    os.dup2(place, number)


def _text(error: Any) -> str:
    """What an error says, on one line: an OSError's without the path, pydantic's without the value."""
    if isinstance(error, OSError):
        return error.strerror or harmless.line(error, 300) or type(error).__name__
    if hasattr(error, "errors"):
        error = f"{error.title}: {harmless.faults(error)}"
    return harmless.line(getattr(error, "reason", None) or error, 300)


def log_error(error: BaseException | None) -> Path | None:
    """Append a traceback to the log. Returns its path, or None where it cannot be written."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return None
    try:
        from workshop_lib.machine import state_folder
        from workshop_lib.settings import get_settings

        path = state_folder.made(get_settings().state_dir, "logs").absolute() / "errors.log"
        anew = path.exists() and path.stat().st_size > MAX_LOG
        when = datetime.now().astimezone().isoformat(timespec="seconds")
        with path.open("w" if anew else "a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(
                f"{when} {' '.join(sys.argv[:2])}\n{''.join(traceback.format_exception(error))}\n"
            )
    except Exception:  # whatever is wrong with the state folder: the words are what counts
        return None
    return path


class LogLine(logging.Formatter):
    """A record as one line; its traceback goes to the log of errors."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            log_error(record.exc_info[1])
        words = record.getMessage().strip()
        if words.startswith("Traceback "):  # the web server's way
            words = words.splitlines()[-1]
        plain = {"msg": harmless.line(words), "args": (), "exc_info": None, "exc_text": None}
        return super().format(logging.makeLogRecord(record.__dict__ | plain))
