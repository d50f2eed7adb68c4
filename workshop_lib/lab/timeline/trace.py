"""A trace as a picture: what one question has set off, when and where.

`await trace(chat.handle, spans.get_finished_spans())` as the last line of a cell draws the latest turn of a
session. A request and its handling on the other side are two spans, and one row here, whose dashed part is
the time from one to the other. The same as text stands below the picture.

Left out: how spans come about (`temporal.tracing`), and those of other processes, which go to a collector.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.timeline.labels import duration, shorten, step_name
from workshop_lib.settings import get_settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

CLIENT, MCP = "client", "MCP server"
MOST_ROWS = 80
_RUN, _ID, _SERVER = "temporalRunID", "temporalWorkflowID", "fastmcp.server.name"
# Each stands out on a light and a dark page (WCAG AA for graphics).
_COLOURS = ("#9a63b5", "#3b7fca", "#bf6a24", "#35905f", "#93731f")
# Names of spans are long, and indented.
_COLUMNS = "grid-template-columns:auto fit-content(40%) minmax(0,1fr) auto"
_STYLE = Path(__file__).with_name("timeline.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Row:
    """A span, or a request and its handling.

    Attributes:
        depth: 0 for the question.
        place: a namespace, `MCP server` and its name, or `client`.
        asked, begun, ended: seconds since the trace began; it was asked for, and begun some time later.
        failed: it ended with an error.
    """

    depth: int
    name: str
    place: str
    asked: float
    begun: float
    ended: float
    failed: bool = False


@dataclass(frozen=True, repr=False)
class Trace:
    """A trace as a picture and as text. Jupyter shows the picture, `print` the text.

    Attributes:
        trace_id: 32 hex digits, as in log lines.
        rows: the tree, from the question down.
    """

    trace_id: str
    rows: tuple[Row, ...]

    @property
    def places(self) -> list[str]:
        """Where it has been, in order."""
        return list(dict.fromkeys(row.place for row in self.rows))

    def __repr__(self) -> str:
        lines = [self._headline()]
        for row in self.rows[:MOST_ROWS]:
            waited = row.begun - row.asked
            words = f", {duration(waited)} after it was asked for" if waited >= 0.1 else ""
            lines.append(
                f"{row.asked:7.2f} s  {row.place:<20}  {'  ' * row.depth}{row.name}"
                f" {'failed' if row.failed else 'done'} in {duration(row.ended - row.begun)}{words}"
            )
        return "\n".join(lines)

    def _headline(self) -> str:
        rest = len(self.rows) - MOST_ROWS
        more = f" · {rest} more rows are not shown" if rest > 0 else ""
        return f"trace {self.trace_id} · {', '.join(self.places)}{more}"

    def _repr_html_(self) -> str:
        colours = dict(zip(self.places, _COLOURS * len(self.places), strict=False))
        end = max((row.ended for row in self.rows), default=0) or 1
        grid = "".join(self._cells(colours, end))
        return (
            f'<div class="wt" role="figure" aria-label="{escape(self._headline())}"><style>{_STYLE}</style>'
            f'<div class="wt-head">{escape(self._headline())}</div>'
            f'<div class="wt-grid" style="{_COLUMNS}">{grid}</div>'
            '<div class="wt-note">indented: caused by the row above · dashed: asked for, and not begun'
            " · filled: at work · hatched: went wrong</div>"
            f"<details><summary>This trace as text</summary><pre>{escape(repr(self))}</pre></details></div>"
        )

    def _cells(self, colours: Mapping[str, str], end: float) -> Iterator[str]:
        before = ""
        for number, row in enumerate(self.rows[:MOST_ROWS], start=1):
            tip = f"{row.place}: {row.name}, begun at {duration(row.begun)}"
            at = f'title="{escape(tip)}" style="grid-row:{number};--c:{colours[row.place]}'
            place, before = "" if row.place == before else row.place, row.place
            wait = _piece("wait", row.asked / end, row.begun / end) if row.begun > row.asked else ""
            work = _piece("bad" if row.failed else "", row.begun / end, row.ended / end)
            yield (
                f'<span class="wt-lane" {at}">{escape(place)}</span>'
                f'<span {at};padding-left:{row.depth * 12}px">{escape(row.name)}</span>'
                f'<div class="wt-track" aria-hidden="true" {at};grid-column:3">{wait}{work}</div>'
                f'<span class="wt-end" {at};grid-column:4">{duration(row.ended - row.begun)}'
                f"{' · failed' if row.failed else ''}</span>"
            )
        axis = f'<b style="left:0">0 s</b><b style="right:0">{duration(end)}</b>'
        yield f'<div class="wt-track wt-axis" style="grid-column:3">{axis}</div>'


def _piece(look: str, left: float, right: float) -> str:
    width = f"left:{100 * left:.2f}%;width:{100 * max(0, right - left):.2f}%"
    return f'<i class="{look}" style="{width}"></i>'


async def trace(
    session: WorkflowHandle[Any, Any], spans: "Sequence[ReadableSpan]", *, timeout: float = 10
) -> Trace:
    """The latest turn of a session, as the spans of this process tell it.

    Args:
        session: the chat that was asked.
        spans: that this process has kept (`tracing.in_memory().get_finished_spans()`).
        timeout: seconds that the server may take to say which namespace a run belongs to.

    Raises:
        WorkshopError: no turn of this session is among the spans, or the server does not answer in time.
    """
    roots = [
        s for s in spans if not s.parent and (s.attributes or {}).get("session.id") == session.id
    ]
    if not roots:
        raise WorkshopError(
            f"No turn of {session.id} has been traced in this process.",
            expected="`tracing.in_memory()` before the first connection, and an answered message after it.",
            fix="restart the kernel, and run the cells from the top.",
        )
    root = max(roots, key=lambda span: span.start_time or 0)
    of_it = [span for span in spans if _id_of(span) == _id_of(root)]
    said = [span.attributes or {} for span in of_it]
    ids = {str(attributes[_ID]) for attributes in said if _ID in attributes}
    try:
        async with asyncio.timeout(timeout):
            homes = await _homes(session._client, ids)
    except TimeoutError:
        raise WorkshopError(
            f"The server did not say within {timeout:g} s where the runs of this trace are.",
            expected="a running Temporal server.",
            fix="see `workshop status`, start the server with `workshop up`, and run this cell again.",
        ) from None
    return draw(root, of_it, homes)


def draw(root: "ReadableSpan", spans: "Iterable[ReadableSpan]", homes: Mapping[str, str]) -> Trace:
    """The tree below a span.

    Args:
        homes: the namespace of each workflow id.
    """
    below: dict[int, list[ReadableSpan]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.start_time or 0):
        if span.parent and span.context.trace_id == _id_of(root):
            below[span.parent.span_id].append(span)
    origin = root.start_time or 0

    def seconds(nanoseconds: int | None) -> float:
        return max(0, (nanoseconds or origin) - origin) / 1e9

    def place(span: "ReadableSpan", of_caller: str) -> str:
        said = span.attributes or {}
        if _SERVER in said:
            return f"{MCP} {said[_SERVER]!s}"
        if _RUN in said:  # a call says whom it calls; only a run says where it is
            return homes.get(str(said.get(_ID)), of_caller)
        if span.name.startswith("RunStartNexusOperationHandler"):
            return next(
                (homes.get(str(s.attributes[_ID]), of_caller) for s in below[span.context.span_id]
                 if s.attributes and _ID in s.attributes),
                of_caller,
            )  # fmt: skip
        return of_caller

    def rows(
        span: "ReadableSpan", depth: int, of_caller: str, asked: float | None = None
    ) -> Iterator[Row]:
        inner = [one for one in below[span.context.span_id] if not one.name.startswith("Validate")]
        here = place(span, of_caller)
        begun = seconds(span.start_time)
        # Where the other side has its own span, the request is no row of its own.
        if depth and asked is None and inner and all(_handles(span, one) for one in inner):
            before = begun
            for one in inner:
                yield from rows(one, depth, here, before)
                before = seconds(one.end_time)
            return
        failed = not span.status.is_ok and not span.status.is_unset
        since = begun if asked is None else min(asked, begun)
        yield Row(
            depth,
            _name(span.name),
            shorten(here),
            since,
            begun,
            seconds(span.end_time),
            failed,
        )
        for one in inner:
            yield from rows(one, depth + 1, here)

    found = tuple(rows(root, 0, CLIENT))
    return Trace(f"{_id_of(root):032x}", found)


def _name(of_span: str) -> str:
    kind, colon, what = of_span.partition(":")
    return shorten(kind + colon + step_name(what), 60)


def _id_of(span: "ReadableSpan") -> int:
    return span.context.trace_id if span.context else 0


def _handles(request: "ReadableSpan", handling: "ReadableSpan") -> bool:
    """Whether a span is the other side of a request, rather than something that it has caused."""
    return request.kind.name == "CLIENT" and handling.kind.name == "SERVER"


async def _homes(client: Client, workflow_ids: Iterable[str]) -> dict[str, str]:
    """The namespace of each workflow."""
    settings = get_settings()
    names = (settings.orchestrator_namespace, settings.it_namespace, settings.finance_namespace)
    clients = {name: Client(**client.config() | {"namespace": name}) for name in names}

    async def home(workflow_id: str) -> tuple[str, str]:
        for name, one in clients.items():
            try:
                await one.get_workflow_handle(workflow_id).describe()
            except RPCError:
                continue
            return workflow_id, name
        return workflow_id, ""

    return {one: name for one, name in await asyncio.gather(*map(home, workflow_ids)) if name}
