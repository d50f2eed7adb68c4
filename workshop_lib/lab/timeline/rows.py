"""A `Run` drawn as rows of HTML for the notebook, and written as text.

A row a step above a time axis: who, what, a bar, how it went. A dashed box waits for a worker, a filled one
is at work, a hatched one went wrong, and a word says which. Stretches in which nothing works are drawn
shorter than they were. The browser measures the text and lays it out (`timeline.css`). Colours follow
JupyterLab's theme, and nothing is told by colour alone. Left out: any script. Details appear as tooltips.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape
from operator import itemgetter
from pathlib import Path

from workshop_lib.lab.history import COMPLETED, RETRYING, RUNNING, UNFINISHED, WAITING
from workshop_lib.lab.timeline.labels import duration, shorten
from workshop_lib.lab.timeline.run import (
    BAD_STATES,
    LANES,
    MODEL,
    NEXUS,
    PEOPLE,
    TEAM,
    TIMERS,
    TOOLS,
    WORKFLOW,
    Bar,
    Gap,
    Run,
)

# Each stands out on both a light and a dark page (WCAG AA for graphics).
COLOURS = {
    PEOPLE: "#9a63b5",
    MODEL: "#3b7fca",
    TOOLS: "#35905f",
    NEXUS: "#bf6a24",
    TEAM: "#93731f",
    TIMERS: "#7a8490",
    WORKFLOW: "#7a8490",
}
_STYLE = Path(__file__).with_name("timeline.css").read_text(encoding="utf-8")


def html_page(run: Run, links: Sequence[tuple[str, str]]) -> str:
    """The picture, the same as text in a fold-out, and links into the Web UI: words and address."""
    anchors = "".join(
        f'<div><a href="{escape(url)}" target="_blank" rel="noopener">{escape(words)}</a></div>'
        for words, url in links
    )
    return (
        f'<div class="wt" role="figure" aria-label="{escape(summary(run))}"><style>{_STYLE}</style>'
        f'<div class="wt-head">{escape(headline(run))}</div>'
        f'<div class="wt-grid">{"".join(_grid(run))}</div>'
        '<div class="wt-note">dashed: waiting · filled: at work · hatched: went wrong · thin line: workflow'
        " task · … : idle time, drawn shorter</div>"
        "<details><summary>This timeline as text</summary>"
        f"<pre>{escape(text_form(run))}</pre></details>{anchors}</div>"
    )


# --- words ------------------------------------------------------------------------------------------


def summary(run: Run) -> str:
    """What the picture shows, counted."""
    counts = [(lane, sum(bar.lane == lane for bar in run.bars)) for lane in LANES[:-1]]
    parts = [f"{lane}: {count}" for lane, count in counts if count]
    parts += [f"{gap_text(gap)} at {duration(gap.start)}" for gap in run.gaps]
    if retried := sum(bar.attempts > 1 for bar in run.bars):
        parts.append(f"{retried} with more than one attempt")
    return f"Timeline of {headline(run)}. {'; '.join(parts)}."


def headline(run: Run) -> str:
    """What run this is and how it stands, in one line."""
    whose = shorten(run.history.workflow_type), shorten(run.history.workflow_id, 80)
    line = " · ".join([*whose, run.history.status, duration(run.end)])
    return f"{line} · {run.cut}" if run.cut else line


def gap_text(gap: Gap) -> str:
    """What is written into a gap."""
    return f"nobody at work for {duration(gap.end - gap.start)}{' so far' if gap.open else ''}"


_OPEN = {
    RUNNING: "still running",
    WAITING: "waiting for a worker",
    RETRYING: "waiting to be tried again",
    UNFINISHED: "left unfinished",
}


def outcome(bar: Bar, end: float) -> str:
    """How a bar went, in words; `end` is the run's."""
    since = bar.scheduled if bar.started is None else bar.started
    took = duration((end if bar.ended is None else bar.ended) - since)
    if bar.lane == WORKFLOW:
        why = f" ({bar.note})" if bar.note else ""
        if bar.state == COMPLETED:
            return f"failed{why}, went well on attempt {bar.attempts} after {took}"
        return f"keeps failing{why}, attempt {bar.attempts}"
    before = f" (attempt {bar.attempts - 1}: {bar.note})" if bar.note else ""
    tries = f" on attempt {bar.attempts}" if bar.attempts > 1 else ""
    waited = since - bar.scheduled
    late = f", {duration(waited)} after it was due" if waited >= 0.1 else ""
    if bar.state == COMPLETED:
        verb = {PEOPLE: "accepted, answered", TIMERS: "fired"}.get(bar.lane, "completed")
        return f"{verb} in {took}{tries}{late}{before if bar.attempts > 1 else ''}"
    if bar.state in _OPEN:
        asked = bar.lane == PEOPLE and bar.state == RUNNING
        verb = "accepted, no answer yet" if asked else _OPEN[bar.state]
        return f"{verb} after {took}{tries}{before}"
    return f"{bar.state} after {took}{tries}{late}{f': {bar.note}' if bar.note else ''}"


