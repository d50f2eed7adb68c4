"""What a conversation costs as it grows: bytes of history and tokens, turn by turn, as a picture of lines.

Both are read from the event histories, of all runs that a session has had. A turn begins with its message,
and what comes before the next one is its own: a summary, and the beginning of another run, too. Tokens are
those that the answers of the models report. Left out: what never came into a history, such as an answer that
was lost with its worker.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from pydantic import BaseModel
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle

from workshop_lib.harmless import line
from workshop_lib.lab.history import History, decode, read_history

_TOKENS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")  # manual, SDK
# Each stands out on a light and a dark page, and is told by its dashes, too.
_LINES = (("#bf6a24", "6 4"), ("#3b7fca", ""))
_WIDTH, _HEIGHT, _ROOM = 350, 160, 90  # of a picture, and right of it for the names of the lines
_STYLE = (
    ".wg{padding:4px 0 0 5px;font:12px/18px var(--jp-ui-font-family,system-ui,sans-serif);"
    "color:var(--jp-content-font-color1,var(--vscode-foreground,CanvasText))}"
    ".wg-row{display:flex;flex-wrap:wrap;gap:8px 28px}.wg b{font-size:13px;display:block}"
    ".wg svg{max-width:100%;height:auto;overflow:visible}.wg text{fill:currentColor;font-size:11px}"
    ".wg line{stroke:currentColor;stroke-opacity:.35}"
    ".wg polyline{fill:none;stroke-width:2;stroke-linejoin:round}.wg pre{white-space:pre-wrap}"
)


class TurnCost(BaseModel):
    """What one turn has added.

    Attributes:
        turn: 1 is the session's first.
        bytes: of history.
        tokens: sent and received, in all of the turn's calls of a model.
    """

    turn: int
    bytes: int = 0
    tokens: int = 0


class SessionRun(BaseModel):
    """One of the runs that a session has had.

    Attributes:
        messages: updates that it has accepted.
    """

    run_id: str
    status: str
    messages: int
    events: int

    def __repr__(self) -> str:
        return (
            f"{self.run_id[:13]}  {self.status:<17}  {self.messages} messages, {self.events} events"
        )


async def measure_turns(handle: WorkflowHandle[Any, Any]) -> list[TurnCost]:
    """What each turn of a session has cost, from the first on."""
    costs: list[TurnCost] = []
    before = 0  # the first turn pays for the beginning
    for _, events, _ in await _runs(handle):
        for event in events:
            accepted = event.workflow_execution_update_accepted_event_attributes
            if accepted.accepted_request.input.name == "send_message":
                costs.append(TurnCost(turn=len(costs) + 1, bytes=before))
                before = 0
            if not costs:
                before += event.ByteSize()
                continue
            costs[-1].bytes += event.ByteSize()
            costs[-1].tokens += _tokens(event)
    return costs


async def runs_of_session(handle: WorkflowHandle[Any, Any]) -> list[SessionRun]:
    """The runs of a session, the first one first."""
    return [
        SessionRun(
            run_id=run_id,
            status=history.status,
            messages=history.asked,
            events=len(events),
        )
        for run_id, events, history in await _runs(handle)
    ]


class Meter:
    """Lines of what each turn has cost. Jupyter shows the picture, `print` the text.

    Args:
        measured: what each of the conversations has cost, by its name.
    """

    def __init__(self, measured: Mapping[str, Sequence[TurnCost]]) -> None:
        self._measured = {line(name, 30): costs for name, costs in measured.items()}

    def __repr__(self) -> str:
        rows = [f"{'':<22}{'bytes a turn':>26}{'tokens a turn':>26}"]
        rows += [f"{'':<22}" + f"{'first':>10}{'middle':>8}{'last':>8}" * 2]
        for name, costs in self._measured.items():
            chosen = [costs[0], costs[len(costs) // 2], costs[-1]] if costs else []
            figures = (
                [f"{cost.bytes:,}" for cost in chosen],
                [f"{cost.tokens:,}" for cost in chosen],
            )
            rows.append(
                f"{name:<22}" + "".join("{:>10}{:>8}{:>8}".format(*row) for row in figures if row)
            )
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        pictures = "".join(
            _picture(
                title,
                {
                    name: [getattr(cost, what) for cost in costs]
                    for name, costs in self._measured.items()
                },
            )
            for title, what in (
                ("Bytes of history, each turn", "bytes"),
                ("Tokens, each turn", "tokens"),
            )
        )
        return (
            f'<div class="wg" role="figure" aria-label="What each turn has cost"><style>{_STYLE}</style>'
            f'<div class="wg-row">{pictures}</div>'
            f"<details><summary>As text</summary><pre>{escape(repr(self))}</pre></details></div>"
        )


def show_meter(**measured: Sequence[TurnCost]) -> Meter:
    """What each turn of one conversation or of several has cost, as lines: `show_meter(ours=…, theirs=…)`."""
    return Meter({name.replace("_", " "): costs for name, costs in measured.items()})


async def _runs(
    handle: WorkflowHandle[Any, Any],
) -> list[tuple[str, Sequence[HistoryEvent], History]]:
    """Run id, events and history of each run, from the first that the server keeps."""
    found = list[tuple[str, Sequence[HistoryEvent], History]]()
    run_id: str | None = None
    async with asyncio.timeout(20):
        while run_id != "":
            one = handle._client.get_workflow_handle(handle.id, run_id=run_id)
            run_id = run_id or (await one.describe()).run_id
            events = list((await one.fetch_history()).events)
            found.append((run_id, events, read_history(events)))
            run_id = events[
                0
            ].workflow_execution_started_event_attributes.continued_execution_run_id
    return found[::-1]


def _tokens(event: HistoryEvent) -> int:
    """What the answer of a model that this event has brought reports."""
    payloads = event.activity_task_completed_event_attributes.result.payloads
    result = decode(payloads[0]) if payloads else None
    usage = result.get("usage") if isinstance(result, dict) else None
    return sum(int(usage.get(name) or 0) for name in _TOKENS) if isinstance(usage, dict) else 0


def _picture(title: str, lines: Mapping[str, Sequence[int]]) -> str:
    """One picture: a line for each conversation, named at its end."""
    most = max((max(values, default=0) for values in lines.values()), default=0) or 1
    turns = max((len(values) for values in lines.values()), default=0)
    words = "; ".join(
        f"{name}: {values[0]:,} in turn 1, {values[-1]:,} in turn {len(values)}"
        for name, values in lines.items()
        if values
    )
    drawn = "".join(
        _line(n, name, values, most, turns) for n, (name, values) in enumerate(lines.items())
    )
    return (
        f'<div><b>{escape(title)}</b><svg width="{_WIDTH + _ROOM}" height="{_HEIGHT + 34}" role="img"'
        f' viewBox="0 -12 {_WIDTH + _ROOM} {_HEIGHT + 34}" aria-label="{escape(f"{title}. {words}")}">'
        f'<line x1="0" y1="0" x2="{_WIDTH}" y2="0"/>'
        f'<line x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
        f'<text x="0" y="-3">{most:,}</text><text x="0" y="{_HEIGHT - 3}">0</text>'
        f'<text x="0" y="{_HEIGHT + 16}">turn 1</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">turn {turns}</text>{drawn}</svg></div>'
    )


def _line(number: int, name: str, values: Sequence[int], most: int, turns: int) -> str:
    colour, dashes = _LINES[number % len(_LINES)]
    points = [*_points(values, most, turns)]
    if not points:
        return ""
    x, y = points[-1]
    return (
        f'<polyline points="{" ".join(f"{x:.0f},{y:.0f}" for x, y in points)}" stroke="{colour}"'
        f' stroke-dasharray="{dashes}"/><text x="{x + 6:.0f}" y="{y + 4:.0f}">{escape(name)}</text>'
    )


def _points(values: Sequence[int], most: int, turns: int) -> Iterable[tuple[float, float]]:
    for index, value in enumerate(values):
        yield _WIDTH * index / max(1, turns - 1), _HEIGHT * (1 - value / most)
