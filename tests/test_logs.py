"""JSON lines of a service: one a record, with its place, and without a secret."""

import json
import logging
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from workshop_lib.logs import MAX_TEXT, JsonLine, log_to_stderr
from workshop_lib.settings import get_settings, reload_settings

KEY = "sk-proj-0123456789abcdef"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJoYXJyeSJ9.c2lnbmF0dXJl"


def line(message: str, *arguments: object, **record: Any) -> dict[str, Any]:
    """What a record becomes."""
    made = logging.LogRecord("workshop_lib.x", logging.WARNING, "x.py", 1, message, arguments, None)
    for name, value in record.items():
        setattr(made, name, value)
    text = JsonLine().format(made)
    assert text.isascii() and "\n" not in text
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_a_line_says_when_how_grave_who_and_what() -> None:
    found = line("order %s\nis \x1b[31mlate", "Ä-1")
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "WARNING",
        "logger": "workshop_lib.x",
        "message": "order Ä-1\nis \x1b[31mlate",
    }


def test_it_says_in_which_run_and_step() -> None:
    of_the_sdk = {"workflow_id": "chat-1", "run_id": "r", "attempt": 2, "namespace": "default"}
    found = line("x", temporal_workflow=of_the_sdk)
    assert {name: found[name] for name in of_the_sdk} == of_the_sdk
    found = line("x", temporal_activity={"workflow_run_id": "r", "activity_type": "plan"})
    assert (found["run_id"], found["activity_type"]) == ("r", "plan")


def test_it_says_in_which_trace() -> None:
    assert "trace_id" not in line("x")
    with TracerProvider().get_tracer("test").start_as_current_span("turn") as span:
        assert line("x")["trace_id"] == f"{span.get_span_context().trace_id:032x}"


@pytest.mark.parametrize(
    "secret",
    [KEY, JWT, "Bearer abcdef0123456789", "postgresql://orders:hunter2hunter2@db/orders"],
)
def test_no_secret_gets_out(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    hidden = secret.removeprefix("Bearer ").split("@")[0].split("://")[-1]
    try:
        raise ValueError(f"refused: {secret}")
    except ValueError:
        found = line("asked with %s", {"key": secret}, exc_info=sys.exc_info())
    assert found["error"] == "ValueError"
    assert "ValueError: refused: " in found["stack"]
    assert hidden not in json.dumps(found)
    # One that a cut would go through is found all the same.
    assert hidden[:6] not in json.dumps(line("x" * (MAX_TEXT - 8) + " " + secret))


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_settings_choose_the_form(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKSHOP_LOG", form)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    reload_settings()
    assert get_settings().log == form
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    try:
        log_to_stderr(logging.INFO)
        logging.getLogger("workshop_lib.y").info("begun with %s", KEY)
        logging.getLogger("others").info("not worth a line")
    finally:
        monkeypatch.undo()
        reload_settings()
    (said,) = capsys.readouterr().err.splitlines()
    if form == "json":
        assert json.loads(said)["message"] == "begun with ***"
    else:
        assert said.endswith("INFO workshop_lib.y: begun with ***")
