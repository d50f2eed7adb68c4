"""The `workshop` command as a process, in a state folder of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from notebook_runner import isolated_state

BIN = Path(sys.executable).parent
LIMIT = 90  # seconds for one command


@dataclass(frozen=True)
class Workshop:
    """Runs the command. `state` is its state folder."""

    state: Path

    def __call__(
        self, *arguments: str, typed: str = "", **env: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            input=typed,
            capture_output=True,
            text=True,
            timeout=LIMIT,
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
