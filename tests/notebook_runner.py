"""Run a notebook in a kernel of its own, up to its first error.

The environment is the one all tests have: offline model, no `.env`, a temporary state folder. After a
run the kernel is gone, and so are the server and the workers that it started. Left out: what a run has
to look like (`notebook_gates`).
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import kernel_alone
import psutil
from leaks import keys_of, leaks_in, texts_of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

PREFIX = "ws-"  # of state folders
NO_ENV_FILE = Path(__file__).resolve().parent / "there-is-no.env"


@dataclass(frozen=True)
class Run:
    """How far a notebook came.

    Attributes:
        notebook: with the outputs of the cells that ran.
        stopped_at: index of the cell where it stopped; None when all cells ran.
        error: name of the exception, "TimeoutError" or "DeadKernelError"; empty when all cells ran.
        message: what the exception says.
        leaks: tokens and keys of people in the outputs and in the state folder's logs.
    """

    notebook: NotebookNode
    stopped_at: int | None = None
    error: str = ""
    message: str = ""
    leaks: Sequence[str] = ()

    def printed(self, index: int) -> str:
        """What a cell wrote on stdout."""
        outputs = self.notebook.cells[index].get("outputs", [])
        return "".join(o["text"] for o in outputs if o.get("name") == "stdout")


def run_notebook(notebook: NotebookNode, folder: Path, seconds: float) -> Run:
    """Run a notebook's cells in order, in `folder`, until one raises or the time is up.

    Args:
        seconds: for the cells; the kernel's start has a limit of its own.
    """
    with isolated_state() as state:
        run = asyncio.run(_run(notebook, folder, seconds))
        outputs = [str(cell.get("outputs", "")) for cell in notebook.cells]
        return replace(run, leaks=leaks_in([*outputs, *texts_of(state)], keys_of(state)))


async def _run(notebook: NotebookNode, folder: Path, seconds: float) -> Run:
    at = 0

    def starts(cell: NotebookNode, cell_index: int) -> None:
        nonlocal at
        at = cell_index

    def begins(**_: object) -> None:
        limit.reschedule(asyncio.get_running_loop().time() + seconds)

    client = NotebookClient(
        notebook,
        timeout=None,  # the whole run is bounded, below
        allow_errors=False,
        kernel_name="python3",
        shutdown_kernel="immediate",
        on_cell_start=starts,
        on_notebook_start=begins,
    )
    limit = asyncio.timeout(None)
    try:
        async with limit:
            await client.async_execute(cwd=str(folder))
    except CellExecutionError as error:
        return Run(notebook, at, error.ename, error.evalue)
    except (TimeoutError, DeadKernelError) as error:
        # Out of time, the kernel is killed, and which of the two is noticed first is a matter of luck.
        if limit.expired():
            return Run(notebook, at, "TimeoutError", f"not done after {seconds:g} seconds")
        return Run(notebook, at, type(error).__name__, str(error))
    return Run(notebook)


def forget_learners_settings() -> None:
    """Take a learner's model, keys and server out of this process's environment."""
    _forget_server_and_keys()
    os.environ["LLM_MODEL"] = "offline/rules"
    os.environ["WORKSHOP_ENV_FILE"] = str(NO_ENV_FILE)


@contextmanager
def isolated_state() -> Iterator[Path]:
    """An environment with a state folder of its own; at the end what runs there is stopped.

    No shared server is in reach either: what runs within starts its own, and a kernel has its own network.
    """
    before = dict(os.environ)
    folder = state_folder()
    _forget_server_and_keys()
    os.environ["WORKSHOP_STATE_DIR"] = str(folder)
    kernel_alone.use_where_possible()
    try:
        yield folder
    finally:
        os.environ.clear()
        os.environ.update(before)
        clear(folder)


def state_folder() -> Path:
    """A new state folder, whose name tells which process has made it."""
    # Directly below the temporary folder: socket paths have to be short.
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


def clear(folder: Path) -> None:
    """Stop what runs in a state folder, and remove it."""
    _stop_server(folder)
    _stop_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers() -> None:
    """Clear the state folders of processes that were killed and could not do it themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        maker = folder.name.removeprefix(PREFIX).split("-")[0]
        if maker.isdigit() and not psutil.pid_exists(int(maker)):
            clear(folder)


def _forget_server_and_keys() -> None:
    for name in list(os.environ):
        if name.startswith("TEMPORAL_") or name.endswith("_API_KEY"):
            del os.environ[name]


def _stop_server(folder: Path) -> None:
    """Stop the server in the way that `workshop down` does."""
    if importlib.util.find_spec("workshop_lib.lab.server.lifecycle") is None:
        return
    from workshop_lib.lab.server import lifecycle as server

    server.stop(folder)


def _stop_processes(folder: Path) -> None:
    """End what still runs with this state folder: a worker whose kernel is gone, for one."""
    left = processes_of(folder)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):  # it left by itself since the look
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=5)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process, but this one, that was started with this state folder."""
    return [process for process in psutil.process_iter() if _lives_in(process, folder)]


def runs(process: psutil.Process, program: str) -> bool:
    """Whether a part of its command line holds this text; a process that has gone runs nothing."""
    try:
        return program in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _lives_in(process: psutil.Process, folder: Path) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return process.environ().get("WORKSHOP_STATE_DIR") == str(folder)
    except psutil.Error:
        return False
