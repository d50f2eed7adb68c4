"""A real `workshop`, its JupyterLab, and a headless Chromium that works in it.

The command runs as a learner's terminal would run it: a process group of its own, which a Ctrl-C reaches
whole. JupyterLab gets a configuration folder of its own, in which it is told to hand its application object
to the page; notebooks are opened, run and read through that. Left out: what a run has to look like.
"""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import psutil
import pytest
from lab_environment import free_port
from nbformat import NotebookNode
from notebook_runner import isolated_state, processes_of, runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

START_SECONDS = 60.0
RUN_SECONDS = 120.0
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/lab\S*\?token=\w+")


@dataclass(frozen=True)
class RunningLab:
    """A `workshop` in the foreground.

    Attributes:
        state: its state folder.
        workspace: the learner's copies that it serves.
        log: what it has written so far.
        address: JupyterLab's, as printed, with the token.
    """

    process: "subprocess.Popen[bytes]"
    state: Path
    workspace: Path
    log: Path
    address: str

    def notebook_address(self, name: str) -> str:
        """The address that opens one notebook."""
        return re.sub(r"/lab[^?]*", f"/lab/tree/{name}", self.address)

    def server_process(self) -> psutil.Process:
        """The dev server that it has started."""
        record = json.loads((self.state / "server.json").read_text(encoding="utf-8"))
        return psutil.Process(record["pid"])

    def kernel_processes(self) -> list[psutil.Process]:
        """The notebooks' kernels."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in below if runs(process, "ipykernel_launcher")]

    def press_ctrl_c(self, says: str) -> None:
        """What the terminal does: SIGINT to the whole group. Returns once the log holds `says`."""
        seen = len(self.log.read_text())
        os.killpg(self.process.pid, signal.SIGINT)
        wait_for(lambda: says in self.log.read_text()[seen:], 30, f"{says!r} after Ctrl-C")

    def processes(self) -> list[psutil.Process]:
        """All that runs with its state folder: itself, JupyterLab, kernels, workers, server."""
        return processes_of(self.state)


@contextmanager
def running_lab(folder: Path) -> Iterator[RunningLab]:
    """`workshop --no-browser --port N` with a state folder and a workspace of its own.

    Whatever still runs at the end is ended. The user's Jupyter has a kernel of the usual name, one that
    cannot start: the project's has to win over it.

    Args:
        folder: for the workspace and all else that is not state.
    """
    workspace, log = folder / "workspace", folder / "workshop.log"
    with isolated_state() as state:
        env = os.environ | _users_jupyter(folder) | {"WORKSHOP_WORKSPACE": str(workspace)}
        env["PYTHONUNBUFFERED"] = "1"  # a question on a terminal is there at once
        env |= {name: str(free_port()) for name in ("WORKSHOP_TEMPORAL_PORT", "WORKSHOP_UI_PORT")}
        command = [str(Path(sys.executable).parent / "workshop"), "--no-browser", "--port"]
        # JupyterLab asks what a Ctrl-C means where it finds a terminal. At this one nobody types.
        screen, terminal = pty.openpty()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, str(free_port())],
                stdin=terminal,
                stdout=output,
                stderr=output,
                env=env,
                start_new_session=True,
            )
        try:
            wait_for(
                lambda: _ADDRESS.search(log.read_text()) or process.poll() is not None,
                START_SECONDS,
                "JupyterLab's address",
            )
            found = _ADDRESS.search(log.read_text())
            assert found, f"workshop ended with status {process.poll()}:\n{log.read_text()}"
            yield RunningLab(process, state, workspace, log, found[0])
        finally:
            process.terminate()
            process.wait(30)
            os.close(screen)
            os.close(terminal)


def _users_jupyter(folder: Path) -> dict[str, str]:
    """The environment of a user who has a kernel "python3" already, one that is of no use here."""
    config, data = folder / "jupyter-config", folder / "jupyter-data"
    kernel = data / "kernels" / "python3"
    kernel.mkdir(parents=True)
    config.mkdir()
    spec = {"argv": ["false"], "display_name": "Python 3 (ipykernel)", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    exposed = {"LabApp": {"expose_app_in_browser": True}}
    (config / "jupyter_lab_config.json").write_text(json.dumps(exposed))
    return {
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_DATA_DIR": str(data),
        "JUPYTER_RUNTIME_DIR": str(data / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "0",
    }


@contextmanager
def browser(*arguments: str) -> Iterator["Browser"]:
    """The system's own Chromium, with arguments of its command line. Without one the test is skipped."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium.")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: uv sync --group ci."
    )
    with playwright.sync_playwright() as started:
        chrome = started.chromium.launch(
            executable_path=chromium, args=[*CHROMIUM_ARGUMENTS, *arguments]
        )
        try:
            yield chrome
        finally:
            chrome.close()


@contextmanager
def browser_page() -> Iterator["Page"]:
    """A page in it, of the size of a laptop's screen."""
    with browser() as chrome:
        yield chrome.new_page(viewport={"width": 1280, "height": 900})


def open_notebook(page: "Page", address: str) -> None:
    """Open a notebook and wait until its kernel is connected and idle."""
    page.goto(address)
    page.wait_for_function("() => window.jupyterapp", timeout=START_SECONDS * 1000)
    page.wait_for_function(
        """() => {
            const context = window.jupyterapp.shell.currentWidget?.sessionContext;
            const kernel = context?.session?.kernel;
            return context?.isReady && kernel?.connectionStatus === 'connected'
                && kernel.status === 'idle';
        }""",
        timeout=START_SECONDS * 1000,
    )


def run_all_cells(page: "Page") -> NotebookNode:
    """*Run All Cells*, as from the menu. Returns the notebook as it is when execution has stopped."""
    page.evaluate(
        """() => {
            window.runAllIsOver = false;
            window.jupyterapp.commands.execute('notebook:run-all-cells')
                .finally(() => { window.runAllIsOver = true; });
        }"""
    )
    page.wait_for_function(
        """() => window.runAllIsOver && window.jupyterapp.shell.currentWidget
            .sessionContext.session.kernel.status === 'idle'""",
        timeout=RUN_SECONDS * 1000,
    )
    model = page.evaluate(
        "() => JSON.stringify(window.jupyterapp.shell.currentWidget.content.model.toJSON())"
    )
    notebook: NotebookNode = nbformat.reads(model, as_version=4)
    return notebook


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return once a condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)
