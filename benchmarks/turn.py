"""What a chat turn costs, next to the cheapest thing that Temporal could do in its place.

The floor of a turn is one update whose handler runs as many empty activities as the turn has: one without
a tool (plan), three with one (plan, tool, plan). Turn and floor take turns on the same server and the same
worker, and the ratio is taken pair by pair, so that a busy machine slows both. The worker is one process
of its own, as in real use: sharing this one's interpreter with it, the client would slow every step.
Empty activities carry a start-to-close timeout and nothing else; what heartbeat timeouts, retry policies
and payloads cost is the turn's. The model is the offline one, without latency: all else is overhead.

A turn of the Agents SDK's loop is paired with one of the manual loop, and an operation of the finance team,
synchronous or workflow-backed, with an empty one of its kind. What checking who is asking costs is seen in
pairs of sessions, one where everybody does (`WORKSHOP_IDENTITY=on`) and one where nobody does; and once more
with the policy that decides what a model is sent, summaries and all, beside a loop that has neither.

Left out: what durability buys, and many chats at once.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version

from bench import BATCH, EARLY, LATE, Beside, History, RoundTrip, Times, Turn
from ground import ServerKind, Storage, running
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.server import dev_server

STORAGES: tuple[Storage, ...] = ("memory", "file")
SERVERS: tuple[ServerKind, ...] = ("stock", "tuned")
OPERATIONS = ("synchronous", "workflow-backed")
RATIO_TARGET = 1.25  # a turn with one tool, to its floor
BYTES_TARGET = 1.2  # bytes of history of turn 100, to those of turn 10


@dataclass(frozen=True)
class Result:
    """Everything that one run measured."""

    round_trips: list[RoundTrip]
    turns: list[Turn]
    beside: list[Beside]
    history: History

    @property
    def targets(self) -> list[dict[str, object]]:
        """What is asked of the project, what was measured, and whether it is met."""
        rows: list[tuple[str, float, float]] = [
            (f"turn with one tool, to its floor, {turn.storage}", turn.ratio, RATIO_TARGET)
            for turn in self.turns
            if turn.tools
        ]
        rows += [
            (f"{one.what}, to {one.floor}, {one.storage}", one.ratio, one.at_most)
            for one in self.beside
            if one.at_most
        ]
        rows.append((f"bytes of turn {LATE}, to turn {EARLY}", self.history.ratio, BYTES_TARGET))
        return [
            {"what": what, "measured": measured, "at_most": most, "met": measured <= most}
            for what, measured, most in rows
        ]


async def measure(runs: int, progress: Progress) -> Result:
    """The whole benchmark, server after server, so that none disturbs another."""
    round_trips: list[RoundTrip] = []
    turns: list[Turn] = []
    beside: list[Beside] = []
    history: History | None = None

    def bar(label: str, total: int) -> Callable[[], None]:
        task = progress.add_task(label, total=total)
        return lambda: progress.advance(task)

    for storage in STORAGES:
        for server in SERVERS:
            async with running(server, storage) as bench:
                label = f"{server} server, {storage}"
                tick = bar(f"{label}: empty activity", -(-runs // BATCH))
                ms = await bench.round_trip(runs, tick)
                round_trips.append(RoundTrip(server, storage, ms))
                if server == "stock":
                    continue
                for tools in (0, 1):
                    tick = bar(f"{label}: turns, {tools} tools", runs)
                    turns.append(await bench.turn(storage, tools, runs, tick))
                tick = bar(f"{label}: the SDK loop", runs)
                beside.append(await bench.loops(storage, runs, tick))
                for kind in OPERATIONS:
                    tick = bar(f"{label}: {kind} operation", runs)
                    beside.append(await bench.operation(kind, storage, runs, tick))
                tick = bar(f"{label}: identity on and off", 2 * runs)
                beside += await bench.identity(storage, runs, tick)
                tick = bar(f"{label}: identity and policy on, and neither", 2 * runs)
                beside += await bench.identity(storage, runs, tick, policy=True)
                if history is None:  # the same bytes, wherever they are kept
                    history = await bench.history(bar("bytes of history", LATE))
    assert history
    return Result(round_trips, turns, beside, history)


def as_json(result: Result, runs: int) -> str:
    """One document."""
    document = {
        "runs": runs,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "temporalio": version("temporalio"),
            "server": dev_server.server_version(dev_server.find_cli()),
        },
        "round_trips": [asdict(row) for row in result.round_trips],
        "turns": [asdict(row) for row in result.turns],
        "beside": [asdict(row) for row in result.beside],
        "history": asdict(result.history) | {"ratio": result.history.ratio},
        "targets": result.targets,
    }
    return json.dumps(document, indent=1)


def show(result: Result, runs: int, console: Console) -> None:
    """The same as tables."""
    table = Table(
        title=f"Milliseconds, {runs} runs each; ratio: median over pairs of turn and floor"
    )
    table.add_column("what", no_wrap=True)
    table.add_column("kept in", no_wrap=True)
    for column in ("p50", "p95", "floor p50", "floor p95", "ratio"):
        table.add_column(column, justify="right")
    for trip in result.round_trips:
        table.add_row(f"activity, {trip.server} server", trip.storage, *_cells(trip.ms), "", "", "")
    for turn in result.turns:
        table.add_row(
            "turn with one tool" if turn.tools else "turn without a tool",
            turn.storage,
            *_cells(turn.turn_ms),
            *_cells(turn.floor_ms),
            f"{turn.ratio:.2f}",
        )
    for one in result.beside:
        table.add_row(
            one.what,
            one.storage,
            *_cells(one.ms),
            *_cells(one.floor_ms),
            f"{one.ratio:.2f}",
        )
    console.print(table)
    history = result.history
    console.print(
        f"History: {history.early_bytes:,} bytes for turn {history.early_turn},"
        f" {history.late_bytes:,} for turn {history.late_turn}: {history.ratio:.2f} times."
    )
    for target in result.targets:
        verdict = "met" if target["met"] else "MISSED"
        console.print(f"{verdict}: {target['what']}: {target['measured']} (≤ {target['at_most']})")


def _cells(times: Times) -> tuple[str, str]:
    return f"{times.p50:.1f}", f"{times.p95:.1f}"


def _runs(text: str) -> int:
    runs = int(text)
    if not 10 <= runs <= 2000:
        raise argparse.ArgumentTypeError("between 10 and 2000")
    return runs


async def main() -> int:
    """Measure and print. Status 0 when it was measured, met or not; 1 when it could not be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=_runs, default=200, help="pairs of turn and floor (200)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    wanted = parser.parse_args()
    limit = 300 + 4 * wanted.runs  # seconds; several times what a busy laptop needs
    try:
        with Progress(console=Console(stderr=True)) as progress:
            async with asyncio.timeout(limit):
                result = await measure(wanted.runs, progress)
    except TimeoutError:
        print(f"The benchmark was not done within {limit} s. Use fewer --runs.", file=sys.stderr)
        return 1
    except WorkshopError as error:
        print(error, file=sys.stderr)
        return 1
    if wanted.json:
        print(as_json(result, wanted.runs))
    else:
        show(result, wanted.runs, Console())
    return 0


if __name__ == "__main__":
    status = asyncio.run(main())
    sys.stdout.flush()
    # Threads of the SDK may still hold on to the interpreter; everything is stopped and printed.
    os._exit(status)
