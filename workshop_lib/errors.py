"""Errors that a person can act on.

A `WorkshopError` says three things: what was wrong, what was expected, and the command or cell that
fixes it. In a notebook it renders as those lines and nothing else; the command line prints the same
lines on stderr and leaves with status 1. For everything else that is raised the command line finds words
too, and keeps the traceback in a log (`edge`).

    WorkshopError
        NoServer            the state folder's dev server does not run    temporal.own_server
        ModelUnavailable    the model did not answer; it may later        llm.failures
        ModelRefused        the model never answers such a request        llm.failures
        MessageRefused      a chat does not take the message              agents.refusals
        EffectsRemain       what tools have changed is not taken back agents.refusals
        NothingToStop       no message of a chat is being answered    agents.refusals
        DecisionRefused     a decision about a plan did not count         repair.client
        RepairRefused       an order repair cannot be carried out         repair.store
        StoreUnavailable    the order store does not answer just now      repair.database
        StoreDamaged        the order store cannot be used as it is       repair.database
            Duplicate       a row of this key is there already            repair.database
        PortLost            the dev server found its port taken           lab.server.lifecycle
        NoAnswer            what a cell waits for did not come in time    lab.watching.waiting
        NobodyPolls         no worker takes what a cell waits for         lab.watching.waiting
        StuckWorkflow       a bug in workflow code holds a run up         lab.watching.waiting
        KeepsFailing        a step fails at every attempt                 lab.watching.waiting
        WorkflowFailed      a run, or an update of it, has failed         lab.watching.waiting
        Refused             a proof of who is asking does not count       auth.tokens
        LetIn               an attack was not refused                     lab.lessons.attacker
        CheckNotMet         an exercise is not solved yet                 lab.checks.framework
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
