"""The four analysts of the repair agent: detect, analyse, plan, report. Each is an activity.

An analyst asks a model, checks what it answers, and sends what it cannot use back with the reason, at most
`MAX_CORRECTIONS` times. Errors have three ways, as everywhere: a model that is not there is retried by
Temporal, a model that refuses ends the activity, and a wrong answer is corrected in the conversation or,
after the bound, ends in `AnalystFailed` with a sentence.

An analyst changes nothing outside, so running one twice costs model calls and nothing else. Corrections made
before a kill are made again. Left out: the order of the analysts, and every repair, which are the workflow's.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError

from workshop_lib.llm.call_in_activity import ask_model
from workshop_lib.llm.messages import Message, ToolCall, ToolSpec
from workshop_lib.llm.tools import ToolInputError
from workshop_lib.repair import analyst_prompts as prompts
from workshop_lib.repair.analyst_tools import (
    ANALYSIS,
    DETECTION,
    REPAIRS,
    Unacceptable,
    as_proposal,
    read_call,
    specs,
)
from workshop_lib.repair.documents import plain_report, problem_with_report
from workshop_lib.repair.models import (
    DETECTION_THRESHOLD,
    Analysis,
    AnalyzeRequest,
    Detection,
    DetectRequest,
    Plan,
    PlanRequest,
    Rejected,
    Report,
    ReportRequest,
    Snapshot,
)
from workshop_lib.repair.plan_rules import within_limits
from workshop_lib.temporal.steps import step_options

MAX_CORRECTIONS = 3  # an activity; then the model is not up to the task, and asking on only costs
MAX_QUOTE = 500  # characters of a model's own words in a summary
MAX_REFUSED_CHARS = 4000  # of a refused call, as JSON, that are kept

# Up to four model calls of a minute each.
ANALYST_OPTIONS = step_options(attempt=300, total=900, longest_pause=20)

Answer = TypeVar("Answer")
Form = TypeVar("Form", bound=BaseModel)


@activity.defn
async def detect_problems(request: DetectRequest) -> Detection:
    """Say whether anything is wrong at all, from a line an order. Without orders no model is asked.

    May run twice, when a worker dies before its answer is recorded: the model is then asked again, which
    changes nothing but the bill.

    Raises:
        ApplicationError: type `ModelUnavailable` (retried), `ModelRefused` or `AnalystFailed` (not retried).
    """
    snapshot = request.snapshot
    if not snapshot.orders:
        return Detection(confidence=0.0, order_ids=[], reason="There are no orders.")

    def accept(message: Message) -> Detection:
        found = _form(message, DETECTION)
        _known_orders(found.order_ids, snapshot)
        if found.confidence >= DETECTION_THRESHOLD and not found.order_ids:
            raise NotAccepted("the orders that may have a problem are not named")
        return found.model_copy(update={"order_ids": list(dict.fromkeys(found.order_ids))})

    data = prompts.digest_of(snapshot)
    return await _ask("detection", prompts.DETECT, data, specs(DETECTION), accept)


@activity.defn
async def analyze_problems(request: AnalyzeRequest) -> Analysis:
    """Describe what is wrong, order by order, from the whole orders and the stock that they are about.

    It looks at all orders: those that detection named are a hint, since detection is cheap and may miss some.
    May run twice, like `detect_problems`, and as harmlessly.

    Raises:
        ApplicationError: as in `detect_problems`.
    """
    snapshot = request.snapshot

    def accept(message: Message) -> Analysis:
        found = _form(message, ANALYSIS)
        _known_orders((problem.order_id for problem in found.problems), snapshot)
        return found

    data = prompts.details_of(snapshot) | {"suspected": request.detection.order_ids}
    return await _ask("analysis", prompts.ANALYZE, data, specs(ANALYSIS), accept)


@activity.defn
async def plan_repair(request: PlanRequest) -> Plan:
    """Propose repairs: the model calls the repair tools, and the calls are recorded instead of made.

    What it proposes then passes the hard rules (`plan_rules`), which win over the model however sure it is.
    May run twice, like `detect_problems`. A second run may propose something else; only the recorded plan
    is ever shown or carried out, and a decision is bound to its digest.

    Raises:
        ApplicationError: as in `detect_problems`.
    """
    draft = _Draft(request)
    data = prompts.details_of(request.snapshot, request.analysis)
    try:
        await _ask("planning", prompts.PLAN, data, specs(REPAIRS), draft.take)
    except ApplicationError as error:
        # Calls that can be read and may not be are shown as refused; garbled ones leave no plan at all.
        if error.type != "AnalystFailed" or draft.unreadable:
            raise
    return draft.plan()


@activity.defn
async def write_report(request: ReportRequest) -> Report:
    """Write the report on a repair. One that leaves a repair out goes back to the model.

    Where the model does not manage, code writes the report and says so. May run twice, like
    `detect_problems`; the report of the second run may be worded otherwise.

    Raises:
        ApplicationError: type `ModelUnavailable` (retried) or `ModelRefused` (not retried).
    """

    def accept(message: Message) -> Report:
        if message.tool_calls:
            raise NotAccepted("the report is a text, and there are no tools")
        text = (message.content or "").strip()
        problem = problem_with_report(text, request)
        if problem is not None:
            raise NotAccepted(problem)
        return Report(markdown=text + "\n")

    try:
        return await _ask("report", prompts.REPORT, prompts.results_of(request), [], accept)
    except ApplicationError as error:
        if error.type != "AnalystFailed":
            raise
        return plain_report(request, error.message)


class NotAccepted(Exception):
    """A model's answer that goes back to it.

    Args:
        reason: what is wrong with it.
        results: what is said to each tool call, by its id; by default the reason.
    """

    def __init__(self, reason: str, results: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self._results = results or {}

    def exchange(self, answer: Message) -> list[Message]:
        """The answer and what is said to it, for the conversation."""
        if not answer.tool_calls:
            # An empty answer is repeated as such: providers refuse messages without any content.
            text = (answer.content or "").strip() or "(no answer)"
            said = f"That was not accepted: {self}. Answer again, and mend this."
            return [Message.assistant(text), Message.user(said)]
        default = f"Error: {self}. Write the call again."
        return [
            answer,
            *(
                Message.tool_result(call, self._results.get(call.id, default))
                for call in answer.tool_calls
            ),
        ]


async def _ask(
    analyst: str,
    instructions: str,
    data: dict[str, Any],
    tools: list[ToolSpec],
    accept: Callable[[Message], Answer],
) -> Answer:
    """Ask the model until its answer is accepted, at most `MAX_CORRECTIONS` times more than once.

    Raises:
        ApplicationError: type `AnalystFailed`, or as in `ask_model`.
    """
    messages = prompts.conversation(instructions, data)
    reason = ""
    for _ in range(MAX_CORRECTIONS + 1):
        completion = await ask_model(messages, tools)
        try:
            return accept(completion.message)
        except NotAccepted as problem:
            messages += problem.exchange(completion.message)
            reason = str(problem)
    raise ApplicationError(
        f"The {analyst} analyst got no usable answer from the model in {MAX_CORRECTIONS + 1} tries."
        f" The last one was not accepted: {reason}.",
        type="AnalystFailed",
        non_retryable=True,
    )


def _form(message: Message, forms: Mapping[str, type[Form]]) -> Form:
    """The one form that the model was asked to fill in.

    Raises:
        NotAccepted: it is missing, there are several, or it is not filled in properly.
    """
    if len(message.tool_calls) != 1:
        raise NotAccepted(f"exactly one call of {', '.join(forms)} is expected")
    try:
        return read_call(message.tool_calls[0], forms)
    except ToolInputError as error:
        raise NotAccepted(str(error)) from None


def _known_orders(order_ids: Iterable[str], snapshot: Snapshot) -> None:
    unknown = [order_id for order_id in order_ids if snapshot.order(order_id) is None]
    if unknown:
        raise NotAccepted(f"there is no order {', '.join(unknown[:5])}")


class _Draft:
    """A plan while its calls come in.

    Attributes:
        unreadable: the last answer held a call that is no call.
    """

    def __init__(self, request: PlanRequest) -> None:
        self._request = request
        self._proposed: dict[str, dict[str, Any]] = {}
        self._doubtful: dict[str, Rejected] = {}
        self._words = ""
        self._asked_for_calls = False
        self.unreadable = False

    def take(self, message: Message) -> None:
        """Record the calls of an answer.

        Raises:
            NotAccepted: some have to be written again, or there are none and nothing says why.
        """
        self.unreadable = False
        if not message.tool_calls:
            self._words = (message.content or "").strip()
            nothing = not self._proposed and not self._doubtful
            if nothing and self._request.analysis.problems and not self._asked_for_calls:
                # A model that describes its calls in words gets one chance to make them.
                self._asked_for_calls = True
                raise NotAccepted(
                    "no tool was called; call the tools, or say why nothing is to be repaired",
                )
            return
        problems = [(call.id, self._record(call)) for call in message.tool_calls]
        if reasons := [problem for _, problem in problems if problem]:
            results = {
                name: f"Error: {problem}. Write this call again, or leave it."
                if problem
                else "Recorded. Nothing is carried out yet."
                for name, problem in problems
            }
            raise NotAccepted("; ".join(reasons)[:1000], results)

    def _record(self, call: ToolCall) -> str | None:
        """Take a call in, or say why it should be written again."""
        try:
            raw = as_proposal(call.name, read_call(call, REPAIRS).model_dump())
            order_id = raw["arguments"]["order_id"]
            if self._request.snapshot.order(order_id) is None:
                raise Unacceptable(f"there is no order {order_id}", raw)
        except Unacceptable as error:
            key = _canonical(error.raw)
            if key in self._doubtful:
                return None  # the model insists; the plan shows the call as refused
            self._doubtful[key] = Rejected(proposal=_bounded(error.raw), reason=str(error))
            return str(error)
        except ToolInputError as error:
            self.unreadable = True
            return str(error)
        self._proposed.setdefault(_canonical([call.name, raw["arguments"]]), raw)
        return None

    def plan(self) -> Plan:
        """The plan, after the hard rules."""
        named = [
            {"proposal_id": f"p{number}", **raw}
            for number, raw in enumerate(self._proposed.values(), 1)
        ]
        plan = within_limits(named, self._request.snapshot)
        refused = [*plan.refused, *self._doubtful.values()]
        summary = (
            f"Proposed: {len(plan.proposals)}. Skipped, because the model was not sure enough:"
            f" {len(plan.skipped)}. Refused by the rules: {len(refused)}."
        )
        if self._words:
            summary += f" The model said: {self._words[:MAX_QUOTE]}"
        return plan.model_copy(update={"refused": refused, "summary": summary})


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _bounded(raw: dict[str, Any]) -> dict[str, Any]:
    """A call as the model wrote it, as JSON that can be stored, and not at any length."""
    text = _canonical(raw)
    if len(text) > MAX_REFUSED_CHARS:
        return {"tool": raw.get("tool"), "as_written": text[:MAX_REFUSED_CHARS] + " …"}
    kept: dict[str, Any] = json.loads(text, parse_constant=str)
    return kept
