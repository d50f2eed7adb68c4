"""What a check says: one line when it passes, three lines without a traceback when it does not."""

import asyncio
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from IPython.core.interactiveshell import InteractiveShell
from notebook_runner import isolated_state
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.checks import CheckNotMet, NotYet, all_checks, check
from workshop_lib.lab.checks.framework import MAX_LINE
from workshop_lib.lab.jupyter import progress
from workshop_lib.lab.jupyter.notebooks import prepare_workspace, reset_notebook
from workshop_lib.machine import state_folder
from workshop_lib.settings import reload_settings


@pytest.fixture(autouse=True)
def state_dir() -> Iterator[Path]:
    with isolated_state() as folder:
        reload_settings()
        yield folder
    reload_settings()


@check(expects="a greeting with the name.", hint="Use `name`.", timeout=0.2)
async def greeting(greet: Any) -> str:
    said = greet("Ada")
    if asyncio.iscoroutine(said):
        said = await said
    if "Ada" not in said:
        raise NotYet(saw=f"{said!r}")
    return f"greet('Ada') says {said!r}"


async def unmet(greet: Any) -> CheckNotMet:
    with pytest.raises(CheckNotMet) as caught:
        await greeting(greet)
    assert [line.split(" ")[0] for line in caught.value.lines] == ["Not", "Saw:", "Hint:"]
    return caught.value


def raises(error: Exception) -> Any:
    def greet(name: str) -> str:
        raise error

    return greet


def learners(body: str) -> Any:
    """A function as a cell would define it."""
    names: dict[str, Any] = {}
    code = f"def greet(name):\n    {body}\n"
    exec(compile(code, "/tmp/ipykernel_1/2.py", "exec"), names)
    return names["greet"]


async def test_a_met_check_prints_its_evidence_on_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await greeting(lambda name: f"Hello,\n{name}") is None  # type: ignore[func-returns-value]
    assert capsys.readouterr().out == (
        "Check passed: greeting — greet('Ada') says 'Hello,\\nAda'\n"
    )
    assert progress.read()["test_check_framework"]["greeting"].passed


async def test_an_unmet_check_says_three_lines() -> None:
    error = await unmet(lambda name: "Hello")
    assert str(error) == (
        "Not yet: greeting. Expected a greeting with the name.\nSaw: 'Hello'\nHint: Use `name`."
    )
    assert not progress.read()["test_check_framework"]["greeting"].passed


