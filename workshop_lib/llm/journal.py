"""A journal of requests to models: one line each, written when the request starts.

Lessons count with it: "the model was called exactly N times, although the worker died". A request counts
even when its answer never arrives, since that is what a provider would charge for. It is written only where
`WORKSHOP_MODEL_JOURNAL` names a file. Left out on purpose: the texts of messages and the outcome.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from temporalio import activity

from workshop_lib.errors import WorkshopError
from workshop_lib.machine.files import append
from workshop_lib.settings import get_settings


class JournalEntry(BaseModel):
    """One request.

    Attributes:
        time: when it started, seconds since 1970.
        pid: the process that made it.
        request: hash of messages and tools. A retry of the same request has the same.
        messages: how many messages it carried.
        workflow_id, activity_id, attempt: of the activity that made it; empty outside of one.
    """

    time: float
    pid: int
    model: str
    request: str
    messages: int
    workflow_id: str = ""
    activity_id: str = ""
    attempt: int = 0


def request_text(messages: Sequence[Any], tools: Sequence[Any] | None) -> str:
    """A request as JSON; equal requests have equal ones, in every process."""
    return json.dumps([list(messages), list(tools or ())], sort_keys=True, default=str)


def request_hash(text: str) -> str:
    """16 hex digits that stand for a request.

    Args:
        text: of `request_text`.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_request(model: str, messages: Sequence[Any], tools: Sequence[Any] | None) -> None:
    """Write one line, if the settings name a journal.

    The offline model does this itself, so that each of its requests counts once however it is called.
    Code that calls a provider past `gateway` does it before the call.

    Raises:
        WorkshopError: the file cannot be written.
    """
    path = get_settings().model_journal
    if path is None:
        return
    who = activity.info() if activity.in_activity() else None
    entry = JournalEntry(
        time=time.time(),
        pid=os.getpid(),
        model=model,
        request=request_hash(request_text(messages, tools)),
        messages=len(messages),
        workflow_id=(who and who.workflow_id) or "",
        activity_id=who.activity_id if who else "",
        attempt=who.attempt if who else 0,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append(path, (entry.model_dump_json() + "\n").encode())
    except OSError as error:
        raise WorkshopError(
            f"The model journal {path} cannot be written: {error.strerror}.",
            fix="point WORKSHOP_MODEL_JOURNAL at a writable file, or unset it.",
        ) from None


def read_journal(path: Path) -> list[JournalEntry]:
    """The requests so far, oldest first; none where the file does not exist yet.

    Raises:
        WorkshopError: the file is not a journal.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [JournalEntry.model_validate_json(line) for line in lines if line]
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        raise WorkshopError(
            f"{path} cannot be read as a model journal.",
            expected="JSON lines as the model gateway writes them.",
            fix="delete it, or point WORKSHOP_MODEL_JOURNAL elsewhere.",
        ) from None
