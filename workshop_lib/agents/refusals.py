"""What a client of a chat session is told where it cannot have what it asks for.

Left out: where that is found out (`sessions`; and `chat`, for what has come as far as the session).
"""

from workshop_lib.agents.chat import problem_with_message
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
