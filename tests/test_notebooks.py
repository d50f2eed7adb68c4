"""The gates: the workshop's notebooks are fresh, solvable, and stop where a learner has to work.

Of the solutions nbmake runs the first one, and all with `-m long`; the walk through each notebook runs all of
its solution, too. The second half breaks a tiny course in one way after another and sees the gate close.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import psutil
import pytest
from build_notebooks import Course, build
from nbformat.v4 import new_code_cell, new_notebook
from notebook_gates import (
    checks_match_exercises,
    notebooks_are_fresh,
    sources_are_good,
    stubs_fail_and_solutions_pass,
)
from notebook_runner import clear_leftovers, isolated_state, run_notebook
from notebook_source import Source, read_source

from workshop_lib.errors import WorkshopError

COURSE = Course()
try:
    SOURCES = COURSE.sources()
except WorkshopError:
    SOURCES = []  # test_there_is_a_notebook says it


def number(source: Source) -> str:
    return source.number


# The workshop's own notebooks


def test_there_is_a_notebook() -> None:
    assert COURSE.sources()
    assert any(source.exercises for source in SOURCES)


def test_sources_are_good() -> None:
    assert sources_are_good(COURSE) == []


def test_notebooks_are_fresh() -> None:
    assert notebooks_are_fresh(COURSE) == []


def test_nbmake_runs_every_solution(pytestconfig: pytest.Config) -> None:
    assert "solutions" in pytestconfig.getini("testpaths")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-m", "", "solutions"]
    collected = subprocess.run(
        command, cwd=COURSE.root, capture_output=True, text=True, timeout=60
    ).stdout
    for source in COURSE.sources():
        assert source.path.with_suffix(".ipynb").name in collected


@pytest.mark.parametrize("source", SOURCES, ids=number)
def test_checks_match_exercises(source: Source) -> None:
    assert checks_match_exercises(source) == []


@pytest.mark.timeout(330)
@pytest.mark.parametrize("source", SOURCES, ids=number)
def test_stubs_are_refused_and_solutions_then_pass(source: Source) -> None:
    assert stubs_fail_and_solutions_pass(source, COURSE.notebooks) == []


# The gates themselves, on a course of one notebook

CHECKS = """
from workshop_lib.lab.checks import NotYet, check

@check(expects="twice the number.", hint="Multiply.", timeout=2)
async def double(value):
    if value != 42:
        raise NotYet(saw=f"{value}")
    return f"double is {value}"

@check(expects="three times the number.", hint="Multiply.", timeout=2)
async def triple(value):
    if value != 63:
        raise NotYet(saw=f"{value}")
    return f"triple is {value}"
"""
SOURCE = """# %% [markdown]
# # 00 · Multiply numbers
#
# **Time** 1 min · **Needs** nothing · **Offline** yes

# %%
import tiny_checks as check

# %% exercise="double" minutes=1
doubled = 21 * 2
# --- stub ---
# doubled = None  # your code here

# %%
await check.double(doubled)

# %% exercise="triple" minutes=1
tripled = 21 * 3
# --- stub ---
# tripled = None  # your code here

