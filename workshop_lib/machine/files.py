"""Files that several processes write to at once, and that are whole, whoever is killed meanwhile."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: str | bytes, *, anew: bool = False) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it. Only its owner can.

    Its draft, which is left behind where this process is killed, is called `.workshop-xxxxxxxx.part`.

    Args:
        anew: leave the one that is there, if another process was quicker.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".workshop-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if not (anew and _linked(draft, path)):
            Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)


def _linked(draft: str, path: Path) -> bool:
    """Give a draft its place if that is free. False where links are unknown, and it is free."""
    try:
        os.link(draft, path)
    except OSError:
        return path.exists()
    return True


def append(path: Path, data: bytes) -> int:
    """Write at the end of a file that several processes may write to; returns its length before that.

    One write in append mode: what several write does not mix, and a kill cuts none.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, data)
        # After such a write the position is the end of our own bytes, whoever else writes.
        return os.lseek(descriptor, 0, os.SEEK_CUR) - len(data)
    finally:
        os.close(descriptor)