def text_form(run: Run) -> str:
    """The timeline as lines: when, who, what and how it went."""
    lines = [(bar.scheduled, bar.lane, f"{bar.label} {outcome(bar, run.end)}") for bar in run.bars]
    lines += [(mark.time, mark.lane, mark.name) for mark in run.marks if mark.name]
    lines += [(mark.time, "worker", mark.name) for mark in run.newcomers]
    lines += [(gap.start, "worker", gap_text(gap)) for gap in run.gaps]
    lines.sort(key=lambda line: line[0])
    rows = (f"{time:9.2f} s  {lane:<10}  {what}" for time, lane, what in lines)
    return "\n".join([headline(run), *rows])


def _words(bar: Bar, end: float) -> tuple[str, str]:
    """How a bar went: in a few words, for the end of a row, and in all of them."""
    since = bar.scheduled if bar.started is None else bar.started
    words = [duration((end if bar.ended is None else bar.ended) - since)]
    if bar.attempts > 1:
        words.append(f"attempt {bar.attempts}")
    if bar.lane == WORKFLOW and bar.state == RETRYING:
        words.append("keeps failing")
    elif bar.state != COMPLETED:
        words.append("still running" if bar.state == RUNNING else bar.state)
    return " · ".join(words), outcome(bar, end)


# --- the time axis ----------------------------------------------------------------------------------


class _Axis:
    """Seconds → per cent of the width. Where nothing works, time is drawn shorter."""

    def __init__(self, run: Run) -> None:
        start, end = run.since, max(run.end, run.since + 0.01)
        work = [
            (start if bar.started is None else max(bar.started, start), bar.ended or end)
            for bar in run.bars
            if bar.lane in (MODEL, TOOLS, NEXUS, TEAM) and bar.started is not None
        ]
        times = sorted({start, end, *(time for stretch in work for time in stretch)})
        self.pieces = [
            (low, high, any(a <= (low + high) / 2 <= b for a, b in work))
            for low, high in itertools.pairwise(times)
        ]
        busy = sum(high - low for low, high, works in self.pieces if works)
        widths = [
            high - low if works or not busy else _shortened(high - low, busy)
            for low, high, works in self.pieces
        ]
        self.shortened = [
            width < (high - low) / 2
            for width, (low, high, _) in zip(widths, self.pieces, strict=True)
        ]
        self.places = [0.0]
        for width in widths:
            self.places.append(self.places[-1] + 100 * width / sum(widths))

    def at(self, time: float) -> float:
        """The place of a time."""
        for index, (low, high, _) in enumerate(self.pieces):
            if time <= high:
                share = max(0.0, time - low) / (high - low)
                return self.places[index] + share * (self.places[index + 1] - self.places[index])
        return 100.0

    def labels(self) -> Iterator[tuple[float, str]]:
        """Where to write what below the axis, far enough apart."""
        start, end = self.pieces[0][0], self.pieces[-1][1]
        free = 9.0  # per cent that a label takes
        yield 0.0, duration(start) if start else "0 s"
        last = 0.0
        for index, (low, high, _) in enumerate(self.pieces):
            place, words = self.places[index], duration(low)
            if self.shortened[index]:
                place, words = (place + self.places[index + 1]) / 2, f"… {duration(high - low)}"
            if last + free <= place <= 100 - 2 * free:
                yield place, words
                last = place
        yield 100.0, duration(end)


