"""What a notebook's source has to keep, said as problems with file, line and cell.

`problems` are about a source that would make a broken or misleading notebook; the builder refuses it.
`style_problems` are about length and rhythm, and apply to the workshop's own sources. Left out: whether
the notebooks run, which the gates of the tests find out.
"""

import ast
import re
import statistics
import warnings
from collections.abc import Iterator

from IPython.core.inputtransformer2 import TransformerManager
from notebook_source import FILE_NAME, STUB_MARKER, Cell, Problem, Source

MAX_CODE_LINES = 25
MAX_MEDIAN_CODE_LINES = 6
MAX_MEDIAN_WORDS = 50
CELLS = range(30, 61)  # of the learner's edition

_TITLE = re.compile(r"# (?P<number>\d\d) · \S")
_FACTS_LINE = re.compile(r"\*\*Time\*\* \d+ min · \*\*Needs\*\* \S.* · \*\*Offline\*\* \S.*")
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^(```+)[^\n]*\n.*?^\1", re.MULTILINE | re.DOTALL)
_INSTALL = re.compile(r"^\s*[%!]+\s*(uv\s+)?(pip|conda|uv)\b")
_CELL_MAGIC = re.compile(r"^%%(?P<name>\w+)")
_NOT_PYTHON = {
    "bash",
    "sh",
    "script",
    "html",
    "markdown",
    "javascript",
    "svg",
    "latex",
    "writefile",
}
_SLEEPS = {"time", "asyncio"}
_EXERCISE_NAME = re.compile(r"[a-z][a-z0-9_]*")


def problems(source: Source) -> list[Problem]:
    """Everything about a source that the builder refuses, in the order of the file."""
    found = list(source.problems)
    found += _name_and_title(source)
    for cell in source.cells:
        found += _code_problems(source, cell) if cell.is_code else _diagram_problems(source, cell)
    found += _exercise_problems(source)
    return sorted(set(found), key=lambda problem: (problem.line, problem.cell, problem.text))


def style_problems(source: Source) -> list[Problem]:
    """Where a source is too long, too wordy or too short to be a lesson."""
    words = [_words(cell.text) for cell in source.cells if not cell.is_code]
    code = [cell for cell in source.cells if cell.is_code]
    solutions = [len(cell.text.split("\n")) for cell in code]
    starts = [len((cell.stub or cell.text).split("\n")) for cell in code]
    learner_cells = len(source.cells) + len(source.exercises)  # a reveal below each check
    found = []
    if learner_cells not in CELLS:
        found.append(
            f"the learner's edition has {learner_cells} cells; expected {CELLS[0]} to {CELLS[-1]}"
        )
    for what, counts, limit in (
        ("words in a text cell", words, MAX_MEDIAN_WORDS),
        ("lines in a code cell of the solution", solutions, MAX_MEDIAN_CODE_LINES),
        ("lines in a code cell of the learner's edition", starts, MAX_MEDIAN_CODE_LINES),
    ):
        median = statistics.median(counts or [0])
        if median > limit:
            found.append(f"the median of {what} is {median:g}; expected at most {limit}")
    return [source.problem(None, text) for text in found]


def checks_in(text: str) -> list[str]:
    """Names of the checks that a code cell awaits: `await check.greeting(...)` gives "greeting"."""
    tree = _tree(text)
    return [
        node.value.func.attr
        for node in ast.walk(tree or ast.Module([], []))
        if isinstance(node, ast.Await)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and isinstance(node.value.func.value, ast.Name)
        and node.value.func.value.id == "check"
    ]


def _name_and_title(source: Source) -> Iterator[Problem]:
    if not FILE_NAME.fullmatch(source.path.name):
        yield source.problem(None, "the file's name is not NN_verb_object.py")
    if not source.cells:
        return
    first = source.cells[0]
    title = _TITLE.match(first.text)
    if first.is_code or not title:
        yield source.problem(first, "the first cell does not open with `# NN · Verb phrase`")
    elif title["number"] != source.number:
        yield source.problem(first, f"the title says {title['number']}, the file {source.number}")
    if not any(_FACTS_LINE.fullmatch(line.strip()) for line in first.text.split("\n")):
        yield source.problem(
            first,
            "the first cell lacks its line `**Time** 25 min · **Needs** 02 · **Offline** yes`",
        )


def _diagram_problems(source: Source, cell: Cell) -> Iterator[Problem]:
    for diagram in _MERMAID.finditer(cell.text):
        missing = [word for word in ("accTitle", "accDescr") if word not in diagram[1]]
        if missing:
            line = cell.line + cell.text[: diagram.start()].count("\n")
            yield source.problem(cell, f"a Mermaid diagram without {' and '.join(missing)}", line)


def _code_problems(source: Source, cell: Cell) -> Iterator[Problem]:
    for text, first_line in cell.editions():
        count = len(text.split("\n"))
        if count > MAX_CODE_LINES:
            yield source.problem(
                cell, f"{count} lines of code; expected at most {MAX_CODE_LINES}", first_line
            )
        for offset, line in enumerate(text.split("\n")):
            if _INSTALL.match(line):
                yield source.problem(
                    cell, "installs a package: dependencies come from the lock", first_line + offset
                )
        try:
            _compile(text)
        except SyntaxError as error:
            yield source.problem(
                cell,
                f"does not parse: {error.msg}",
                first_line + max((error.lineno or 1) - 1, 0),
            )
            continue
        for offset, message in _calls_to_avoid(text):
            yield source.problem(cell, message, first_line + offset)


def _exercise_problems(source: Source) -> Iterator[Problem]:
    code = [cell for cell in source.cells if cell.is_code]
    seen: set[str] = set()
    claimed: set[int] = set()  # check cells that belong to an exercise
    for at, cell in enumerate(code):
        below = code[at + 1] if at + 1 < len(code) else None
        name = cell.exercise
        if name is None:
            if cell.stub is not None:
                yield source.problem(cell, f'`{STUB_MARKER}` in a cell without exercise="…"')
            continue
        if not _EXERCISE_NAME.fullmatch(name):
            yield source.problem(cell, f"exercise {name!r} is not a lower-case Python name")
        if name in seen:
            yield source.problem(cell, f"a second exercise with the name {name!r}")
        seen.add(name)
        minutes = cell.metadata.get("minutes")
        if not isinstance(minutes, int) or isinstance(minutes, bool) or minutes < 1:
            yield source.problem(cell, f"exercise {name!r} lacks its minutes=5")
        if not cell.stub:
            yield source.problem(cell, f"exercise {name!r} lacks its stub, below `{STUB_MARKER}`")
        elif _same_code(cell.stub, cell.text):
            yield source.problem(cell, f"exercise {name!r}: the stub equals the solution")
        if below is None or checks_in(below.text) != [name]:
            yield source.problem(
                cell,
                f"exercise {name!r}: expected its check, `await check.{name}(…)`, in the next code cell",
            )
        else:
            claimed.add(below.number)
        for part in (cell, below):
            if part is not None and "raises-exception" in part.metadata.get("tags", []):
                yield source.problem(
                    part, "an exercise or its check with the tag raises-exception cannot fail"
                )
    for cell in code:
        if cell.number not in claimed:
            for name in checks_in(cell.text):
                yield source.problem(
                    cell, f"`check.{name}` is not in the code cell below exercise {name!r}"
                )


def _same_code(one: str, other: str) -> bool:
    """True for texts that differ in comments and layout only."""
    if one.split() == other.split():
        return True
    first, second = _tree(one), _tree(other)
    return first is not None and second is not None and ast.dump(first) == ast.dump(second)


def _python_part(text: str) -> tuple[str, bool]:
    """The Python of a cell, one line for each of its lines, and whether it may await at top level."""
    magic = _CELL_MAGIC.match(text)
    if not magic:
        return text, True
    if magic["name"] in _NOT_PYTHON:
        return "", True
    # The magic's own line stays as a comment, so that line numbers hold (IPython drops empty lines at
    # the top). What `%%workflow` writes is a module, where nothing can be awaited at top level.
    return "#\n" + text.partition("\n")[2], magic["name"] != "workflow"


def _compile(text: str) -> None:
    """Compile a cell as the kernel would.

    Raises:
        SyntaxError: with the line counted from the cell's first.
    """
    python, awaits = _python_part(text)
    plain = TransformerManager().transform_cell(python)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if awaits else 0
    with warnings.catch_warnings():
        # An invalid escape sequence is a warning of the one kind or the other, as Python's version has it.
        warnings.simplefilter("error", SyntaxWarning)
        warnings.simplefilter("error", DeprecationWarning)
        compile(plain, "<cell>", "exec", flags=flags, dont_inherit=True)


def _tree(text: str) -> ast.Module | None:
    """A cell's syntax tree, or None when it does not parse."""
    python, _ = _python_part(text)
    try:
        plain: str = TransformerManager().transform_cell(python)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(
                plain
            )  # the grammar takes a top-level await; only compiling refuses it
    except SyntaxError:
        return None


def _calls_to_avoid(text: str) -> Iterator[tuple[int, str]]:
    """Line offsets and messages of what never belongs into a cell."""
    tree = _tree(text)
    if tree is None:
        return
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="input")):
                yield node.lineno - 1, "`input()` stops Run All: take the answer as a variable"
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr="sleep")) if (
                module in _SLEEPS
            ):
                yield (
                    node.lineno - 1,
                    f"`{module}.sleep`: wait for a condition, or use workflow.sleep in a workflow",
                )
            case ast.ImportFrom(module=str(module), names=names) if module in _SLEEPS and any(
                alias.name == "sleep" for alias in names
            ):
                yield node.lineno - 1, f"imports sleep from {module}: wait for a condition"
    if _CELL_MAGIC.match(text):
        return  # workflow code: the server's timeouts bound it
    for call in _bare_awaits(tree):
        yield call.lineno - 1, "awaits without a time limit: wrap it in asyncio.timeout or wait_for"


def _bare_awaits(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls that wait for a workflow to end, awaited by the cell itself with nothing to bound them."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(node, ast.AsyncWith) and any(
            "timeout" in ast.dump(item.context_expr) for item in node.items
        ):
            continue
        if (
            isinstance(node, ast.Await)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
            and node.value.func.attr in ("result", "execute_workflow")
            # The lab's own waits are bounded.
            and getattr(node.value.func.value, "id", None) != "lab"
            and not any("timeout" in (keyword.arg or "") for keyword in node.value.keywords)
        ):
            yield node.value
        todo.extend(ast.iter_child_nodes(node))


def _words(text: str) -> int:
    """Words of a text cell that are read as prose: fenced blocks are left out."""
    return len(_FENCED.sub("", text).split())
