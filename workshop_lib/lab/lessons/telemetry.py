"""What services tell to whoever runs them, within reach of a notebook: JSON log lines, and metrics.

Left out: how they are made (`logs`, `temporal.metrics`), and where a company collects them.
"""

import asyncio
import logging
import os
import re
import urllib.request
from collections import defaultdict

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.workers.forking import get_ready
from workshop_lib.logs import JsonLine
from workshop_lib.machine.ports import LOCALHOST
from workshop_lib.settings import reload_settings

_SAMPLE = re.compile(r"(?P<name>\w+)(?P<labels>\{.*\})? (?P<value>\S+)")


class _Kept(logging.Handler):
    """Keeps lines in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(JsonLine())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def json_lines() -> list[str]:
    """Keep what is logged from here on, as services write it: a line for each step of workers that begin now.

    Returns:
        The lines, to which later ones are added. Called again, an empty list takes its place.
    """
    get_ready()  # of services with models, which lessons start and stop
    os.environ["WORKSHOP_LOG"] = "json"  # also for processes that this one starts
    reload_settings()
    ours = logging.getLogger("workshop_lib")
    for old in [one for one in ours.handlers if isinstance(one, _Kept)]:
        ours.removeHandler(old)
    kept = _Kept()
    ours.addHandler(kept)
    ours.setLevel(logging.INFO)
    return kept.lines


async def read_metrics(port: int, timeout: float = 10, *, activity: str = "") -> dict[str, float]:
    """The metrics of a service on this machine by name, those of all labels added up.

    Args:
        port: what its `WORKSHOP_METRICS_PORT` says.
        timeout: seconds that it may take.
        activity: of metrics that are kept for each activity type, this one's only.

    Raises:
        WorkshopError: nobody offers metrics there.
    """
    # Not by way of a proxy that the environment may name: it is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read() -> str:
        with opener.open(f"http://{LOCALHOST}:{port}/metrics", timeout=timeout) as answer:
            return str(answer.read().decode())

    try:
        text = await asyncio.to_thread(read)
    except OSError as error:
        raise WorkshopError(
            f"No metrics at port {port}: {error}.",
            expected="a service that was started with this WORKSHOP_METRICS_PORT, and runs.",
            fix="run the cell that starts it again.",
        ) from None
    found: dict[str, float] = defaultdict(float)
    for sample in map(_SAMPLE.fullmatch, text.splitlines()):
        labels = (sample and sample["labels"]) or ""
        others = (
            activity and "activity_type=" in labels and f'activity_type="{activity}"' not in labels
        )
        if sample and not others:
            found[sample["name"]] += float(sample["value"])
    return found
