"""Attempts at the exercises: a check accepts what is right, however it is written, and says why it refuses.

The cells of the notebooks with pieces exchanged, on a lab of its own. A good programmer writes another loop,
another key, another id, helpers of their own; a learner writes what is nearly right and raises no error.
Left out: that a stub is refused and the solution passes (`test_notebooks`).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import jupytext
import pytest
from lab_cells import Notebook
from sampled import sampled

from workshop_lib.lab.checks import CheckNotMet
from workshop_lib.settings import PROJECT_ROOT

Pieces = list[tuple[str, str]]


class Attempt(NamedTuple):
    """A cell that a learner may write.

    Attributes:
        written: pieces of the solution and what stands there instead, or a whole cell in its place.
        why: what the check says, or parts of it around a " … "; None where it accepts the attempt.
    """

    exercise: str
    name: str
    written: Pieces | str
    why: str | None


def right(exercise: str, name: str, *written: tuple[str, str]) -> Attempt:
    """An attempt that the check accepts."""
    return Attempt(exercise, name, list(written), None)


def wrong(exercise: str, name: str, piece: str, instead: str, why: str) -> Attempt:
    """An attempt that it refuses."""
    return Attempt(exercise, name, [(piece, instead)], why)


def cases(attempts: Sequence[Attempt], always: int | None = None) -> list[Any]:
    """The attempts as a test's parameters.

    Args:
        always: how many of the right ones, and of the wrong ones, run always; all where it is left out.
    """
    return [
        case
        for is_right in (True, False)
        for case in sampled(
            [(attempt,) for attempt in attempts if (attempt.why is None) is is_right],
            len(attempts) if always is None else always,
            ids=lambda case: f"{case[0].exercise}: {case[0].name}",
        )
    ]


async def assert_judged(
    nb: Notebook, attempt: Attempt, check: Callable[[], Awaitable[object]]
) -> str:
    """Run the attempt's cell and the check, and see that it says what it should. Returns what it says."""
    cell = solution(attempt.exercise)
    if isinstance(attempt.written, str):
        cell = attempt.written
    else:
        for piece, instead in attempt.written:
            assert piece in cell, piece
            cell = cell.replace(piece, instead)
    nb.run(cell)
    if attempt.why is None:
        await check()
        return ""
    with pytest.raises(CheckNotMet) as refused:
        await check()
    said = " ".join(str(refused.value).split())
    assert all(part in said for part in attempt.why.split(" … ")), said
    assert "CancelledError" not in said
    return said


def solution(exercise: str) -> str:
    """The cell of an exercise, as a notebook holds it."""
    for source in sorted((PROJECT_ROOT / "solutions").glob("*.py")):
        for cell in jupytext.read(source).cells:
            if cell.metadata.get("exercise") == exercise:
                text: str = cell.source.partition("# --- stub ---")[0]
                return text.replace("# %%workflow", "%%workflow", 1).strip()
    raise AssertionError(f"there is no exercise {exercise}")
