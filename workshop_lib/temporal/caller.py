"""Who is asking, as far as the code that does the work needs to know: a name, and what it may do.

Whatever checks identity (`auth`, put around a worker) says it here, and where nothing does, nobody is known.
So an activity or an approval desk can ask without knowing how a caller proves anything. Left out: proof.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from nexusrpc import HandlerError, HandlerErrorType
from temporalio.exceptions import ApplicationError

from workshop_lib.temporal.steps import causes

# Types of errors that neither a retry nor a model can mend: it is the user who has to hear of them.
FORBIDDEN = "Forbidden"  # known, and not allowed
UNIDENTIFIED = "Unidentified"  # no proof, or a wrong one
REFUSALS = frozenset({FORBIDDEN, UNIDENTIFIED})
_AT_THE_DOOR = (HandlerErrorType.UNAUTHENTICATED, HandlerErrorType.UNAUTHORIZED)


@dataclass(frozen=True)
class Asker:
    """A person, and what the person may do here. An empty name is somebody who has proved nothing.

    Attributes:
        at: when the person has asked for this, in Unix seconds by the person's own clock; 0 where not known.
    """

    name: str
    scopes: frozenset[str] = frozenset()
    at: float = 0.0


_asker: ContextVar[Asker | None] = ContextVar("asker", default=None)


def asker() -> Asker | None:
    """Who is asking; None where nobody checks that."""
    return _asker.get()


def asked_at() -> float:
    """When who is asking has asked, in Unix seconds by their own clock; 0 where nobody knows."""
    who = _asker.get()
    return who.at if who else 0.0


def lacks(scope: str) -> str:
    """What a refusal says of who lacks a scope, as words to append; empty where nobody checks."""
    who = _asker.get()
    return f" ({who.name or 'who asks'} lacks the scope {scope})" if who else ""


def may(scope: str) -> bool:
    """Whether who is asking has a scope. Nobody has one where nobody is known."""
    who = _asker.get()
    return who is not None and scope in who.scopes


@contextlib.contextmanager
def asked_by(who: Asker | None) -> Iterator[None]:
    """While the block runs, in this task and those that it starts, this one is asking."""
    token = _asker.set(who)
    try:
        yield
    finally:
        _asker.reset(token)


def refusal_of(error: BaseException | None) -> str | None:
    """The words of the refusal that a failure holds, for the user, or None where it is of another kind."""
    for cause in causes(error):
        if isinstance(cause, ApplicationError) and cause.type in REFUSALS:
            return cause.message
        if isinstance(cause, HandlerError) and cause.type in _AT_THE_DOOR:
            return cause.message
    return None
