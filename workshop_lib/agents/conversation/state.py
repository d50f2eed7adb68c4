"""A conversation as a workflow holds it, turn by turn, and as a run hands it on.

A session owns one `Conversation`, and begins and ends its turns; its loop adds what model and tools say and
asks what the model is sent. What it comes to at the end of a turn is a `ConversationState`: small, JSON, and
all that another run needs to go on from there. Left out: how much a model is sent (`policy`), and the
transcript that people read, which is the session's (`chat`).
"""

from typing import Any, Generic, NamedTuple

from pydantic import BaseModel, TypeAdapter
from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception
from temporalio.workflow import ActivityConfig

from workshop_lib.agents.conversation.policy import ContextPolicy, Part, field_of, plain_text
from workshop_lib.agents.conversation.results import REFERENCE
from workshop_lib.agents.conversation.spending import (
    MAX_OUTPUT,
    WARN_AT,
    Budget,
    Spending,
    worst_case,
)
from workshop_lib.agents.conversation.summary import (
    SUMMARY_OPTIONS,
    TRIES,
    SummaryRequest,
    lines_of,
    summarise,
)
from workshop_lib.llm.messages import Usage
from workshop_lib.temporal.lookup import WAITS
from workshop_lib.temporal.steps import reason_of

OVERDRAWN = (
    "room in the session's budget of {}, which does not hold one model call more; it goes on when the budget"
    " is raised (set_budget), and can be stopped"
)
NEARLY_SPENT = "This session has used {:.0%} of its budget of {}."
NO_SUMMARY = (
    "The model could not write a summary of the older part of this conversation ({}). An extract by rules"
    " is remembered instead."
)


class ConversationState(BaseModel):
    """A conversation at the end of a turn.

    Attributes:
        turn: how many turns it has had.
        opening: how it began, once its first message has left `turns`.
        summary: of what has left them.
        used: what all of it has cost.
        budget: what it may cost; None for as much as it takes.
        turns: the latest turns, oldest first; the last one is number `turn`. A turn is its parts as JSON, in
            the form of the loop that they come from.
    """

    turn: int = 0
    opening: str | None = None
    summary: str = ""
    turns: list[list[dict[str, Any]]] = []
    used: Usage = Usage()
    budget: Budget | None = None


