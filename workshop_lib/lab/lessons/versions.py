"""Which version of its code a run is on, and moving it to another.

Starting a version is `start_worker(spec.with_version("2"))`. Left out: what the server makes of it
(`temporal.versions`).
"""

from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.watching.waiting import within
from workshop_lib.temporal import versions

LIMIT = 20.0  # seconds for each question to the server


async def version_of(handle: WorkflowHandle[Any, Any]) -> str:
    """The version that a run is on, as in "version 2 of desk"; of a session, its latest run."""
    version = await within(versions.of_run(handle), LIMIT, "The run's version")
    return versions.in_words(version) if version else "no version"


async def move_run(handle: WorkflowHandle[Any, Any], build_id: str, *, stay: bool = False) -> str:
    """Let another version of its code go on with a run. Returns that version, in words.

    The other version replays what the run has done, so it has to take the same steps up to there.

    Args:
        build_id: the version, such as "2".
        stay: a session stays with it also when it goes on in a new run, instead of taking the version that
            is current by then.

    Raises:
        WorkshopError: the run is on no version, or has ended, or there is no such version.
    """
    now = await within(versions.of_run(handle), LIMIT, "The run's version")
    if now is None:
        raise WorkshopError(
            f"Workflow {handle.id} is on no version, so there is none to move it from.",
            expected="a run that a worker of a version has begun.",
            fix="without versions, mend the code and start its worker again: the run goes on with that.",
        )
    version = versions.version_of(now.deployment_name, build_id)
    try:
        await within(versions.move(handle, version, stay=stay), LIMIT, "The run's move")
    except RPCError as error:
        if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
            raise
        raise WorkshopError(
            f"Workflow {handle.id} cannot be moved to {versions.in_words(version)}: {error.message}.",
            expected="a run that has not ended, and a version that a worker has polled for.",
        ) from error
    return versions.in_words(version)
