"""A file that is there whole or not at all, whoever is killed meanwhile and however many write it at once."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it.

    Its draft, which is left behind where this process is killed, is called `.workshop-xxxxxxxx.part`.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".workshop-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
