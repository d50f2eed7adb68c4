"""The state folder: `workshop clean` deletes what is ours and nothing else, no command works in a folder of
somebody else's, and nothing in it is open to another user of the machine."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from notebook_runner import clear
from sampled import sampled
from workshop_command import LIMIT, Workshop, workshop_command

from workshop_lib.machine import state_folder
from workshop_lib.settings import PROJECT_ROOT

# What a lesson leaves in the state folder, without the seconds that a server takes.
LESSON = """
from workshop_lib import edge
from workshop_lib.agents.conversation import results
from workshop_lib.lab.jupyter import progress
from workshop_lib.lab.lessons import shelf
from workshop_lib.lab.workers import cells
from workshop_lib.llm.offline import faults
from workshop_lib.repair import notify, report_files, states, store

progress.record("00", "greeting", True)
shelf.reset_shelf()
cells.load_cell("greeting", "x = 1")
faults._file_index("seven")
edge.log_error(ValueError("x"))
report_files._save(report_files.SaveReport(scope="a/b", kind="planning", markdown="# Report"))
notice = states.Notice(source="me", state="FAILED", summary="done")
notify._write(notify.Notification(scope="a/b", notice=notice))
store.open_store().ledger()
results.copy_results("none", "none")
with results._opened():
    pass
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with workshop_command() as command:
        yield Workshop(tmp_path / "state")
        clear(command.state)
        clear(tmp_path / "state")


