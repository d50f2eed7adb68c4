"""What a notebook reads of services: log lines as they come, and metrics; and a process that is a service."""

import json
import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from lab_environment import free_port
from temporalio.client import Client

from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.lessons.telemetry import json_lines, read_metrics
from workshop_lib.lab.workers.process import start_process
from workshop_lib.settings import get_settings, reload_settings


async def test_where_nobody_offers_metrics_that_is_told() -> None:
    with pytest.raises(WorkshopError, match="No metrics at port") as told:
        await read_metrics(free_port())
    assert "WORKSHOP_METRICS_PORT" in str(told.value.expected)


class _Metrics(BaseHTTPRequestHandler):
    """What a worker of two activities offers; its queue is counted as a whole."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        for line in (
            "# HELP taken how long",
            'taken{activity_type="plan",task_queue="q"} 4',
            'taken{activity_type="plan_more",task_queue="q"} 2',
            'lain{task_queue="q"} 3',
        ):
            self.wfile.write(f"{line}\n".encode())

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


async def test_metrics_are_of_all_activities_or_of_one() -> None:
    with HTTPServer(("127.0.0.1", 0), _Metrics) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            assert await read_metrics(server.server_port) == {"taken": 6, "lain": 3}
            of_one = await read_metrics(server.server_port, activity="plan")
        finally:
            server.shutdown()
    assert of_one == {"taken": 4, "lain": 3}


def test_lines_are_kept_once_however_often_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORKSHOP_LOG", "text")
    ours = logging.getLogger("workshop_lib")
    before = ours.level, list(ours.handlers)
    try:
        first, second = json_lines(), json_lines()
        logging.getLogger("workshop_lib.x").info("said once")
        assert first == [] and [json.loads(line)["message"] for line in second] == ["said once"]
        assert get_settings().log == os.environ["WORKSHOP_LOG"] == "json"
    finally:
        ours.level, ours.handlers[:] = before
        monkeypatch.undo()
        reload_settings()


async def test_a_service_has_no_kill_point(client: Client) -> None:
    with pytest.raises(WorkshopError, match="has no kill points"):
        await start_process(orchestrator(), kill_at="activity-inside@*", as_service=True)
