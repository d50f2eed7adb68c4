"""The Terraform for Temporal Cloud: it names what the provider knows, and gives what the code needs."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import grimp
import pytest
from lab_environment import set_env
from terraform_files import TABLE, Terraform, faults, read

from workshop_lib.agents import team_tools
from workshop_lib.lab.server.namespaces import wanted_endpoints
from workshop_lib.lab.services.programs import WORKERS, spec_of
from workshop_lib.settings import PROJECT_ROOT, Settings, reload_settings
from workshop_lib.temporal.connect import connect_config
from workshop_lib.temporal.search_attributes import KEYS

FOLDER = PROJECT_ROOT / "infrastructure" / "temporal-cloud"
TEXT = "\n".join(path.read_text() for path in sorted(FOLDER.glob("*.tf")))
GIVEN = {"account_id": "a1b2c"}
# Which team's account and environment a worker has; repairs are the orchestrator's.
TEAM_OF = {
    "orchestrator": "orchestrator",
    "repair": "orchestrator",
    "it": "it",
    "finance": "finance",
}


@pytest.fixture
def files() -> Terraform:
    return read(TEXT)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, files: Terraform) -> Iterator[Callable[[str], None]]:
    """Put on the environment that the outputs give to a team's programs."""
    environments = files.resolved(files.output["environment"]["value"], GIVEN)
    names = {name for variables in environments.values() for name in variables}
    monkeypatch.delenv("TEMPORAL_API_KEY", raising=False)
    yield lambda team: set_env(monkeypatch, **(dict.fromkeys(names) | environments[team]))
    monkeypatch.undo()
    reload_settings()


def callers(files: Terraform) -> dict[str, set[str]]:
    """Of each team, the namespaces that Temporal Cloud lets call it."""
    endpoints = files.resolved(files.of_type("nexus_endpoint"), GIVEN)
    return {team: set(body["allowed_caller_namespaces"]) for team, body in endpoints.items()}


def calling_workers() -> set[str]:
    """The workers with a workflow whose module reaches the teams' contracts by way of the Nexus tools."""
    graph = grimp.build_graph("workshop_lib", cache_dir=None)
    return {
        name
        for name in WORKERS
        for workflow in spec_of(name).workflows
        if graph.find_shortest_chain(workflow.__module__, team_tools.__name__)
    }


def wanted_callers(at: Callable[[str], None]) -> dict[str, set[str]]:
    """Of each team that the code has a contract of, the namespaces of the workers that call it."""
    namespaces = set()
    for worker in calling_workers():
        at(TEAM_OF[worker])
        namespaces.add(spec_of(worker).namespace)
    return dict.fromkeys(team_tools.CONTRACTS, namespaces)


def test_the_provider_knows_every_resource_and_argument(files: Terraform) -> None:
    assert len(files.resource) >= 10
    assert faults(files) == []
    versions = files.terraform[0]["required_providers"][0]["temporalcloud"]
    assert versions["source"] == "temporalio/temporalcloud"
    major, minor, _ = TABLE["version"].split(".")
    assert versions["version"] == f"~> {major}.{minor}", "the table is of another version"


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("retention_days = var", "retention = var", "unknown argument retention"),
        ("  api_key_auth   = true\n", "  api_key_auth = \"yes\"\n", "api_key_auth is no Boolean"),
        ('permission   = "write"', 'permission = "owner"', "permission cannot be owner"),
        ('    task_queue   = "it-task-queue"\n', "", "it.worker_target: task_queue is missing"),
        ("enable_delete_protection", "delete_protection", "unknown argument delete_protection"),
        ("namespace_search_attribute", "search_attribute", "unknown resource"),
        ("temporalcloud_namespace.it.id", "temporalcloud_namespace.itt.id", "no temporalcloud_namespace.itt"),
        ("endpoints.grpc_address", "endpoints.address", "has no endpoints.address"),
        ("var.region", "var.regoin", "no var.regoin"),
        ("[var.region]", "[lower(var.region)]", "lower(var.region) is not understood"),
        ("var.retention_days", "7", "var.retention_days is never used"),
        ("allowed_account_id", "account", "provider temporalcloud: unknown argument account"),
    ],
)  # fmt: skip
def test_what_the_provider_would_refuse_is_found(right: str, wrong: str, fault: str) -> None:
    assert right in TEXT
    assert any(fault in found for found in faults(read(TEXT.replace(right, wrong))))


