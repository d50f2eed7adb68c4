"""One question is one trace: through models, another team's namespace and an MCP server, under replay too."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from lab_environment import LIMIT
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sampled import sampled
from workshop_command import Workshop, workshop_command

from workshop_lib.errors import WorkshopError
from workshop_lib.temporal import tracing

# The team's part, below the span with which the caller's side ends.
TEAM = [
    ("StartWorkflow:StockPriceWorkflow", "RunWorkflow:StockPriceWorkflow"),
    ("RunWorkflow:StockPriceWorkflow", "StartActivity:look_up_price"),
    ("StartActivity:look_up_price", "RunActivity:look_up_price"),
]
REPLAYED = """
import asyncio, json
from workshop_lib.temporal import tracing
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.service import client_for

async def tree(cached):
    spans = tracing.in_memory()
    spec = orchestrator().with_queue(f"cached-{cached}")
    async with spec.build(await client_for(spec), max_cached_workflows=cached):
        chat = ChatClient(await connect(), task_queue=spec.task_queue)
        await chat.send("What is 15 * 23?")
        await chat.send("What is 2 + 3?")
    found = spans.get_finished_spans()
    names = {one.context.span_id: one.name for one in found}
    return sorted((names.get(one.parent and one.parent.span_id, ""), one.name) for one in found)

async def main():
    print(json.dumps([await tree(100), await tree(0)]))

asyncio.run(main())
"""


class Collector(ThreadingHTTPServer):
    """Takes traces by OTLP, as a tracing system does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.spans: dict[bytes, Span] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Each span's name after its parent's, which is empty for a root."""
        names = {key: span.name for key, span in self.spans.items()} | {b"": ""}
        return [(names.get(s.parent_span_id, "missing"), s.name) for s in self.spans.values()]

    def wait_for(self, name: str) -> None:
        """Wait until a span has come: each process sends its own."""
        end = time.monotonic() + LIMIT
        while all(span.name != name for span in [*self.spans.values()]):
            assert time.monotonic() < end, self.edges
            time.sleep(0.1)


class _Take(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans |= {span.span_id: span for span in scope.spans}
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with workshop_command() as command:
        yield command
        command("down")


NEXUS = "RunStartNexusOperationHandler:FinanceService/stock_price"


@pytest.mark.parametrize(
    ("loop", "border"),
    sampled(
        [("manual", NEXUS), ("sdk", NEXUS), ("mcp", "tools/call stock_price")],
        0,
        ids=["manual", "sdk", "mcp"],
        always=lambda case: case[0] != "sdk",
    ),
)
def test_a_question_is_one_trace_down_to_the_teams_activity(
    loop: str, border: str, workshop: Workshop, collector: Collector
) -> None:
    end = workshop(
        *("ask", "--loop", loop, "--session", f"traced-{loop}", "What is the price of AAPL?"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
    )
    assert "185.5" in end.stdout, end.stderr
    collector.wait_for("turn")
    collector.wait_for("RunWorkflow:StockPriceWorkflow")
    (root,) = [span for span in collector.spans.values() if span.name == "turn"]
    assert {a.key: a.value.string_value for a in root.attributes}["session.id"].endswith(loop)
    assert len(root.links) == 1
    of_it = {s.name for s in collector.spans.values() if s.trace_id == root.trace_id}
    assert {name for edge in TEAM for name in edge} <= of_it
    edges = collector.edges
    assert set(TEAM) <= set(edges)
    assert (border, TEAM[0][0]) in edges
    assert ("missing", border) not in edges


def test_a_replay_adds_no_span(workshop: Workshop) -> None:
    """With a cache of 0 every task of a workflow replays all that came before it."""
    said = workshop.python(REPLAYED)
    cached, replayed = json.loads(said.splitlines()[-1])
    assert cached == replayed
    assert cached.count(["", "turn"]) == 2
    assert cached.count(["StartActivity:plan_next_action", "RunActivity:plan_next_action"]) == 4


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is zipkin"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ""),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "zipkin"}, ""),
        ({}, ""),
    ],
)
def test_it_is_off_unless_asked_for(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not said:
        assert tracing.plugins() == []
    else:
        with pytest.raises(WorkshopError, match=said):
            tracing.plugins()
