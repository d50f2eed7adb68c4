"""The builder: what it makes of a source, and what it refuses."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from build_notebooks import Course, build, main, render
from notebook_rules import checks_in, problems, style_problems
from notebook_source import Source, read_source

from workshop_lib.errors import WorkshopError

HEAD = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 00 · Meet the lab
#
# Start a workflow.
#
# **Time** 15 min · **Needs** nothing · **Offline** yes

# %%
from workshop_lib.lab.checks import nb00 as check

# %load_ext workshop_lib.lab.workers.cells
# why?
"""
EXERCISE = """# %% exercise="greeting" minutes=5
# %%workflow greeting
# A comment stays one.
class Greeting:
    async def run(self) -> str:
        return "hello"


# --- stub ---
# # %%workflow greeting
# class Greeting:
#     # your code here
#
#     async def run(self) -> str:
#         return ""
"""
CHECK = """
# %% [markdown]
# The check runs it.

# %%
await check.greeting(Greeting)
"""
GOOD = HEAD + "\n" + EXERCISE + CHECK

SOLUTION = """%%workflow greeting
# A comment stays one.
class Greeting:
    async def run(self) -> str:
        return "hello\""""
STUB = """%%workflow greeting
class Greeting:
    # your code here

    async def run(self) -> str:
        return "\""""


def source_of(folder: Path, text: str, name: str = "00_meet_lab.py") -> Source:
    path = folder / "solutions" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return read_source(path)


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells]


def test_the_solution_edition_holds_the_solution(tmp_path: Path) -> None:
    cells = texts(render(source_of(tmp_path, GOOD)))
    assert cells[1].endswith("%load_ext workshop_lib.lab.workers.cells\n# why?")
    assert cells[2:] == [SOLUTION, "The check runs it.", "await check.greeting(Greeting)"]


def test_the_learners_edition_holds_the_stub_and_a_reveal_below_the_check(tmp_path: Path) -> None:
    cells = texts(render(source_of(tmp_path, GOOD), {"greeting"}))
    assert cells[2:5] == [STUB, "The check runs it.", "await check.greeting(Greeting)"]
    assert cells[5] == (
        "<details><summary>Stuck? Show one solution</summary>\n\n"
        f"```python\n{SOLUTION}\n```\n\n</details>"
    )
    assert len(cells) == 6


def test_a_reveal_survives_backticks_in_the_solution(tmp_path: Path) -> None:
    fenced = GOOD.replace('return "hello"', 'return "```"')
    reveal = texts(render(source_of(tmp_path, fenced), {"greeting"}))[5]
    assert "\n````python\n" in reveal
    assert "\n````\n" in reveal


def test_magics_are_read_as_jupytext_reads_them_and_come_back(tmp_path: Path) -> None:
    text = GOOD.replace("# why?\n", "").replace("# A comment stays one.\n", "")
    source = source_of(tmp_path, text)
    ours = render(source)
    theirs = jupytext.read(source.path)
    assert texts(ours)[1] == theirs.cells[1].source
    assert theirs.cells[2].source.startswith(texts(ours)[2])
    back = jupytext.writes(ours, fmt="py:percent")
    assert "\n# %%workflow greeting\n" in back
    assert "\n# %load_ext workshop_lib.lab.workers.cells\n" in back


def test_notebooks_are_valid_without_outputs_and_with_unique_ids(tmp_path: Path) -> None:
    twice = GOOD + "\n# %%\n1 + 1\n\n# %%\n1 + 1\n"
    source_of(tmp_path, twice)
    build(Course(tmp_path))
    for edition in ("solutions", "notebooks"):
        notebook = nbformat.read(tmp_path / edition / "00_meet_lab.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        ids = [cell.id for cell in notebook.cells]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", identifier) for identifier in ids)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


# The command


