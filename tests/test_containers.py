"""The container image, the compose file and the manifests: of the right form, and of one mind with the code.

No container runs here. They are held against the formats' schemas (`schemas/`, cut down to what the project
uses, so that anything else is refused), the settings, the programs that exist, the Terraform, and, where a
script can run without a container, a real server.
"""

import copy
import fnmatch
import json
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.validators import validator_for
from lab_environment import fresh, lab
from terraform_files import read

from workshop_lib.lab.server import lifecycle
from workshop_lib.lab.server.dev_server import find_cli
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.services.programs import MCP_SERVERS, WORKERS
from workshop_lib.mcp.addresses import MCP_PREFIX
from workshop_lib.settings import PROJECT_ROOT, PROVIDERS, Settings

FOLDER = PROJECT_ROOT / "infrastructure"
SELF_HOSTED = FOLDER / "self-hosted"
COMPOSE = yaml.safe_load((SELF_HOSTED / "compose.yaml").read_text())
MANIFESTS = yaml.safe_load((FOLDER / "kubernetes" / "workers.yaml").read_text())["items"]
SCHEMAS = {
    name: json.loads(Path(__file__).with_name("schemas").joinpath(f"{name}.json").read_text())
    for name in ("compose", "kubernetes")
}
# Every program by the name that `workshop status` knows it by.
PROGRAMS = WORKERS | {MCP_PREFIX + name: module for name, module in MCP_SERVERS.items()}
READ = {str(f.validation_alias or name.upper()) for name, f in Settings.model_fields.items()}
READ |= {"TEMPORAL_ADDRESS", *(variable for variable, _ in PROVIDERS.values())}


def refusals(schema: dict[str, Any], document: Any) -> list[str]:
    """Why a document is not of a schema's form; nothing where it is."""
    errors = validator_for(schema)(schema).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in errors]


def ours() -> Iterator[tuple[str, dict[str, Any]]]:
    """The services of the compose file that are programs of ours."""
    return ((name, one) for name, one in COMPOSE["services"].items() if one["image"] == "workshop")


def seconds(period: str) -> float:
    assert period.endswith("s")
    return float(period.removesuffix("s"))


# --- compose ---


def test_the_compose_file_has_the_form_of_one() -> None:
    assert refusals(SCHEMAS["compose"], COMPOSE) == []


@pytest.mark.parametrize("wrong", [{"image": 3}, {"imagee": "x"}, {"healthcheck": {"tests": []}}])
def test_another_form_is_refused(wrong: dict[str, Any]) -> None:
    changed = copy.deepcopy(COMPOSE)
    changed["services"]["it"] |= wrong
    assert refusals(SCHEMAS["compose"], changed)


def test_all_workers_and_the_agents_mcp_servers_are_in_it() -> None:
    assert {name: one["command"][0] for name, one in ours()} == {
        name: module for name, module in PROGRAMS.items() if name != "mcp-repair"
    }


def test_nothing_is_reachable_from_another_machine() -> None:
    ports = [port for one in COMPOSE["services"].values() for port in one.get("ports", ())]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    for name, one in ours():
        assert "ports" not in one
        # Where it listens on 127.0.0.1, who calls it shares its network.
        assert one.get("network_mode") == ("service:orchestrator" if "mcp-" in name else None)
        assert one["read_only"] and one["cap_drop"] == ["ALL"]


def test_agents_call_the_mcp_servers_where_they_listen() -> None:
    called = COMPOSE["services"]["orchestrator"]["environment"]
    for name in ("it", "finance"):
        _, option, port = COMPOSE["services"][f"mcp-{name}"]["command"]
        assert (option, port) == ("--port", called[f"{name.upper()}_MCP_PORT"])


def test_each_is_asked_how_it_is_and_has_time_to_stop() -> None:
    for name, one in ours():
        assert one["healthcheck"]["test"] == ["CMD", "workshop", "status", name]
        assert seconds(one["stop_grace_period"]) > float(one["environment"]["WORKSHOP_GRACE"])


