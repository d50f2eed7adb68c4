"""What has to hold for the notebooks, as functions that return what does not.

Each gate returns a list of problems, empty when the gate is open. The tests use them on the workshop's
own notebooks, and on small broken ones to see that each gate can close.
"""

import importlib
import re
from pathlib import Path

from build_notebooks import Course, render
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from notebook_rules import checks_in, problems, style_problems
from notebook_runner import Run, run_notebook
from notebook_source import Source

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.checks import all_checks
from workshop_lib.lab.checks.framework import STOPPED

_PROPOSED = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
WALK_SECONDS = 280.0  # a notebook with every exercise done twice


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


def stubs_fail_and_solutions_pass(source: Source, folder: Path) -> list[str]:
    """Each stub's own check says "not yet", and then the solution passes: one run, as a learner goes along.

    So every check is met by a first attempt that fails, and must not hold it against the second.
    """
    notebook, attempts = _walk(source)
    run = run_notebook(notebook, folder, WALK_SECONDS)
    name = source.path.name
    if run.stopped_at is not None:
        return [f"{name}: {_where(run)}"]
    problems = [_refusal_problem(run, index, exercise) for index, exercise in attempts.items()]
    problems += [
        f"{name}: check.{check} did not say that it passed"
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and index not in attempts
        for check in checks_in(cell.source)
        if f"Check passed: {check} — " not in run.printed(index)
    ]
    problems += [f"{name} shows a token or a key: {leak}" for leak in run.leaks]
    return [problem for problem in problems if problem]


def _walk(source: Source) -> tuple[NotebookNode, dict[int, str]]:
    """The solved notebook with each exercise's stub and its check before the solution, and what may be tried.

    Returns:
        The notebook, and the exercise of each check that has to refuse, by the cell's index.
    """
    notebook = render(source)
    cells: list[NotebookNode] = []
    attempts: dict[int, str] = {}
    for index, (cell, written) in enumerate(zip(notebook.cells, source.cells, strict=True)):
        if written.exercise and written.stub is not None:
            check = next(c for c in notebook.cells[index + 1 :] if c.cell_type == "code")
            cells += [new_code_cell(written.stub), new_code_cell(check.source)]
            cells[-1].metadata["tags"] = ["raises-exception"]
            attempts[len(cells) - 1] = written.exercise
        cells.append(cell)
        if "## Try it yourself" in cell.source:  # what is proposed there works, too
            cells += [new_code_cell(code) for code in _PROPOSED.findall(cell.source)]
    notebook.cells = cells
    return notebook, attempts


def _refusal_problem(run: Run, index: int, exercise: str) -> str | None:
    """What is wrong with how a check refused a stub, or None."""
    errors = [o for o in run.notebook.cells[index].outputs if o.output_type == "error"]
    if not errors:
        return f"check.{exercise} passed with the exercise unsolved"
    name, message = errors[0].ename, errors[0].evalue
    if name != "CheckNotMet":
        return f'check.{exercise} did not say "not yet" but {name}: {message}'
    lines = message.split("\n")
    if [line.split(" ")[0] for line in lines] != ["Not", "Saw:", "Hint:"]:
        return f"check.{exercise} did not say its three lines: {message}"
    if STOPPED in lines[1]:
        return f"check.{exercise} broke on the stub: {lines[1]}"
    return None


def _where(run: Run) -> str:
    assert run.stopped_at is not None
    source = run.notebook.cells[run.stopped_at].source
    return f"cell {run.stopped_at + 1} stopped with {run.error}: {run.message}\n{source}"