def test_exactly_those_may_call_a_team_whose_code_does(
    files: Terraform, at: Callable[[str], None]
) -> None:
    assert callers(files) == wanted_callers(at) != {}


@pytest.mark.parametrize("change", ["caller taken out", "caller added", "endpoint taken out"])
def test_another_list_of_callers_is_noticed(change: str, at: Callable[[str], None]) -> None:
    caller = "    temporalcloud_namespace.orchestrator.id, # the chat agents\n"
    other = caller + "    temporalcloud_namespace.finance.id,\n"
    endpoint = re.search(
        r'resource "temporalcloud_nexus_endpoint" "it" \{.*?\n\}\n', TEXT, re.DOTALL
    )
    assert endpoint
    changed = {
        "caller taken out": TEXT.replace(caller, "", 1),
        "caller added": TEXT.replace(caller, other, 1),
        "endpoint taken out": TEXT.replace(endpoint[0], ""),
    }[change]
    assert callers(read(changed)) != wanted_callers(at)


def test_a_contract_that_the_code_drops_is_noticed(
    files: Terraform, at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(team_tools.CONTRACTS, "finance")
    assert callers(files) != wanted_callers(at)


def test_with_the_outputs_each_worker_finds_its_place(
    files: Terraform, at: Callable[[str], None]
) -> None:
    namespaces = files.resolved(files.of_type("namespace"), GIVEN)
    for worker, team in TEAM_OF.items():
        at(team)
        place = f"{namespaces[team]['name']}.a1b2c"
        assert spec_of(worker).namespace == place
        assert connect_config().get("target_host") == f"{place}.tmprl.cloud:7233"
    at("orchestrator")
    endpoints = files.resolved(files.of_type("nexus_endpoint"), GIVEN).values()
    assert [
        (one.name, one.target.worker.namespace, one.target.worker.task_queue)
        for one in wanted_endpoints()
    ] == [
        (one["name"], one["worker_target"]["namespace_id"], one["worker_target"]["task_queue"])
        for one in endpoints
    ]


def test_outputs_have_names_that_the_code_reads(files: Terraform) -> None:
    fields = Settings.model_fields.items()
    read_by_us = {str(field.validation_alias or name.upper()) for name, field in fields}
    for variables in files.output["environment"]["value"].values():
        assert set(variables) <= read_by_us | {"TEMPORAL_ADDRESS"}
    assert set(files.output["service_accounts"]["value"]) == set(TEAM_OF.values())


def test_an_account_writes_in_its_own_namespace_and_nowhere_else(files: Terraform) -> None:
    for team, account in files.of_type("service_account").items():
        assert account.keys() == {"name", "description", "namespace_scoped_access"}
        assert account["namespace_scoped_access"] == {
            "namespace_id": f"${{temporalcloud_namespace.{team}.id}}",
            "permission": "write",
        }


def test_no_secret_gets_into_the_state(files: Terraform) -> None:
    assert not files.of_type("apikey")
    assert "api_key" not in files.provider["temporalcloud"]
    assert not re.search(r"sensitive|\.token\b", TEXT)


def test_search_attributes_are_registered_where_chats_and_repairs_run(files: Terraform) -> None:
    attributes = files.of_type("namespace_search_attribute").values()
    assert {one["name"] for one in attributes} == {key.name for key in KEYS}
    assert {one["type"] for one in attributes} == {"keyword"}
    assert {one["namespace_id"] for one in attributes} == {
        "${temporalcloud_namespace.orchestrator.id}"
    }


def test_terraform_finds_nothing_where_it_is_installed() -> None:
    """Its own form everywhere; its own check of the provider where somebody has run `init` here."""
    for program in filter(shutil.which, ("tofu", "terraform")):
        checks = [["fmt", "-check"], ["validate"]][: 2 if (FOLDER / ".terraform").is_dir() else 1]
        for check in checks:
            subprocess.run([program, *check], cwd=FOLDER, check=True, timeout=120)