def test_the_environment_has_names_that_somebody_reads() -> None:
    for _, one in ours():
        assert one["environment"].keys() <= READ
    text = (SELF_HOSTED / "schema.sh").read_text()
    of_schema = COMPOSE["services"]["temporal-schema"]["environment"].keys()
    # The tool reads its password by itself; the server has another name for it.
    assert set(re.findall(r"\$([A-Z_]+)", text)) == of_schema - {"POSTGRES_PWD", "SQL_PASSWORD"}


def test_no_password_is_written_down() -> None:
    for one in COMPOSE["services"].values():
        for name, value in one.get("environment", {}).items():
            if re.search("PASSWORD|PWD|_URL", name):
                assert "${POSTGRES_PASSWORD:?" in value


def test_what_is_waited_for_and_mounted_exists() -> None:
    services = COMPOSE["services"]
    for one in services.values():
        for name, how in one.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in services[name]
        for volume in one.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (SELF_HOSTED / source).is_file()
        if "build" in one:
            assert (SELF_HOSTED / one["build"]["context"]).resolve() == PROJECT_ROOT
            assert (PROJECT_ROOT / one["build"]["dockerfile"]).is_file()


def test_the_setup_leaves_nothing_to_be_done(tmp_path: Path) -> None:
    """On a real server; twice, as when its container starts anew."""
    with lab(tmp_path / "state") as environment:
        server = lifecycle.ensure_server(in_memory=True)
        environment.setenv("TEMPORAL_ADDRESS", server.address)
        environment.setenv("PATH", str(Path(find_cli()).parent), prepend=":")
        for _ in range(2):
            end = _patiently(["sh", str(SELF_HOSTED / "setup.sh")])
            assert end.returncode == 0, end.stdout + end.stderr
        made = lifecycle.run_sync(ensure_namespaces(lifecycle.ensure_server(), repair=False))
    assert made == []


