"""A dev server, a notebook's shell and workflow cells, for the tests of the lab."""

import contextlib
import io
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from lab_environment import fresh, lab

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import stop_all
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.watching import cell_files
from workshop_lib.lab.workers import cells
from workshop_lib.temporal.worker import WorkerSpec

# The cell's own lines, as a learner counts them: the magic is line 1.
GREETING = """\
from datetime import timedelta
from temporalio import activity, workflow

@activity.defn
async def say_hello(name: str) -> str:
    return f"Hello, {name}!"

@workflow.defn
class Greeting:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(
            say_hello, name, start_to_close_timeout=timedelta(seconds=5)
        )
"""


class Notebook:
    """An IPython shell that runs cells and hands back what they printed."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.printed = ""

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]

    def run(self, text: str) -> None:
        """Run a cell as it stands; what it raises is raised here."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            done = self.shell.run_cell(text)
        self.printed = out.getvalue()
        done.raise_error()

    def workflow(self, name: str, text: str) -> None:
        """Run a workflow cell."""
        self.run(f"%%workflow {name}\n{textwrap.dedent(text).lstrip()}")

    def error(self, name: str, text: str) -> WorkshopError:
        """The error of a workflow cell that cannot be used."""
        with pytest.raises(WorkshopError) as raised:
            self.workflow(name, text)
        return raised.value


@contextlib.contextmanager
def dev_server(folder: Path) -> Iterator[str]:
    """A server in memory, and the environment that leads to it. Yields its address."""
    with lab(folder):
        try:
            yield server.ensure_server(in_memory=True).address
        finally:
            stop_all()
            # Else a check in a later file of this process would speak of a cell that a test has left broken.
            cell_files._loaded.clear()


def notebook() -> Notebook:
    """A fresh namespace in the one shell that a process can have."""
    shell = InteractiveShell.instance()
    shell.reset(new_session=True)
    cells.register(shell)
    return Notebook(shell)


def spec_of(
    *code: Any, name: str | None = None, queue: str | None = None, namespace: str = "default"
) -> WorkerSpec:
    """A worker of these workflows and activities."""
    return WorkerSpec(
        name=name or fresh("worker"),
        namespace=namespace,
        task_queue=queue or fresh("queue"),
        workflows=[item for item in code if isinstance(item, type)],
        activities=[item for item in code if not isinstance(item, type)],
    )
