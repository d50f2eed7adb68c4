"""The `%%workflow NAME` cell magic: workflow code in a notebook, with the full sandbox on.

The sandbox imports a workflow's module anew for every run, which a notebook's own namespace does not
allow. So the cell becomes a module: a file whose name holds a hash of its content, imported as usual. Its
names are put into the notebook, and the workers that ran an earlier version of the cell are restarted
with the new one.

Left out: where the files lie and how a traceback finds its cell (`lab.watching.cell_files`).
"""

import asyncio
import contextlib
import hashlib
import importlib
import symtable
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import registered, stop_worker
from workshop_lib.lab.watching.cell_files import (
    cell_of,
    file_name,
    locate_in_exception,
    note_loaded,
    put_on_path,
)
from workshop_lib.lab.workers import threads as workers
from workshop_lib.machine.files import write_whole
from workshop_lib.temporal.versions import in_words
from workshop_lib.temporal.worker import WorkerSpec

MAGIC = "workflow"
KEEP = 20  # versions of a cell that stay on disk in any case
_cell_task: "asyncio.Task[Any] | None" = None  # that runs the latest cell
KEEP_SECONDS = 24 * 3600  # and whatever is younger: a run of today may need it


def load_ipython_extension(ip: Any) -> None:
    """What `%load_ext workshop_lib.lab.workers.cells` calls."""
    register(ip)


def register(ip: Any) -> None:
    """Give an IPython shell the `%%workflow NAME` cell magic."""

    def workflow_cell(line: str, cell: str) -> None:
        """Make a module of this cell and run its workflows in the sandbox: `%%workflow NAME`."""
        name = line.strip()
        try:
            module = load_cell(name, cell, notebook_names=set(ip.user_ns))
            names = _public_names(cell, module)
            ip.push({public: getattr(module, public) for public in names}, interactive=False)
            restarted = _restart_users(name, module)
        except WorkshopError:
            note_loaded(name, False)
            raise
        note_loaded(name, True)
        print(_report(name, module, names, restarted))

    ip.register_magic_function(workflow_cell, "cell", MAGIC)
    ip.events.register("pre_run_cell", _note_cell)


def in_front() -> bool:
    """True in the task of the cell that runs: whoever has run it waits for what that awaits."""
    return asyncio.current_task() is _cell_task


def _note_cell(info: Any) -> None:
    global _cell_task
    with contextlib.suppress(RuntimeError):  # a shell without a loop
        _cell_task = asyncio.current_task()


def load_cell(name: str, text: str, *, notebook_names: set[str] | None = None) -> ModuleType:
    """Import a cell's text as a module. The same text gives the same module, at once.

    Args:
        name: what people call the cell; an identifier.
        text: the cell without its magic line.
        notebook_names: names of the notebook, to explain a NameError that they would have prevented.

    Raises:
        WorkshopError: the name cannot be used, or the text does not compile or import; with the cell's line.
    """
    if not (name.isidentifier() and name.isascii()) or name.startswith("_"):
        raise WorkshopError(
            f"%%{MAGIC} {name}".rstrip() + " lacks a name that can be used.",
            expected=f"`%%{MAGIC} greeting`: letters, digits and underscores, first a letter.",
            fix="give the cell a name on its first line.",
        )
    content = f"# %%{MAGIC} {name}\n{text}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    file = put_on_path() / file_name(name, digest)
    _write(file, content)
    try:
        compile(content, str(file), "exec")
        importlib.invalidate_caches()
        module = importlib.import_module(file.stem)
    except Exception as error:
        raise _explained(name, error, notebook_names or set()) from error
    _forget_old_versions(name, file)
    return module


def _write(file: Path, content: str) -> None:
    """Put a version on disk whole, or mark it as the one in use if it is there already."""
    if file.exists():
        file.touch()
        return
    write_whole(file, content)


def _forget_old_versions(name: str, current: Path) -> None:
    versions = [file for file in current.parent.glob("*.py") if cell_of(file.name) == name]
    versions.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    for file in versions[KEEP:]:
        if file != current and time.time() - file.stat().st_mtime > KEEP_SECONDS:
            file.unlink(missing_ok=True)


def _explained(name: str, error: Exception, notebook_names: set[str]) -> WorkshopError:
    """What is wrong with a cell, by its line."""
    line = locate_in_exception(error)
    where = str(line) if line else f"cell `{name}`"
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    what = f"In {where}\n{type(error).__name__}: {said}"
    if isinstance(error, NameError):
        known = error.name in notebook_names
        return WorkshopError(
            what,
            expected="a workflow cell is a module of its own: it sees no variable of the notebook."
            if known
            else None,
            fix=f"import or define `{error.name}` in the cell itself, and run it again.",
        )
    if isinstance(error, ModuleNotFoundError):
        return WorkshopError(
            what, fix="correct the import; `uv sync` installs what the project needs."
        )
    return WorkshopError(what, fix="change the cell and run it again.")


def _public_names(text: str, module: ModuleType) -> list[str]:
    """What the cell itself defines, in no need of an underscore; not what it imports."""
    symbols = symtable.symtable(text, module.__name__, "exec").get_symbols()
    names = [s.get_name() for s in symbols if s.is_assigned() and not s.is_imported()]
    return [name for name in names if not name.startswith("_") and hasattr(module, name)]


def _restart_users(name: str, module: ModuleType) -> list[str]:
    """Restart the workers that run another version of this cell. Returns what to say about each."""
    said = []
    for worker in registered().values():
        spec, gone = _with_new_version(worker.spec, name, module)
        if spec == worker.spec:
            continue
        if spec.version:
            said.append(f"{in_words(spec.version)} keeps its code; new code is another version")
        elif not isinstance(worker, workers.RunningWorker):
            said.append(f"worker process {spec.name} still runs the old code, start it again")
        elif not (spec.workflows or spec.activities or spec.nexus_handlers):
            stop_worker(spec.name)
            said.append(f"worker {spec.name} stopped, for {', '.join(gone)} is gone")
        else:
            workers.start_worker_now(spec)
            missing = f" without {', '.join(gone)}" if gone else ""
            said.append(f"worker {spec.name} restarted{missing}")
    return said


def _with_new_version(
    spec: WorkerSpec, name: str, module: ModuleType
) -> tuple[WorkerSpec, list[str]]:
    """A spec with the cell's present classes and functions, and the names the cell no longer has."""
    gone: list[str] = []

    def present(items: Any) -> tuple[Any, ...]:
        found = []
        for item in items:
            if cell_of(item.__module__) != name or item.__module__ == module.__name__:
                found.append(item)
            elif hasattr(module, item.__qualname__):
                found.append(getattr(module, item.__qualname__))
            else:
                gone.append(item.__qualname__)
        return tuple(found)

    kinds: dict[str, Any] = {
        kind: present(getattr(spec, kind)) for kind in ("workflows", "activities", "nexus_handlers")
    }
    changed = {kind: items for kind, items in kinds.items() if items != tuple(getattr(spec, kind))}
    return replace(spec, **changed) if changed else spec, gone


def _report(name: str, module: ModuleType, names: list[str], restarted: list[str]) -> str:
    shown = [public for public in names if callable(getattr(module, public))] or names
    loaded = f"workflow cell `{name}` loaded: {', '.join(shown) or 'nothing public'}"
    return "; ".join([loaded, *restarted])
