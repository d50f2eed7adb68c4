"""What a service logs: a line a record on stderr, for people, or with `WORKSHOP_LOG=json` for programs.

A JSON line says when, how grave, who and what, and where: the run and the step that it was logged in, and
the trace, if there is one. Whatever a record says, the values of this process's keys and passwords do not get
out, nor does what looks like a token. Standard logging, so what libraries log is treated alike.
Left out: files and rotation, which are the business of whoever runs a service.
"""

import json
import logging
import os
import re
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any

from temporalio import activity, workflow
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from workshop_lib.edge import LogLine
from workshop_lib.settings import get_settings

logger = logging.getLogger(__name__)

MAX_TEXT = 8_000  # characters of a message or of a stack
_HIDDEN = "***"
_SECRET_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
_SHORTEST = 8  # characters; a shorter value would hide ordinary words
# A token in three parts, what follows "Bearer", and a password in an address.
_SECRET_FORMS = re.compile(
    r"\beyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=bearer )[\w.~+/=-]{8,}|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",
    re.IGNORECASE,
)
# What is taken over from the SDK's description of where we are, and what it is called in a line.
_PLACES = ("workflow_id", "workflow_type", "activity_type", "namespace", "task_queue", "attempt")


def log_to_stderr(level: int) -> None:
    """Log what is ours from a level on, and the warnings of others, in the form that the settings name."""
    handler = logging.StreamHandler()
    as_json = get_settings().log == "json"
    handler.setFormatter(
        JsonLine() if as_json else _TextLine("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    if as_json:  # it has fields of its own for what the SDK would add to every message
        workflow.logger.workflow_info_on_message = False
        activity.logger.activity_info_on_message = False
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("workshop_lib").setLevel(level)


class _Masking:
    """Takes secrets out of text: those that the environment holds by now, and what looks like one."""

    def __init__(self) -> None:
        found = {
            value
            for name, value in os.environ.items()
            if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST
        }
        # The longest first: one may be the beginning of another.
        self._values = sorted(found, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, _HIDDEN)
        return _SECRET_FORMS.sub(_HIDDEN, text)


class _TextLine(LogLine):
    """A record as a line for people."""

    def __init__(self, form: str) -> None:
        super().__init__(form)
        self._masked = _Masking()

    def format(self, record: logging.LogRecord) -> str:
        return self._masked(super().format(record))


class JsonLine(logging.Formatter):
    """A record as a JSON object on one line, in ASCII."""

    def __init__(self) -> None:
        super().__init__()
        self._masked = _Masking()

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._text(record.getMessage()),
        }
        line |= _where(record) | _trace()
        if isinstance(seconds := getattr(record, "seconds", None), float):
            line["seconds"] = round(seconds, 3)
        if record.exc_info and (error := record.exc_info[1]):
            line["error"] = type(error).__name__
            line["stack"] = self._text("".join(traceback.format_exception(error)))
        return json.dumps(line, default=str)

    def _text(self, text: str) -> str:
        # First masked: a secret that is cut in two would not be found.
        masked = self._masked(text).strip()
        return masked if len(masked) <= MAX_TEXT else masked[: MAX_TEXT - 1] + "…"


class Logged(Interceptor):
    """Put around a worker: a line for each activity that has ended, with the seconds that it took."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _LoggedActivity(next)


class _LoggedActivity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        begun = time.monotonic()
        try:
            return await super().execute_activity(input)
        finally:
            ended = "failed" if sys.exc_info()[0] else "done"
            seconds = time.monotonic() - begun
            name = activity.info().activity_type
            logger.info("%s %s", name, ended, extra={"seconds": seconds})


def _where(record: logging.LogRecord) -> dict[str, Any]:
    """The run and the step that a record was logged in: as the SDK's loggers say, or as it is now."""
    details: dict[str, Any] = {}
    for name in ("temporal_workflow", "temporal_activity"):
        details |= getattr(record, name, None) or {}
    if not details and activity.in_activity():
        info = activity.info()
        details = {name: getattr(info, name) for name in (*_PLACES, "workflow_run_id")}
    run = details.get("run_id") or details.get("workflow_run_id")
    found = {name: details[name] for name in _PLACES if details.get(name)}
    return found | ({"run_id": run} if run else {})


def _trace() -> dict[str, str]:
    """The trace that a record belongs to, where this process traces at all."""
    trace = sys.modules.get("opentelemetry.trace")
    context = trace.get_current_span().get_span_context() if trace else None
    return {"trace_id": f"{context.trace_id:032x}"} if context and context.is_valid else {}
