"""A `Run` drawn as SVG for the notebook, and written as text.

One row of lanes above a time axis. A hollow box waits for a worker, a filled one is at work, a hatched one
went wrong, and a word says which. Long stretches in which nothing works are drawn shorter than they were,
with a break in the axis. Colours follow JupyterLab's theme, and nothing is told by colour alone.

Left out: any script. The picture is static; details appear as tooltips and in the text.
"""

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from workshop_lib.lab.timeline_events import (
    BAD_STATES,
    CHILDREN,
    COMPLETED,
    LANES,
    MODEL,
    NEXUS,
    PEOPLE,
    RETRYING,
    RUNNING,
    TEAM,
    TIMERS,
    TOOLS,
    UNFINISHED,
    WAITING,
    WORKFLOW,
    Bar,
    Gap,
    Mark,
    Run,
)
from workshop_lib.lab.timeline_labels import shorten

WIDTH, LEFT, RIGHT = 900, 86, 884  # the picture, and where its time axis begins and ends
TOP, STRIP, ROW, BOX, AXIS = (
    34,
    19,
    21,
    15,
    56,
)  # heights: title, a row of flags, a row, a box, axis
FONT = 11
CHAR = 0.6  # of the font's size: the width of a letter
SHORTEST = 0.03  # seconds; idle time up to this is never drawn shorter
MAX_ROWS = 6  # of one lane; beyond, the shortest lose their labels
MOST_ROWS = 12  # beyond, they share one

# Each carries white text and stands out on both a light and a dark page (WCAG AA).
COLOURS = {
    PEOPLE: "#84519c",
    MODEL: "#2f6db3",
    TOOLS: "#2f7d53",
    NEXUS: "#a85a1b",
    TEAM: "#7a5c12",
    CHILDREN: "#2c7a86",
    TIMERS: "#68717d",
    WORKFLOW: "#68717d",
}
BAD = "#b8433d"
WORKING = (MODEL, TOOLS, NEXUS, TEAM, CHILDREN)

_TEXT = "var(--jp-content-font-color1, var(--vscode-foreground, currentColor))"
_PAGE = "var(--jp-layout-color0, var(--vscode-editor-background, Canvas))"
_FONT = "var(--jp-ui-font-family, system-ui, sans-serif)"


def html_page(run: Run, links: Sequence[tuple[str, str]]) -> str:
    """The picture, the same as text in a fold-out, and links into the Web UI: words and address."""
    link = "".join(
        f'<p style="margin:4px 0"><a href="{escape(url)}" target="_blank" rel="noopener">'
        f"{escape(words)}</a></p>"
        for words, url in links
    )
    return (
        f'<div class="workshop-timeline">{svg(run)}'
        "<details><summary>This timeline as text</summary>"
        f'<pre style="white-space:pre-wrap">{escape(text_form(run))}</pre></details>{link}</div>'
    )


# --- words ------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A length of time as people say it: "0.21 s", "5.1 s", "3 min 5 s", "2 h 5 min", "1 d 3 h"."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    for unit, large, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {large} {int(seconds % unit // part)} {small}"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def headline(run: Run) -> str:
    """What run this is and how it stands, in one line."""
    line = f"{run.workflow_type} · {run.workflow_id} · {run.status} · {duration(run.end)}"
    return f"{line} · {run.cut}" if run.cut else line


def summary(run: Run) -> str:
    """What the picture shows, counted."""
    counts = [(lane, sum(bar.lane == lane for bar in run.bars)) for lane in LANES[:-1]]
    parts = [f"{lane}: {count}" for lane, count in counts if count]
    parts += [f"{gap_text(gap)} at {duration(gap.start)}" for gap in run.gaps]
    retried = sum(bar.attempt > 1 for bar in run.bars)
    if retried:
        parts.append(f"{retried} with more than one attempt")
    return f"Timeline of {headline(run)}. {'; '.join(parts)}."


def gap_text(gap: Gap) -> str:
    """What is written into a gap."""
    return f"nobody at work for {duration(gap.end - gap.start)}{' so far' if gap.open else ''}"


