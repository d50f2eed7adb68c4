"""A trace as a picture: its rows, where they were, and what it does with names that others chose."""

from html.parser import HTMLParser

import pytest
from lab_environment import fresh
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from temporalio.client import Client

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.timeline.trace import CLIENT, Trace, draw, trace

NASTY = '<script>alert("x")</script>\n\x1b[31m'
HOMES = {"chat-1": "default", "price-1": "finance-namespace"}


def drawn(name: str = "look_up_price") -> Trace:
    """A question that went to an MCP server, and by way of it to a team that failed once."""
    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("test")

    def span(name: str, kind: SpanKind = SpanKind.SERVER, **said: str):  # type: ignore[no-untyped-def]
        return tracer.start_as_current_span(name, kind=kind, attributes=said)

    chat = {"temporalWorkflowID": "chat-1", "temporalRunID": "r1"}
    team = {"temporalWorkflowID": "price-1", "temporalRunID": "r2"}
    with (
        span("turn", SpanKind.INTERNAL, **{"session.id": "chat-1"}),
        span("StartUpdate", SpanKind.CLIENT, temporalWorkflowID="chat-1"),
    ):
        with span("ValidateUpdate", **chat):
            pass
        with (
            span("HandleUpdate", **chat),
            span("StartActivity:call-tool", SpanKind.CLIENT, **chat),
            span("RunActivity:call-tool", **chat),
            span("MCP send", SpanKind.CLIENT),
            span("tools/call", **{"fastmcp.server.name": "finance"}),
            span("StartWorkflow:Price", SpanKind.CLIENT, temporalWorkflowID="price-1"),
            span("RunWorkflow:Price", **team),
            span(f"StartActivity:{name}", SpanKind.CLIENT, **team),
        ):
            with span(f"RunActivity:{name}", **team) as first:
                first.set_status(Status(StatusCode.ERROR))
            with span(f"RunActivity:{name}", **team):
                pass
    with span("of somebody else"):
        pass
    spans = kept.get_finished_spans()
    (root,) = [one for one in spans if one.name == "turn"]
    return draw(root, spans, HOMES)


def test_a_request_and_its_handling_are_one_row_and_each_attempt_is_one() -> None:
    rows = [(row.depth, row.place, row.name, row.failed) for row in drawn().rows]
    assert rows == [
        (0, CLIENT, "turn", False),
        (1, "default", "HandleUpdate", False),
        (2, "default", "RunActivity:call-tool", False),
        (3, "MCP server finance", "tools/call", False),
        (4, "finance-namespace", "RunWorkflow:Price", False),
        (5, "finance-namespace", "RunActivity:look_up_price", True),
        (5, "finance-namespace", "RunActivity:look_up_price", False),
    ]
    assert drawn().places == [CLIENT, "default", "MCP server finance", "finance-namespace"]
    first, second = drawn().rows[-2:]
    assert first.asked <= first.begun <= first.ended <= second.begun
    assert second.asked == first.ended, "the second attempt waits from the end of the first on"


def test_the_text_says_what_the_picture_says() -> None:
    text = repr(drawn())
    assert len(text.splitlines()) == 8
    assert "RunActivity:look_up_price failed in" in text
    assert drawn()._repr_html_().count("wt-end") == 7 + 1  # and once in the style


def test_what_others_chose_cannot_break_the_page() -> None:
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: tags.append(tag)  # type: ignore[method-assign, assignment]
    parser.feed(drawn(NASTY)._repr_html_())
    assert "script" not in tags
    assert "\x1b" not in repr(drawn(NASTY)) and len(repr(drawn(NASTY)).splitlines()) == 8


async def test_a_session_without_a_trace_is_told(client: Client) -> None:
    with pytest.raises(WorkshopError, match="No turn of") as told:
        await trace(client.get_workflow_handle(fresh("chat")), [])
    assert "tracing.in_memory()" in str(told.value.expected)
