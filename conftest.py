"""The environment of every test, and of every kernel that a test starts.

The offline model answers, no `.env` is read, no key is in reach, and state goes to temporary folders:
tests spend no money and leave the learner's own `.workshop` alone. It stands at the root so that it
holds for the notebooks in `solutions/` too.
"""

import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
# Helpers of the tests and of the builder are plain modules.
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from notebook_runner import clear_leftovers, forget_learners_settings, isolated_state  # noqa: E402

pytest_plugins = ["crashed_workers", "no_skips"]
_session = ExitStack()


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


def pytest_itemcollected(item: pytest.Item) -> None:
    """Of the solutions the first one runs, and all do with `-m long`.

    `tests/test_notebooks.py` runs every cell of each of them too, after its stub.
    """
    if getattr(item, "nbmake", False) and not item.path.name.startswith("00_"):
        item.add_marker(pytest.mark.long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A solution notebook runs with a state folder, and so a server, of its own."""
    if not getattr(item, "nbmake", False):
        return (yield)
    with isolated_state():
        return (yield)
