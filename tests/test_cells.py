"""`%%workflow`: cells become modules, the sandbox stays on, and errors name the cell's line."""

import linecache
import time
from pathlib import Path

import pytest
from lab_cells import GREETING, Notebook, spec_of
from lab_environment import fresh

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import registered
from workshop_lib.lab.watching import cell_files
from workshop_lib.lab.watching.cell_files import cells_dir, locate
from workshop_lib.lab.watching.waiting import result
from workshop_lib.lab.workers import cells
from workshop_lib.lab.workers import threads as workers
from workshop_lib.lab.workers.process import start_process
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.temporal.connect import connect

pytestmark = pytest.mark.usefixtures("lab_server")


async def test_a_cell_runs_in_the_full_sandbox(nb: Notebook) -> None:
    name = fresh("sandbox").replace("-", "_")
    nb.workflow(name, GREETING)
    assert nb.printed == f"workflow cell `{name}` loaded: say_hello, Greeting\n"
    spec = spec_of(nb["Greeting"], nb["say_hello"])
    await start_worker(spec)
    client = await connect()
    handle = await client.start_workflow(
        nb["Greeting"].run, "Ada", id=fresh("run"), task_queue=spec.task_queue
    )
    assert await result(handle, timeout=20) == "Hello, Ada!"


def test_only_the_cells_own_public_names_reach_the_notebook(nb: Notebook) -> None:
    nb.workflow("names", "import json\nLIMIT = 3\n_hidden = 1\ndef helper():\n    return LIMIT\n")
    assert nb["LIMIT"] == 3 and nb["helper"]() == 3
    assert "json" not in nb.shell.user_ns and "_hidden" not in nb.shell.user_ns


def test_the_same_text_is_the_same_module_and_restarts_nobody(nb: Notebook) -> None:
    nb.workflow("same", GREETING)
    first = nb["Greeting"]
    worker = workers.start_worker_now(spec_of(first, nb["say_hello"]))
    nb.workflow("same", GREETING)
    assert nb["Greeting"] is first and "restarted" not in nb.printed
    assert registered()[worker.name] is worker


def test_a_changed_cell_replaces_its_worker(nb: Notebook) -> None:
    nb.workflow("changed", GREETING)
    old = workers.start_worker_now(spec_of(nb["Greeting"], nb["say_hello"], name="lab"))
    nb.workflow("other", GREETING)  # another cell is none of its business
    assert old.alive and "restarted" not in nb.printed
    nb.workflow("changed", GREETING.replace("Hello", "Good day"))
    new = registered()["lab"]
    assert nb.printed.endswith("; worker lab restarted\n")
    assert not old.alive and new.spec.activities == (nb["say_hello"],)
    # and back again: the earlier version counts as a change too
    nb.workflow("changed", GREETING)
    assert registered()["lab"].spec.activities == (nb["say_hello"],)


def test_what_the_cell_no_longer_has_is_said(nb: Notebook) -> None:
    nb.workflow("shrinking", GREETING)
    workers.start_worker_now(spec_of(nb["Greeting"], nb["say_hello"], name="both"))
    workers.start_worker_now(spec_of(nb["say_hello"], name="hello only"))
    nb.workflow("shrinking", GREETING.replace("say_hello", "greet"))
    assert "worker both restarted without say_hello" in nb.printed
    assert "worker hello only stopped, for say_hello is gone" in nb.printed
    assert set(registered()) == {"both"}


def test_a_syntax_error_names_the_cells_line(nb: Notebook) -> None:
    error = nb.error("broken", "import json\n\ndef f(:\n    pass\n")
    assert error.what.startswith("In cell `broken`, line 4: def f(:\nSyntaxError:")
    nb.shell.showtraceback((type(error), error, error.__traceback__))
    assert error._render_traceback_() == error.lines


def test_a_check_says_that_it_sees_the_version_before_an_error(nb: Notebook) -> None:
    nb.error("erring", "def f(:\n    pass\n")
    look = "from workshop_lib.lab.checks import check\n@check(expects='', hint='')\nasync def seen():\n"
    nb.run(f"{look}    return str(f())\n")
    nb.workflow("erring", "def f():\n    return 1\n")
    nb.run("await seen()")
    assert nb.printed == "Check passed: seen — 1\n"
    nb.error("erring", "def f(:\n    return 2\n")
    nb.run("await seen()")
    told, passed = nb.printed.splitlines()
    assert told == "Cell `erring` has an error; this check sees its version before that."
    assert passed == "Check passed: seen — 1"
    nb.workflow("erring", "def f():\n    return 2\n")
    nb.run("await seen()")
    assert nb.printed == "Check passed: seen — 2\n"