def outcome(bar: Bar, end: float) -> str:
    """How a bar went, in words."""
    since = bar.scheduled if bar.started is None else bar.started
    took = duration((end if bar.ended is None else bar.ended) - since)
    before = f"attempt {bar.attempt - 1}: {bar.note}" if bar.note else ""
    if bar.lane == WORKFLOW:
        why = f" ({bar.note})" if bar.note else ""
        if bar.state == COMPLETED:
            return f"failed{why}, went well on attempt {bar.attempt} after {took}"
        return f"keeps failing{why}, attempt {bar.attempt}"
    tries = f" on attempt {bar.attempt}" if bar.attempt > 1 else ""
    waited = since - bar.scheduled
    late = f", {duration(waited)} after it was due" if waited >= 0.1 else ""
    if bar.state == COMPLETED:
        verb = {PEOPLE: "accepted, answered", TIMERS: "fired"}.get(bar.lane, "completed")
        why = f" ({before})" if before and bar.attempt > 1 else ""
        return f"{verb} in {took}{tries}{late}{why}"
    if bar.state in (RUNNING, WAITING, RETRYING, UNFINISHED):
        verb = {
            RUNNING: "accepted, no answer yet" if bar.lane == PEOPLE else "still running",
            WAITING: "waiting for a worker",
            RETRYING: "waiting to be tried again",
            UNFINISHED: "left unfinished",
        }[bar.state]
        return f"{verb} after {took}{tries}{f' ({before})' if before else ''}"
    return f"{bar.state} after {took}{tries}{late}{f': {bar.note}' if bar.note else ''}"


def text_form(run: Run) -> str:
    """The timeline as lines: when, who, what and how it went."""
    lines = [(bar.scheduled, bar.lane, f"{bar.label} {outcome(bar, run.end)}") for bar in run.bars]
    lines += [(mark.time, mark.lane, mark.name) for mark in run.marks if mark.name]
    lines += [(mark.time, "worker", mark.name) for mark in run.newcomers]
    lines += [(gap.start, "worker", gap_text(gap)) for gap in run.gaps]
    lines.sort(key=lambda line: line[0])
    rows = (f"{time:9.2f} s  {lane:<8}  {what}" for time, lane, what in lines)
    return "\n".join([headline(run), *rows])


# --- the time axis ----------------------------------------------------------------------------------


