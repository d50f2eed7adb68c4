"""Failures of the offline model, on a plan: what a provider's bad day looks like, on demand and repeatable.

A plan is a text, from `OFFLINE_FAULTS`. Either shares with a seed,

    seed=7, rate_limit=0.2, server_error=0.1, timeout=0.05, cut_json=0.1

or an exact list, one entry a request, after which all is well:

    sequence=server_error*3, ok

A list counts the requests of this process. With `counter=NAME` it counts those of all processes, in a
file of the state folder, and so survives a killed worker.

One kind is no failure of the line but of judgement: `gullible` obeys what a customer has written into an
order. It shows what the rules around a model have to stop. Left out: how a failure is raised, and failures of
other things than the model, which a chaos plan has (`temporal.chaos`).
"""

import random
import re
import threading
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from workshop_lib.errors import WorkshopError
from workshop_lib.machine import state_folder
from workshop_lib.machine.files import append
from workshop_lib.settings import get_settings
from workshop_lib.temporal.chaos.plan import MODEL_KINDS as KINDS

MAX_SEQUENCE = 1000  # entries of a list

_COUNTER_NAME = re.compile(r"[A-Za-z0-9_-]{0,40}")


class FaultPlan(NamedTuple):
    """A plan, read.

    Attributes:
        shares: kind to probability; they sum to at most 1.
        sequence: kinds by request, "ok" for none. Empty where shares rule.
        counter: the name of the counter file, or empty.
    """

    seed: int
    shares: tuple[tuple[str, float], ...]
    sequence: tuple[str, ...]
    counter: str


@lru_cache(maxsize=32)
def parse_plan(text: str) -> FaultPlan:
    """A plan from its text; the empty text is the plan in which nothing fails.

    Raises:
        WorkshopError: the text is not a plan.
    """
    given: dict[str, list[str]] = {}
    name = ""
    for item in filter(None, map(str.strip, text.split(","))):
        if "=" in item:
            name, value = (part.strip() for part in item.split("=", 1))
        elif name == "sequence":
            value = item
        else:
            raise _bad_plan(f"'{item}' stands alone")
        given.setdefault(name, []).append(value)
    shares = {name: _share(name, value[-1]) for name, value in given.items() if name in KINDS}
    sequence = [kind for entry in given.get("sequence", ()) for kind in _repeated(entry)]
    seed, counter = given.get("seed", ["0"])[-1], given.get("counter", [""])[-1]
    unknown = [name for name in given if name not in (*KINDS, "seed", "counter", "sequence")]
    problems = {
        f"'{', '.join(unknown)}' is not understood": unknown,
        f"'seed={seed}' is not understood": not re.fullmatch(r"-?\d{1,18}", seed),
        f"'counter={counter}' is not understood": not _COUNTER_NAME.fullmatch(counter),
        "it has both a sequence and shares": sequence and shares,
        "a counter needs a sequence": counter and not sequence,
        "its shares sum to more than 1": sum(shares.values()) > 1.0 + 1e-9,
        f"its sequence has more than {MAX_SEQUENCE} entries": len(sequence) > MAX_SEQUENCE,
    }
    for problem, there in problems.items():
        if there:
            raise _bad_plan(problem)
    return FaultPlan(int(seed), tuple(shares.items()), tuple(sequence), counter)


def next_fault(request: str) -> str | None:
    """The kind of failure that this request meets under the plan of the settings, or None.

    Args:
        request: the request's hash. With shares, what happens depends on the seed, on this and on how
            often this process has made the same request: the order of other requests does not matter.

    Raises:
        WorkshopError: the plan cannot be read, or its counter file cannot be written.
    """
    text = get_settings().offline_faults
    plan = parse_plan(text)
    if plan.sequence:
        index = _file_index(plan.counter) if plan.counter else _process_index(text, "")
        kind = plan.sequence[index] if index < len(plan.sequence) else "ok"
        return None if kind == "ok" else kind
    if plan.shares:
        attempt = _process_index(text, request)
        drawn = random.Random(f"{plan.seed}:{request}:{attempt}").random()
        for kind, share in plan.shares:
            if drawn < share:
                return kind
            drawn -= share
    return None


def restart() -> None:
    """Start counting anew in this process, and for the counter file of the plan in force."""
    with _count_lock:
        _counts.clear()
    counter = parse_plan(get_settings().offline_faults).counter
    if counter:
        counter_file(counter).unlink(missing_ok=True)


def counter_file(counter: str) -> Path:
    """Where a plan's counter is kept: a file with one byte for each request."""
    return get_settings().state_dir / f"faults-{counter}.count"


_counts: Counter[tuple[str, str]] = Counter()
_count_lock = threading.Lock()


def _process_index(plan: str, request: str) -> int:
    """How often this was asked before, in this process."""
    with _count_lock:
        index = _counts[plan, request]
        _counts[plan, request] += 1
    return index


def _file_index(counter: str) -> int:
    """How many requests were counted before, by all processes."""
    path = counter_file(counter)
    try:
        state_folder.made(path.parent)
        return append(path, b".")
    except OSError as error:
        raise WorkshopError(
            f"The counter file {path} cannot be written: {error.strerror}.",
            fix="leave `counter` out of OFFLINE_FAULTS, or point WORKSHOP_STATE_DIR elsewhere.",
        ) from None


def _repeated(entry: str) -> list[str]:
    """`server_error*3` as three entries."""
    match = re.fullmatch(r"(\w+)(?:\s*\*\s*(\d{1,4}))?", entry)
    if not match or match[1] not in (*KINDS, "ok"):
        raise _bad_plan(f"'{entry}' is not a kind of failure")
    return [match[1]] * int(match[2] or 1)


def _share(name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise _bad_plan(f"the share of {name} is '{value}'")
    return share


def _bad_plan(reason: str) -> WorkshopError:
    return WorkshopError(
        f"OFFLINE_FAULTS is not a plan: {reason}.",
        expected="shares such as 'seed=7,rate_limit=0.2', or 'sequence=server_error*3,ok'; "
        f"kinds are {', '.join(KINDS)}.",
        fix="mend OFFLINE_FAULTS in .env or in the environment, or unset it.",
    )
