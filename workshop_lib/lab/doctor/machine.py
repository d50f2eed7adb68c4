"""What the doctor looks at without a server: Python, packages, keys, folders, kernels, proxies.

A look yields findings and changes nothing, except `state_folder` when it may; a `WorkshopError` that it runs
into is one, too. Left out: the server and what lives on it, and the report (`examination`).
"""

import asyncio
import importlib.metadata
import json
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from temporalio import workflow
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from workshop_lib import settings
from workshop_lib.auth.issuer import people
from workshop_lib.auth.keys import FOLDER
from workshop_lib.lab.server import dev_server
from workshop_lib.machine.environment import lacking, left_out
from workshop_lib.machine.state_folder import made
from workshop_lib.teams.finance.workflows import StockPriceWorkflow
from workshop_lib.temporal.worker import RESTRICTIONS

PROJECT = "durable-agents-workshop"
ROOM = 500_000_000  # bytes that a day of lessons may write
# How the providers' keys begin. OpenAI's also fits Anthropic's, which is why that one comes first.
KEY_BEGINNINGS = {
    "ANTHROPIC_API_KEY": ("sk-ant-",),
    "OPENAI_API_KEY": ("sk-",),
    "GOOGLE_API_KEY": ("AIza", "AQ."),
}


@dataclass(frozen=True)
class Finding:
    """What was looked at and how it is.

    Attributes:
        name: of the look.
        status: OK, WARN (the lab works, with a limit that the text names) or FAIL (something will not work).
        text: one sentence for a person; never a secret.
        repair: the command or change that repairs it; None where nothing is wrong.
    """

    name: str
    status: Literal["OK", "WARN", "FAIL"]
    text: str
    repair: str | None = None


def ok(text: str) -> Finding:
    """All is right."""
    return Finding("", "OK", text)


def warn(text: str, repair: str) -> Finding:
    """The lab works all the same."""
    return Finding("", "WARN", text, repair)


def fail(text: str, repair: str) -> Finding:
    """Something will not work."""
    return Finding("", "FAIL", text, repair)


def python_version() -> Iterator[Finding]:
    """This Python against the project's range."""
    wanted = _project()["requires-python"]
    here = platform.python_version()
    if not SpecifierSet(wanted).contains(here, prereleases=True):
        yield fail(f"{here} is not in {wanted}", "uv sync --python 3.12")
    elif missing := lacking():
        what = f"{here} ({sys.executable}) was built without {', '.join(missing)}"
        yield fail(what, "uv sync --python /usr/bin/python3, or another whole Python")
    else:
        yield ok(f"{here} ({sys.executable})")


def environment_variables() -> Iterator[Finding]:
    """What the environment says can be used by the clients that call models. No value is shown."""
    trouble = left_out()
    for name, reason in trouble.items():
        repair = f"correct or unset {name}; nothing is lost by that for the offline model"
        yield warn(f"{name} is left out: {reason}", repair)
    try:  # what these two read is more than is known here
        import httpx  # LiteLLM's
        import httpx2

        httpx.Client().close()
        httpx2.Client().close()
    except Exception as error:
        suspects = sorted(n for n in os.environ if re.search(r"_PROXY$|^SSL|_BUNDLE$", n.upper()))
        names = ", ".join(suspects) or "a setting of this machine"
        what = f"no HTTP client can be made ({type(error).__name__}) because of one of: {names}"
        yield fail(what, f"unset {names}")
    else:
        if not trouble:
            yield ok("no variable is in the way")


def packages() -> Iterator[Finding]:
    """The installed packages against the project's ranges: an update of the project may have moved them."""
    wanted = [Requirement(line) for line in _project()["dependencies"]]
    wanted = [package for package in wanted if not package.marker or package.marker.evaluate()]
    wrong = [problem for package in wanted if (problem := _out_of_range(package))]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield fail("; ".join(wrong[:3]) + more, "uv sync, then restart the kernel")
    else:
        yield ok(f"all {len(wanted)} are in their ranges")


def _out_of_range(wanted: Requirement) -> str | None:
    try:
        here = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted.name} is missing"
    fits = wanted.specifier.contains(here, prereleases=True)
    return None if fits else f"{wanted.name} is {here}, wanted {wanted.specifier}"


def temporal_cli() -> Iterator[Finding]:
    """The program that holds the dev server."""
    cli = dev_server.find_cli()
    version = dev_server.server_version(cli)
    if version is None:
        yield warn(f"{cli} does not say its version", "uv sync")
    else:
        yield ok(f"server {version} ({cli})")


def dotenv_file() -> Iterator[Finding]:
    """`.env` can be read, where there is one."""
    path = settings.env_file()
    if not path.exists():
        yield ok("none, which is fine: defaults and the offline model")
        return
    settings.get_settings()
    yield ok(f"read from {path}")


def model() -> Iterator[Finding]:
    """Which model answers."""
    chosen = settings.get_settings()
    choice = chosen.model
    if not choice.offline:
        yield ok(f"{choice.name} ({choice.why})")
        return
    text, wanted = f"offline model ({choice.why})", chosen.llm_model.strip()
    if wanted in ("", "offline", settings.OFFLINE_MODEL):
        yield ok(text)
    else:
        yield warn(text, f"put the key for {wanted} into .env, or remove LLM_MODEL there")


def keys() -> Iterator[Finding]:
    """Whether what is set as a provider's key can be one. No part of a key is shown."""
    in_file = dotenv_values(settings.env_file(), interpolate=False)
    for provider, (variable, _) in settings.PROVIDERS.items():
        key = settings.provider_key(variable)
        if key is None and (os.environ.get(variable) or in_file.get(variable)):
            yield ok(f"{variable} is a placeholder, which counts as no key")
        elif key is not None and not _looks_like_key(variable, key):
            yield warn(
                f"{variable} does not look like a key of {provider}",
                f"paste the whole key after {variable}= in .env, without quotes or spaces",
            )


