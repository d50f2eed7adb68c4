"""Write down what the teams' contracts promise: `tests/contracts/<team>.json`.

    uv run python tools/write_contracts.py

A test compares these files with the code, so that nobody changes a promise by accident. A promise that has
changed is written down only under a new version. Left out: whether old callers can live with the change.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from workshop_lib.agents.team_tools import CONTRACTS, operation_spec, operations_of
from workshop_lib.errors import WorkshopError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
FOLDER = PROJECT_ROOT / "tests" / "contracts"
COMMAND = "uv run python tools/write_contracts.py"


class Operation(BaseModel):
    """One operation as its callers know it: names, JSON schemas and what a model reads."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    input: dict[str, Any]
    output: dict[str, Any]


class Contract(BaseModel):
    """What a team promises."""

    model_config = ConfigDict(frozen=True)

    service: str
    version: str
    operations: list[Operation]

    def differs_from(self, other: "Contract") -> bool:
        """True where the promises are others, whatever the versions are called."""
        return self.model_copy(update={"version": other.version}) != other


def contract_of(team: str) -> Contract:
    """A team's contract as the code has it."""
    service = CONTRACTS[team]
    return Contract(
        service=service.__name__,
        version=importlib.import_module(service.__module__).VERSION,
        operations=[
            Operation(
                name=operation.name,
                description=operation_spec(operation).description,
                input=operation.input_type.model_json_schema(),
                output=operation.output_type.model_json_schema(mode="serialization"),
            )
            for operation in operations_of(service)
        ],
    )


def read(team: str, folder: Path = FOLDER) -> Contract | None:
    """A team's contract as it was written down, or None."""
    path = folder / f"{team}.json"
    return Contract.model_validate_json(path.read_bytes()) if path.exists() else None


def problem_with(team: str, now: Contract, written: Contract | None) -> str | None:
    """What keeps a contract from being the one that was written down, and what to do; None if nothing."""
    if written is None:
        return f"The {team} team's contract is not written down: {COMMAND}"
    if now == written:
        return None
    if now.differs_from(written) and now.version == written.version:
        return (
            f"The {team} team's contract has changed and is still version {now.version}: raise VERSION"
            f" in its contract.py, then {COMMAND}"
        )
    return f"The {team} team's contract is not the one written down: {COMMAND}"


def write(team: str, now: Contract, folder: Path = FOLDER) -> Path:
    """Write a contract down.

    Raises:
        WorkshopError: its promises have changed and its version has not.
    """
    written = read(team, folder)
    if written and now.differs_from(written) and now.version == written.version:
        raise WorkshopError(
            f"The {team} team's contract has changed and is still version {now.version}.",
            expected="a new version for new promises.",
            fix="raise VERSION in its contract.py and run this again.",
        )
    path = folder / f"{team}.json"
    text = json.dumps(now.model_dump(), indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
    return path


def main() -> int:
    """Write all of them; 1 where one cannot be."""
    argparse.ArgumentParser(
        description="Write down what the teams' contracts promise."
    ).parse_args()
    try:
        for team in CONTRACTS:
            print(write(team, contract_of(team)).relative_to(PROJECT_ROOT))
    except WorkshopError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