def _shortened(idle: float, busy: float) -> float:
    """Grows with the logarithm, so that longer stays longer and the work is still seen."""
    return min(idle, busy * (0.12 + 0.16 * math.log10(1 + idle / busy)))


# --- the rows ---------------------------------------------------------------------------------------


def _grid(run: Run) -> Iterator[str]:
    axis = _Axis(run)
    # When, and the cells of a row: lane, what, track, verdict, tooltip.
    flags = [
        (gap.start, ("worker", "", _gap_track(axis, gap), "", gap_text(gap))) for gap in run.gaps
    ] + [
        (mark.time, ("worker", "", _label(axis.at(mark.time), mark.name), "", mark.name))
        for mark in run.newcomers
    ]
    steps = [
        (
            bar.scheduled,
            (bar.lane, bar.label, _bar_track(axis, bar, run.end), *_words(bar, run.end)),
        )
        for bar in run.bars
    ] + [
        (mark.time, (PEOPLE, mark.name, _piece("mark", axis.at(mark.time)), "", ""))
        for mark in run.marks
        if mark.lane == PEOPLE
    ]
    tasks = [mark for mark in run.marks if mark.lane == WORKFLOW]
    ticks = "".join(
        _piece(f"{'mark' if m.name else 'tick'}{' bad' * m.bad}", axis.at(m.time), tip=m.name)
        for m in tasks
    )
    verdict = "; ".join(dict.fromkeys(mark.name for mark in tasks if mark.name))
    rows = [cells for some in (flags, steps) for _, cells in sorted(some, key=itemgetter(0))]
    rows.append((WORKFLOW, "tasks", ticks, verdict, ""))
    last = len(rows) + 1
    bands = "".join(_piece("gap", axis.at(gap.start), axis.at(gap.end)) for gap in run.gaps)
    bands += "".join(_piece("new", axis.at(mark.time)) for mark in run.newcomers)
    yield f'<div class="wt-bands" aria-hidden="true" style="grid-area:1/3/{last}/4">{bands}</div>'
    lane = ""
    for number, (of, *cells) in enumerate(rows, start=1):
        yield _row(number, of, "" if of == lane else of, *cells)  # a lane is named once
        lane = of
    labels = "".join(_label(place, words) for place, words in axis.labels())
    yield f'<div class="wt-track wt-axis" style="grid-area:{last}/3">{labels}</div>'


def _row(
    number: int, lane: str, name: str, what: str, track: str, verdict: str, tooltip: str
) -> str:
    tip = escape(f"{what} {tooltip or verdict}".strip())
    at = f'title="{tip}" style="grid-row:{number};--c:{COLOURS.get(lane, COLOURS[WORKFLOW])}'
    return (
        f'<span class="wt-lane" {at}">{escape(name)}</span>'
        f'<span {at}">{escape(what)}</span>'
        f'<div class="wt-track" aria-hidden="true" {at};grid-column:3">{track}</div>'
        f'<span class="wt-end" {at};grid-column:4">{escape(verdict)}</span>'
    )


def _piece(look: str, left: float, right: float | None = None, tip: str = "") -> str:
    """Something on a track: from one place to another, or at one."""
    width = "" if right is None else f";width:{right - left:.2f}%"
    title = f' title="{escape(tip)}"' if tip else ""
    return f'<i class="{look}"{title} style="left:{left:.2f}%{width}"></i>'


def _label(place: float, words: str) -> str:
    side = f"right:{100 - place:.2f}%" if place > 60 else f"left:{place:.2f}%"
    return f'<b style="{side}">{escape(words)}</b>'


def _gap_track(axis: _Axis, gap: Gap) -> str:
    left = axis.at(gap.start)
    return _label(left if left < 60 else axis.at(gap.end), gap_text(gap))


def _bar_track(axis: _Axis, bar: Bar, end: float) -> str:
    left, right = axis.at(bar.scheduled), axis.at(end if bar.ended is None else bar.ended)
    begun = right if bar.started is None else axis.at(bar.started)
    bad = bar.state in BAD_STATES or bar.lane == WORKFLOW
    track = _piece("wait", left, begun) if begun - left > 0.2 else ""
    if bar.started is not None or bad:
        look = "bad" * bad + " open" * (bar.ended is None)
        track += _piece(look, left if bar.started is None else begun, right)
    return track