def test_check_writes_nothing_and_names_each_file_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    course = Course(tmp_path)
    source_of(tmp_path, GOOD)
    assert main(["--check"], course) == 1
    said = capsys.readouterr().err
    mend = "run `uv run python tools/build_notebooks.py 00`"
    assert f"solutions/00_meet_lab.ipynb is missing: {mend}" in said
    assert f"notebooks/00_meet_lab.ipynb is missing: {mend}" in said
    assert not list(tmp_path.glob("*/*.ipynb"))

    assert main([], course) == 0
    assert main(["--check"], course) == 0
    source_of(tmp_path, GOOD.replace("The check runs it.", "The check starts it."))
    before = (course.notebooks / "00_meet_lab.ipynb").read_bytes()
    assert main(["--check"], course) == 1
    assert "notebooks/00_meet_lab.ipynb is stale" in capsys.readouterr().err
    assert (course.notebooks / "00_meet_lab.ipynb").read_bytes() == before


def test_a_number_builds_one_notebook(tmp_path: Path) -> None:
    source_of(tmp_path, GOOD)
    source_of(tmp_path, GOOD.replace("# 00 ·", "# 01 ·"), "01_plan_turns.py")
    assert build(Course(tmp_path), ["01"]) == [
        "solutions/01_plan_turns.ipynb",
        "notebooks/01_plan_turns.ipynb",
    ]
    with pytest.raises(WorkshopError, match="one of 00, 01"):
        build(Course(tmp_path), ["02"])


def test_a_refused_source_is_not_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source_of(tmp_path, GOOD + "\n# %%\nx = (\n")
    assert main([], Course(tmp_path)) == 1
    assert re.search(r"00_meet_lab\.py:\d+: cell 6: does not parse", capsys.readouterr().err)
    assert not list(tmp_path.glob("*/*.ipynb"))


def test_two_sources_with_one_number_are_refused(tmp_path: Path) -> None:
    source_of(tmp_path, GOOD)
    source_of(tmp_path, GOOD, "00_meet_room.py")
    with pytest.raises(WorkshopError, match="the same number"):
        build(Course(tmp_path))


def test_style_is_checked_on_request(tmp_path: Path) -> None:
    source_of(tmp_path, GOOD)
    build(Course(tmp_path))
    with pytest.raises(WorkshopError, match="has 6 cells; expected 30 to 60"):
        build(Course(tmp_path), style=True)


# What is refused

