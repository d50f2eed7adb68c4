"""One turn of a chat: the tool calls that the model asks for, and whether it gets anywhere.

Every loop calls tools through it, so that a tool behaves the same in each: what the model can mend (an
unknown tool, malformed arguments, an unknown ticker) and what it cannot (a team that is down) both come
back as words. What neither a retry nor a model can mend, a refusal, ends the turn, in the words of whoever
refused; so does a model that does not get on. A turn that is stopped ends too: what its tools have found
stays, a call that was under way comes back as words, and every other cancellation goes through.
"""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    FailureError,
    NexusOperationError,
    is_cancelled_exception,
)

from workshop_lib.agents.conversation.results import (
    KEEP_OPTIONS,
    MAX_KEPT,
    REFERENCE,
    SHOWN,
    keep_result,
)
from workshop_lib.agents.team_tools import TeamOutOfReach
from workshop_lib.agents.toolbox import Toolbox
from workshop_lib.llm.messages import ToolCall, ToolSpec
from workshop_lib.llm.tools import ToolInputError, arguments_for
from workshop_lib.temporal.bounded import as_text, cut
from workshop_lib.temporal.caller import refusal_of
from workshop_lib.temporal.steps import reason_of

MAX_CORRECTIONS = 3  # a turn; calls handed back because they cannot be made
MAX_REPEATS = 2  # a turn; answers that ask for nothing but what the model has been told
MAX_NAMED = 200  # characters of a call's arguments, where people are told of it
MAX_ERROR = 2_000  # characters of why a call failed

TOO_MANY_CORRECTIONS = (
    "I could not work out a tool call that is possible. Please ask in other words."
)
GOING_ROUND = (
    "I called the same tool again and again without coming to an answer. Please ask in other words."
)


STOPPED = "Stopped, as you asked, before there was an answer."


Result = TypeVar("Result")


class _Repeated(ToolInputError):
    """The model has asked for the same call before, and was told the result."""

    def __init__(self) -> None:
        super().__init__(
            "this very call was made before in this turn, and you have its result. Answer from it, or make"
            " another call."
        )


@dataclass
class Answer:
    """What a turn comes to.

    Attributes:
        model_calls: calls to the model whose answers are in the history.
        tool_calls: names of the tools called, in order.
        failed: no answer was found; the text says why.
        stopped: that is because the user has stopped the turn.
    """

    text: str
    model_calls: int = 0
    tool_calls: list[str] = field(default_factory=list)
    failed: bool = False
    stopped: bool = False


