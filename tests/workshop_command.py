"""The `workshop` command as a process, in a state folder of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from notebook_runner import isolated_state
from warm_command import run_warm

BIN = Path(sys.executable).parent
LIMIT = 90  # seconds for one command


@dataclass(frozen=True)
class Workshop:
    """Runs the command. `state` is its state folder."""

    state: Path

    def __call__(
        self, *arguments: str | bytes, typed: str = "", **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run it to its end, in a process that has all loaded."""
        return run_warm(arguments, self.environment(**env), typed=typed, limit=LIMIT)

    def python(self, code: str) -> str:
        """Run Python as a notebook's kernel would, in this state folder; it ends well. Returns its stdout."""
        done = run_warm([], self.environment(), code=code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cold(
        self, *arguments: str, typed: str = "", **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run it in a Python of its own: for what is read before our first line, or while libraries load."""
        return self.run(self.command(*arguments), typed=typed, **env)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        typed: str = "",
        cwd: Path | None = None,
        **env: str,
    ) -> "subprocess.CompletedProcess[str]":
        """Run any program to its end, in this state folder."""
        return subprocess.run(
            command,
            input=typed,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            cwd=cwd,
            env=self.environment(**env),
        )

    def command(self, *arguments: str) -> list[str]:
        return [str(BIN / "workshop"), *arguments]

    def environment(self, **env: str) -> dict[str, str]:
        return os.environ | {"WORKSHOP_STATE_DIR": str(self.state)} | env


@contextmanager
def workshop_command() -> Iterator[Workshop]:
    """The command; in the end everything that lives in its state folder ends too."""
    with isolated_state() as state:
        (state / "empty.env").touch()
        yield Workshop(state)