MERMAID = "\n# %% [markdown]\n# ```mermaid\n# flowchart LR\n#   accTitle: A\n#   a --> b\n# ```\n"
CODE = "\n# %%\n{}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("class Greeting:\n    async", "class Greeting\n    async"), "does not parse"),
        (GOOD.replace("#     async def run", "#     async de run"), "does not parse"),
        (GOOD + CODE.format("return 1"), "does not parse: 'return' outside function"),
        (GOOD + CODE.format('x = "\\d"'), "does not parse: invalid escape"),
        (GOOD.replace('        return "hello"', "        pass\nawait x()"), "does not parse"),
        (GOOD.replace("# # %%workflow", "# # %%workflow", 1).replace("#     # your", "    # your"),
         "not commented"),
        (HEAD + "\n" + EXERCISE, "expected its check"),
        (GOOD.replace("check.greeting(", "check.parting("), "expected its check"),
        (GOOD.replace("await check.", "check."), "expected its check"),
        (HEAD + "\n" + EXERCISE + CODE.format("x = 1") + CHECK, "expected its check"),
        (GOOD + CODE.format("await check.other(1)"), "`check.other` is not in the code cell below"),
        (GOOD.split("# --- stub ---")[0] + CHECK, "lacks its stub"),
        (GOOD.replace('exercise="greeting" minutes=5', ""), "in a cell without exercise"),
        (GOOD.replace(" minutes=5", ""), "lacks its minutes"),
        (GOOD.replace('#         return ""', '#         return "hello"'), "the stub equals"),
        (GOOD + "\n" + EXERCISE + CHECK, "a second exercise with the name"),
        (GOOD.replace('exercise="greeting"', 'exercise="Greet me"'), "lower-case Python name"),
        (GOOD.replace("# %%\nawait", '# %% tags=["raises-exception"]\nawait'), "cannot fail"),
        (GOOD + CODE.format("\n".join(["x = 1"] * 26)), "26 lines of code"),
        (GOOD + CODE.format('name = input("?")'), "`input()` stops Run All"),
        (GOOD + CODE.format("# %pip install x"), "installs a package"),
        (GOOD + CODE.format("# !pip install x"), "installs a package"),
        (GOOD + CODE.format("# !uv pip install x"), "installs a package"),
        (GOOD + CODE.format("import time\ntime.sleep(1)"), "`time.sleep`"),
        (GOOD + CODE.format("import asyncio\nawait asyncio.sleep(1)"), "`asyncio.sleep`"),
        (GOOD + CODE.format("from time import sleep"), "imports sleep"),
        (GOOD.replace("#         return \"\"", "#         time.sleep(1)"), "`time.sleep`"),
        (GOOD + CODE.format("await handle.result()"), "without a time limit"),
        (GOOD.replace("# # 00 · Meet", "# # Meet"), "does not open with"),
        (GOOD.replace("# # 00 ·", "# # 01 ·"), "the title says 01, the file 00"),
        (GOOD.replace("**Time** 15 min", "**Time** soon"), "lacks its line"),
        (GOOD + MERMAID, "a Mermaid diagram without accDescr"),
        ("x = 1\n" + GOOD.split("# ---\n")[-1], "text before the first"),
        (GOOD + CODE.format('x = """\n# %% y\n"""'), "inside a string"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    assert text != GOOD, "this case changes nothing"
    found = [str(problem) for problem in problems(source_of(tmp_path, text))]
    assert any(message in problem for problem in found), found


def test_not_refused(tmp_path: Path) -> None:
    for code in (
        "text = 'input( and time.sleep('",
        "# input() and time.sleep(1) in a comment",
        "async with asyncio.timeout(3):\n    await handle.result()",
        "await asyncio.wait_for(handle.result(), 3)",
        "await handle.result(rpc_timeout=limit)",
        "async def later(handle):\n    return await handle.result()",
        "# %%bash\nnot python (",
        "# %time x = 1",
        "files = 1  # !ls",
    ):
        assert problems(source_of(tmp_path, GOOD + CODE.format(code))) == [], code


def test_the_file_name_is_a_number_a_verb_and_an_object(tmp_path: Path) -> None:
    assert "NN_verb_object" in str(problems(source_of(tmp_path, GOOD, "00_meet.py")))


def test_a_problem_names_file_cell_and_line(tmp_path: Path) -> None:
    text = GOOD + CODE.format("x = 1\n\n\ny = input()")
    line = text.split("\n").index("y = input()") + 1
    (problem,) = problems(source_of(tmp_path, text))
    assert str(problem).startswith(f"00_meet_lab.py:{line}: cell 6: ")
    text = GOOD.replace('#         return ""', '#         return input("?")')
    line = text.split("\n").index('#         return input("?")') + 1
    (problem,) = problems(source_of(tmp_path, text))
    assert str(problem).startswith(f"00_meet_lab.py:{line}: cell 3: ")


def lesson(words: int = 20, code: int = 3, pairs: int = 20) -> str:
    text = "# " + " ".join(["word"] * words)
    lines = "\n".join(["x = 1"] * code)
    return HEAD + f"\n# %% [markdown]\n{text}\n\n# %%\n{lines}\n" * pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lesson(), None),
        (lesson(words=51), "the median of words in a text cell is 51"),
        (lesson(code=7), "the median of lines in a code cell of the solution is 7"),
        (lesson(pairs=13), "has 28 cells"),
        (lesson(pairs=30), "has 62 cells"),
    ],
)
def test_style(tmp_path: Path, text: str, message: str | None) -> None:
    found = [problem.text for problem in style_problems(source_of(tmp_path, text))]
    assert (found == []) if message is None else any(message in problem for problem in found)


def test_fenced_blocks_are_not_words(tmp_path: Path) -> None:
    diagram = "# ```mermaid\n# " + "a " * 60 + "\n# ```"
    text = HEAD + f"\n# %% [markdown]\n# One.\n#\n{diagram}\n\n# %%\nx = 1\n" * 20
    assert style_problems(source_of(tmp_path, text)) == []


def test_checks_in() -> None:
    assert checks_in("handle = await start()\nawait check.one(x)\nawait check.two(handle)") == [
        *("one", "two")
    ]
    assert checks_in("%%time\nawait check.three()") == ["three"]
    for none in ("check.four()", "await other.five()", "x = ("):
        assert checks_in(none) == []
