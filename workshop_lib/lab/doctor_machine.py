"""What the doctor looks at without a server: Python, packages, keys, folders, kernels, proxies.

Each function returns findings and changes nothing, except `machine.state_folder` when it may. Left out: the
server and what lives on it (`doctor_server`).
"""

import asyncio
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from temporalio import workflow
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from workshop_lib import settings as environment
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.finding import Finding, fail, ok, warn
from workshop_lib.lab.sandbox_probe import SandboxProbe
from workshop_lib.lab.server import dev_server
from workshop_lib.machine.state_folder import made
from workshop_lib.machine.surroundings import lacking, left_out
from workshop_lib.temporal.worker import RESTRICTIONS

PROJECT = "durable-agents-workshop"
ROOM = 500_000_000  # bytes that a day of lessons may write
# How the providers' keys begin. OpenAI's also fits Anthropic's, which is why that one comes first.
KEY_BEGINNINGS = {
    "ANTHROPIC_API_KEY": ("sk-ant-",),
    "OPENAI_API_KEY": ("sk-",),
    "GOOGLE_API_KEY": ("AIza", "AQ."),
}


def python_version() -> list[Finding]:
    """This Python against the project's range."""
    wanted = _project()["requires-python"]
    here = platform.python_version()
    if not SpecifierSet(wanted).contains(here, prereleases=True):
        return [fail("Python", f"{here} is not in {wanted}", "uv sync --python 3.12")]
    if missing := lacking():
        what = f"{here} ({sys.executable}) was built without {', '.join(missing)}"
        return [fail("Python", what, "uv sync --python /usr/bin/python3, or another whole Python")]
    return [ok("Python", f"{here} ({sys.executable})")]


def environment_variables() -> list[Finding]:
    """What the environment says can be used by the clients that call models. No value is shown."""
    findings = [
        warn(
            "environment",
            f"{name} is left out: {reason}",
            f"correct or unset {name}; nothing is lost by that for the offline model",
        )
        for name, reason in left_out().items()
    ]
    try:  # what these two read is more than is known here
        import httpx  # LiteLLM's
        import httpx2

        httpx.Client().close()
        httpx2.Client().close()
    except Exception as error:
        suspects = sorted(n for n in os.environ if re.search(r"_PROXY$|^SSL|_BUNDLE$", n.upper()))
        names = ", ".join(suspects) or "a setting of this machine"
        findings.append(
            fail(
                "environment",
                f"no HTTP client can be made ({type(error).__name__}) because of one of: {names}",
                f"unset {names}",
            )
        )
    return findings or [ok("environment", "no variable is in the way")]


