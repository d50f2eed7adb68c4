"""Checks of notebook 01: the loop, naked and durable, and what is left of it after a kill."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from temporalio.client import Client, WorkflowHandle

from workshop_lib.agents.local_tools import LOCAL_TOOLS, execute_tool
from workshop_lib.agents.model_call import plan_next_action
from workshop_lib.lab.checks.framework import NotYet, awaited, check
from workshop_lib.lab.checks.trial import trial
from workshop_lib.lab.history import history_of
from workshop_lib.lab.watching.waiting import result
from workshop_lib.llm.gateway import stand_in
from workshop_lib.llm.messages import Completion, Message, ToolCall, ToolSpec

ROUNDS = 8  # that the exercise allows
NO_END = 40  # calls after which a loop will not end by itself
SUM = 1001
TWO_TOOLS = "What is 12 * 12, and what is the weather in Seattle?"


def _facts() -> tuple[str, ...]:
    """What a right answer to `TWO_TOOLS` must hold: the tools' own results."""
    temperature = LOCAL_TOOLS["weather"].run({"city": "Seattle"}).split(":")[1].split(",")[0]
    return ("144", temperature.strip())


class _Enough(BaseException):
    """Ends a loop that does not end by itself; no `except Exception` holds it up."""


class _Scripted:
    """A model that wants one sum after the other, then says something; it notes what it is sent.

    Attributes:
        asked: how often it was called.
        lacked: what the first call lacked that lacked anything, and a hint.
    """

    def __init__(self, sums: int) -> None:
        self.sums, self.asked = sums, 0
        self.words = f"That makes {sums * SUM}."
        self.lacked: tuple[str, str] | None = None

    async def __call__(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Completion:
        await asyncio.sleep(0)  # what never pauses can never be stopped
        self.asked += 1
        if self.asked > NO_END:
            raise _Enough
        self.lacked = self.lacked or self._lacking(messages, tools)
        if self.asked > self.sums:
            return Completion(message=Message.assistant(self.words), model="scripted")
        arguments = json.dumps({"expression": f"{self.asked} * {SUM}"})
        call = ToolCall(id=f"sum-{self.asked}", name="calculator", arguments=arguments)
        wish = Message(role="assistant", tool_calls=[call])
        return Completion(message=wish, model="scripted")

    def _lacking(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> tuple[str, str] | None:
        if not tools:
            return "no tools on offer", "every call offers them: `complete(conversation, tools)`."
        before = self.asked - 1
        wishes = [call.id for message in messages for call in message.tool_calls]
        if before and f"sum-{before}" not in wishes:
            return "no wish for a tool before its result", "append the model's own message, too."
        if before and not any(str(before * SUM) in (m.content or "") for m in messages):
            return "not what the tool has returned", "append a `Message.tool_result` for each call."
        return None


@check(
    expects="both answers in one reply, and words for a question that no tool can answer.",
    hint="go round until the model's message has no tool calls; append every message, tool results included.",
    timeout=30,
)
async def naked_loop(turn: Callable[[str], Awaitable[str]]) -> str:
    """The loop answers with two tools, goes round as often as the model wants, and ends all the same."""
    model = _Scripted(sums=5)
    reply = await _with_model(model, turn)
    if model.lacked:
        raise NotYet(saw=f"a call of the model that holds {model.lacked[0]}", hint=model.lacked[1])
    if reply is not None and not isinstance(reply, str):
        raise NotYet(saw=f"a reply that is no text: {reply!r}", hint="return `plan.content`.")
    if model.words not in str(reply):
        raise NotYet(
            saw=f"{model.asked} model calls and the reply {reply!r}, where a model wants 5 tools, one "
            f"after the other, and then says {model.words!r}",
            hint="ask the model again after each tool, until its message has no tool calls.",
        )
    endless = _Scripted(sums=NO_END)
    with contextlib.suppress(Exception):  # to give up with an error is an end, too
        await _with_model(endless, turn)
    if endless.asked > ROUNDS + 1:  # a last call for words may follow the rounds
        often = f"{NO_END} or more" if endless.asked > NO_END else endless.asked
        raise NotYet(
            saw=f"{often} calls of a model that only ever calls tools",
            hint=f"go round {ROUNDS} times at most: `for _ in range({ROUNDS}):`.",
        )
    reply = await turn(TWO_TOOLS)
    if missing := [fact for fact in _facts() if fact not in str(reply)]:
        raise NotYet(
            saw=f"{reply!r}, without {' and '.join(missing)}",
            hint="a message may hold several tool calls: run them all.",
        )
    if not str(await turn("What is the capital of France?") or "").strip():
        raise NotYet(saw="no words for a question without a tool")
    return f"the reply holds {' and '.join(_facts())}, and a model without an end was left"


async def _with_model(model: _Scripted, turn: Callable[[str], Awaitable[str]]) -> str | None:
    """What the loop answers with this model in place of the real one; None where it has no end."""
    token = stand_in.set(model)
    try:
        return await awaited(turn("What is the sum?"))
    except (_Enough, BaseExceptionGroup):  # of a task group
        return None
    finally:
        stand_in.reset(token)


@check(
    expects="a completed `execute_tool` for each of two tools, and two `plan_next_action` activities.",
    hint="the tool goes the way of the model call above it: `execute_activity`, the request, its options.",
    timeout=25,
)
async def durable_loop(client: Client, workflow: type) -> str:
    """Model calls and tool calls are activities, so their results are in the history."""
    handle, reply = await trial(
        client, workflow, TWO_TOOLS, [plan_next_action, execute_tool], patient=False
    )
    history = await history_of(handle)
    plans, tools = (
        [run for run in history.named(name) if run.completed]
        for name in ("plan_next_action", "execute_tool")
    )
    # As many as the model wants: another one than the offline model may want them one by one.
    wanted = sum(len(plan.result["message"].get("tool_calls", ())) for plan in plans)
    for name, done, enough in (
        ("execute_tool", len(tools), len(tools) == wanted >= 2),
        ("plan_next_action", len(plans), len(plans) >= 2),
    ):
        if not enough:
            raise NotYet(saw=f"{done} completed `{name}` activities, and the reply {reply!r}")
    missing = [fact for fact in _facts() if fact not in str(reply)]
    if missing:
        raise NotYet(saw=f"{reply!r}, without {' and '.join(missing)}")
    return "every model call and every tool call is in the history"


@check(
    expects="a worker that died in mid-turn, and the right reply all the same.",
    hint="start a process with a kill point first; when the run has begun, await the end of that process.",
    timeout=40,
)
async def survived(handle: WorkflowHandle[Any, Any]) -> str:
    """The history shows that the worker died between two steps, and that no recorded step was redone."""
    reply = await result(handle, timeout=30)
    history = await history_of(handle)
    if not history.lost:
        raise NotYet(
            saw="a history in which no model call and no tool call was lost with its worker"
        )
    if "1000" not in str(reply):
        raise NotYet(saw=f"the reply {reply!r}")
    plans = history.named("plan_next_action")
    names = ", ".join(run.name for run in history.lost)
    return f"{len(plans)} model calls recorded; lost with the worker and made again: {names}"
