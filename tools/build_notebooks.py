"""Make both editions of each notebook from its source.

    uv run python tools/build_notebooks.py [--check] [--style] [NN …]

`solutions/NN_verb_object.py` becomes `solutions/NN_verb_object.ipynb`, where every exercise is solved,
and `notebooks/NN_verb_object.ipynb`, where learners start from stubs and find a solution below each
check. No outputs; the same source gives the same bytes. Left out: running them.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_rules import problems, style_problems
from notebook_source import Cell, Source, read_source

from workshop_lib.errors import WorkshopError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
COMMAND = "uv run python tools/build_notebooks.py"
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclass(frozen=True)
class Course:
    """Where sources and both editions live, below one folder."""

    root: Path = PROJECT_ROOT

    @property
    def solutions(self) -> Path:
        """Sources and the notebooks where every exercise is solved."""
        return self.root / "solutions"

    @property
    def notebooks(self) -> Path:
        """The learner's edition."""
        return self.root / "notebooks"

    def sources(self, numbers: Collection[str] = ()) -> list[Source]:
        """The sources with these numbers, or all of them, in order.

        Raises:
            WorkshopError: there is no source, or none with such a number, or two with the same one.
        """
        paths = sorted(self.solutions.glob("*.py"))
        if not paths:
            raise WorkshopError(
                f"{self.solutions} holds no source.", expected="solutions/NN_verb_object.py."
            )
        by_number: dict[str, Path] = {}
        for path in paths:
            other = by_number.setdefault(path.name[:2], path)
            if other != path:
                raise WorkshopError(
                    f"{other.name} and {path.name} have the same number.", fix="rename one of them."
                )
        unknown = [number for number in numbers if number not in by_number]
        if unknown:
            raise WorkshopError(
                f"There is no source with the number {', '.join(unknown)}.",
                expected=f"one of {', '.join(by_number)}.",
            )
        return [read_source(p) for n, p in by_number.items() if not numbers or n in numbers]

    def files(self, source: Source) -> dict[Path, str]:
        """Both notebooks of a source: path and content."""
        name = source.path.with_suffix(".ipynb").name
        return {
            self.solutions / name: notebook_text(render(source)),
            self.notebooks / name: notebook_text(render(source, set(source.exercises))),
        }

    def stale(self, sources: Sequence[Source]) -> list[str]:
        """What differs from the sources, one line a file; empty when everything is fresh."""
        return [
            f"{path.relative_to(self.root)} is {'stale' if path.exists() else 'missing'}: "
            f"run `{COMMAND} {source.number}`"
            for source in sources
            for path, text in self.files(source).items()
            if not path.exists() or path.read_bytes() != text.encode()
        ]

    def leftovers(self) -> list[str]:
        """Notebooks that no source stands behind, one line each."""
        names = {path.stem for path in self.solutions.glob("*.py")}
        found = [*self.solutions.glob("*.ipynb"), *self.notebooks.glob("*.ipynb")]
        return [
            f"{path.relative_to(self.root)} has no source: remove it, or write solutions/{path.stem}.py"
            for path in sorted(found)
            if path.stem not in names
        ]


def render(source: Source, unsolved: Collection[str] = ()) -> NotebookNode:
    """A notebook of a source, with the exercises named in `unsolved` as stubs and the others solved.

    Below the check of each unsolved exercise stands one solution, folded.
    """
    parts = list(_parts(source, unsolved))
    cells = []
    for cell, identifier in zip(parts, _cell_ids(parts), strict=True):
        make = new_code_cell if cell.is_code else new_markdown_cell
        cells.append(make(cell.text, id=identifier, metadata=cell.metadata))  # type: ignore[no-untyped-call]
    notebook: NotebookNode = new_notebook(cells=cells, metadata=_METADATA)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    return notebook


def notebook_text(notebook: NotebookNode) -> str:
    """A notebook as the bytes of its file: sorted keys, one newline at the end."""
    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return text.rstrip("\n") + "\n"


def _parts(source: Source, unsolved: Collection[str]) -> Iterator[Cell]:
    """The cells of an edition, in order; a reveal has the number of the exercise it belongs to."""
    revealed: Cell | None = None  # the unsolved exercise whose check comes next
    for cell in source.cells:
        if cell.exercise in unsolved and cell.stub is not None:
            yield Cell(cell.number, cell.kind, cell.line, cell.stub, cell.metadata)
            revealed = cell
            continue
        yield cell
        if cell.is_code and revealed is not None:
            yield Cell(revealed.number, "markdown", revealed.line, _reveal(revealed.text))
            revealed = None


def _reveal(solution: str) -> str:
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", solution)), default=2)
    fence = "`" * (longest + 1)
    return (
        "<details><summary>Stuck? Show one solution</summary>\n\n"
        f"{fence}python\n{solution}\n{fence}\n\n</details>"
    )


def _cell_ids(cells: Sequence[Cell]) -> Iterator[str]:
    """Ids from content and position: the same source always has the same ones."""
    for position, cell in enumerate(cells, start=1):
        digest = hashlib.sha256(f"{cell.kind}\n{cell.text}".encode()).hexdigest()
        yield f"{position:02d}-{digest[:10]}"


def build(
    course: Course, numbers: Collection[str] = (), *, check: bool = False, style: bool = False
) -> list[str]:
    """Write the notebooks, or with `check` only compare. Returns what was written.

    Raises:
        WorkshopError: a source is refused, or (with `check`) a notebook differs from its source.
    """
    sources = course.sources(numbers)
    found = [problem for source in sources for problem in problems(source)]
    if style:
        found += [problem for source in sources for problem in style_problems(source)]
    if found:
        raise WorkshopError("\n".join(str(problem) for problem in found))
    if check:
        differences = course.stale(sources) + ([] if numbers else course.leftovers())
        if differences:
            raise WorkshopError("\n".join(differences))
        return []
    written = []
    for source in sources:
        for path, text in course.files(source).items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
            written.append(str(path.relative_to(course.root)))
    return written


def main(arguments: Sequence[str] | None = None, course: Course | None = None) -> int:
    """The command. Returns its exit status: 0, or 1 with the reasons on stderr."""
    parser = argparse.ArgumentParser(description="Make the notebooks from solutions/*.py.")
    parser.add_argument("numbers", nargs="*", metavar="NN", help="which notebooks; all if none")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if one is stale")
    parser.add_argument("--style", action="store_true", help="also refuse what is too long")
    options = parser.parse_args(arguments)
    try:
        written = build(
            course or Course(), options.numbers, check=options.check, style=options.style
        )
    except WorkshopError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(written) if written else "The notebooks are fresh.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
