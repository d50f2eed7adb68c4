"""The lab itself (`workshop` alone), and `workshop doctor`, `progress`, `clean` and `notebook …`.

Left out: what they do (`workshop_lib.lab`).
"""

import asyncio
import signal
from typing import Annotated

import typer

from workshop_lib.cli.support import Answer, Json, command, prepare, start_server
from workshop_lib.edge import say
from workshop_lib.lab.doctor import examination
from workshop_lib.lab.jupyter import progress as record
from workshop_lib.lab.jupyter.notebooks import reset_notebook
from workshop_lib.lab.jupyter.start import run_jupyter
from workshop_lib.lab.server.lifecycle import stop
from workshop_lib.lab.services import cleaning
from workshop_lib.settings import get_settings

app = typer.Typer()
notebook_app = typer.Typer(no_args_is_help=True)
app.add_typer(notebook_app, name="notebook")


def run_lab(*, browser: bool, port: int | None) -> None:
    """Start the dev server, examine the machine and open JupyterLab; stop what was started at the end."""
    _leave_in_order()
    server = start_server()
    try:
        asyncio.run(prepare(server))
        say(examination.render(asyncio.run(examination.examine())))
        arguments = [f"--port={port}"] if port else []
        status = run_jupyter(browser=browser, say=say, arguments=arguments)
    finally:
        if server.started:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # one Ctrl-C too many must not leave it
            stop()
            say("Dev server stopped. Its data stays in the state folder.")
    raise typer.Exit(1 if status else 0)


def _leave_in_order() -> None:
    """From here on SIGTERM and a closed terminal end the command by way of its clean-up."""

    def leave(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), leave)


@command(app)
async def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False,
    as_json: Json = False,
) -> Answer:
    """Examine the machine and the lab; each line says how to repair what is wrong."""
    findings = await examination.examine(fix=fix)
    failed = any(finding.status == "FAIL" for finding in findings)
    return Answer(findings, examination.render(findings), failed)


@command(app)
def progress(as_json: Json = False) -> Answer:
    """Show which checks have passed."""
    done = record.read()
    lines = [
        f"{notebook}  {name:<28} {'passed' if entry.passed else 'not yet'}"
        for notebook, checks in sorted(done.items())
        for name, entry in checks.items()
    ]
    return Answer(done, "\n".join(lines) or "No check has been run yet.")


@command(app)
def clean(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> Answer | None:
    """Stop everything and delete the state folder: histories, logs, progress. Other files stay."""
    folder = get_settings().state_dir
    if not folder.is_dir() or not any(folder.iterdir()):
        say(f"There is nothing to delete in {folder}.")
        return None
    if not yes and not typer.confirm(f"Delete {folder}?"):
        return Answer(failed=True)
    if stayed := cleaning.clean(folder):
        more = [f"and {len(stayed) - 10} more"] if len(stayed) > 10 else []
        say("\n".join([f"{folder} is not gone. What stayed:", *stayed[:10], *more]))
        return Answer(failed=True)
    say(f"{folder} is {'empty' if folder.exists() else 'gone'}.")
    return None


@notebook_app.callback()
def notebook() -> None:
    """Your copies of the notebooks."""


@command(notebook_app)
def reset(number: Annotated[str, typer.Argument(help="Its number, such as 01.")]) -> None:
    """Replace your copy of one notebook by a fresh one; the old one is kept as a backup."""
    backup = reset_notebook(number, get_settings().workspace)
    say(f"Notebook {number} is fresh." + (f" Your copy is kept as {backup}." if backup else ""))
