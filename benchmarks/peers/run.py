"""What a turn costs in this workshop, beside other ways to keep what an agent does.

    uv run --project benchmarks/peers python benchmarks/peers/run.py [--rounds 5] [--out benchmarks/results]

The same turn for everybody: question, model, tool, model, answer, with one and the same constant model. In
each round the systems take turns, so that what else the machine does meets all of them; every figure is a
ratio to the Agents SDK of the same round, of which nothing is kept, and the median over the rounds. Answers
are asserted. Writes `peers.json` and `peers.svg`; progress goes to stderr.

Left out: what an answer takes that a model across the network gives, which is seconds for all of them.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import constant  # noqa: E402
from plot import draw  # noqa: E402
from systems import System, all_systems  # noqa: E402

LIMIT = 120.0  # seconds for any one turn, fifty and more at once included
NEW, EXISTING = 10, 40  # turns a round: first ones of new conversations, later ones of an old one
LONG = 200  # turns of the conversation whose growth is looked at
CROWDS = (50, 200)  # conversations at once
EACH = 4  # turns that each of them holds, after its first
PACKAGES = ("temporalio", "openai-agents", "langgraph", "langgraph-checkpoint-sqlite", "dbos")


async def timed(system: System, conversation: Any) -> float:
    """Seconds of one turn, whose answer is right."""
    begun = time.perf_counter()
    async with asyncio.timeout(LIMIT):
        answer = await system.ask(conversation)
    assert answer == constant.ANSWER, f"{system.name} answered {answer!r}"
    return time.perf_counter() - begun


async def latency(systems: list[System]) -> dict[str, tuple[float, float]]:
    """p50 in seconds of the turns of one round, by system: in a new conversation, in one that exists.

    Turn about, one turn each.
    """
    old = {system.name: system.conversation() for system in systems}
    for system in systems:
        for _ in range(3):
            await timed(system, old[system.name])
    new_times: dict[str, list[float]] = {system.name: [] for system in systems}
    old_times: dict[str, list[float]] = {system.name: [] for system in systems}
    for number in range(EXISTING):
        for system in systems:
            old_times[system.name].append(await timed(system, old[system.name]))
            if number % (EXISTING // NEW) == 0:
                new_times[system.name].append(await timed(system, system.conversation()))
    return {name: (median(new_times[name]), median(old_times[name])) for name in old}


async def throughput(system: System, crowd: int) -> float:
    """Turns a second, of so many conversations at once that exist already."""
    conversations = [system.conversation() for _ in range(crowd)]
    await asyncio.gather(*(timed(system, one) for one in conversations))

    async def hold(conversation: Any) -> None:
        for _ in range(EACH):
            await timed(system, conversation)

    begun = time.perf_counter()
    await asyncio.gather(*map(hold, conversations))
    return crowd * EACH / (time.perf_counter() - begun)


async def growth(system: System) -> dict[str, Any]:
    """One long conversation: bytes a turn of its two halves, p50 of its first and last twenty turns."""
    conversation = system.conversation()
    times, stored = [], []
    for number in range(1, LONG + 1):
        times.append(await timed(system, conversation))
        if number in (LONG // 2, LONG):
            stored.append(await system.stored(conversation))
    halves = None
    if stored[0] is not None:
        first, second = stored[0], stored[1] - stored[0]
        halves = [round(half / (LONG // 2)) for half in (first, second)]
    slower = median(times[-20:]) / median(times[:20])
    return {"bytes_a_turn": halves, "last_to_first": round(slower, 2)}


async def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Everything, as one document."""
    async with AsyncExitStack() as stack:
        systems = await all_systems(stack, folder)
        latencies, crowds = [], []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: single turns")
            latencies.append(await latency(systems))
            say(f"round {number + 1} of {rounds}: {CROWDS[0]} conversations at once")
            # The other way round every second time.
            order = systems[:: -1 if number % 2 else 1]
            crowds.append({one.name: await throughput(one, CROWDS[0]) for one in order})
        say(f"{CROWDS[1]} conversations at once")
        many = {one.name: await throughput(one, CROWDS[1]) for one in systems}
        rows = []
        for system in systems:
            say(f"{LONG} turns: {system.name}")
            rows.append({"name": system.name} | figures(system, systems[0], latencies, crowds))
            rows[-1] |= {"at_200_to_50": round(many[system.name] / rows[-1]["turns_a_second"], 2)}
            rows[-1] |= await growth(system)
    return {
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "rounds": rounds,
        "unit_ms": round(median(found[systems[0].name][1] for found in latencies) * 1e3, 2),
        "systems": rows,
    }


def figures(
    system: System,
    unit: System,
    latencies: list[dict[str, tuple[float, float]]],
    crowds: list[dict[str, float]],
) -> dict[str, float]:
    """A system's figures over the rounds; those of single turns as multiples of the unit's."""
    new, existing = (
        median(found[system.name][which] / found[unit.name][which] for found in latencies)
        for which in (0, 1)
    )
    return {
        "new": round(new, 1),
        "existing": round(existing, 1),
        "turns_a_second": round(median(found[system.name] for found in crowds), 1),
    }


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def table(document: dict[str, Any]) -> str:
    """The document for people, as Markdown."""
    lines = [
        "| | new conversation | in one that exists | turns/s at 50 | at 200, to 50 | bytes a turn,"
        " first and second hundred | last to first 20 turns |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["systems"]:
        halves = " → ".join(f"{half:,}" for half in row["bytes_a_turn"] or ()) or "–"
        lines.append(
            f"| {row['name']} | {row['new']} × | {row['existing']} × | {row['turns_a_second']:.0f}"
            f" | {row['at_200_to_50']:.2f} | {halves} | {row['last_to_first']} |"
        )
    return "\n".join([*lines, "", f"1 × is {document['unit_ms']} ms."])


async def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-peers-") as folder:
        document = await measure(wanted.rounds, Path(folder))
    wanted.out.mkdir(parents=True, exist_ok=True)
    (wanted.out / "peers.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (wanted.out / "peers.svg").write_text(draw(document), encoding="utf-8")
    print(table(document))


if __name__ == "__main__":
    asyncio.run(main())
