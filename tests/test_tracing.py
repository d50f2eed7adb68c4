"""One question is one trace: through models, another team's namespace and an MCP server, under replay too."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
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
NEXUS = "RunStartNexusOperationHandler:FinanceService/stock_price"
TOOL = "tools/call stock_price"


def _steps(*activities: str) -> list[tuple[str, str]]:
    """A chat's activities below the message that has caused them."""
    pairs = [(f"StartActivity:{name}", f"RunActivity:{name}") for name in activities]
    return [("HandleUpdate:send_message", start) for start, _ in pairs] + pairs


def _sent(method: str, by: str) -> list[tuple[str, str]]:
    """A message to an MCP server, below the activity that sends it."""
    return [(f"RunActivity:{by}", f"MCP send {method}"), (f"MCP send {method}", method)]


def _message(chat: str) -> list[tuple[str, str]]:
    start = f"StartUpdateWithStartWorkflow:{chat}"
    below = [(start, "ValidateUpdate:send_message"), (start, "HandleUpdate:send_message")]
    return [("", "turn"), ("turn", start), *below]


LISTS = [f"temporalio.mcp.{team}-http.list-tools" for team in ("it", "finance")]
CALL = "temporalio.mcp.finance-http.call-tool"
# Of a question for a price, every span after the one that has caused it.
WHOLE = {
    "manual": {
        *_message("ManualChat"),
        *_steps("discover_teams", "plan_next_action"),
        ("HandleUpdate:send_message", "StartNexusOperation:FinanceService/stock_price"),
        ("StartNexusOperation:FinanceService/stock_price", NEXUS),
        (NEXUS, "StartWorkflow:StockPriceWorkflow"),
        *TEAM,
    },
    "mcp": {
        *_message("McpChat"),
        *_steps(*LISTS, "invoke_model_activity", CALL),
        *(
            edge
            for one in LISTS
            for what in ("server/discover", "tools/list")
            for edge in _sent(what, one)
        ),
        *_sent(TOOL, CALL),
        (TOOL, "StartWorkflow:StockPriceWorkflow"),
        *TEAM,
    },
}
REPLAYED = """
import asyncio, json
from workshop_lib.temporal import tracing
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.temporal.connect import connect
from workshop_lib.teams.finance.worker import finance
from workshop_lib.temporal.service import client_for

async def tree(cached):
    spans = tracing.in_memory()
    spec, team = orchestrator().with_queue(f"cached-{cached}"), finance()
    chats = spec.build(await client_for(spec), max_cached_workflows=cached)
    async with chats, team.build(await client_for(team), max_cached_workflows=cached):
        chat = ChatClient(await connect(), task_queue=spec.task_queue)
        await chat.send("What is 15 * 23?")
        await chat.send("What is the price of AAPL?")
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

    def edges_of(self, trace: bytes) -> set[tuple[str, str]]:
        """The same of one trace, each once: what is tried again has a span an attempt."""
        spans = {**self.spans}
        names = {key: span.name for key, span in spans.items()} | {b"": ""}
        of_it = [span for span in spans.values() if span.trace_id == trace]
        return {(names.get(span.parent_span_id, "missing"), span.name) for span in of_it}

    def wait_for(self, name: str) -> None:
        """Wait until a span has come: each process sends its own."""
        self.wait_until(lambda: any(span.name == name for span in [*self.spans.values()]))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds of the spans that have come."""
        end = time.monotonic() + LIMIT
        while not condition():
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


@pytest.mark.parametrize(
    ("loop", "border"),
    sampled(
        [("manual", NEXUS), ("sdk", NEXUS), ("mcp", TOOL)],
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
    if loop in WHOLE:  # each process sends its own, some when it is about to end
        collector.wait_until(lambda: collector.edges_of(root.trace_id) >= WHOLE[loop])
        assert collector.edges_of(root.trace_id) == WHOLE[loop]


def test_a_replay_adds_no_span(workshop: Workshop) -> None:
    """With a cache of 0 every task of a workflow replays all that came before it."""
    said = workshop.python(REPLAYED)
    cached, replayed = json.loads(said.splitlines()[-1])
    assert cached == replayed
    assert cached.count(["", "turn"]) == 2
    assert cached.count(["StartActivity:plan_next_action", "RunActivity:plan_next_action"]) == 4
    assert cached.count(list(TEAM[-1])) == 1


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