def _patiently(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run it as `restart: on-failure:10` would."""
    for _ in range(10):
        end = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if end.returncode == 0:
            break
        time.sleep(1)
    return end


# --- Kubernetes ---


def kubernetes(kind: str) -> dict[str, dict[str, Any]]:
    """The specifications of a kind, by name."""
    return {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == kind}


def container(worker: str) -> dict[str, Any]:
    (only,) = kubernetes("WorkerDeployment")[worker]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_the_manifests_have_the_controllers_form() -> None:
    assert [refusals(SCHEMAS["kubernetes"][one["kind"]], one) for one in MANIFESTS] == [[]] * 7
    steps = [one["rollout"]["steps"] for one in kubernetes("WorkerDeployment").values()]
    assert all([s["rampPercentage"] for s in each] == [10, 50] for each in steps)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [("spec", {"replica": 2}), ("spec", {"rollout": {"strategy": "Slow"}}), ("metadata", {"name": "a.b"})],
)  # fmt: skip
def test_another_form_of_a_manifest_is_refused(place: str, wrong: dict[str, Any]) -> None:
    changed = copy.deepcopy(next(one for one in MANIFESTS if one["kind"] == "WorkerDeployment"))
    changed[place] |= wrong
    assert refusals(SCHEMAS["kubernetes"]["WorkerDeployment"], changed)


def test_each_worker_runs_is_asked_how_it_is_and_has_time_to_stop() -> None:
    assert {name: container(name)["args"] for name in kubernetes("WorkerDeployment")} == {
        name: [module] for name, module in WORKERS.items()
    }
    for name, spec in kubernetes("WorkerDeployment").items():
        pod, only = spec["template"]["spec"], container(name)
        assert only["livenessProbe"]["exec"]["command"] == ["workshop", "status", name]
        variables = {one["name"]: one.get("value") for one in only["env"]}
        assert variables.keys() <= READ
        assert pod["terminationGracePeriodSeconds"] > float(variables["WORKSHOP_GRACE"] or 0)
        assert pod["securityContext"]["runAsUser"] == int(USER)
        mounts, volumes = only["volumeMounts"], [volume["name"] for volume in pod["volumes"]]
        assert [(one["name"] in volumes, one["mountPath"]) for one in mounts] == [(True, "/state")]
        for one in only["env"]:
            if re.search("KEY|URL", one["name"]):
                assert "secretKeyRef" in one["valueFrom"]


def test_places_are_those_that_terraform_makes() -> None:
    text = "\n".join(path.read_text() for path in (FOLDER / "temporal-cloud").glob("*.tf"))
    files = read(text)
    environment = files.resolved(files.output["environment"]["value"], {"account_id": "a1b2c"})
    connections = kubernetes("Connection")
    for name, spec in kubernetes("WorkerDeployment").items():
        connection = spec["workerOptions"]["connectionRef"]["name"]
        given = environment[connection]
        assert connections[connection]["hostPort"] == given["TEMPORAL_ADDRESS"]
        assert (
            spec["workerOptions"]["temporalNamespace"] + ".tmprl.cloud:7233"
            == (given["TEMPORAL_ADDRESS"])
        )
        written = {one["name"]: one["value"] for one in container(name)["env"] if "value" in one}
        assert {
            k: v for k, v in written.items() if not k.startswith("WORKSHOP_")
        }.items() <= given.items()


# --- the image ---

LINES = [
    line.split(maxsplit=1)
    for line in (FOLDER / "Dockerfile").read_text().splitlines()
    if line and not line.startswith("#")
]
USER = next(rest for word, rest in reversed(LINES) if word == "USER")


def test_the_image_is_built_from_the_lock_and_runs_as_nobody() -> None:
    assert {word for word, _ in LINES} == {
        "FROM",
        "COPY",
        "ENV",
        "WORKDIR",
        "RUN",
        "USER",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    }
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    syncs = [rest for word, rest in LINES if word == "RUN" and rest.startswith("uv sync ")]
    assert len(syncs) == 2
    for sync in syncs:
        assert "--locked" in sync and "--no-dev" in sync
        assert set(re.findall(r"--extra (\S+)", sync)) <= project["optional-dependencies"].keys()
    assert int(USER) > 0 and f"useradd --uid {USER}" in " ".join(rest for _, rest in LINES)
    assert [word for word, _ in LINES].index("USER") > max(
        number for number, (word, _) in enumerate(LINES) if word in ("COPY", "RUN")
    )
    assert json.loads(dict(LINES)["ENTRYPOINT"]) == ["python", "-m"]
    assert json.loads(dict(LINES)["CMD"])[0] in PROGRAMS.values()


def test_what_is_copied_exists_and_is_let_in() -> None:
    rules = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[1] == "*"
    copied = {
        source
        for word, rest in LINES
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == let_in
    assert all((PROJECT_ROOT / source).exists() for source in copied)
    assert not any(fnmatch.fnmatch(".env", rule) for rule in let_in)


@pytest.mark.long
def test_the_steps_of_the_build_make_programs_that_run(
    tmp_path: Path, temporal_server: str
) -> None:
    """Without a container: the build stage's steps in a folder, then a worker and its health."""
    app = tmp_path / "app"
    app.mkdir()
    stage = LINES[: [line for line, _ in enumerate(LINES) if LINES[line][0] == "FROM"][1]]
    for word, rest in stage:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                subprocess.run(["cp", "-r", PROJECT_ROOT / source, app], check=True)
        if word == "RUN":
            subprocess.run(rest.split(), cwd=app, check=True, timeout=250)
    environment = {
        "PATH": f"{app / '.venv/bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "WORKSHOP_STATE_DIR": str(tmp_path / "state" / "workshop"),
        "TEMPORAL_ADDRESS": temporal_server,
        "IT_QUEUE": fresh("image"),
    }
    python = str(app / ".venv/bin/python")
    worker = subprocess.Popen(
        [python, "-m", WORKERS["it"]], cwd=app, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert worker.stderr and "worker it" in worker.stderr.readline()
        health = ["workshop", "status", "it"]
        while subprocess.call(health, cwd=app, env=environment):  # the server hears of it soon
            assert worker.poll() is None
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        worker.kill()
