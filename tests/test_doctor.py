"""The doctor: each broken thing gives its line, and `fix` mends what can be mended."""

import asyncio
import inspect
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from lab_environment import free_port, lab, listening, set_env
from pydantic_core import to_jsonable_python
from temporalio.api.operatorservice.v1 import UpdateNexusEndpointRequest
from temporalio.client import Client
from temporalio.worker import Worker

from workshop_lib.lab.doctor import examination, machine
from workshop_lib.lab.doctor.machine import Finding
from workshop_lib.lab.server import dev_server, namespaces
from workshop_lib.lab.server import lifecycle as server
from workshop_lib.lab.watching.queues import look_at
from workshop_lib.settings import DEFAULT_MCP_PORTS, get_settings
from workshop_lib.teams.finance import workflows
from workshop_lib.temporal import connect
from workshop_lib.temporal.lookup import find_endpoint

KEY = "sk-proj-4fG7hJ2kL9mN3pQ6rS8tU1vW"
ANTHROPIC = "sk-ant-api03-4fG7hJ2kL9mN3pQ6rS8tU1vW"


@pytest.fixture
def patch(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with lab(tmp_path / "state") as patch:
        patch.setenv("JUPYTER_PATH", str(tmp_path / "kernels"))
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        set_env(patch, LLM_MODEL=None, WORKSHOP_ENV_FILE=tmp_path / ".env")
        # The usual ones may be held by servers of a test that runs beside this one.
        set_env(patch, **{f"{name.upper()}_MCP_PORT": free_port() for name in DEFAULT_MCP_PORTS})
        yield patch


async def examined(*, fix: bool = False) -> list[Finding]:
    findings = await examination.examine(fix=fix)
    for finding in findings:
        assert (finding.repair is None) == (finding.status == "OK"), finding
    return findings


def lines(findings: list[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.name == name]


def the(findings: list[Finding], name: str) -> Finding:
    (found,) = lines(findings, name)
    return found


# A machine in order


async def test_a_machine_in_order(patch: pytest.MonkeyPatch) -> None:
    report = examination.render(await examined())
    assert "OK  model: offline model (no key is set)" in report.splitlines()
    assert "OK  server: not running; it is started when needed" in report.splitlines()
    assert "OK  ports: free" in report.splitlines()
    assert "FAIL" not in report and "WARN" not in report, report
    assert not get_settings().state_dir.exists()  # looking changes nothing


async def test_fix_starts_and_makes_everything(patch: pytest.MonkeyPatch) -> None:
    findings = await examined(fix=True)
    assert {finding.status for finding in findings} == {"OK"}, examination.render(findings)
    found = server.status()
    assert found
    assert found.address in the(findings, "server").text
    assert len(lines(findings, "endpoints")) == 2
    again = await examined()
    assert not lines(again, "mended")
    assert the(again, "ports").text == "held by this project's dev server"


def test_both_forms_of_the_report() -> None:
    findings = [Finding("a", "OK", "fine"), Finding("b", "FAIL", "broken", "mend it")]
    assert examination.render(findings).splitlines() == [
        "OK  a: fine",
        "FAIL  b: broken",
        "      repair: mend it",
        "1 to repair, 0 to know about.",
    ]
    assert to_jsonable_python(findings)[1] == {
        "name": "b",
        "status": "FAIL",
        "text": "broken",
        "repair": "mend it",
    }


# Python and packages


def project(patch: pytest.MonkeyPatch, folder: Path, requires: str, *dependencies: str) -> None:
    text = f'[project]\nrequires-python = "{requires}"\ndependencies = {json.dumps(dependencies)}\n'
    (folder / "pyproject.toml").write_text(text)
    patch.setattr("workshop_lib.settings.PROJECT_ROOT", folder)


async def test_python_and_packages(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project(patch, tmp_path, ">=3.99", "temporalio>=99", "no-such-package", "psutil>=1")
    findings = await examined()
    assert the(findings, "Python").status == "FAIL"
    packages = the(findings, "packages")
    assert packages.status == "FAIL"
    assert "temporalio is " in packages.text
    assert "no-such-package is missing" in packages.text
    assert "psutil" not in packages.text
    assert "uv sync" in str(packages.repair)
    project(patch, tmp_path, ">=3.11", "no-such-package; sys_platform == 'nowhere'")
    assert the(await examined(), "packages").status == "OK"


async def test_no_cli(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patch.setattr(sys, "executable", str(tmp_path / "python"))
    patch.setenv("PATH", str(tmp_path))
    assert the(await examined(), "temporal CLI").status == "FAIL"


async def test_a_cli_that_cannot_run(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "temporal").write_bytes(b"\0\0 not a program")
    (tmp_path / "temporal").chmod(0o755)
    patch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "cannot be run" in the(await examined(), "temporal CLI").text


# Model and keys


def write_env(patch: pytest.MonkeyPatch, text: bytes) -> None:
    """A `.env` that the doctor is the first to read; what it sets goes away with the test."""
    Path(os.environ["WORKSHOP_ENV_FILE"]).write_bytes(text)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "LLM_MODEL"):
        patch.setenv(name, "")
        patch.delenv(name)
    get_settings.cache_clear()


async def test_a_placeholder_counts_as_no_key(patch: pytest.MonkeyPatch) -> None:
    write_env(patch, b"OPENAI_API_KEY=sk-your-key-here\n")
    findings = await examined()
    assert the(findings, "model").text == "offline model (no key is set)"
    assert "OPENAI_API_KEY is a placeholder" in the(findings, "key").text


async def test_a_key_is_never_shown(patch: pytest.MonkeyPatch) -> None:
    for key in (KEY, f'{KEY}" "', KEY[:10]):
        set_env(patch, OPENAI_API_KEY=key, LLM_MODEL="openai/gpt-5-mini")
        findings = await examined()
        both = examination.render(findings) + json.dumps(findings, default=to_jsonable_python)
        assert "4fG7" not in both
        assert bool(lines(findings, "key")) == (key != KEY)
    assert the(findings, "model").text.startswith("openai/gpt-5-mini")


async def test_a_key_of_another_provider(patch: pytest.MonkeyPatch) -> None:
    set_env(patch, OPENAI_API_KEY=ANTHROPIC)
    key = the(await examined(), "key")
    assert key.status == "WARN"
    assert "does not look like a key of openai" in key.text
    set_env(patch, OPENAI_API_KEY=None, ANTHROPIC_API_KEY=ANTHROPIC)
    assert not lines(await examined(), "key")


async def test_a_model_whose_key_is_missing(patch: pytest.MonkeyPatch) -> None:
    set_env(patch, LLM_MODEL="anthropic/claude-sonnet-4-5")
    model = the(await examined(), "model")
    assert model.status == "WARN"
    assert "ANTHROPIC_API_KEY is not set" in model.text
    set_env(patch, OPENAI_API_KEY=KEY)
    assert the(await examined(), "model").status == "FAIL"


async def test_a_dotenv_that_is_not_text(patch: pytest.MonkeyPatch) -> None:
    write_env(patch, b"\xff\xfe\x00secret")
    findings = await examined()
    assert "not UTF-8" in the(findings, ".env").text
    assert not lines(findings, "settings")


async def test_a_dotenv_with_a_wrong_line(patch: pytest.MonkeyPatch) -> None:
    write_env(patch, f"OPENAI_API_KEY {KEY}\n".encode())
    said = examination.render(await examined())
    assert "FAIL  .env: Line 1" in said
    assert "4fG7" not in said


async def test_a_setting_of_the_wrong_shape(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("WORKSHOP_TODAY", "tomorrow")
    get_settings.cache_clear()
    findings = await examined()
    assert [f.status for f in findings if "today" in f.text.lower()] == ["FAIL"]


async def test_a_profile_that_is_missing(patch: pytest.MonkeyPatch) -> None:
    set_env(patch, TEMPORAL_PROFILE="nope")
    assert "Profile 'nope' not found" in the(await examined(), "settings").text


# Folder, ports, proxy, kernel, sandbox


async def test_a_state_folder_that_cannot_be_written(
    patch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    set_env(patch, WORKSHOP_STATE_DIR=tmp_path / "file" / "state")
    for fix in (False, True):
        folder = the(await examined(fix=fix), "state folder")
        assert folder.status == "FAIL"
        assert "WORKSHOP_STATE_DIR" in str(folder.repair)


async def test_ports_that_are_taken(patch: pytest.MonkeyPatch) -> None:
    with listening() as port, listening() as ui_port:
        set_env(patch, WORKSHOP_TEMPORAL_PORT=port, WORKSHOP_UI_PORT=None)
        patch.setattr(dev_server, "DEFAULT_UI_PORT", ui_port)
        ours, default = lines(await examined(), "ports")
    assert ours.status == "FAIL"
    assert f"{port} is held by" in ours.text and f"pid {os.getpid()}" in ours.text
    assert default.status == "WARN"
    assert f"{ui_port} is held by" in default.text


async def test_a_proxy_that_swallows_local_calls(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("http_proxy", "http://user:secret@proxy.example:3128")
    proxy = the(await examined(), "proxy")
    assert proxy.status == "WARN"
    assert "secret" not in proxy.text
    assert "NO_PROXY" in str(proxy.repair)
    patch.setenv("no_proxy", "localhost,127.0.0.1")
    assert the(await examined(), "proxy").status == "OK"


async def test_a_kernel_that_shadows_ours(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = tmp_path / "kernels" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/opt/other/bin/python", "-m", "ipykernel_launcher"]}))
    kernel = the(await examined(), "kernel")
    assert kernel.status == "WARN"
    assert "/opt/other/bin/python" in kernel.text
    spec.write_text(json.dumps({"argv": [sys.executable, "-m", "ipykernel_launcher"]}))
    assert the(await examined(), "kernel").status == "OK"
    spec.write_text("broken")
    assert the(await examined(), "kernel").status == "WARN"


async def test_a_kernel_older_than_the_code(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "ipykernel", sys)
    patch.setattr(machine, "newest_code", lambda: 0.0)
    assert the(await examined(), "kernel").status == "OK"
    patch.setattr(machine, "newest_code", lambda: 2e10)
    assert lines(await examined(), "kernel")[-1].repair == "restart the kernel"


@pytest.fixture
def broken_probe(tmp_path: Path, patch: pytest.MonkeyPatch) -> type:
    """A workflow in a module that does at import what the sandbox forbids."""
    source = inspect.getsource(workflows)
    (tmp_path / "broken_probe.py").write_text(source + "\nimport random\nrandom.random()\n")
    patch.syspath_prepend(str(tmp_path))
    import broken_probe

    return broken_probe.StockPriceWorkflow  # type: ignore[no-any-return]


def test_a_module_that_the_sandbox_refuses(broken_probe: type) -> None:
    (found,) = machine.sandbox(broken_probe)
    assert found.status == "FAIL"
    assert "random.random" in found.text


# On the server


async def test_a_users_server_that_does_not_answer(patch: pytest.MonkeyPatch) -> None:
    set_env(patch, TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}")
    findings = await examined()
    assert the(findings, "server").status == "FAIL"
    assert "TEMPORAL_ADDRESS" in str(the(findings, "server").repair)


async def test_missing_namespaces_and_endpoints(patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.ensure_server()
    set_env(patch, TEMPORAL_NAMESPACE="not-yet")
    findings = await examined()
    assert the(findings, "namespaces").text == "missing: not-yet"
    assert [f.status for f in lines(findings, "endpoints")] == ["WARN", "WARN"]
    assert {f.status for f in await examined(fix=True)} == {"OK"}


async def test_a_wrong_endpoint_and_its_repair(patch: pytest.MonkeyPatch) -> None:
    found = server.ensure_server()
    await namespaces.ensure_namespaces(found)
    client = await connect.connect()
    endpoint = await find_endpoint(client, "it-nexus-endpoint")
    assert endpoint
    endpoint.spec.target.worker.task_queue = "elsewhere"
    await client.operator_service.update_nexus_endpoint(
        UpdateNexusEndpointRequest(id=endpoint.id, version=endpoint.version, spec=endpoint.spec)
    )
    wrong, right = lines(await examined(), "endpoints")
    assert (wrong.status, right.status) == ("FAIL", "OK")
    assert "points to it-namespace/elsewhere instead of it-namespace/it-task-queue" in wrong.text
    assert wrong.repair == "workshop doctor --fix"
    assert {f.status for f in await examined(fix=True)} == {"OK"}
    assert {f.status for f in await examined()} == {"OK"}


# Workers


def polling(client: Client, identity: str) -> Worker:
    """A worker that calls itself so."""
    return Worker(
        client,
        task_queue="orchestrator-task-queue",
        workflows=[workflows.StockPriceWorkflow],
        identity=identity,
        graceful_shutdown_timeout=timedelta(0),
    )


async def sees(client: Client, identity: str) -> None:
    """Returns when the server knows a poller."""
    async with asyncio.timeout(20):
        while True:
            (queue,) = await look_at(client, ("default", "orchestrator-task-queue"))
            if identity in queue.pollers:
                return
            await asyncio.sleep(0.1)


async def workers_line(ready: Callable[[list[Finding]], bool]) -> list[Finding]:
    """The doctor's lines on workers, as soon as the server has heard of them."""
    async with asyncio.timeout(20):
        # The server tells nobody.
        while not ready(found := lines(await examined(), "workers")):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return found


async def test_workers_that_are_gone_old_or_two(patch: pytest.MonkeyPatch) -> None:
    await namespaces.ensure_namespaces(server.ensure_server())
    patch.setattr(machine, "newest_code", lambda: 0.0)
    assert the(await examined(), "workers").text == "none runs at the moment"

    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    here = socket.gethostname()
    client = await connect.connect()
    async with polling(client, f"old@{gone.pid}@{here}"):
        await sees(client, f"old@{gone.pid}@{here}")
    assert the(await examined(), "workers").text == "none runs at the moment"  # and none is missed
    waiting = await client.start_workflow("Any", id="any", task_queue="orchestrator-task-queue")
    (missed,) = await workers_line(lambda found: found[0].status == "WARN")
    assert "1 tasks wait and nobody serves them" in missed.text
    assert f"old@{gone.pid}@{here} is gone" in missed.text
    await waiting.terminate()

    mine = f"{os.getpid()}@{here}"
    async with polling(client, mine):
        (fine,) = await workers_line(lambda found: found[0].status == "OK")
        assert mine in fine.text  # one that lives makes the dead one harmless
        patch.setattr(machine, "newest_code", lambda: 2e10)
        (old,) = lines(await examined(), "workers")
        assert "was started before the code was last changed" in old.text
        patch.setattr(machine, "newest_code", lambda: 0.0)
        second = await connect.connect()
        async with polling(second, f"other@{os.getppid()}@{here}"):
            (two,) = await workers_line(lambda found: found[0].status == "WARN")
        assert "several processes serve it" in two.text


# It never raises


async def test_a_part_that_breaks_gives_a_line(patch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Finding]:
        raise RuntimeError(KEY)

    patch.setattr(machine, "proxies", broken)
    findings = await examined()
    assert "RuntimeError" in the(findings, "proxy").text
    assert "4fG7" not in examination.render(findings)


async def test_a_part_that_hangs_gives_a_line(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "kernel", lambda: asyncio.run(asyncio.sleep(1)))
    patch.setattr(examination, "LIMIT", 0.5)
    findings = await examined()
    assert "no answer within 0.5 s" in the(findings, "kernel").text
