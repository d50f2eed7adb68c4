"""The figures as one picture: what a turn costs, as bars on a logarithmic axis."""

import math
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 720, 250, 60, 44, 56
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.small { font-size: 11px; fill: #57606a } .axis { stroke: #d0d7de }
.new { fill: #8fb8de } .existing { fill: #2f6fab }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9ea7b3 } .axis { stroke: #3d444d }
  .new { fill: #4a7299 } .existing { fill: #8fc1f0 } }
"""


def draw(document: dict[str, Any]) -> str:
    """An SVG: for each system two bars, a turn in a new conversation and in one that exists.

    Args:
        document: what `run.measure` returns.
    """
    rows = document["systems"]
    most = max(max(row["new"], row["existing"]) for row in rows)
    decades = max(1, math.ceil(math.log10(most)))
    height = TOP + ROW * len(rows) + 30

    def at(value: float) -> float:
        span = WIDTH - LEFT - RIGHT
        return LEFT + span * math.log10(max(value, 1.0)) / decades

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        ' aria-labelledby="title description">',
        '<title id="title">What a turn costs</title>',
        f'<desc id="description">{escape(_in_words(rows))}</desc>',
        f"<style>{STYLE}</style>",
        '<text x="0" y="18" font-weight="600">A turn with one tool, in turns of the bare Agents SDK</text>',
        '<text x="0" y="36" class="small">constant model · logarithmic ·'
        f" 1 × is {document['unit_ms']} ms · light: new conversation, dark: one that exists</text>",
    ]
    for power in range(decades + 1):
        x = at(10.0**power)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{height - 22}"/>')
        parts.append(
            f'<text class="small" x="{x}" y="{height - 8}" text-anchor="middle">{10**power} ×</text>'
        )
    for number, row in enumerate(rows):
        y = TOP + number * ROW
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 20}" text-anchor="end">{escape(row["name"])}</text>'
        )
        for kind, offset in (("new", 2), ("existing", 17)):
            end = max(at(row[kind]), LEFT + 2)
            parts.append(
                f'<rect class="{kind}" x="{LEFT}" y="{y + offset}" width="{end - LEFT:.1f}"'
                ' height="13" rx="2"/>'
            )
            parts.append(
                f'<text class="small" x="{end + 5:.1f}" y="{y + offset + 11}">{row[kind]} ×</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _in_words(rows: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{row['name']}: {row['new']} times in a new conversation, {row['existing']} in one that exists"
        for row in rows
    )