@dataclass
class Turn:
    """A turn under way, with the tools that it may use.

    Attributes:
        model_calls: the model's answers so far; a loop counts them.
        tool_calls: names of the tools called, in order.
        corrections: calls that could not be made.
        repeats: in how many of its answers the model has asked for a call that was made before.
        refused: why whoever asks may not have what a call was for.
        stopped: the user has stopped it.
        effects: of each call that changes something, what; it counts as done once it is made.
        cut_off: of a turn that was stopped, a sentence on each call that had no result yet.
    """

    toolbox: Toolbox
    model_calls: int = 0
    tool_calls: list[str] = field(default_factory=list)
    corrections: int = 0
    repeats: int = 0
    refused: str = ""
    stopped: bool = False
    effects: list[str] = field(default_factory=list)
    cut_off: list[str] = field(default_factory=list)
    _under_way: list[asyncio.Task[Any]] = field(default_factory=list)
    _asked_in: dict[str, int] = field(
        default_factory=dict
    )  # a call to the answer that asked for it
    _repeated_in: int = -1

    @property
    def problem(self) -> str | None:
        """Why the turn had better end, in words for the user, or None."""
        if self.stopped:
            return " ".join([STOPPED, *self.cut_off])
        if self.refused:
            return f"I may not do that for you: {cut(self.refused, MAX_ERROR)}"
        if self.repeats >= MAX_REPEATS:
            return GOING_ROUND
        return TOO_MANY_CORRECTIONS if self.corrections > MAX_CORRECTIONS else None

    def answered(self, text: str, *, failed: bool = False) -> Answer:
        """What the turn comes to, with this text for the user."""
        return Answer(text, self.model_calls, self.tool_calls, failed, self.stopped and failed)

    def stop(self) -> bool:
        """End the tool calls that are under way, each in words. Returns whether there were any: then the
        loop goes on by itself, and finds that there is a `problem`."""
        self.stopped = True
        # In their order, which is that of the history: a replay cancels them in the same one.
        for task in self._under_way:
            task.cancel()
        return bool(self._under_way)

    async def run(self, call: ToolCall) -> str:
        """Make a tool call. Returns the result, or a sentence that begins with "Error: "."""
        try:
            arguments = self.begin(call, self.toolbox.specs)
            tool = self.toolbox.by_name[call.name]
            work = self._shown(tool.call(arguments))
            name, written = call.name, call.arguments
            return self.seen(await self.stoppable(name, written, tool.changes, work))
        except (ToolInputError, TeamOutOfReach, ActivityError, NexusOperationError) as error:
            if is_cancelled_exception(error):
                raise
            return self.in_words(error)

    def seen(self, result: str) -> str:
        """A result as the model gets it. Where it is only a part, there is a tool to read on with."""
        if REFERENCE.search(result):
            self.toolbox.offer_reading()
        return result

    async def _shown(self, work: Coroutine[Any, Any, Any]) -> str:
        """What a call has brought, as text: of a large result the first part, while the whole is kept."""
        text = as_text(await work, MAX_KEPT)
        if len(text) <= SHOWN or not workflow.patched("kept-results"):
            return cut(text)
        try:
            return await workflow.execute_activity(keep_result, text, **KEEP_OPTIONS)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return cut(text, SHOWN)

    async def stoppable(
        self, name: str, arguments: str, changes: str, work: Coroutine[Any, Any, Result]
    ) -> Result | str:
        """The result of a call, or a sentence on it where the turn is stopped meanwhile.

        Args:
            arguments: as the model wrote them.
            changes: as a `Tool` says it.
        """
        if changes:
            self.effects.append(f"{name} {cut(arguments, MAX_NAMED)}: {changes}")
        task = asyncio.create_task(work)
        self._under_way.append(task)
        try:
            return await task
        # In whatever form a call ends then: it is the stop that ended it.
        except (asyncio.CancelledError, Exception):
            if not self.stopped:
                raise
            effect = (
                f"it may have been done: {changes}" if changes else "it only looks something up"
            )
            self.cut_off.append(f"{name} was under way and had no result yet ({effect}).")
            return f"Stopped by the user: {self.cut_off[-1]}"
        finally:
            self._under_way.remove(task)

    def begin(self, call: ToolCall, specs: Sequence[ToolSpec], owner: str = "") -> dict[str, Any]:
        """The arguments of a call, which counts as made.

        An answer that asks twice at once for the same does not repeat itself: it has seen no result yet.

        Args:
            owner: tells tools of one name apart that are not the toolbox's.

        Raises:
            ToolInputError: it cannot be made, or the model has its result.
        """
        arguments = arguments_for(call, specs)
        key = json.dumps([owner, call.name, arguments], sort_keys=True, default=str)
        first = self._asked_in.setdefault(key, self.model_calls)
        if first < self.model_calls:
            if self._repeated_in != self.model_calls:
                self.repeats, self._repeated_in = self.repeats + 1, self.model_calls
            raise _Repeated
        self.tool_calls.append(call.name)
        return arguments

    def in_words(self, error: Exception) -> str:
        """What the model is told of a call that was not made, or has failed for good."""
        if isinstance(error, ToolInputError) and not isinstance(error, _Repeated):
            self.corrections += 1
        self.refused = self.refused or refusal_of(error) or ""
        text = reason_of(error) if isinstance(error, FailureError) else str(error)
        return f"Error: {cut(text, MAX_ERROR)}"
