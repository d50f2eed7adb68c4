"""The house rules that tools can keep: lint, format, types, walls, and what may be imported when."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import workshop_lib
from workshop_lib import errors

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_tools_find_nothing(command: list[str]) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


LIGHT = (
    *("temporal.connect", "agents.loops.manual", "repair.client", "repair.proactive"),
    *("cli.chat", "cli.repair", "cli.services", "cli.lab", "cli.mcp"),
)
HELP = """
import sys
from typer.testing import CliRunner
from workshop_lib.cli.main import app

result = CliRunner().invoke(app, ["--help"])
print(result.exit_code, "temporalio" in sys.modules, "doctor" in result.output)
"""
HEAVY = """
print([name for name in ("litellm", "openai", "agents", "fastmcp") if name in sys.modules])
"""


def test_nothing_is_imported_before_it_is_needed() -> None:
    """The help does not even import Temporal; what workflows and clients import loads no model library."""
    code = HELP + "".join(f"import workshop_lib.{module}\n" for module in LIGHT) + HEAVY
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["0 False True", "[]"], done.stderr


def test_the_tree_of_errors_is_drawn_where_they_begin() -> None:
    for module in pkgutil.walk_packages(workshop_lib.__path__, "workshop_lib."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def drawn(error: type, depth: int) -> set[tuple[int, str, str]]:
        children = [c for c in error.__subclasses__() if c.__module__.startswith("workshop_lib.")]
        public = {(depth, c.__name__, c.__module__) for c in children if c.__name__[0] != "_"}
        return public.union(*(drawn(child, depth + 4) for child in children))

    lines = (errors.__doc__ or "").partition("    WorkshopError\n")[2].splitlines()
    assert {
        (len(line) - len(line.lstrip()), line.split()[0], f"workshop_lib.{line.split()[-1]}")
        for line in lines
    } == drawn(errors.WorkshopError, 8)