def packages() -> list[Finding]:
    """The installed packages against the project's ranges: an update of the project may have moved them."""
    wrong, count = [], 0
    for line in _project()["dependencies"]:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate():
            continue
        count += 1
        try:
            here = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(here, prereleases=True):
            wrong.append(f"{wanted.name} is {here}, wanted {wanted.specifier}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return [fail("packages", "; ".join(wrong[:3]) + more, "uv sync, then restart the kernel")]
    return [ok("packages", f"all {count} are in their ranges")]


def temporal_cli() -> list[Finding]:
    """The program that holds the dev server."""
    try:
        cli = dev_server.find_cli()
        version = dev_server.server_version(cli)
    except WorkshopError as error:
        return [fail("temporal CLI", error.what, error.fix or "uv sync")]
    if version is None:
        return [warn("temporal CLI", f"{cli} does not say its version", "uv sync")]
    return [ok("temporal CLI", f"server {version} ({cli})")]


def dotenv_file() -> list[Finding]:
    """`.env` can be read, where there is one."""
    path = environment.env_file()
    if not path.exists():
        return [ok(".env", "none, which is fine: defaults and the offline model")]
    try:
        environment.get_settings()
    except WorkshopError as error:
        return [fail(".env", error.what, error.fix or f"correct {path}")]
    return [ok(".env", f"read from {path}")]


def model() -> list[Finding]:
    """Which model answers, and whether its key can be one. No part of a key is shown."""
    findings = [_model_line()]
    in_file = dotenv_values(environment.env_file(), interpolate=False)
    for provider, (variable, _) in environment.PROVIDERS.items():
        raw = os.environ.get(variable) or in_file.get(variable) or ""
        key = environment.provider_key(variable)
        if key is None and raw:
            findings.append(ok("key", f"{variable} is a placeholder, which counts as no key"))
        elif key is not None and not _looks_like_key(variable, key):
            findings.append(
                warn(
                    "key",
                    f"{variable} does not look like a key of {provider}",
                    f"paste the whole key after {variable}= in .env, without quotes or spaces",
                )
            )
    return findings


def _model_line() -> Finding:
    chosen = environment.get_settings()
    try:
        choice = chosen.model
    except WorkshopError as error:
        return fail("model", error.what, error.fix or "correct LLM_MODEL in .env")
    if not choice.offline:
        return ok("model", f"{choice.name} ({choice.why})")
    text = f"offline model ({choice.why})"
    wanted = chosen.llm_model.strip()
    if wanted in ("", "offline", environment.OFFLINE_MODEL):
        return ok("model", text)
    return warn("model", text, f"put the key for {wanted} into .env, or remove LLM_MODEL there")


def _looks_like_key(variable: str, key: str) -> bool:
    if len(key) < 16 or re.search(r"\s|[\"'<>]", key):
        return False
    if os.environ.get("LLM_API_BASE"):
        return True  # a server of one's own has keys of its own
    fits = next((v for v, begin in KEY_BEGINNINGS.items() if key.startswith(begin)), None)
    return fits == variable


def state_folder(*, fix: bool = False) -> list[Finding]:
    """The state folder can be written, has room, and takes a write-ahead log."""
    folder = environment.get_settings().state_dir.absolute()
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
        return [fail("state folder", f"{folder} cannot be written: {error.strerror}", elsewhere)]
    if shutil.disk_usage(there).free < ROOM:
        return [warn("state folder", f"{folder}: less than 500 MB free", "workshop clean")]
    if not dev_server.supports_wal(there):
        return [
            warn(
                "state folder",
                f"{folder} is on a file system without write-ahead logging: the server is half as fast",
                elsewhere,
            )
        ]
    if folder.exists() and folder.stat().st_mode & 0o077:
        text = f"{folder} is open to other users of this machine"
        return [warn("state folder", text, f"workshop doctor --fix, or chmod 700 {folder}")]
    return [ok("state folder", f"{folder}" + ("" if folder.exists() else " (made when needed)"))]


def proxies() -> list[Finding]:
    """Proxy variables that would send a call to this machine out to the proxy."""
    found = urllib.request.getproxies_environment()
    swallow = {"http", "all", "grpc"} & found.keys()
    if not swallow:
        return [ok("proxy", "no proxy variable is in the way")]
    missing = [
        host
        for host in ("localhost", "127.0.0.1")
        if not urllib.request.proxy_bypass_environment(host)  # type: ignore[attr-defined]
    ]
    if not missing:
        return [ok("proxy", "NO_PROXY leaves this machine out")]
    names = ", ".join(sorted(f"{scheme.upper()}_PROXY" for scheme in swallow))
    return [
        warn(
            "proxy",
            f"{names} would also catch calls to {' and '.join(missing)}: MCP servers, the Web UI",
            "export NO_PROXY=localhost,127.0.0.1",
        )
    ]


def sandbox(probe: type = SandboxProbe) -> list[Finding]:
    """A workflow module loads in the sandbox, as every worker does with its workflows at the start."""

    async def load() -> None:  # the sandbox makes futures, which belong to a loop
        definition = workflow._Definition.must_from_class(probe)
        SandboxedWorkflowRunner(restrictions=RESTRICTIONS).prepare_workflow(definition)

    try:
        asyncio.run(load())
    except Exception as error:
        cause: BaseException = error.__cause__ or error
        return [
            fail(
                "sandbox",
                f"a workflow module does not load: {type(cause).__name__}: {cause}",
                "uv sync; rename any file of yours that is called like a Python module; restart the kernel",
            )
        ]
    return [ok("sandbox", "a workflow module loads")]


def kernel() -> list[Finding]:
    """The notebook's kernel is this project's Python, and not older than the code."""
    findings = [_kernel_spec()]
    started = psutil.Process().create_time()
    if "ipykernel" in sys.modules and started < newest_code():
        findings.append(
            warn("kernel", "it was started before the code was last changed", "restart the kernel")
        )
    return findings


def _kernel_spec() -> Finding:
    from jupyter_core.paths import jupyter_path

    for folder in jupyter_path("kernels"):
        file = Path(folder, "python3", "kernel.json")
        try:
            program = str(json.loads(file.read_text(encoding="utf-8"))["argv"][0])
        except FileNotFoundError:
            continue
        except (OSError, ValueError, LookupError, TypeError):
            program = ""
        # A bare name is looked up by Jupyter, which puts its own Python first.
        if program.startswith("python") or _same_environment(program):
            break
        return warn(
            "kernel",
            f"{file} shadows the project's kernel and starts {program or 'nothing'}",
            "start with `workshop`, which prefers the project's, or `jupyter kernelspec remove python3`",
        )
    return ok("kernel", "`python3` is this project's Python")


def _same_environment(program: str) -> bool:
    return Path(program).parent.absolute() == Path(sys.executable).parent.absolute()


def newest_code() -> float:
    """When a module of the library was last changed, in seconds since 1970."""
    package = Path(__file__).resolve().parent.parent
    return max(path.stat().st_mtime for path in package.rglob("*.py"))


def _project() -> dict[str, Any]:
    """The project's own table: from the checkout, which is newer than what was installed from it."""
    try:
        text = (environment.PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
        return dict(tomllib.loads(text)["project"])
    except (OSError, ValueError, KeyError):
        said = importlib.metadata.metadata(PROJECT)
        return {
            "requires-python": said["Requires-Python"] or ">=3.11",
            "dependencies": importlib.metadata.requires(PROJECT) or [],
        }
