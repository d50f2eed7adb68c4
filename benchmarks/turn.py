"""What a chat turn costs, next to the cheapest thing that Temporal could do in its place.

The floor of a turn is one update whose handler runs as many empty activities as the turn has: one without
a tool (plan), three with one (plan, tool, plan). Turn and floor take turns on the same server and the same
worker, and the ratio is taken pair by pair, so that a busy machine slows both. The worker is one process
of its own, as in real use: sharing this one's interpreter with it, the client would slow every step.
Empty activities carry a start-to-close timeout and nothing else; what heartbeat timeouts, retry policies
and payloads cost is the turn's. The model is the offline one, without latency: all else is overhead.

Left out: what durability buys, other loops than the manual one, and many chats at once.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Literal

from floor import Floor, nothing
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from temporalio.client import Client, WorkflowHandle

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.connect import connect
from workshop_lib.errors import WorkshopError
from workshop_lib.lab import dev_server
from workshop_lib.lab.server import ensure_server
from workshop_lib.lab.server_process import PortLost, end, launch
from workshop_lib.lab.worker_process import start_process
from workshop_lib.ports import LOCALHOST
from workshop_lib.settings import OFFLINE_MODEL, reload_settings

Storage = Literal["memory", "file"]
STORAGES: tuple[Storage, ...] = ("memory", "file")
STEP_LIMIT = timedelta(seconds=30)  # for any one request
WARM_UP = 8  # turns of each session that are not counted: imports, caches, a full context window
SESSION_TURNS = 100  # then the pair of sessions is replaced by a fresh one
BATCH = 10  # empty activities in one update, for the round trip
EARLY, LATE = 10, 100  # the turns whose bytes of history are compared

RATIO_TARGET = 1.25  # a turn with one tool, to its floor
BYTES_TARGET = 1.2  # bytes of history of turn 100, to those of turn 10


@dataclass(frozen=True)
class Times:
    """Milliseconds of many runs of one thing."""

    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Times":
        """From single runs in seconds; at least two."""
        cuts = quantiles(seconds, n=20, method="inclusive")
        return cls(round(median(seconds) * 1e3, 2), round(cuts[-1] * 1e3, 2))


@dataclass(frozen=True)
class RoundTrip:
    """An empty activity, from the workflow's call to the workflow's next line."""

    server: Literal["stock", "tuned"]
    storage: Storage
    ms: Times


@dataclass(frozen=True)
class Turn:
    """A turn beside its floor. `ratio` is the median over pairs, not the ratio of the medians."""

    storage: Storage
    tools: int
    activities: int
    pairs: int
    turn_ms: Times
    floor_ms: Times
    ratio: float


@dataclass(frozen=True)
class History:
    """Bytes that one turn with one tool adds to its event history, early and late in a chat."""

    early_turn: int
    early_bytes: int
    late_turn: int
    late_bytes: int

    @property
    def ratio(self) -> float:
        """Late to early: 1 where a turn costs the same however long the chat is."""
        return round(self.late_bytes / self.early_bytes, 3)


class Bench:
    """The measurements on one running server and worker.

    Args:
        client: connected to that server.
        task_queue: where the worker polls.
    """

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._queue = task_queue

    async def round_trip(self, runs: int, tick: Callable[[], None]) -> Times:
        """Time empty activities from inside a workflow."""
        floor = await self._floor()
        await self._run_empty(floor, BATCH)
        seconds: list[float] = []
        while len(seconds) < runs:
            seconds += await self._run_empty(floor, min(BATCH, runs - len(seconds)))
            tick()
        await floor.terminate(rpc_timeout=STEP_LIMIT)
        return Times.of(seconds)

    async def turn(
        self, storage: Storage, tools: int, pairs: int, tick: Callable[[], None]
    ) -> Turn:
        """Time turns with `tools` tool calls (0 or 1) and their floor, in turn."""
        activities = 1 + 2 * tools
        turns: list[float] = []
        floors: list[float] = []
        while len(turns) < pairs:
            chat = self._chat()
            floor = await self._floor()
            for number in range(WARM_UP + min(SESSION_TURNS, pairs - len(turns))):
                turn = await _timed(_ask(chat, number, tools))
                empty = await _timed(self._run_empty(floor, activities))
                if number >= WARM_UP:
                    turns.append(turn)
                    floors.append(empty)
                    tick()
            await chat.end()
            await floor.terminate(rpc_timeout=STEP_LIMIT)
        return Turn(
            storage=storage,
            tools=tools,
            activities=activities,
            pairs=pairs,
            turn_ms=Times.of(turns),
            floor_ms=Times.of(floors),
            ratio=round(median(t / f for t, f in zip(turns, floors, strict=True)), 3),
        )

    async def history(self, tick: Callable[[], None]) -> History:
        """The bytes of one turn with one tool, as the server counts them."""
        chat = self._chat()
        sizes = {}
        for number in range(1, LATE + 1):
            await _ask(chat, number, tools=1)
            if number in (EARLY - 1, EARLY, LATE - 1, LATE):
                found = await chat.handle.describe(rpc_timeout=STEP_LIMIT)
                info = found.raw_description.workflow_execution_info
                sizes[number] = info.history_size_bytes
            tick()
        await chat.end()
        return History(
            early_turn=EARLY,
            early_bytes=sizes[EARLY] - sizes[EARLY - 1],
            late_turn=LATE,
            late_bytes=sizes[LATE] - sizes[LATE - 1],
        )

    def _chat(self) -> ChatClient:
        return ChatClient(self._client, "manual", task_queue=self._queue)

    async def _floor(self) -> WorkflowHandle[Floor, None]:
        return await self._client.start_workflow(
            Floor.run,
            id=f"floor-{uuid.uuid4().hex[:8]}",
            task_queue=self._queue,
            rpc_timeout=STEP_LIMIT,
        )

    async def _run_empty(self, floor: WorkflowHandle[Floor, None], count: int) -> list[float]:
        return await floor.execute_update(Floor.run_empty, count, rpc_timeout=STEP_LIMIT)


async def _ask(chat: ChatClient, number: int, tools: int) -> None:
    """One turn that needs so many tools; raises where it took other steps than it should."""
    # The same length every time, or the bytes of two turns could not be compared.
    question = f"What is {100 + number} * {200 + number}?" if tools else "Hello there!"
    reply = await chat.send(question, timeout=STEP_LIMIT)
    if len(reply.tool_calls) != tools or reply.model_calls != 1 + tools:
        raise WorkshopError(
            f"A turn took {reply.model_calls} model calls and {len(reply.tool_calls)} tool calls.",
            expected=f"{1 + tools} and {tools}: else turn and floor do not do the same.",
            fix="see what the offline model made of the question, and what the tool returned.",
        )


async def _timed(work: Awaitable[object]) -> float:
    """Seconds until it is done."""
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


@contextmanager
def own_environment(folder: Path) -> Iterator[None]:
    """Measure the same whatever this user has set: no `.env`, no key, no faults, no server of theirs."""
    before = dict(os.environ)
    prefixes = ("TEMPORAL_", "LLM_", "OFFLINE_", "WORKSHOP_")
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        del os.environ[name]
    os.environ |= {
        "LLM_MODEL": OFFLINE_MODEL,
        "WORKSHOP_ENV_FILE": str(folder / "none.env"),
        "WORKSHOP_STATE_DIR": str(folder),
    }
    reload_settings()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
        reload_settings()


@asynccontextmanager
async def running(server: Literal["stock", "tuned"], storage: Storage) -> AsyncIterator[Bench]:
    """A server on free ports and a worker process, with a state folder that goes with them.

    The stock server is the command as its documentation gives it; the tuned one is the workshop's own.
    """
    folder = Path(tempfile.mkdtemp(prefix="benchmark-turn-"))
    start = _start_stock if server == "stock" else _start_tuned
    pid = None
    try:
        with own_environment(folder):
            pid, address = await asyncio.to_thread(_on_free_ports, start, storage, folder)
            os.environ["TEMPORAL_ADDRESS"] = address
            served = orchestrator()
            spec = replace(
                served,
                workflows=[*served.workflows, Floor],
                activities=[*served.activities, nothing],
            )
            worker = await start_process(spec, timeout=60)
            try:
                yield Bench(await connect(spec.namespace), spec.task_queue)
            finally:
                await asyncio.to_thread(worker.stop)
    finally:
        if pid is not None:
            await asyncio.to_thread(end, pid)
        shutil.rmtree(folder, ignore_errors=True)


Start = Callable[[Storage, Path, int, int], tuple[int, str]]


def _on_free_ports(start: Start, storage: Storage, folder: Path) -> tuple[int, str]:
    """Start a server and wait until it serves. Returns its process id and its address."""
    for _ in range(4):
        try:
            return start(storage, folder, *_free_ports())
        except PortLost:  # between the look and the start another program took it
            continue
    return start(storage, folder, *_free_ports())


def _start_stock(storage: Storage, folder: Path, port: int, ui_port: int) -> tuple[int, str]:
    command = [dev_server.find_cli(), "server", "start-dev", "--ip", LOCALHOST]
    command += ["--port", str(port), "--ui-port", str(ui_port)]
    command += ["--db-filename", str(folder / "stock.db")] if storage == "file" else []
    return launch(command, folder).pid, f"{LOCALHOST}:{port}"


def _start_tuned(storage: Storage, folder: Path, port: int, ui_port: int) -> tuple[int, str]:
    os.environ |= {"WORKSHOP_TEMPORAL_PORT": str(port), "WORKSHOP_UI_PORT": str(ui_port)}
    reload_settings()
    server = ensure_server(in_memory=storage == "memory", state_dir=folder)
    assert server.pid
    return server.pid, server.address


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((LOCALHOST, 0))
        other.bind((LOCALHOST, 0))
        return one.getsockname()[1], other.getsockname()[1]


@dataclass(frozen=True)
class Result:
    """Everything that one run measured."""

    round_trips: list[RoundTrip]
    turns: list[Turn]
    history: History

    @property
    def targets(self) -> list[dict[str, object]]:
        """What is asked of the project, what was measured, and whether it is met."""
        rows: list[tuple[str, float, float]] = [
            (f"turn with one tool, to its floor, {turn.storage}", turn.ratio, RATIO_TARGET)
            for turn in self.turns
            if turn.tools
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
    history: History | None = None

    def bar(label: str, total: int) -> Callable[[], None]:
        task = progress.add_task(label, total=total)
        return lambda: progress.advance(task)

    for storage in STORAGES:
        for server in ("stock", "tuned"):
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
                if history is None:  # the same bytes, wherever they are kept
                    history = await bench.history(bar("bytes of history", LATE))
    assert history
    return Result(round_trips, turns, history)


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
    limit = 240 + 3 * wanted.runs  # seconds; several times what a busy laptop needs
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