def tree(folder: Path) -> dict[str, object]:
    """Everything below a folder, with content and mode."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
        )
        for path in folder.rglob("*")
    }


def test_what_the_workshop_made_is_gone(workshop: Workshop) -> None:
    workshop.python(LESSON)
    assert {"logs", "cells", "orders.db", "results.db", "reports", "outbox"} <= {
        p.name for p in workshop.state.iterdir()
    }
    done = workshop("clean", "--yes")
    assert (done.returncode, "is gone" in done.stderr) == (0, True), done.stderr
    assert not workshop.state.exists()
    done = workshop("clean", "--yes")
    assert (done.returncode, "nothing to delete" in done.stderr) == (0, True), done.stderr


def test_an_empty_folder_stays(workshop: Workshop) -> None:
    workshop.state.mkdir()
    done = workshop("clean", "--yes")
    assert (done.returncode, "nothing to delete" in done.stderr) == (0, True), done.stderr
    assert workshop.state.is_dir()


FOREIGN_FILES = [  # as many at once as are named
    ["thesis.txt", "logs/notes.txt", "cells/mine.py", "cells/__pycache__/mine.pyc", "uv.lock"],
    ["services/data.json", "reports/2025/tax.pdf", "outbox/letter.eml", "photos/cat.jpg"],
    ["reports/budget.md", "logs/old/server.log", "package.json", "logs/orders.log"],
]


@pytest.mark.parametrize("foreign", FOREIGN_FILES)
def test_foreign_files_in_ours_stay_and_are_named(workshop: Workshop, foreign: list[str]) -> None:
    workshop.python(LESSON)
    files = {workshop.state / name for name in foreign}
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    done = workshop("clean", "--yes")
    assert done.returncode == 1 and "not the workshop's" in done.stderr
    left = {path for path in workshop.state.rglob("*") if path.is_file()}
    assert left == files | {workshop.state / state_folder.MARKER}
    for file in files:
        assert str(file) in done.stderr
        assert file.read_text() == "mine"
    # It goes on being a state folder.
    workshop.python(LESSON)
    for file in files:
        file.unlink()
    for folder in {file.parent for file in files}:
        if f"{folder}: " in done.stderr:  # it is theirs too
            folder.rmdir()
    assert workshop("clean", "--yes").returncode == 0


def test_links_are_not_followed(workshop: Workshop, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "server.log").write_text("mine")
    workshop.python(LESSON)
    (workshop.state / "logs" / "errors.log").unlink()
    (workshop.state / "logs").rmdir()
    (workshop.state / "logs").symlink_to(elsewhere)
    (workshop.state / "cells" / "there").symlink_to(elsewhere)
    done = workshop("clean", "--yes")
    assert done.returncode == 1
    assert (elsewhere / "server.log").read_text() == "mine"
    assert (workshop.state / "logs").is_symlink() and "logs" in done.stderr


def test_a_link_to_ours_stays_and_works(workshop: Workshop, tmp_path: Path) -> None:
    workshop.state.symlink_to(tmp_path / "disk" / "state")  # leads nowhere yet
    done = workshop("clean", "--yes")
    assert (done.returncode, "nothing to delete" in done.stderr) == (0, True), done.stderr
    workshop.python(LESSON)
    done = workshop("clean", "--yes")
    assert (done.returncode, "is empty" in done.stderr) == (0, True), done.stderr
    assert list((tmp_path / "disk" / "state").iterdir()) == []
    workshop.python(LESSON)


FOREIGN: dict[str, list[str]] = {
    "documents": ["thesis.docx"],
    "a project": ["pyproject.toml", "src/main.py", "services/data.json", "logs/server.log"],
    "hidden": [".git/config"],
    "folders": ["photos/cat.jpg", "logs/x.log"],
}


@pytest.mark.parametrize(
    ("content", "by_link"),
    sampled([(content, by_link) for content in FOREIGN.values() for by_link in (False, True)], 3),
)
def test_nothing_works_in_a_foreign_folder(
    workshop: Workshop, tmp_path: Path, content: list[str], by_link: bool
) -> None:
    folder = tmp_path / "theirs" if by_link else workshop.state
    for name in content:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    folder.chmod(0o755)
    if by_link:
        workshop.state.symlink_to(folder)
    before = tree(folder)
    for command in (["clean", "--yes"], ["up"], ["down"], ["ask", "What is 1 + 1?"], ["status"]):
        done = workshop(*command)
        assert done.returncode == 1, command
        assert "cannot be the state folder" in done.stderr and "Traceback" not in done.stderr
    assert workshop("doctor").returncode == 1
    assert tree(folder) == before
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_what_was_there_first_stays(workshop: Workshop) -> None:
    """A folder that holds nothing but names of ours, which somebody else has made."""
    (workshop.state / "reports").mkdir(parents=True)
    (workshop.state / "reports" / "r-012345-planning.md").write_text("mine")
    (workshop.state / "server.json").write_text("mine")
    assert workshop("clean", "--yes").returncode == 1
    workshop.python(LESSON)
    assert workshop("clean", "--yes").returncode == 1
    assert (workshop.state / "reports" / "r-012345-planning.md").read_text() == "mine"
    assert (workshop.state / "server.json").read_text() == "mine"
    assert not (workshop.state / "orders.db").exists()


@pytest.mark.parametrize("which", ["project", "above", "root", "home", "above home", "code"])
def test_a_folder_that_holds_more_than_a_state(
    workshop: Workshop, tmp_path: Path, which: str
) -> None:
    home = tmp_path / "homes" / "me"  # empty, as a new user's
    home.mkdir(parents=True)
    folder = {
        "project": PROJECT_ROOT,
        "above": PROJECT_ROOT.parent,
        "root": Path("/"),
        "home": home,
        "above home": home.parent,
        "code": PROJECT_ROOT / "workshop_lib",
    }[which]
    # Not `clean --yes`, nor a command that writes: this test must do no harm where it fails.
    done = Workshop(folder)("status", HOME=str(home))
    assert done.returncode == 1
    assert "cannot be the state folder" in done.stderr


def test_what_cannot_be_deleted_is_said(workshop: Workshop, tmp_path: Path) -> None:
    workshop.python(LESSON)
    reports = workshop.state / "reports"
    if os.geteuid() == 0:  # who may delete everything
        for path in [workshop.state, *workshop.state.rglob("*")]:
            os.chown(path, 65534, -1)
        for parent in (tmp_path, *tmp_path.parents):
            if parent.stat().st_mode & 0o005 != 0o005 and parent.is_relative_to(
                tempfile.gettempdir()
            ):
                parent.chmod(0o755)
    reports.chmod(0o500)
    code = """
import os, sys
from pathlib import Path
from workshop_lib.machine import state_folder
if os.geteuid() == 0:
    os.setuid(65534)
