"""The learner's first minutes, as they are: `workshop`, JupyterLab in a browser, *Run All*, Ctrl-C.

Each notebook is read from JupyterLab's model of it, not from the page; only the diagram has to be looked
for on the page. Left out: every further exercise (`test_notebooks`).
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from jupyter_browser import RunningLab, browser_page, open_notebook, run_all_cells, running_lab
from nbformat import NotebookNode
from notebook_rules import checks_in

ASKS = "this Jupyter server (y/[n])?"


def ctrl_c_twice(lab: RunningLab) -> None:
    """JupyterLab asks at the first one; the second is the answer."""
    lab.press_ctrl_c(says=ASKS)
    lab.press_ctrl_c(says="stopping")


def sigterm(lab: RunningLab) -> None:
    """What `kill`, a closed terminal or a service manager does, to the command alone."""
    lab.process.send_signal(signal.SIGTERM)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("number", "leave", "status"),
    [
        pytest.param("00", ctrl_c_twice, 0, id="00-ctrl-c"),
        pytest.param(
            *("01", sigterm, 128 + signal.SIGTERM), id="01-sigterm", marks=pytest.mark.long
        ),
    ],
)
def test_a_notebook_runs_to_its_first_exercise_and_the_lab_leaves_nothing_behind(
    number: str, leave: Callable[[RunningLab], None], status: int, tmp_path: Path
) -> None:
    with browser_page() as page, running_lab(tmp_path) as lab:
        copy = next(lab.workspace.glob(f"{number}_*.ipynb"))
        open_notebook(page, lab.notebook_address(copy.name))
        [kernel] = lab.kernel_processes()
        assert kernel.cmdline()[0] == sys.executable
        assert page.locator(".jp-RenderedMermaid img[src^='data:image/svg+xml']").is_visible()
        notebook = run_all_cells(page)
        stopped_at_first_check(notebook)
        if number == "00":
            shows_a_timeline(notebook)
        server, started = lab.server_process(), lab.processes()
        assert {lab.process.pid, kernel.pid, server.pid} <= {process.pid for process in started}
        leave(lab)
        assert lab.process.wait(30) == status, lab.log.read_text()
        psutil.wait_procs(started, timeout=10)  # a kernel's workers see its end a moment later
        assert not server.is_running()
        assert lab.processes() == []


def stopped_at_first_check(notebook: NotebookNode) -> None:
    """Until the first check all went well, it says its three lines, and nothing ran after it."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    at = next(index for index, cell in enumerate(code) if checks_in(cell.source))
    before, check, after = code[:at], code[at], code[at + 1 :]
    assert before and after
    for cell in before:
        assert cell.execution_count, cell.source
        assert "error" not in {output.output_type for output in cell.outputs}, cell.outputs
    [error] = check.outputs
    assert (error.output_type, error.ename) == ("error", "CheckNotMet"), error
    assert error.traceback == error.evalue.split("\n")
    assert [line.split(" ")[0] for line in error.traceback] == ["Not", "Saw:", "Hint:"]
    assert [cell.execution_count for cell in after] == [None] * len(after)
    assert not any(cell.outputs for cell in after)


def shows_a_timeline(notebook: NotebookNode) -> None:
    """The first run's history is there as a picture, as text and with its link into the Web UI."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    [picture] = [o.data for o in outputs if 'class="wt"' in o.get("data", {}).get("text/html", "")]
    assert "wt-track" in picture["text/html"]
    assert "http://localhost:" in picture["text/html"]
    assert "compose" in picture["text/plain"]


def test_a_lab_that_is_terminated_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_lab(tmp_path) as lab:
        server, started = lab.server_process(), lab.processes()
        sigterm(lab)
        assert lab.process.wait(30) == 128 + signal.SIGTERM, lab.log.read_text()
        psutil.wait_procs(started, timeout=10)
        assert not server.is_running()
        assert lab.processes() == []