def _looks_like_key(variable: str, key: str) -> bool:
    if len(key) < 16 or re.search(r"\s|[\"'<>]", key):
        return False
    if os.environ.get("LLM_API_BASE"):
        return True  # a server of one's own has keys of its own
    fits = next((v for v, begin in KEY_BEGINNINGS.items() if key.startswith(begin)), None)
    return fits == variable


def state_folder(*, fix: bool = False) -> Iterator[Finding]:
    """The state folder can be written, has room, and takes a write-ahead log."""
    folder = settings.get_settings().state_dir.absolute()
    elsewhere = "set WORKSHOP_STATE_DIR to a folder on a local disk that belongs to you"
    try:
        if fix:
            made(folder)
        there = folder
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield fail(f"{folder} cannot be written: {error.strerror}", elsewhere)
        return
    if shutil.disk_usage(there).free < ROOM:
        yield warn(f"{folder}: less than 500 MB free", "workshop clean")
    elif not dev_server.supports_wal(there):
        slow = "is on a file system without write-ahead logging: the server is half as fast"
        yield warn(f"{folder} {slow}", elsewhere)
    elif folder.exists() and folder.stat().st_mode & 0o077:
        text = f"{folder} is open to other users of this machine"
        yield warn(text, f"workshop doctor --fix, or chmod 700 {folder}")
    else:
        yield ok(f"{folder}" + ("" if folder.exists() else " (made when needed)"))


def proxies() -> Iterator[Finding]:
    """Proxy variables that would send a call to this machine out to the proxy."""
    swallow = {"http", "all", "grpc"} & urllib.request.getproxies_environment().keys()
    missing = [
        host
        for host in ("localhost", "127.0.0.1")
        if not urllib.request.proxy_bypass_environment(host)  # type: ignore[attr-defined]
    ]
    if not swallow:
        yield ok("no proxy variable is in the way")
    elif not missing:
        yield ok("NO_PROXY leaves this machine out")
    else:
        names = ", ".join(sorted(f"{scheme.upper()}_PROXY" for scheme in swallow))
        yield warn(
            f"{names} would also catch calls to {' and '.join(missing)}: MCP servers, the Web UI",
            "export NO_PROXY=localhost,127.0.0.1",
        )


def sandbox(probe: type = StockPriceWorkflow) -> Iterator[Finding]:
    """A workflow module loads in the sandbox, as every worker does with its workflows at the start."""

    async def load() -> None:  # the sandbox makes futures, which belong to a loop
        definition = workflow._Definition.must_from_class(probe)
        SandboxedWorkflowRunner(restrictions=RESTRICTIONS).prepare_workflow(definition)

    try:
        asyncio.run(load())
    except Exception as error:
        cause: BaseException = error.__cause__ or error
        yield fail(
            f"a workflow module does not load: {type(cause).__name__}: {cause}",
            "uv sync; rename any file of yours that is called like a Python module; restart the kernel",
        )
    else:
        yield ok("a workflow module loads")


def kernel() -> Iterator[Finding]:
    """The notebook's kernel is this project's Python, and not older than the code."""
    from jupyter_core.paths import jupyter_path

    specs = (Path(folder, "python3", "kernel.json") for folder in jupyter_path("kernels"))
    first = next((file for file in specs if file.exists()), None)
    program = _program_of(first) if first else "python"
    # A bare name is looked up by Jupyter, which puts its own Python first.
    ours = Path(program).parent.absolute() == Path(sys.executable).parent.absolute()
    if ours or program.startswith("python"):
        yield ok("`python3` is this project's Python")
    else:
        yield warn(
            f"{first} shadows the project's kernel and starts {program or 'nothing'}",
            "start with `workshop`, which prefers the project's, or `jupyter kernelspec remove python3`",
        )
    if "ipykernel" in sys.modules and psutil.Process().create_time() < newest_code():
        yield warn("it was started before the code was last changed", "restart the kernel")


def identity() -> Iterator[Finding]:
    """Whether the teams check who is asking, and whether the keys for it are the user's alone."""
    chosen = settings.get_settings()
    if chosen.identity == "off":
        yield ok("off: whoever reaches a team is served (WORKSHOP_IDENTITY=on checks)")
        return
    if chosen.user_name not in people():
        names = ", ".join(people())
        text = f"on, and nobody called {chosen.user_name!r} can sign in"
        yield fail(text, f"set USER_NAME to one of {names}")
    files = (chosen.state_dir / FOLDER).rglob("*.json")
    readable = [path.name for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if readable:
        yield fail(f"others can read {', '.join(readable)}", "`chmod 600` these files")
    elif chosen.user_name in people():
        yield ok(f"on: {chosen.user_name} is asking; the keys are readable to nobody else")


def _program_of(spec: Path) -> str:
    """What a kernel starts; empty where that cannot be read."""
    try:
        return str(json.loads(spec.read_text(encoding="utf-8"))["argv"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def newest_code() -> float:
    """When a module of the library was last changed, in seconds since 1970."""
    package = Path(__file__).resolve().parents[2]
    return max(path.stat().st_mtime for path in package.rglob("*.py"))


def _project() -> dict[str, Any]:
    """The project's own table: from the checkout, which is newer than what was installed from it."""
    try:
        text = (settings.PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
        return dict(tomllib.loads(text)["project"])
    except (OSError, ValueError, KeyError):
        installed = importlib.metadata.metadata(PROJECT)
        return {
            "requires-python": installed["Requires-Python"] or ">=3.11",
            "dependencies": importlib.metadata.requires(PROJECT) or [],
        }
