"""Reads a team's figures from its file under `data/`; stands in for the team's own systems."""

import json
from functools import lru_cache
from typing import Any

from temporalio.exceptions import ApplicationError

from workshop_lib.settings import PROJECT_ROOT


@lru_cache
def read_records(team: str) -> dict[str, Any]:
    """The content of `data/<team>.json`, read once.

    Raises:
        ApplicationError: type `ServiceDown`, to be retried: the file cannot be read now.
    """
    path = PROJECT_ROOT / "data" / f"{team}.json"
    try:
        records: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ApplicationError(
            f"the records of the {team} team cannot be read now", type="ServiceDown"
        ) from None
    return records