class _Axis:
    """Seconds → pixels. Where nothing works for long, time is drawn shorter: the more the longer it is."""

    def __init__(self, run: Run) -> None:
        start, end = run.since, max(run.end, run.since + 0.01)
        work = [
            (start if bar.started is None else max(bar.started, start), bar.ended or end)
            for bar in run.bars
            if bar.lane in WORKING and bar.started is not None
        ]
        times = {start, end, *(t for stretch in work for t in stretch)}
        times |= {mark.time for mark in (*run.marks, *run.newcomers)}
        times |= {t for gap in run.gaps for t in (gap.start, gap.end)}
        times |= {t for bar in run.bars for t in (bar.scheduled, bar.started, bar.ended) if t}
        self.times = sorted(t for t in times if start <= t <= end)
        pieces = list(zip(self.times, self.times[1:], strict=False))
        idle = [not any(low <= (a + b) / 2 <= high for low, high in work) for a, b in pieces]
        busy = sum(b - a for (a, b), rest in zip(pieces, idle, strict=True) if not rest)
        wanted = min(0.35, 45 * max(1, len(work)) / (RIGHT - LEFT))  # share of the width for work
        limit = end - start
        for _ in range(60):  # shorten idle pieces beyond `limit` until there is room for the work
            widths = [
                _shortened(b - a, limit) if rest else b - a
                for (a, b), rest in zip(pieces, idle, strict=True)
            ]
            if not busy or busy >= wanted * sum(widths) or limit <= SHORTEST:
                break
            limit *= 0.8
        self.scale = (RIGHT - LEFT) / sum(widths)  # pixels a second where nothing is shortened
        self.places = [float(LEFT)]
        for width in widths:
            self.places.append(self.places[-1] + width * self.scale)
        self.breaks = [
            (low, high)
            for (low, high), width in zip(pieces, widths, strict=True)
            if width < 0.85 * (high - low)
        ]

    def x(self, time: float) -> float:
        """The place of a time, in pixels."""
        times, places = self.times, self.places
        if time <= times[0]:
            return places[0]
        for index in range(1, len(times)):
            if time <= times[index]:
                low, high = times[index - 1], times[index]
                share = (time - low) / (high - low)
                return places[index - 1] + share * (places[index] - places[index - 1])
        return places[-1]

    def ticks(self) -> list[tuple[float, str]]:
        """Round times where nothing is shortened, and the ends of breaks, at least 54 pixels apart."""
        start, end = self.times[0], self.times[-1]
        step = _nice(64 / self.scale)
        ticks: list[tuple[float, str]] = []
        taken = [(self.x(low), self.x(high)) for low, high in self.breaks]
        first = int(start // step)
        last = min(first + 20_000, int(end // step) + 1)
        times = {number * step for number in range(first, last)} | {end for _, end in self.breaks}
        for time in sorted(times):
            place = self.x(time)
            crowded = ticks and place - ticks[-1][0] < 54
            if time < start or crowded or any(a + 1 < place < b - 1 for a, b in taken):
                continue
            ticks.append((place, _clock(time, step)))
        return ticks


def _shortened(seconds: float, limit: float) -> float:
    """Grows with the logarithm beyond `limit`, so that longer stays longer."""
    if seconds <= limit:
        return seconds
    ratio, power = seconds / limit, 0
    while ratio > 1.5 and power < 40:
        ratio, power = ratio / 1.5, power + 1
    return limit * (1 + 0.3 * power + 0.6 * (ratio - 1))


def _nice(step: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten; above 10 s also minutes and hours."""
    for size in (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400):
        if 10 < step <= size:
            return float(size)
    power = 10.0**-6
    while power * 10 <= step:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)


def _clock(time: float, step: float) -> str:
    decimals = next((n for n in range(3) if step >= 0.999 * 10**-n), 3)
    if time < 60:
        return f"{time:.{decimals}f} s"
    hours, rest = divmod(time, 3600)
    minutes, seconds = divmod(rest, 60)
    clock = f"{seconds:0{decimals + 3 if decimals else 2}.{decimals}f}"
    return f"{int(hours)}:{int(minutes):02}:{clock}" if hours else f"{int(minutes)}:{clock}"


# --- the picture ------------------------------------------------------------------------------------


@dataclass
class _Item:
    """A bar or a mark with its label, once its place on the axis is known."""

    left: float
    right: float
    label: str
    thing: Bar | Mark
    begun: float | None = None  # where the filled part of a bar begins
    tail: str = ""  # the end of the label that is never cut
    row: int = 0
    label_x: float = 0.0
    inside: bool = False

    def lay_out(self) -> tuple[float, float]:
        """Put the label where it fits: filled part, right, left, hollow part; return the extent."""
        width = text_width(self.label)
        begun = self.right if self.begun is None else self.begun
        hollow = begun - self.left if isinstance(self.thing, Bar) else 0
        right, left = RIGHT + 10 - (self.right + self.clear), self.left - 5 - LEFT
        self.inside = self.right - begun >= width + 10
        if not self.label:
            return self.left, self.right
        if self.inside:
            self.label_x = begun + 5
        elif right >= width:
            self.label_x = self.right + self.clear
        elif left >= width:
            self.label_x = self.left - 5 - width
        elif hollow >= width + 10:
            self.label_x = self.left + 5
        else:
            room = int((max(right, left, hollow - 10) - 1) / (CHAR * FONT)) - len(self.tail)
            head = self.label.removesuffix(self.tail)
            cut = shorten(head, min(room, len(head) - 1)) if room >= 4 else ""
            self.label = cut + self.tail if cut else ""
            return self.lay_out()
        return min(self.left, self.label_x), max(self.right, self.label_x + width)

    @property
    def clear(self) -> float:
        """Pixels between the right end and a label there; an open bar ends in an arrow."""
        return 12 if isinstance(self.thing, Bar) and self.thing.ended is None else 5


def text_width(text: str) -> float:
    """Pixels that a text takes, guessed generously: nobody measures fonts here."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return FONT * (CHAR * (len(text) - wide) + wide)


def svg(run: Run) -> str:
    """The picture as one SVG element."""
    return _Picture(run).draw()


class _Picture:
    def __init__(self, run: Run) -> None:
        self.run, self.axis, self.parts = run, _Axis(run), list[str]()
        # Ids are global to a page that holds many pictures.
        self.id = "tl" + hashlib.sha256(repr(run).encode()).hexdigest()[:10]

    def draw(self) -> str:
        run = self.run
        flags, flag_rows = self._flags()
        top = TOP + STRIP * flag_rows + 4
        lanes = [(lane, *self._pack(lane)) for lane in LANES]
        lanes = [(lane, items, rows) for lane, items, rows in lanes if rows]
        bottom = top + sum(rows * ROW + 8 for _, _, rows in lanes)
        self._gaps(TOP, bottom)
        self._ticks(top, bottom)
        y = float(top)
        for lane, items, rows in lanes:
            self._line(8, y, RIGHT, y, 0.16)
            self._text(8, y + 4 + ROW / 2 + 4, lane, weight=600)
            if lane == WORKFLOW:
                self._task_ticks(y + 4)
            for item in items:
                self._item(item, y + 4 + item.row * ROW + (ROW - BOX) / 2)
            y += rows * ROW + 8
        self._line(8, y, RIGHT, y, 0.16)
        self._draw_flags(flags, bottom)
        height = bottom + AXIS
        self._text(8, height - 8, self._legend(), size=10, opacity=0.75)
        title, words = escape(f"Timeline of {run.workflow_id or 'a run'}"), escape(summary(run))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
            f'aria-label="{words}" style="width:100%;max-width:{WIDTH + 200}px;height:auto;'
            f'color:{_TEXT};font-family:{_FONT}" font-size="{FONT}" fill="currentColor">'
            f"<title>{title}</title><desc>{words}</desc>{self._patterns()}"
            f'<text x="8" y="19" font-size="13" font-weight="600">{escape(headline(run))}</text>'
            f"{''.join(self.parts)}</svg>"
        )

    # layout

    def _pack(self, lane: str) -> tuple[list[_Item], int]:
        """Give each item of a lane a row in which neither it nor its label touches another."""
        x, run = self.axis.x, self.run
        items = [self._bar_item(bar) for bar in run.bars if bar.lane == lane] + [
            _Item(x(mark.time) - 3, x(mark.time) + 3, mark.name, mark)
            for mark in run.marks
            if mark.lane == lane and mark.name
        ]
        items.sort(key=lambda item: item.left)
        rows = self._place(items)
        if rows > MAX_ROWS:  # a crowd: the longest are what it is about
            longest_first = sorted(items, key=lambda item: item.left - item.right)
            rows = self._place(longest_first, with_labels=MAX_ROWS)
        ticks = lane == WORKFLOW and bool(run.marks)
        return items, max(rows, int(ticks))

    def _place(self, items: Iterable[_Item], with_labels: float = math.inf) -> int:
        """Give each item the first row that is free for it; returns the number of rows.

        Args:
            with_labels: an item that needs a row beyond so many goes without its label.
        """
        rows: list[list[tuple[float, float]]] = []
        for item in items:
            extent = item.lay_out()
            item.row = self._free_row(rows, extent)
            if item.row >= with_labels:
                item.label, extent = "", (item.left, item.right)
                item.row = min(self._free_row(rows, extent), MOST_ROWS - 1)
            if item.row == len(rows):
                rows.append([])
            rows[item.row].append(extent)
        return len(rows)

    @staticmethod
    def _free_row(rows: list[list[tuple[float, float]]], extent: tuple[float, float]) -> int:
        left, right = extent
        for number, taken in enumerate(rows):
            if all(right + 6 <= low or left >= high + 6 for low, high in taken):
                return number
        return len(rows)

    def _right(self, bar: Bar) -> float:
        end = self.run.end if bar.ended is None else bar.ended
        return max(self.axis.x(end), self.axis.x(bar.scheduled) + 3)

    def _bar_item(self, bar: Bar) -> _Item:
        left, right = self.axis.x(bar.scheduled), self._right(bar)
        begun = None if bar.started is None else min(self.axis.x(bar.started), right - 2)
        tail = f" · attempt {bar.attempt}" if bar.attempt > 1 else ""
        if bar.lane == WORKFLOW:
            over = bar.state == COMPLETED
            tail = f" · failed until attempt {bar.attempt}" if over else f"{tail} · keeps failing"
        elif bar.state != COMPLETED:
            tail += f" · {'still running' if bar.state == RUNNING else bar.state}"
        return _Item(left, right, bar.label + tail, bar, begun, tail)

    # parts

    def _flags(self) -> tuple[list[tuple[_Item, float]], int]:
        """The labels above the lanes: gaps and new workers, staggered where they would overlap."""
        x = self.axis.x
        flags = [(x(gap.start), x(gap.end), gap_text(gap)) for gap in self.run.gaps]
        flags += [(x(mark.time), x(mark.time), mark.name) for mark in self.run.newcomers]
        rows: list[list[tuple[float, float]]] = []
        placed: list[tuple[_Item, float]] = []
        for left, right, label in sorted(flags):
            width = text_width(label) * 1.1  # bold
            middle = (left + right) / 2 - width / 2 if right > left else left + 4
            place = max(LEFT, min(middle, RIGHT - width))
            row = min(self._free_row(rows, (place, place + width)), 3)
            if row == len(rows):
                rows.append([])
            rows[row].append((place, place + width))
            thing = Mark(lane="", name=label, time=0)
            item = _Item(left, right, label, thing, row=row, label_x=place)
            placed.append((item, TOP + row * STRIP))
        return placed, len(rows)

    def _draw_flags(self, flags: Iterable[tuple[_Item, float]], bottom: float) -> None:
        for item, y in flags:
            if item.right == item.left:  # a new worker
                self.parts.append(
                    f'<line x1="{item.left:.1f}" x2="{item.left:.1f}" y1="{y:g}" y2="{bottom:g}" '
                    'stroke="currentColor" stroke-width="1.2" stroke-dasharray="4 3"/>'
                )
            self._text(item.label_x, y + 13, item.label, weight=600)

    def _gaps(self, top: float, bottom: float) -> None:
        for gap in self.run.gaps:
            left, right = self.axis.x(gap.start), self.axis.x(gap.end)
            box = f'x="{left:.1f}" y="{top:g}" width="{right - left:.1f}" height="{bottom - top:g}"'
            self.parts.append(
                f'<g><title>{escape(gap_text(gap))}</title><rect {box} fill="currentColor" '
                f'opacity="0.09"/><rect {box} fill="url(#{self.id}-idle)"/></g>'
            )

    def _ticks(self, top: float, bottom: float) -> None:
        for place, label in self.axis.ticks():
            self._line(place, top, place, bottom + 4, 0.13)
            anchor = "start" if place < LEFT + 12 else "end" if place > RIGHT - 14 else "middle"
            self._text(place, bottom + 17, label, anchor=anchor, opacity=0.85)
        for low, high in self.axis.breaks:
            left, right = self.axis.x(low), self.axis.x(high)
            label = duration(high - low)
            middle = (left + right) / 2
            self.parts.append(
                f'<g stroke="currentColor" opacity="0.7"><title>{label}, drawn shorter</title>'
                f'<path d="M{middle - 5:.1f} {bottom + 4:g}l4 -8m2 8l4 -8" fill="none"/></g>'
            )
            if right - left >= text_width(label) + 4:
                self._text(middle, bottom + 30, label, size=10, anchor="middle", opacity=0.75)

    def _task_ticks(self, y: float) -> None:
        for mark in self.run.marks:
            if mark.lane == WORKFLOW and not mark.name:
                place = self.axis.x(mark.time)
                self._line(place, y + 4, place, y + ROW - 4, 0.55)

    def _item(self, item: _Item, y: float) -> None:
        if isinstance(item.thing, Bar):
            self._bar(item, item.thing, y)
        else:
            middle, colour = (item.left + item.right) / 2, COLOURS[item.thing.lane]
            colour = BAD if item.thing.bad else colour
            self.parts.append(
                f'<path d="M{middle:.1f} {y + 2:g}l5.5 5.5l-5.5 5.5l-5.5 -5.5z" fill="{colour}">'
                f"<title>{escape(item.thing.name)}</title></path>"
            )
        if item.label:
            # White on the bar's colour; elsewhere the page's own text, with a rim against lines behind.
            self._text(item.label_x, y + BOX - 4, item.label, white=item.inside)

    def _bar(self, item: _Item, bar: Bar, y: float) -> None:
        left, right, colour = item.left, item.right, COLOURS[bar.lane]
        bad = bar.state in BAD_STATES or bar.lane == WORKFLOW
        edge = BAD if bad else colour
        box = f'y="{y:g}" height="{BOX}" rx="3"'
        parts = [f"<title>{escape(f'{bar.label} {outcome(bar, self.run.end)}')}</title>"]
        begun = right if item.begun is None else item.begun
        if begun - left >= 1.5:  # waiting: hollow
            parts.append(
                f'<rect x="{left:.1f}" width="{begun - left:.1f}" {box} fill="{edge}" '
                f'fill-opacity="0.12" stroke="{edge}" stroke-dasharray="3 2"/>'
            )
        if item.begun is not None:
            parts.append(
                f'<rect x="{begun:.1f}" width="{max(2.0, right - begun):.1f}" {box} fill="{edge}"/>'
            )
        if bad:
            parts.append(
                f'<rect x="{left:.1f}" width="{right - left:.1f}" {box} '
                f'fill="url(#{self.id}-bad)" stroke="{BAD}"/>'
            )
        if bar.ended is None:  # open-ended: an arrow, not an edge
            parts.append(f'<path d="M{right:.1f} {y:g}l7 {BOX / 2}l-7 {BOX / 2}z" fill="{edge}"/>')
        self.parts.append(f"<g>{''.join(parts)}</g>")

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = FONT,
        weight: int = 400,
        anchor: str = "start",
        opacity: float = 1,
        white: bool = False,
    ) -> None:
        look = "" if size == FONT else f' font-size="{size}"'
        look += "" if weight == 400 else f' font-weight="{weight}"'
        look += "" if anchor == "start" else f' text-anchor="{anchor}"'
        look += "" if opacity == 1 else f' opacity="{opacity}"'
        look += (
            ' fill="#fff"'
            if white
            else f' style="paint-order:stroke;stroke:{_PAGE};stroke-width:3px;stroke-linejoin:round"'
        )
        self.parts.append(f'<text x="{x:.1f}" y="{y:g}"{look}>{escape(text)}</text>')

    def _line(self, x1: float, y1: float, x2: float, y2: float, opacity: float) -> None:
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:g}" x2="{x2:.1f}" y2="{y2:g}" '
            f'stroke="currentColor" opacity="{opacity}"/>'
        )

    def _legend(self) -> str:
        words: Sequence[str] = ("dashed box: waiting", "filled: at work", "hatched: went wrong")
        legend = " · ".join([*words, "tick: workflow task"])
        if self.axis.breaks:
            legend += " · // : idle time, drawn shorter"
        return legend

    def _patterns(self) -> str:
        def hatch(name: str, size: int, colour: str, width: float, opacity: float) -> str:
            return (
                f'<pattern id="{self.id}-{name}" width="{size}" height="{size}" '
                f'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line x1="0" y1="0" '
                f'x2="0" y2="{size}" stroke="{colour}" stroke-width="{width}" '
                f'opacity="{opacity}"/></pattern>'
            )

        idle = hatch("idle", 9, "currentColor", 1, 0.22)
        return f"<defs>{idle}{hatch('bad', 5, '#fff', 1.6, 0.45)}</defs>"