print(*state_folder.delete(Path(sys.argv[1])), sep=chr(10))
"""
    done = workshop.run([sys.executable, "-c", code, str(workshop.state)])
    reports.chmod(0o700)
    lines = done.stdout.splitlines()
    assert lines and all(line.startswith(f"{reports}/") for line in lines), done.stdout
    assert all("Permission denied" in line for line in lines)
    assert {path.name for path in workshop.state.iterdir()} == {"reports", state_folder.MARKER}


def test_a_lab_that_somebody_works_with_is_left_alone(workshop: Workshop) -> None:
    workshop.python(LESSON)
    serving = subprocess.Popen(
        workshop.command("mcp", "serve", "it", "--transport", "stdio"),
        env=workshop.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = set(workshop.state.rglob("*"))
    done = workshop("clean", "--yes")
    assert done.returncode == 1
    assert f"pid {serving.pid}" in done.stderr and "in use" in done.stderr
    assert before <= set(workshop.state.rglob("*"))
    assert serving.poll() is None
    serving.kill()
    serving.communicate(timeout=30)
    assert workshop("clean", "--yes").returncode == 0


@pytest.mark.timeout(600)
def test_nobody_else_reads_it_and_all_of_it_can_be_cleaned(workshop: Workshop) -> None:
    """Whatever the umask, also where it was open before; server, services, chats, repairs, reports."""
    workshop.state.mkdir()
    code = "import os; os.umask(0);"
    workshop.python(code + LESSON)
    for path in [workshop.state, *workshop.state.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    for command in (
        ["up"],
        ["ask", "What is 1 + 1?"],
        ["repair", "run", "--auto-approve", "--id", "mine"],
        ["repair", "report", "mine"],
        ["sessions"],
        ["doctor"],
    ):
        done = subprocess.run(
            workshop.command(*command),
            env=workshop.environment(),
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
            check=False,
            umask=0,
        )
        assert done.returncode == 0, (command, done.stderr)
    made = {path.name for path in workshop.state.iterdir()}
    assert {"server.json", "services"} <= made
    assert any(name.startswith("temporal-") and name.endswith(".db") for name in made)
    modes = {
        str(path.relative_to(workshop.state.parent)): oct(stat.S_IMODE(path.lstat().st_mode))
        for path in [workshop.state, *workshop.state.rglob("*")]
    }
    assert {name: mode for name, mode in modes.items() if int(mode, 8) & 0o077} == {}
    servers = [p for p in psutil.process_iter() if _works_in(p, workshop.state)]
    assert len(servers) > 3
    done = workshop("clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert not workshop.state.exists()
    _, alive = psutil.wait_procs(servers, timeout=30)
    assert alive == []


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get("WORKSHOP_STATE_DIR") == str(folder)
    except psutil.Error:
        return False


# Other deleters and writers


def test_down_deletes_no_file_but_the_pid_files(workshop: Workshop) -> None:
    workshop.python(LESSON)
    mine = [workshop.state / "services" / "data.json", workshop.state / "server.json"]
    mine[0].parent.mkdir()
    for path in mine:
        path.write_text("{}")
    assert workshop("down").returncode == 0
    assert all(path.read_text() == "{}" for path in mine)


def test_reset_leaves_another_programs_tables_alone(workshop: Workshop, tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    database = tmp_path / "shop.db"
    with closing(sqlite3.connect(database)) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER, what TEXT)")
        shop.execute("INSERT INTO orders VALUES (1, 'cat food')")
        shop.commit()
    before = database.read_bytes()
    for command in (["repair", "reset"], ["repair", "orders"]):
        done = workshop(*command, ORDERS_DATABASE_URL=f"sqlite:///{database}")
        assert done.returncode == 1
        assert "another program" in done.stderr and "Traceback" not in done.stderr
    assert database.read_bytes() == before


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
def test_the_originals_are_no_workspace(workshop: Workshop, folder: str) -> None:
    done = workshop("notebook", "reset", "00", WORKSHOP_WORKSPACE=str(PROJECT_ROOT / folder))
    assert done.returncode == 1
    assert "WORKSHOP_WORKSPACE" in done.stderr


def test_a_reset_writes_through_no_link(workshop: Workshop, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    work = tmp_path / "work"
    work.mkdir()
    name = next((PROJECT_ROOT / "notebooks").glob("00_*.ipynb")).name
    (work / f".{name}.part").symlink_to(mine)
    (work / name).symlink_to(mine)
    assert workshop("notebook", "reset", "00", WORKSHOP_WORKSPACE=str(work)).returncode == 0
    assert mine.read_text() == "mine"
    assert json.loads((work / name).read_text())["cells"]
