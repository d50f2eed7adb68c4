"""What has to hold for the notebooks, as functions that return what does not.

Each gate returns a list of problems, empty when the gate is open. The tests use them on the workshop's
own notebooks, and on small broken ones to see that each gate can close.
"""

import importlib
from pathlib import Path

import nbformat
from build_notebooks import Course, render
from nbformat import NotebookNode
from notebook_rules import checks_in, problems, style_problems
from notebook_runner import RUN_SECONDS, Run, run_notebook
from notebook_source import Source

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.checks import all_checks
from workshop_lib.lab.checks.framework import STOPPED


def sources_are_good(course: Course) -> list[str]:
    """The builder takes every source, and its length and rhythm are those of a lesson."""
    return [
        str(problem)
        for source in course.sources()
        for problem in [*problems(source), *style_problems(source)]
    ]


def notebooks_are_fresh(course: Course) -> list[str]:
    """Both editions of every source are there, byte for byte, and nothing besides."""
    try:
        return course.stale(course.sources()) + course.leftovers()
    except WorkshopError as error:
        return [str(error)]


def checks_match_exercises(source: Source) -> list[str]:
    """Each exercise has its check in `lab/checks/nbNN.py`, and each check there its exercise."""
    name = f"workshop_lib.lab.checks.nb{source.number}"
    if not source.exercises:
        return []
    checks = set(all_checks(importlib.import_module(name)))
    exercises = set(source.exercises)
    return [f"exercise {e!r} has no check in {name}" for e in sorted(exercises - checks)] + [
        f"check {c!r} in {name} has no exercise" for c in sorted(checks - exercises)
    ]


def solution_passes(path: Path, seconds: float = RUN_SECONDS) -> list[str]:
    """A solution notebook runs to its end, and every check in it says that it passed.

    The notebooks in `solutions/` are run by nbmake; this is the same without pytest.
    """
    notebook = nbformat.read(path, as_version=4)
    run = run_notebook(notebook, path.parent, seconds)
    if run.stopped_at is not None:
        return [f"{path.name}: {_where(run)}"]
    return [
        f"{path.name}: check.{name} did not say that it passed"
        for index, names in enumerate(_checks(notebook))
        for name in names
        if f"Check passed: {name} — " not in run.printed(index)
    ]


def stops_at_unsolved(
    source: Source, exercise: str, folder: Path, seconds: float = RUN_SECONDS
) -> list[str]:
    """With the earlier exercises solved and this one a stub, its own check says "not yet".

    For a notebook's first exercise that is the learner's edition as it is published.
    """
    names = list(source.exercises)
    return stops_at(
        render(source, names[names.index(exercise) :]), exercise, folder, seconds=seconds
    )


def stops_at(
    notebook: NotebookNode, exercise: str | None, folder: Path, seconds: float = RUN_SECONDS
) -> list[str]:
    """A notebook runs without an error up to one exercise's check, which says "not yet".

    Args:
        exercise: its name; None for a notebook that has none and runs to its end.
    """
    run = run_notebook(notebook, folder, seconds)
    if run.stopped_at is None:
        if exercise is None:
            return []
        return [f"check.{exercise} passed, and every other, with the exercise unsolved"]
    names = _checks(notebook)[run.stopped_at]
    if exercise is None or exercise not in names:
        return [f"expected to stop at check.{exercise}, but {_where(run)}"]
    if run.error != "CheckNotMet":
        return [f'check.{exercise} did not say "not yet": {_where(run)}']
    lines = run.message.split("\n")
    if [line.split(" ")[0] for line in lines] != ["Not", "Saw:", "Hint:"]:
        return [f"check.{exercise} did not say its three lines: {run.message}"]
    if STOPPED in lines[1]:
        return [f"check.{exercise} broke on the stub: {lines[1]}"]
    return []


def _checks(notebook: NotebookNode) -> list[list[str]]:
    """For each cell, the checks that it awaits."""
    return [checks_in(c.source) if c.cell_type == "code" else [] for c in notebook.cells]


def _where(run: Run) -> str:
    assert run.stopped_at is not None
    source = run.notebook.cells[run.stopped_at].source
    return f"cell {run.stopped_at + 1} stopped with {run.error}: {run.message}\n{source}"
