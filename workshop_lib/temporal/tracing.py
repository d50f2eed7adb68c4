"""Traces: one question as one tree of spans, through models, tools, other teams' namespaces and MCP servers.

Temporal's own OpenTelemetry plugin makes the spans; `connect` puts it around every client and so around every
worker. A worker that lacked it would cut the tree in two without a word. A turn is a trace; a session, which
may last for weeks, is none: its turns carry a link whose ids are made from the session's, and by which they
are found. A replay adds no span.

Off unless asked for, and then nothing is imported: by OpenTelemetry's own variables
(`OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_ENDPOINT`), or by a notebook that calls `in_memory`.
Left out: metrics, and what the spans of a process that is killed had not been sent yet.
"""

import asyncio
import functools
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from temporalio.client import Plugin

from workshop_lib.errors import WorkshopError
from workshop_lib.settings import get_settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

logger = logging.getLogger(__name__)

FLUSH = 2_000  # ms that the end of a turn may wait for its spans to be sent
_EVERY = 500  # ms between two sendings


class _Session(Protocol):
    @property
    def workflow_id(self) -> str: ...


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=_Session)

# One a process, as OpenTelemetry wants it; None while nothing is traced.
_provider: Any = None


def begin() -> bool:
    """Trace in this process, if the environment asks for it. Returns whether anybody has asked.

    `connect` does it; a program that has spans before its first connection does it first.

    Raises:
        WorkshopError: the environment asks for an exporter that we do not have.
    """
    if _provider is None and (exporter := _asked_for()):
        _send_to(_processor(exporter))
    return _provider is not None


def plugins() -> list[Plugin]:
    """What a client is connected with so that it is traced; nothing where nobody has asked for traces.

    Raises:
        WorkshopError: as `begin` does.
    """
    if not begin():
        return []
    from temporalio.contrib.opentelemetry import OpenTelemetryPlugin

    return [OpenTelemetryPlugin(add_temporal_spans=True)]


def in_memory() -> "InMemorySpanExporter":
    """Trace clients that this process connects from now on, and keep the spans: for a notebook."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    _send_to(SimpleSpanProcessor(kept))
    return kept


def turn(
    send: Callable[Concatenate[S, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method that sends a message to a session, and waits for its reply, the root of a trace."""

    @functools.wraps(send)
    async def traced(self: S, *arguments: P.args, **options: P.kwargs) -> T:
        if _provider is None:
            return await send(self, *arguments, **options)
        with _root_span(self.workflow_id):
            reply = await send(self, *arguments, **options)
        # Now: a command ends without waiting for anybody.
        await asyncio.to_thread(_provider.force_flush, FLUSH)
        return reply

    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, T]], traced)


def flush() -> None:
    """Send what has not been sent, before a process ends without further ado."""
    if _provider is not None:
        _provider.force_flush(FLUSH)


def _root_span(session: str) -> Any:
    from opentelemetry.trace import Link, SpanContext, TraceFlags, get_tracer

    digest = hashlib.sha256(session.encode()).digest()
    made_of_it = SpanContext(
        int.from_bytes(digest[:16]),
        int.from_bytes(digest[16:24]),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return get_tracer(__name__).start_as_current_span(
        "turn", attributes={"session.id": session}, links=[Link(made_of_it)]
    )


def _asked_for() -> str:
    """The exporter that OpenTelemetry's variables ask for, or an empty text."""
    get_settings()  # puts `.env` into the environment
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    places = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    implied = "otlp" if any(os.environ.get(name) for name in places) else ""
    asked = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or implied
    return "" if asked == "none" else asked


def _processor(exporter: str) -> "SpanProcessor":
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if exporter != "otlp":
        raise WorkshopError(
            f"OTEL_TRACES_EXPORTER is {exporter}.",
            expected="otlp, which sends to OTEL_EXPORTER_OTLP_ENDPOINT, or none.",
            fix="correct or unset it in .env or in the environment.",
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise WorkshopError(
            "Traces are to be sent by OTLP, and its exporter is not installed.",
            fix="`uv sync --extra traces`, or set OTEL_TRACES_EXPORTER=none.",
        ) from None
    return BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=_EVERY)


def _send_to(processor: "SpanProcessor") -> None:
    """Send spans to a processor too, from now on; the first makes the process's provider."""
    global _provider
    if _provider is None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from temporalio.contrib.opentelemetry import create_tracer_provider

        # A run that leaves a worker's cache is ended within its span, in another context. No span is lost.
        logging.getLogger("opentelemetry.context").setLevel(logging.CRITICAL)

        name = os.environ.get("OTEL_SERVICE_NAME") or "workshop"
        _provider = create_tracer_provider(resource=Resource.create({"service.name": name}))
        trace.set_tracer_provider(_provider)
    _provider.add_span_processor(processor)
