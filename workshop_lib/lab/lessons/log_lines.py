"""Keeps what the workers of a notebook log, as the JSON lines that a service writes.

Left out: how a line is made (`logs`), and files: in a service it goes to stderr, and whoever runs it collects it.
"""

import logging
import os

from workshop_lib.logs import JsonLine
from workshop_lib.settings import reload_settings


class _Kept(logging.Handler):
    """Keeps lines in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(JsonLine())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def json_lines() -> list[str]:
    """From here on, what is ours and what workers that start from now on do, a JSON line each.

    Returns:
        The lines, to which later ones are added. Called again, an empty list that takes their place.
    """
    os.environ["WORKSHOP_LOG"] = "json"  # also for processes that this one starts
    reload_settings()
    ours = logging.getLogger("workshop_lib")
    for old in [one for one in ours.handlers if isinstance(one, _Kept)]:
        ours.removeHandler(old)
    kept = _Kept()
    ours.addHandler(kept)
    ours.setLevel(logging.INFO)
    return kept.lines
