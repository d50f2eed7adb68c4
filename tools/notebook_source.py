"""One notebook's source, read from its percent file.

A source is `solutions/NN_verb_object.py`: jupytext's percent format, with magics commented. An exercise
cell holds the solution, then the line `# --- stub ---`, then the stub with every line commented once:

    # %% exercise="greeting" minutes=5
    def greet(name: str) -> str:
        return f"Hello, {name}"
    # --- stub ---
    # def greet(name: str) -> str:
    #     return ""  # your code here

Left out: what a good source looks like (`notebook_rules`), and the notebooks made from it
(`build_notebooks`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext  # type: ignore[import-untyped]

STUB_MARKER = "# --- stub ---"
FILE_NAME = re.compile(r"(?P<number>\d\d)_[a-z0-9]+(_[a-z0-9]+)+\.py")

_CELL_MARKER = re.compile(r"# %%(\s.*)?$")
# What jupytext comments out in a percent file: magics and shell commands. A cell marker is `# %%` and a
# space, so `# %%workflow` is no marker.
_COMMENTED_MAGIC = re.compile(r"^(\s*)# (%{1,2}[A-Za-z].*|!\s*[A-Za-z./~$].*)$")
# Without this, jupytext would also uncomment prose: `# why?` would become the help request `why?`.
_FORMAT = {"extension": ".py", "format_name": "percent", "comment_magics": False}


@dataclass(frozen=True)
class Problem:
    """Something in a source that the builder refuses, and where it is."""

    file: str
    cell: int  # counted from 1, as in the source; 0 is the file as a whole
    line: int  # line of the file, counted from 1
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: cell {self.cell}: {self.text}"


@dataclass(frozen=True)
class Cell:
    """A cell of a source: text with magics as a notebook shows them.

    Attributes:
        number: its place in the source, counted from 1.
        line: the line of the file where its text begins.
        text: the cell; of an exercise, its solution.
        stub: of an exercise, what the learner starts from; None where the stub marker is missing.
        stub_line: the line of the file where the stub begins.
        metadata: what stands on the marker line, such as `exercise`, `minutes` and `tags`.
    """

    number: int
    kind: str  # "code" or "markdown"
    line: int
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    stub: str | None = None
    stub_line: int = 0

    @property
    def exercise(self) -> str | None:
        """The exercise's name, None for any other cell."""
        name = self.metadata.get("exercise")
        return None if name is None else str(name)

    @property
    def is_code(self) -> bool:
        """True for a cell that runs."""
        return self.kind == "code"

    def editions(self) -> Iterator[tuple[str, int]]:
        """Every text this cell has in a notebook, with the line of the file where it begins."""
        yield self.text, self.line
        if self.stub is not None:
            yield self.stub, self.stub_line


@dataclass(frozen=True)
class Source:
    """A source file and its cells, in order."""

    path: Path
    cells: tuple[Cell, ...]
    problems: tuple[Problem, ...] = ()  # what reading it already found

    @property
    def number(self) -> str:
        """The notebook's two digits, "00" to "99"."""
        return self.path.name[:2]

    @cached_property
    def exercises(self) -> dict[str, Cell]:
        """Exercise cells by name, in the order of the notebook."""
        return {cell.exercise: cell for cell in self.cells if cell.exercise is not None}

    def problem(self, cell: Cell | None, text: str, line: int | None = None) -> Problem:
        """A problem of this file, placed at a cell's first line unless a line is given."""
        if cell is None:
            return Problem(self.path.name, 0, line or 1, text)
        return Problem(self.path.name, cell.number, line or cell.line, text)


def read_source(path: Path) -> Source:
    """Read a percent file. What is wrong with it is in `Source.problems`, not raised.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    notebook = jupytext.reads(text, fmt=_FORMAT)
    lines = text.split("\n")
    markers = [n for n, line in enumerate(lines, start=1) if _CELL_MARKER.match(line)]
    if len(markers) != len(notebook.cells):
        where = markers[0] if markers else 1
        problem = Problem(
            path.name,
            0,
            where,
            "text before the first `# %%`, or a line `# %%` inside a string: put every line into a cell",
        )
        return Source(path, (), (problem,))

    cells = []
    problems = []
    for number, (marker, raw) in enumerate(zip(markers, notebook.cells, strict=True), start=1):
        metadata = {k: v for k, v in raw.metadata.items() if k != "lines_to_next_cell"}
        line = _first_text_line(lines, marker)
        cell = Cell(number, raw.cell_type, line, raw.source.strip("\n"), metadata)
        if raw.cell_type == "code":
            cell, found = _read_code(path.name, cell)
            problems.extend(found)
        cells.append(cell)
    return Source(path, tuple(cells), tuple(problems))


def uncomment_magics(text: str) -> str:
    """A code cell as a notebook shows it: `# %%workflow greeting` becomes `%%workflow greeting`."""
    return "\n".join(_COMMENTED_MAGIC.sub(r"\1\2", line) for line in text.split("\n"))


def _first_text_line(lines: list[str], marker: int) -> int:
    """The first line below a cell's marker that is not blank."""
    below = (n for n in range(marker + 1, len(lines) + 1) if lines[n - 1].strip())
    return next(below, marker)


def _read_code(file: str, cell: Cell) -> tuple[Cell, list[Problem]]:
    """A code cell with its magics back, and an exercise's solution and stub apart."""
    lines = cell.text.split("\n")
    stub = None
    stub_line = 0
    problems = []
    if STUB_MARKER in lines:
        at = lines.index(STUB_MARKER)
        stub_line = cell.line + at + 1
        below = lines[at + 1 :]
        for offset, line in enumerate(below):
            if line.strip() and line != "#" and not line.startswith("# "):
                text = "a line of the stub is not commented with `# `"
                problems.append(Problem(file, cell.number, stub_line + offset, text))
        lines = lines[:at]
        stub = uncomment_magics("\n".join(line[2:] for line in below)).strip("\n")
    text = uncomment_magics("\n".join(lines)).strip("\n")
    read = Cell(cell.number, cell.kind, cell.line, text, cell.metadata, stub, stub_line)
    return read, problems
