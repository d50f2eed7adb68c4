"""Errors that a person can act on.

A `WorkshopError` says three things: what was wrong, what was expected, and the command or cell that
fixes it. In a notebook it renders as those lines and nothing else; the command line prints the same
lines on stderr and leaves with status 1. For everything else that is raised the command line finds words
too, and keeps the traceback in a log (`edge`).
"""

from workshop_lib import harmless


class WorkshopError(Exception):
    """Something that a learner, an instructor or a machine can cause, said in up to three lines.

    Args:
        what: what was wrong.
        expected: what was expected instead.
        fix: the command to run or the cell to change.
    """

    def __init__(self, what: str, *, expected: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.fix = fix

    @property
    def lines(self) -> list[str]:
        """The message, one thought a line."""
        lines = [self.what]
        if self.expected:
            lines.append(f"Expected: {self.expected}")
        if self.fix:
            lines.append(f"To fix it: {self.fix}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _render_traceback_(self) -> list[str]:
        """IPython asks for this: the lines, without a traceback that leads nowhere useful."""
        return [harmless.block(line) for line in self.lines]
