"""A test process that dies: seen on small runs of pytest with processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sampled import sampled

HERE = Path(__file__).resolve().parent
ONCE = """
import os, pathlib
def test_before(): pass
def test_dies():
    seen = pathlib.Path(__file__).with_suffix(".seen")
    if {always} or not seen.exists():
        seen.touch()
        os.abort()
def test_after(): pass
"""


def run(folder: Path, *files: str, processes: int) -> tuple[int, str]:
    for number, text in enumerate(files):
        (folder / f"test_{number}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder)]
    options = ["-p", "xdist", "-p", "crashed_workers", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *options, f"-n{processes}", "--max-worker-restart=4", "--dist=loadfile", "."],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(("quiet_files", "processes"), sampled([(1, 1), (3, 2), (0, 2)], 1))
def test_a_process_that_dies_once_costs_a_rerun(
    tmp_path: Path, quiet_files: int, processes: int
) -> None:
    quiet = ["def test_quiet(): pass"] * quiet_files
    status, printed = run(tmp_path, ONCE.format(always=False), *quiet, processes=processes)
    assert status == 0, printed
    assert f"{3 + quiet_files} passed, 1 rerun" in printed
    assert "A test process died in test_0.py::test_dies" in printed


def test_a_test_that_ends_its_process_each_time_fails_and_the_others_run(tmp_path: Path) -> None:
    files = [ONCE.format(always=True), "def test_quiet(): pass", "def test_wrong(): assert 0"]
    status, printed = run(tmp_path, *files, processes=2)
    assert status == 1, printed
    assert "2 failed, 3 passed, 1 rerun" in printed