async def test_an_unmet_check_shows_no_traceback_in_a_notebook(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = await unmet(lambda name: "Hello")
    shell = InteractiveShell.instance()
    try:
        shell.showtraceback((type(error), error, error.__traceback__))
    finally:
        InteractiveShell.clear_instance()
    assert capsys.readouterr().out.strip() == str(error)


async def test_not_yet_can_replace_expectation_and_hint() -> None:
    @check(expects="a.", hint="b.")
    async def picky() -> str:
        raise NotYet(saw="c", expected="d.", hint="e.")

    with pytest.raises(CheckNotMet) as caught:
        await picky()
    assert caught.value.lines == ["Not yet: picky. Expected d.", "Saw: c", "Hint: e."]


async def test_each_line_stays_one_line_of_bounded_length() -> None:
    error = await unmet(lambda name: "many\nlines " * 200)
    assert len(error.lines) == 3
    assert len(error.lines[1]) == MAX_LINE


async def test_no_answer_in_time() -> None:
    async def forever(name: str) -> str:
        await asyncio.Event().wait()
        return ""

    assert (await unmet(forever)).saw == "no answer within 0.2 seconds"


@pytest.mark.parametrize(
    ("greet", "saw"),
    [
        (raises(NotImplementedError("your code here")), "NotImplementedError: your code here"),
        (raises(NotImplementedError()), "NotImplementedError"),
        (raises(NameError("name 'x' is not defined")), "NameError: name 'x' is not defined"),
        (lambda name: None, "nothing where a value is needed"),
        (None, "nothing where a value is needed"),
        (learners("return {}[name]"), "your code raised KeyError: 'Ada'"),
        (raises(TimeoutError()), "no answer in time"),
    ],
)
async def test_what_an_unsolved_stub_runs_into(greet: Any, saw: str, state_dir: Path) -> None:
    assert (await unmet(greet)).saw.startswith(saw)
    assert not (state_dir / "logs").exists()


async def test_a_failed_workflow_is_said_with_its_cause() -> None:
    activity = ActivityError(
        "Activity task failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="plan",
        activity_id="1",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    activity.__cause__ = ApplicationError("no such city", type="UnknownCity")
    error = await unmet(raises(WorkflowFailureError(cause=activity)))
    assert error.saw == "the workflow failed (UnknownCity: no such city)"


async def test_the_labs_own_advice_becomes_the_hint() -> None:
    error = await unmet(raises(WorkshopError("No server.", fix="run the first cell.")))
    assert (error.saw, error.hint) == ("No server.", "run the first cell.")


async def test_a_bug_of_a_check_is_said_and_its_traceback_kept(state_dir: Path) -> None:
    @check(expects="a.", hint="b.")
    async def buggy(value: dict[str, str]) -> str:
        return value["typo"]

    with pytest.raises(CheckNotMet) as caught:
        await buggy({})
    log = state_dir / "logs" / "errors.log"
    assert caught.value.saw == f"the check stopped with KeyError: 'typo' (full text in {log})"
    assert 'return value["typo"]' in log.read_text()


async def test_a_check_without_evidence_does_not_pass() -> None:
    @check(expects="a.", hint="b.")
    async def silent() -> str:
        return ""

    with pytest.raises(CheckNotMet, match="the check stopped with"):
        await silent()


async def test_an_interrupt_goes_through() -> None:
    with pytest.raises(asyncio.CancelledError):
        await greeting(raises(asyncio.CancelledError()))  # type: ignore[arg-type]


def test_all_checks_are_the_modules_own_in_order() -> None:
    module = types.ModuleType("nb42")
    code = (
        "from workshop_lib.lab.checks import check\nfrom test_check_framework import greeting\n"
        "@check(expects='a.', hint='b.', timeout=3)\nasync def two() -> str:\n    return 'x'\n"
        "@check(expects='a.', hint='b.')\nasync def one() -> str:\n    return 'x'\n"
        "async def helper() -> str:\n    return 'x'\n"
    )
    exec(code, module.__dict__)
    found = all_checks(module)
    assert list(found) == ["two", "one"]
    info = found["two"].check_info  # type: ignore[attr-defined]
    assert (info.notebook, info.name, info.timeout) == ("42", "two", 3)


# Progress


def test_a_check_that_passed_stays_passed_and_tries_are_counted() -> None:
    progress.record("00", "greeting", False)
    progress.record("00", "greeting", True)
    first = progress.read()["00"]["greeting"]
    progress.record("00", "greeting", False)
    progress.record("00", "greeting", True)
    progress.record("01", "planning", False)
    last = progress.read()
    assert (first.passed, first.tries) == (True, 2)
    assert last["00"]["greeting"].passed_at == first.passed_at
    assert last["00"]["greeting"].tries == 4
    assert not last["01"]["planning"].passed


@pytest.mark.parametrize("damage", ["{", "[]", '{"notebooks": 3}', "\x00\xff"])
def test_a_damaged_file_is_put_aside(state_dir: Path, damage: str) -> None:
    path = state_dir / "progress.json"
    path.write_bytes(damage.encode("latin-1"))
    assert progress.read() == {}
    progress.record("00", "greeting", True)
    assert progress.read()["00"]["greeting"].passed
    assert (state_dir / "progress.damaged.json").read_bytes() == damage.encode("latin-1")


async def test_a_check_passes_where_progress_cannot_be_written(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state_dir / "progress.json").mkdir()
    await greeting(lambda name: name)
    assert "Check passed" in capsys.readouterr().out


def test_progress_leaves_no_other_file_behind(state_dir: Path) -> None:
    progress.record("00", "greeting", True)
    json.loads((state_dir / "progress.json").read_text())
    made = {path.name for path in state_dir.iterdir()} - {state_folder.MARKER}
    assert made <= {"progress.json", "progress.lock"}
    with FileLock(state_dir / "progress.lock", timeout=0):
        pass


# The learner's copies


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    for name in ("00_meet_lab", "01_plan_turns"):
        (notebooks / f"{name}.ipynb").write_text(f"fresh {name}")
    return tmp_path / "workspace", notebooks


def test_prepare_copies_what_is_missing_and_overwrites_nothing(folders: tuple[Path, Path]) -> None:
    workspace, notebooks = folders
    mine = workspace / "00_meet_lab.ipynb"
    workspace.mkdir()
    mine.write_text("my work")
    assert prepare_workspace(workspace, notebooks) == [workspace / "01_plan_turns.ipynb"]
    assert prepare_workspace(workspace, notebooks) == []
    assert mine.read_text() == "my work"
    assert (workspace / "01_plan_turns.ipynb").read_text() == "fresh 01_plan_turns"


@pytest.mark.parametrize("number", ["01", "1"])
def test_reset_keeps_what_it_replaces(folders: tuple[Path, Path], number: str) -> None:
    workspace, notebooks = folders
    prepare_workspace(workspace, notebooks)
    mine = workspace / "01_plan_turns.ipynb"
    backups = []
    for work in ("first", "second"):
        mine.write_text(work)
        backups.append(reset_notebook(number, workspace, notebooks))
        assert mine.read_text() == "fresh 01_plan_turns"
    assert [path.read_text() for path in backups if path] == ["first", "second"]


def test_reset_of_a_copy_that_is_gone_makes_one(folders: tuple[Path, Path]) -> None:
    assert reset_notebook("00", *folders) is None
    assert (folders[0] / "00_meet_lab.ipynb").read_text() == "fresh 00_meet_lab"


@pytest.mark.parametrize("number", ["07", "", "x", "../00"])
def test_reset_of_an_unknown_number_lists_the_known(
    folders: tuple[Path, Path], number: str
) -> None:
    with pytest.raises(WorkshopError, match="one of 00, 01"):
        reset_notebook(number, *folders)


def test_without_notebooks_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WorkshopError, match="holds no notebook"):
        prepare_workspace(tmp_path / "workspace", tmp_path)


# What a check says before it waits, and of a forgotten `await`


@check(expects="x.", hint="y.", timeout=2, takes="some ten seconds: two processes start")
async def slow(fails: bool) -> str:
    if fails:
        raise AttributeError("'coroutine' object has no attribute 'message'")
    return "it is there"


async def test_a_long_check_says_so_first(capsys: pytest.CaptureFixture[str]) -> None:
    await slow(False)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "This check takes some ten seconds: two processes start."
    assert second.startswith("Check passed: slow")


async def test_a_forgotten_await_is_named() -> None:
    with pytest.raises(CheckNotMet, match="an `await` is missing"):
        await slow(True)
