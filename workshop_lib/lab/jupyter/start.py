"""Starts JupyterLab on the learner's copies of the notebooks and stays until it ends."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from workshop_lib.lab.jupyter import address as jupyter_address
from workshop_lib.lab.jupyter.notebooks import prepare_workspace
from workshop_lib.machine.records import record_service, remove_record
from workshop_lib.settings import get_settings

# JupyterLab's defaults for this project: no question about news, no look for updates on the network.
CONFIG = Path(__file__).resolve().parent / "config"
STOP_LIMIT = 10.0  # seconds that JupyterLab gets to end its kernels


def run_jupyter(
    *, browser: bool, say: Callable[[str], object], arguments: list[str] | None = None
) -> int:
    """Run JupyterLab in the foreground; returns its exit status.

    Args:
        browser: False to print the address only.
        say: called with each thing that a person should know.
        arguments: further options for `jupyter lab`.
    """
    workspace = get_settings().workspace.absolute()
    copied = prepare_workspace(workspace)
    if copied:
        say(f"{len(copied)} notebooks copied to {workspace}")
    command = [sys.executable, "-P", "-m", "jupyterlab", "--ip=127.0.0.1"]
    command.append(f"--notebook-dir={workspace}")
    command.append(f"--ServerApp.jpserver_extensions={jupyter_address.__name__}=True")
    # The address is what a person looks for. It is shown at every level; harmless warnings are not.
    command.append("--Application.log_level=ERROR")
    # Cells and outputs do not travel in the clear between JupyterLab and kernel on a shared machine.
    command.append("--KernelManager.transport_encryption=auto")
    if os.name == "posix" and os.geteuid() == 0:
        say("You are root: JupyterLab is started with --allow-root.")
        command.append("--allow-root")
    if browser and not _has_display():
        say("No display found: open the address below in a browser.")
        browser = False
    first = first_notebook(workspace)
    if first is not None:
        command.append(f"--LabApp.default_url=/lab/tree/{first.name}")
    if not browser:
        command.append("--no-browser")
    configs = [str(CONFIG), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    env = os.environ | {
        # The project's own kernel wins over one of the same name in the user's home.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_PATH": os.pathsep.join(configs),
        # Kernels are found by it, and have this folder wherever they work.
        "WORKSHOP_STATE_DIR": str(get_settings().state_dir),
    }
    say("Ctrl-C twice ends the lab.")
    process = subprocess.Popen([*command, *(arguments or [])], env=env)
    # Where this process is killed, JupyterLab stays: `workshop down` finds it by this.
    state = get_settings().state_dir
    record = record_service(state, "jupyterlab", process.pid, kind="jupyter", owner=os.getpid())
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # JupyterLab got the same signal and asks whether it is meant
    finally:
        _end(process)
        remove_record(record)


def first_notebook(workspace: Path) -> Path | None:
    """The notebook that opens first."""
    return next(iter(sorted(workspace.glob("[0-9][0-9]_*.ipynb"))), None)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End JupyterLab where this process has been told to leave before it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
