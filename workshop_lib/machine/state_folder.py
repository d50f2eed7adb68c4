"""The state folder: which folder may be one, what in it is ours, how it is made and how it is deleted.

A marker says that a folder is a state folder, and what lay in it before. Only what the list below names is
ever deleted, and nothing that was there first: whoever points `WORKSHOP_STATE_DIR` at the wrong place loses
no file. All of it is for the user alone (0700 and 0600), whatever the umask and however it came about. Left
out: what is written there, and the processes that live in it (`lab.services.cleaning`).
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from workshop_lib.errors import WorkshopError
from workshop_lib.machine import environment

MARKER = "workshop-state.json"

_DATABASE = r"(-wal|-shm|-journal)?"
_SERVER = rf"logs/server\.log(\.1)?|temporal(-[\d.]+)?\.db{_DATABASE}|temporal\.db\.version"
# Everything that the workshop writes there, by its path. What is added to the library is added here: else
# `workshop clean` says that it stays.
_FILES = re.compile(
    rf"""workshop-state\.json | (\w+/){{0,2}}\.workshop-\w{{8}}\.part | {_SERVER}
    | layout-\w+/({_SERVER}) | probe-\w+/probe\.db{_DATABASE}
    | server(-starting)?\.json | (server|services|progress)\.lock
    | mcp-(it|finance|repair)(-\d+)?(\.json|\.\d+\.tmp)
    | orders(\.damaged[\w.-]*)?\.db{_DATABASE} | orders\.db\.damaged[\w.-]* | shelf\.json
    | results\.db{_DATABASE}
    | progress(\.damaged)?\.json | faults-[\w-]+\.count | chaos/[\da-f]{8}-[\da-f]{8}\.jsonl
    | logs/(server|fork-server|naked|checks|errors|orchestrator|it|finance|repair)\.log(\.1)?
    | logs/(mcp-\w+|worker-[^/]+)\.log(\.1)?
    | services/([^/]+-\d+|orchestrator|it|finance|repair|mcp-\w+)\.json
    | cells/[A-Za-z]\w*__[0-9a-f]{{12}}\.py
    | cells/__pycache__/[A-Za-z]\w*__[0-9a-f]{{12}}\.[\w.-]+\.pyc(\.\d+)?
    | identity/(issuer|jwks|seal-\w+|grants/[0-9a-f]{{32}})\.json
    | reports/[\w.-]+-[0-9a-f]{{6}}-\w+\.(md|pdf) | outbox/[\w.-]+-[0-9a-f]{{6}}-[\w-]+\.eml""",
    re.VERBOSE,
)
_FOLDERS = re.compile(
    r"logs|chaos|services|cells|cells/__pycache__|reports|outbox|identity(/grants)?|probe-\w+|layout-\w+(/logs)?"
)
# In a state folder that is older than its marker; no other program makes it.
_EVIDENCE = "temporal.db.version"
# What may lie there all the same: settings, and what file managers and file systems leave.
_HARMLESS = re.compile(r".*\.env|\.DS_Store|Thumbs\.db|desktop\.ini|lost\+found")
_tightened: set[Path] = set()


def check(folder: Path, project: Path, workspace: Path) -> None:
    """Refuse a folder that cannot be the state folder.

    Raises:
        WorkshopError: it is, or holds, the project or a home; it is the workspace; or others' files are
            in it.
    """
    real = _real(folder)
    homes = {Path(os.path.expanduser(name)) for name in ("~", f"~{os.environ.get('USER', '')}")}  # noqa: PTH111
    for precious in (project, *homes):
        if real == _real(precious) or real in _real(precious).parents:
            raise _refusal(folder, f"it is or holds {precious}")
    if real == _real(workspace):
        raise _refusal(folder, "your notebooks are kept there")
    foreign = [] if _is_ours(real) else _foreign(real)
    if foreign:
        raise _refusal(folder, f"it holds what is not the workshop's: {', '.join(foreign[:3])}")


def made(folder: Path, *below: str) -> Path:
    """A folder in the state folder, or the state folder itself: made, marked, and closed to others.

    Raises:
        OSError: it cannot be written.
    """
    root = _real(folder)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (root / MARKER).exists():
        before = [] if _is_ours(root) else sorted(path.name for path in root.iterdir())
        with contextlib.suppress(FileExistsError), (root / MARKER).open("x") as marker:
            json.dump({"about": "state of the agents workshop", "before": before}, marker)
    if root not in _tightened:
        _tightened.add(root)
        _tighten(root)
    root.joinpath(*below).mkdir(mode=0o700, exist_ok=True)
    return folder.joinpath(*below)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the system says of a folder that cannot be written, as something that a person can act on.

    Raises:
        WorkshopError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WorkshopError(
            f"The state folder {folder} cannot be written: {error.strerror}.",
            expected="a folder on a local disk that belongs to you.",
            fix="set WORKSHOP_STATE_DIR to another folder, or repair the permissions of this one.",
        ) from None


@contextlib.contextmanager
def held(
    folder: Path,
    name: str,
    timeout: float,
    too_long: WorkshopError,
    waits: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Hold a state folder for a purpose: of two processes, the second waits.

    Args:
        name: of the purpose.
        timeout: seconds that it may wait.
        waits: called where it has to.

    Raises:
        WorkshopError: `too_long`; or the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # late: every command has a state folder, few hold it

    lock = FileLock(folder / f"{name}.lock")
    with writing(folder):
        made(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waits()
            try:
                lock.acquire(timeout=timeout)
            except Timeout:
                raise too_long from None
    try:
        yield
    finally:
        lock.release()


def delete(folder: Path) -> list[str]:
    """Delete what is ours in a state folder, and the folder where nothing else is in it.

    A folder that a link leads to stays, and is empty: the link would lead nowhere.

    Returns:
        What stayed: each path with the reason.
    """
    root = _real(folder)
    if not root.is_dir() or not any(root.iterdir()):
        return []
    if not _is_ours(root):
        return [f"{root}: it was not made by the workshop"]
    stayed: list[str] = []
    for path, ours in _inside(root, stayed):
        if path == root / MARKER:
            continue
        if not ours:
            stayed.append(f"{path}: it is not the workshop's")
            continue
        try:
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            if not any(line.startswith((f"{path}:", f"{path}{os.sep}")) for line in stayed):
                stayed.append(f"{path}: {error.strerror}")
    if not stayed:  # else it goes on being a state folder
        try:
            (root / MARKER).unlink(missing_ok=True)
            if not folder.is_symlink():
                root.rmdir()
        except OSError as error:
            stayed.append(f"{root}: {error.strerror}")
    _tightened.discard(root)
    return stayed


def _tighten(root: Path) -> None:
    """Close to others what an earlier version, or another umask, has left open."""
    for path, ours in [(root, True), *_inside(root, [])]:
        with contextlib.suppress(OSError):  # another's, or of a file system without modes
            mode = path.lstat().st_mode
            if ours and stat.S_IMODE(mode) & 0o077:
                path.chmod(stat.S_IMODE(mode) & 0o700)


def _inside(root: Path, unreadable: list[str]) -> Iterator[tuple[Path, bool]]:
    """All that is below a state folder, a folder after its content, and whether it is ours."""
    before = _before(root)

    def note(error: OSError) -> None:
        unreadable.append(f"{error.filename}: {error.strerror}")

    for where, folders, files in os.walk(root, topdown=False, onerror=note):
        for name in (*files, *folders):
            path = Path(where, name)
            inside = path.relative_to(root)
            kind = _FOLDERS if name in folders else _FILES
            ours = kind.fullmatch(inside.as_posix()) and inside.parts[0] not in before
            yield path, bool(ours) and not path.is_symlink()


def _is_ours(root: Path) -> bool:
    return root.name == ".workshop" or any((root / n).is_file() for n in (MARKER, _EVIDENCE))


def _before(root: Path) -> list[str]:
    try:
        return list(json.loads((root / MARKER).read_text(encoding="utf-8"))["before"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _foreign(root: Path) -> list[str]:
    """The names that are in a folder and that nothing of ours has."""
    try:
        names = sorted(os.listdir(root))  # noqa: PTH208
    except OSError:  # none yet, or none that can be used: whoever writes there says so
        return []
    kinds = (_FILES, _FOLDERS, _HARMLESS)
    others = [name for name in names if not any(kind.fullmatch(name) for kind in kinds)]
    return [name for name in others if not environment.names(root / name)]


def _real(path: Path) -> Path:
    """Where a path leads to. A link that leads in a circle leads to itself."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _refusal(folder: Path, reason: str) -> WorkshopError:
    return WorkshopError(
        f"{folder} cannot be the state folder: {reason}.",
        expected="a folder of its own, which may not exist yet. Nothing was changed there.",
        fix="set WORKSHOP_STATE_DIR to another folder, or unset it.",
    )