def test_an_error_at_import_names_the_cells_line(nb: Notebook) -> None:
    error = nb.error("failing", "def f():\n    return 1 / 0\n\nf()\n")
    assert (
        error.what == "In cell `failing`, line 3: return 1 / 0\nZeroDivisionError: division by zero"
    )


def test_a_variable_of_the_notebook_is_explained(nb: Notebook) -> None:
    nb.run("limit = 3")
    error = nb.error("lonely", "import json\ndouble = 2 * limit\n")
    assert "cell `lonely`, line 3: double = 2 * limit" in error.what
    assert error.expected and "sees no variable of the notebook" in error.expected
    assert error.fix and "import or define `limit` in the cell" in error.fix
    unknown = nb.error("lonely", "double = 2 * nowhere\n")
    assert unknown.expected is None


def test_a_module_that_is_not_there_is_explained(nb: Notebook) -> None:
    error = nb.error("absent", "\nimport no_such_module\n")
    assert "line 2: import no_such_module" in error.what and "no_such_module" in error.what


@pytest.mark.parametrize("name", ["", "two words", "1st", "a-b", "_private"])
def test_a_name_that_cannot_be_used_is_refused(nb: Notebook, name: str) -> None:
    error = nb.error(name, "x = 1\n")
    assert "lacks a name that can be used" in error.what


async def test_a_sandbox_violation_at_import_names_line_and_alternative(nb: Notebook) -> None:
    nb.workflow("clock", GREETING + "\nimport random\nSEED = random.random()\n")
    with pytest.raises(WorkshopError) as raised:
        await start_worker(spec_of(nb["Greeting"], nb["say_hello"]))
    assert "In cell `clock`, line 18: SEED = random.random()" in raised.value.what
    assert raised.value.fix and "`workflow.random()`" in raised.value.fix


def test_a_worker_with_new_broken_code_leaves_the_old_one_running(nb: Notebook) -> None:
    nb.workflow("kept", GREETING)
    old = workers.start_worker_now(spec_of(nb["Greeting"], nb["say_hello"], name="kept"))
    error = nb.error("kept", GREETING + "\nimport random\nSEED = random.random()\n")
    assert "SEED = random.random()" in error.what
    assert registered()["kept"] is old and old.alive


def test_a_version_keeps_its_code_when_the_cell_is_run_again(nb: Notebook) -> None:
    nb.workflow("released", GREETING)
    spec = spec_of(nb["Greeting"], nb["say_hello"], name="released").with_version("1")
    old = workers.start_worker_now(spec)
    nb.workflow("released", GREETING.replace("Hello", "Good day"))
    assert "version 1 of released keeps its code" in nb.printed
    assert registered()["released-1"] is old and old.spec.workflows != (nb["Greeting"],)


def test_a_line_of_an_earlier_version_is_still_found(nb: Notebook) -> None:
    nb.workflow("history", "A = 1\nB = 2\n")
    (first,) = [f for f in cells_dir().glob("*.py") if cell_files.cell_of(f.name) == "history"]
    nb.workflow("history", "A = 1\nB = 3\n")
    linecache.clearcache()
    assert locate(str(first), 3) == ("history", 3, "B = 2")
    assert locate(str(first), 1) == ("history", 1, "# %%workflow history")
    assert locate(__file__, 3) is None


def test_old_versions_go_when_there_are_many_and_they_are_old(
    nb: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "KEEP", 2)

    def versions() -> set[Path]:
        return {f for f in cells_dir().glob("*.py") if cell_files.cell_of(f.name) == "many"}

    for number in range(4):
        nb.workflow("many", f"A = {number}\n")
        time.sleep(0.01)  # file times have to differ
    assert len(versions()) == 4  # all of them young
    monkeypatch.setattr(cells, "KEEP_SECONDS", 0)
    nb.workflow("many", "A = 4\n")
    assert len(versions()) == 2


async def test_a_process_serves_a_cells_classes(nb: Notebook) -> None:
    nb.workflow("elsewhere", GREETING)
    spec = spec_of(nb["Greeting"], nb["say_hello"])
    await start_process(spec)
    client = await connect()
    handle = await client.start_workflow(
        "Greeting", "Ada", id=fresh("run"), task_queue=spec.task_queue, result_type=str
    )
    assert await result(handle, timeout=20) == "Hello, Ada!"
    nb.workflow("elsewhere", GREETING.replace("Hello", "Good day"))
    assert f"worker process {spec.name} still runs the old code" in nb.printed
