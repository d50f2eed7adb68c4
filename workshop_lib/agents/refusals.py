"""What a client of a chat session is told where it cannot have what it asks for.

Left out: where that is found out (`sessions`; and `chat`, for what has come as far as the session).
"""

from datetime import timedelta

from temporalio.service import RPCError

from workshop_lib.agents.chat import problem_with_message
from workshop_lib.agents.conversation.spending import Budget
from workshop_lib.errors import WorkshopError


class MessageRefused(WorkshopError):
    """The message cannot be taken; nothing was recorded."""


def check_message(message: str) -> None:
    """Refuse, before anything is started or sent, what no session would take.

    Raises:
        MessageRefused: it is empty, too long or no text.
    """
    if problem := problem_with_message(message):
        raise MessageRefused(problem[1])


class NothingToStop(WorkshopError):
    """No message is being answered."""


class EffectsRemain(WorkshopError):
    """What tools have changed since stays as it is."""


def check_budget(budget: Budget | None) -> None:
    """Refuse what is no budget. Raises `MessageRefused`."""
    if problem := budget.problem() if budget else None:
        raise MessageRefused(problem)


def no_reply(workflow_id: str, timeout: timedelta) -> WorkshopError:
    """What is said of a session that has not answered in time."""
    return WorkshopError(
        f"No reply within {timeout.total_seconds():.0f} s. Nothing is lost: {workflow_id} goes on.",
        expected="a worker that serves the chat and a model that answers.",
        fix="`workshop doctor` finds what is missing; rejoin the session afterwards.",
    )


def no_answer(session: str, error: RPCError) -> WorkshopError:
    """What is said of a session whose query nobody answered."""
    return WorkshopError(
        f"The session {session!r} did not answer: {error.message}.",
        expected="a worker that serves it.",
        fix="`workshop up`, or start the orchestrator's worker.",
    )


def has_ended(session: str) -> MessageRefused:
    """What is said of a session that takes nothing any more."""
    return MessageRefused(f"The session {session!r} has ended.", fix="start one with another name.")
