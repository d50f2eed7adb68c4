"""The environment of every test, and of every kernel that a test starts.

The offline model answers, no `.env` is read, no key is in reach, and state goes to temporary folders:
tests spend no money and leave the learner's own `.workshop` alone. It stands at the root so that it
holds for the notebooks in `solutions/` too.
"""

import os
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).resolve().parent
# Helpers of the tests and of the builder are plain modules.
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from notebook_runner import clear_leftovers, forget_learners_settings, isolated_state  # noqa: E402

pytest_plugins = ["crashed_workers"]
_session = ExitStack()
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module, and with it any setting, is read."""
    # A test worker inherits what the controller has set, a shared server's address included.
    if not hasattr(config, "workerinput"):
        forget_learners_settings()
        clear_leftovers()
    _session.enter_context(isolated_state())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what tests have left running, and remove their folder."""
    _session.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A solution notebook runs with a state folder, and so a server, of its own."""
    if not getattr(item, "nbmake", False):
        return (yield)
    with isolated_state():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """See `_no_skips`."""
    return _no_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """See `_no_skips`."""
    return _no_skips((yield))


def _no_skips(report: Report) -> Report:
    """On CI (`CI=true`) what is skipped has failed: there everything that a test needs is installed."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report
