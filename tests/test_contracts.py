"""What the teams promise changes on purpose or not at all."""

from pathlib import Path
from typing import Any

import pytest
import write_contracts
from write_contracts import Contract, contract_of, problem_with, read, write

from workshop_lib.agents.team_tools import CONTRACTS
from workshop_lib.errors import WorkshopError

TEAMS = list(CONTRACTS)


@pytest.mark.parametrize("team", TEAMS)
def test_a_contract_is_the_one_that_was_written_down(team: str) -> None:
    now, written = contract_of(team), read(team)
    problem = problem_with(team, now, written)
    assert problem is None, f"{problem}\nnow: {now}\nwritten: {written}"


@pytest.mark.parametrize("team", TEAMS)
def test_a_promise_says_all_that_a_caller_and_a_model_need(team: str) -> None:
    for operation in contract_of(team).operations:
        assert operation.description
        assert operation.input["additionalProperties"] is False
        assert operation.output["properties"]
        assert all(field["description"] for field in operation.input["properties"].values())


def changed(contract: Contract, **first_operation: Any) -> Contract:
    """The same contract with something else in its first operation."""
    first, *others = contract.operations
    operations = [first.model_copy(update=first_operation), *others]
    return contract.model_copy(update={"operations": operations})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another_name"},
        {"description": "Something else."},
        {"input": {"type": "object"}},
        {"output": {"type": "object"}},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("team", TEAMS)
def test_a_change_is_noticed_until_version_and_file_change_with_it(
    team: str, change: dict[str, Any], tmp_path: Path
) -> None:
    before = contract_of(team)
    write(team, before, tmp_path)
    after = changed(before, **change)
    unsaid = problem_with(team, after, read(team, tmp_path))
    assert unsaid and "raise VERSION" in unsaid and write_contracts.COMMAND in unsaid
    with pytest.raises(WorkshopError, match=f"still version {before.version}"):
        write(team, after, tmp_path)
    assert read(team, tmp_path) == before

    raised = after.model_copy(update={"version": "99.0.0"})
    unwritten = problem_with(team, raised, read(team, tmp_path))
    assert unwritten and write_contracts.COMMAND in unwritten
    write(team, raised, tmp_path)
    assert problem_with(team, raised, read(team, tmp_path)) is None


def test_an_operation_that_is_taken_away_is_a_change(tmp_path: Path) -> None:
    before = contract_of("it")
    after = before.model_copy(update={"operations": before.operations[:-1]})
    assert problem_with("it", after, before)
    assert problem_with("it", before, None)
