"""Queries that are asked again where they got lost.

A worker that has just finished a run takes it out of its cache. Of several queries that reach it in that
moment the SDK (1.35) answers one and forgets the others, and whoever asked waits until its own limit for an
answer that nobody owes it. A query changes nothing, so it may be asked again.
"""

from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

# Growing, so that a worker that has a long history to replay first still gets the time for it.
ATTEMPTS = (timedelta(seconds=1), timedelta(seconds=3), timedelta(seconds=6))
# The last: no worker has polled lately. One that is just starting will.
_NO_ANSWER = (
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.FAILED_PRECONDITION,
)


async def query(handle: WorkflowHandle[Any, Any], name: Any, result_type: Any = None) -> Any:
    """The answer of a workflow, within ten seconds.

    Args:
        name: the query's name or its method.
        result_type: what the answer is read as; a method's own where it is left out.

    Raises:
        RPCError: no answer came in all this time, or the server refused: there is no such run, no worker.
        WorkflowQueryFailedError: the workflow cannot answer.
    """
    for limit in ATTEMPTS[:-1]:
        try:
            return await handle.query(name, result_type=result_type, rpc_timeout=limit)
        except RPCError as error:
            if error.status not in _NO_ANSWER:
                raise
    return await handle.query(name, result_type=result_type, rpc_timeout=ATTEMPTS[-1])
