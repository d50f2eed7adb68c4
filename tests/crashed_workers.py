"""A test process that dies costs a rerun of what its file had left to do, and not the run.

The SDK's native threads sometimes let go of a Python object after Python has ended its thread, and the
process aborts (`PyGILState_Release`); no test can prevent it. pytest-xdist can replace
such a process, but its scheduler by file then waits for ever: a replacement needs two files, or the word
that there is no second, before it begins. Left out: a test that ends its process each time; it fails.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

RERUN = "rerun"
ALONE = "test_notebooks.py"
_crashed: dict[str, int] = {}  # how often a process died in this test


class ReplacingScheduling(LoadFileScheduling):
    """Files to processes, as `--dist=loadfile` does, also to a process that replaces a dead one.

    The tests of `ALONE` share nothing and take long: each goes to a process by itself.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return nodeid if file.endswith(ALONE) else file

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a dead process's unfinished files back; a test it died in twice does not come again."""
        work = self.assigned_work[node]
        for file in [file for file, tests in work.items() if all(tests.values())]:
            del work[file]  # else a replacement is given a file in which nothing is left to do
        # As the base class finds it: the first test without a result.
        running = next(
            (t for tests in work.values() for t, done in tests.items() if not done), None
        )
        if running:
            _crashed[running] = _crashed.get(running, 0) + 1
        crashed = super().remove_node(node)
        if running and _crashed[running] > 1:
            self.workqueue[self._split_scope(running)][running] = True
        return crashed

    def schedule(self) -> None:
        """Give a replacement its second file too, or tell it that there is none."""
        late = self.collection is not None
        super().schedule()
        if late:
            super().schedule()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Take our scheduler where files are asked for."""
    if config.getvalue("dist") == "loadfile":
        return ReplacingScheduling(config, log)
    return None


def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport) -> None:
    """The first time is no failure: the test comes again."""
    if _crashed[crashitem] == 1:
        report.outcome = RERUN  # type: ignore[assignment]


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """How a rerun is counted and drawn."""
    return (RERUN, "R", "RERUN") if report.outcome == RERUN else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests in which a process died."""
    for test in _crashed:
        terminalreporter.write_line(
            f"A test process died in {test}; what its file had left ran again."
        )
