"""What cells do not show: the traceback of an interrupt, and complaints about what was left half done."""

import subprocess
import sys

from workshop_lib.lab.jupyter.quiet import INTERRUPTED

SHELL = """
import gc, sys
from IPython.core.interactiveshell import InteractiveShell
from workshop_lib.lab.jupyter import quiet

shell = InteractiveShell.instance(colors="NoColor")
quiet.register(shell)
quiet.register(shell)  # as when the first cell is run again
"""
HALF_DONE = """
class Once:
    def __await__(self):
        yield

async def stubborn():
    while True:
        try:
            await Once()
        except GeneratorExit:
            pass

left = stubborn()
left.send(None)
del left
gc.collect()
"""
OTHER = """
class Other:
    def __del__(self):
        raise OSError("a disk that is full")

Other()
gc.collect()
"""


def run(code: str) -> tuple[str, str]:
    """What a process with such a shell writes on its two streams."""
    done = subprocess.run(
        [sys.executable, "-c", SHELL + code], capture_output=True, text=True, timeout=60
    )
    return done.stdout, done.stderr


def test_an_interrupt_is_one_line_and_the_cell_has_failed_all_the_same() -> None:
    cell = "import asyncio\\nraise asyncio.CancelledError"
    said, complaints = run(
        f"done = shell.run_cell('{cell}')\nprint(type(done.error_in_exec).__name__)"
    )
    assert said.splitlines() == [INTERRUPTED, "CancelledError"]
    assert complaints == ""


def test_other_errors_keep_their_traceback() -> None:
    said, _ = run("shell.run_cell('1 / 0')")
    assert "Traceback" in said and "ZeroDivisionError" in said


def test_what_was_left_half_done_says_nothing_and_what_is_broken_does() -> None:
    assert run(HALF_DONE) == ("", "")
    _, complaints = run(OTHER)
    assert "a disk that is full" in complaints
