"""Why a step of a workflow failed for good, in the words of whoever raised it.

Temporal wraps a failure once for every border that it has crossed: an activity's in an `ActivityError`, an
operation's in a `NexusOperationError` around that. People and models are told what stands inside. Used in
workflows.
"""

from temporalio.exceptions import ApplicationError


def reason_of(error: BaseException) -> str:
    """The text of the innermost failure, or of the first one that an application raised on purpose."""
    cause = error
    while not isinstance(cause, ApplicationError) and cause.__cause__:
        cause = cause.__cause__
    return str(getattr(cause, "message", None) or cause or error)