# %%
await check.triple(tripled)
"""


class TinyCourse(Course):
    """A course in a temporary folder, whose files can be broken."""

    def write(self, source: str = SOURCE, checks: str = CHECKS) -> Source:
        """Write source and checks, and build."""
        self.solutions.mkdir(exist_ok=True)
        (self.root / "tiny_checks.py").write_text(checks)
        path = self.solutions / "00_multiply_numbers.py"
        path.write_text(source)
        build(self)
        return read_source(path)

    @property
    def solution(self) -> Path:
        """The solution notebook."""
        return self.solutions / "00_multiply_numbers.ipynb"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyCourse:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return TinyCourse(tmp_path)


def test_gates_are_open_for_a_good_course(course: TinyCourse) -> None:
    source = course.write()
    assert notebooks_are_fresh(course) == []
    assert stubs_fail_and_solutions_pass(source, course.notebooks) == []


@pytest.mark.parametrize("edition", ["solutions", "notebooks"])
def test_a_stale_notebook_closes_the_gate(course: TinyCourse, edition: str) -> None:
    course.write()
    path = course.root / edition / course.solution.name
    path.write_text(path.read_text().replace("Multiply", "Divide"))
    problems = notebooks_are_fresh(course)
    assert len(problems) == 1
    assert f"{edition}/{path.name} is stale" in problems[0]


def test_a_missing_and_a_leftover_notebook_close_the_gate(course: TinyCourse) -> None:
    course.write()
    course.solution.rename(course.solutions / "01_divide_numbers.ipynb")
    problems = "\n".join(notebooks_are_fresh(course))
    assert "00_multiply_numbers.ipynb is missing" in problems
    assert "01_divide_numbers.ipynb has no source" in problems


def test_a_broken_solution_closes_the_gate(course: TinyCourse) -> None:
    source = course.write(SOURCE.replace("21 * 2", "21 + 2"))
    (problem,) = stubs_fail_and_solutions_pass(source, course.notebooks)
    assert "Not yet: double" in problem


def test_what_passes_unsolved_and_what_shows_a_token_closes_the_gate(course: TinyCourse) -> None:
    """A stub that does the exercise, and a check that is always true."""
    token = "eyJhbGciOiJFUzI1NiJ9." + "eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
    shown = f"import tiny_checks as check\n\nprint({token!r})"
    text = SOURCE.replace("import tiny_checks as check", shown)
    source = course.write(
        text.replace("doubled = None", "doubled = 40 + 2"), CHECKS.replace("value != 63", "False")
    )
    stub, check, leak = stubs_fail_and_solutions_pass(source, course.notebooks)
    assert stub == "check.double passed with the exercise unsolved"
    assert check == "check.triple passed with the exercise unsolved"
    assert "shows a token or a key" in leak


def test_a_check_that_is_skipped_or_given_what_breaks_closes_the_gate(course: TinyCourse) -> None:
    skipped = SOURCE.replace("await check.double", "if False:\n    await check.double")
    source = course.write(skipped.replace("check.triple(tripled)", "check.triple(tripled + 0)"))
    stub, check, passed = stubs_fail_and_solutions_pass(source, course.notebooks)
    assert stub == "check.double passed with the exercise unsolved"
    assert 'check.triple did not say "not yet" but TypeError' in check
    assert "check.double did not say that it passed" in passed


def test_a_check_that_breaks_on_the_stub_closes_the_gate(course: TinyCourse) -> None:
    source = course.write(checks=CHECKS.replace("value != 42", "{42: False}[value]"))
    (problem,) = stubs_fail_and_solutions_pass(source, course.notebooks)
    assert "check.double broke on the stub" in problem


def test_a_stub_that_breaks_before_its_check_closes_the_gate(course: TinyCourse) -> None:
    source = course.write(SOURCE.replace("doubled = None", "doubled = None + 1"))
    (problem,) = stubs_fail_and_solutions_pass(source, course.notebooks)
    assert "stopped with TypeError" in problem


def test_a_run_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    """The time that its kernel takes to start does not count."""
    cells = [new_code_cell("1 + 1"), new_code_cell("while True:\n    pass")]
    run = run_notebook(new_notebook(cells=cells), tmp_path, seconds=3)
    assert run.error == "TimeoutError"
    assert run.stopped_at == 1


def test_nbmake_gives_each_solution_a_state_and_no_key(tmp_path: Path) -> None:
    """The conftest at the root, as nbmake meets it: with a learner's keys in the environment."""
    cell = """
import os, pathlib
folder = pathlib.Path(os.environ["WORKSHOP_STATE_DIR"])
assert os.environ["LLM_MODEL"] == "offline/rules"
assert not pathlib.Path(os.environ["WORKSHOP_ENV_FILE"]).exists()
assert not [n for n in os.environ if n.startswith("TEMPORAL_") or n.endswith("_API_KEY")]
assert list(folder.iterdir()) == []
(folder / "state").touch()
pathlib.Path(f"{folder.name}.used").touch()
"""
    shutil.copy(COURSE.root / "conftest.py", tmp_path)
    for name in ("tests", "tools"):
        (tmp_path / name).symlink_to(COURSE.root / name)
    (tmp_path / "solutions").mkdir()
    for name in ("00_meet_lab", "01_plan_turns"):
        notebook = new_notebook(cells=[new_code_cell(cell)])
        nbformat.write(notebook, tmp_path / "solutions" / f"{name}.ipynb")
    learners = {
        "LLM_MODEL": "openai/some-model",
        "OPENAI_API_KEY": "sk-learners-own",
        "TEMPORAL_ADDRESS": "far.away:7233",
        "WORKSHOP_STATE_DIR": str(tmp_path / "learners"),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-n0", "--nbmake", "solutions"],
        cwd=tmp_path,
        env=os.environ | learners,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout
    folders = [Path(tempfile.gettempdir(), p.stem) for p in tmp_path.glob("solutions/*.used")]
    assert len(folders) == 2
    assert not [folder for folder in folders if folder.exists()]
    assert not (tmp_path / "learners").exists()


KILLED_RUN = """
import os, subprocess, sys, time
from notebook_runner import state_folder

os.environ["WORKSHOP_STATE_DIR"] = str(state_folder())
idle = "import time; print('up', flush=True); time.sleep(60)"
left = subprocess.Popen([sys.executable, "-c", idle], stdout=subprocess.PIPE)
left.stdout.readline()
print(os.environ["WORKSHOP_STATE_DIR"], left.pid, flush=True)
time.sleep(60)
"""


def test_what_a_killed_run_leaves_running_is_stopped_by_the_next_one() -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN],
        cwd=COURSE.root / "tests",
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout
    folder, left = killed.stdout.readline().split()
    clear_leftovers()
    assert Path(folder).is_dir() and psutil.pid_exists(int(left))  # its owner lives
    killed.kill()
    killed.wait()
    clear_leftovers()
    assert not Path(folder).exists()
    assert not psutil.pid_exists(int(left))


def test_what_a_notebook_leaves_running_is_stopped() -> None:
    with isolated_state() as folder:
        idle = "import time; print('up', flush=True); time.sleep(60)"
        left = subprocess.Popen([sys.executable, "-c", idle], stdout=subprocess.PIPE)
        assert left.stdout and left.stdout.readline()  # its environment can be read by now
    assert not psutil.pid_exists(left.pid)
    assert not folder.exists()
