"""One line of the doctor's report."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """What was looked at and how it is.

    Attributes:
        status: OK, WARN (the lab works, with a limit that the text names) or FAIL (something will not work).
        text: one sentence for a person; never a secret.
        repair: the command or change that repairs it; None where nothing is wrong.
    """

    name: str
    status: Status
    text: str
    repair: str | None = None


def ok(name: str, text: str) -> Finding:
    """All is right."""
    return Finding(name, "OK", text)


def warn(name: str, text: str, repair: str) -> Finding:
    """The lab works all the same."""
    return Finding(name, "WARN", text, repair)


def fail(name: str, text: str, repair: str) -> Finding:
    """Something will not work."""
    return Finding(name, "FAIL", text, repair)