class Conversation(Generic[Part]):
    """The turns of one run of a session, with what it knows of those before.

    Args:
        part_type: what a turn is made of: `Message`, or `dict` for items of the Agents SDK.
        state: where the conversation stands; left out, it begins.
        policy: how much of it a model is sent.

    Attributes:
        budget: what it may cost in all. May be changed at any time.
    """

    def __init__(
        self,
        part_type: type[Part],
        state: ConversationState | None = None,
        policy: ContextPolicy | None = None,
    ) -> None:
        state = state or ConversationState()
        self._policy = policy or ContextPolicy()
        self._form: TypeAdapter[list[Part]] = TypeAdapter(list[part_type])  # type: ignore[valid-type]
        self._turns = [self._form.validate_python(turn) for turn in state.turns]
        self._begun_at = state.turn
        self._first = state.turn - len(state.turns) + 1  # the number of the first turn that is here
        self._opening = state.opening
        self.budget = state.budget
        self._wanted = Usage()  # the worst case of a call that waits for the budget
        self._used = {state.turn: state.used}  # at the end of a turn, of all turns so far
        self._notice = ""
        self._views = [_View(state.turn, 0, state.summary)]

    @property
    def turn(self) -> int:
        """The number of the turn under way, or else of the last one; 1 is the first of the session."""
        return self._first - 1 + len(self._turns)

    @property
    def waits(self) -> str:
        """What the turn under way waits for, in words after "waits for"; mostly empty."""
        return "" if self._affords(self._wanted) else OVERDRAWN.format(self.budget)

    def ask(self, message: str) -> None:
        """A turn begins, with the user's message."""
        self._used[self.turn + 1] = self._used[self.turn]
        self._notice = ""
        self._turns.append(self._form.validate_python([{"role": "user", "content": message}]))

    def add(self, *parts: Part) -> None:
        """What model and tools have said in the turn under way. Calls are added together with their results,
        or right before: a provider refuses one without the other."""
        self._turns[-1].extend(parts)

    def turn_is(self, parts: list[Part]) -> None:
        """All parts of the turn under way, the user's message first: for a loop that keeps them itself."""
        self._turns[-1] = list(parts)

    def answered(self, text: str) -> None:
        """The turn ends, with the answer that the user was given, unless the model's own words are there."""
        last = self._turns[-1][-1]
        if field_of(last, "role") != "assistant" or field_of(last, "tool_calls"):
            self._turns[-1] += self._form.validate_python([{"role": "assistant", "content": text}])

    async def fit(self) -> None:
        """Make room, now that a turn has begun and no model was asked yet: the oldest turns are summed up
        where there are too many. Called in a workflow, once a turn.

        It is an activity, named after the turn. Where it fails, the extract is made here of the same input.
        """
        gone = self._policy.too_many(self._in_view(), summed_up=True)
        if not gone:
            return
        if not workflow.patched("summary"):  # a session from before there were summaries
            gone = self._policy.too_many(self._in_view(), summed_up=False)
            self._left_out(gone, self._views[-1].summary)
            return
        view = self._views[-1]
        request = SummaryRequest(
            before=view.summary,
            lines=lines_of([part for turn in self._in_view()[:gone] for part in turn]),
            most=self._policy.max_summary_chars,
            max_tokens=self.most_output(),
        )
        await self.afford(request.model_dump(), calls=TRIES)
        try:
            summary = await workflow.execute_activity(
                summarise,
                request,
                **(SUMMARY_OPTIONS | ActivityConfig(activity_id=f"summary-in-turn-{self.turn}")),
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            summary = request.extract(reason_of(error))
        if summary.problem:
            self._notice = NO_SUMMARY.format(summary.problem)
        self.paid(summary.usage)
        self._left_out(gone, summary.text)

    async def afford(self, *sent: Any, calls: int = 1) -> Usage:
        """Wait, before a model call, until the worst that it may cost fits into the budget.

        Args:
            sent: what the model is sent, as JSON.
            calls: how often that may be.

        Returns:
            That worst case.
        """
        worst = worst_case(*sent).times(calls) if self.budget else Usage()
        if not self._affords(worst):
            self._wanted = worst
            workflow.upsert_memo({WAITS: self.waits})  # so that whoever looks at the run is told
            try:
                await workflow.wait_condition(lambda: self._affords(worst))
            finally:
                self._wanted = Usage()
                workflow.upsert_memo({WAITS: ""})
        return worst

    def paid(self, usage: Usage) -> None:
        """A model call has cost this much, in the turn under way."""
        self._used[self.turn] += usage

    def most_output(self) -> int | None:
        """How many tokens an answer may have; None where there is no budget."""
        return MAX_OUTPUT if self.budget else None

    def spending(self) -> Spending:
        """What it has cost so far."""
        turns = range(self._begun_at + 1, self.turn + 1)
        return Spending(
            used=self._used[self.turn],
            turns={turn: self._used[turn].tokens - self._used[turn - 1].tokens for turn in turns},
            budget=self.budget,
            waits=self.waits,
        )

    def notice(self) -> str:
        """What the user should know at the end of the turn; mostly empty."""
        share = self.budget.share(self._used[self.turn]) if self.budget else 0
        warned = NEARLY_SPENT.format(share, self.budget) if share >= WARN_AT else ""
        return " ".join(filter(None, (self._notice, warned)))

    def _affords(self, more: Usage) -> bool:
        used = self._used[self.turn]
        return not (self.budget and more.tokens) or self.budget.share(used + more) <= 1

    def latest(self) -> list[Part]:
        """The parts that a model may be sent, none of them cut, the turn under way at their end."""
        return [part for turn in self._in_view() for part in turn]

    def refers(self) -> bool:
        """Whether something in view is the first part of a large result (`results`)."""
        texts = (field_of(part, "content") or field_of(part, "output") for part in self.latest())
        return any(REFERENCE.search(plain_text(t)) for t in [self._views[-1].summary, *texts])

    def sent(self, instructions: str) -> tuple[str, list[Part]]:
        """What the model is sent now: the system message, and the parts after it.

        Args:
            instructions: the system message as it would be for a short conversation.
        """
        view = self._views[-1]
        return self._policy.select(
            instructions, self.latest(), self._opening_before(view), view.summary
        )

    def state(self, turn: int | None = None) -> ConversationState:
        """What the conversation came to at the end of a turn: of one that this run has had, or of the one
        that it began with. By default the last one.

        Raises:
            ValueError: it is none of these.
        """
        turn = self.turn if turn is None else turn
        if not self._begun_at <= turn <= self.turn:
            raise ValueError(f"this run has the turns {self._begun_at} to {self.turn}, not {turn}")
        view = next(view for view in reversed(self._views) if view.since <= turn)
        return ConversationState(
            turn=turn,
            opening=self._opening_before(view),
            summary=view.summary,
            turns=[
                self._form.dump_python(self._policy.fitting(kept), mode="json")
                for kept in self._turns[view.first : turn - self._first + 1]
            ],
            used=self._used[turn],
            budget=self.budget,
        )

    def _in_view(self) -> list[list[Part]]:
        return self._turns[self._views[-1].first :]

    def _left_out(self, turns: int, summary: str) -> None:
        """From the turn under way on, so many turns more are not sent any longer."""
        self._views.append(_View(self.turn, self._views[-1].first + turns, summary))

    def _opening_before(self, view: "_View") -> str | None:
        """How the conversation began, where its beginning is out of view."""
        if self._opening is None and view.first:
            return self._policy.opening_of(str(field_of(self._turns[0][0], "content")))
        return self._opening


class _View(NamedTuple):
    """What is sent from a turn on: the turns from index `first` on, and a summary of those before."""

    since: int
    first: int
    summary: str
