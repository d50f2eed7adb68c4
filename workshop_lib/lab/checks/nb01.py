"""Checks of notebook 01: the loop, naked and durable, and what is left of it after a kill."""

from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.client import Client, WorkflowHandle

from workshop_lib.agents.local_tools import LOCAL_TOOLS, execute_tool
from workshop_lib.agents.planner import plan_next_action
from workshop_lib.lab.checks.framework import NotYet, check
from workshop_lib.lab.checks.trial import trial
from workshop_lib.lab.history import history_of
from workshop_lib.lab.waiting import result

TWO_TOOLS = "What is 12 * 12, and what is the weather in Seattle?"


def _facts() -> tuple[str, ...]:
    """What a right answer to `TWO_TOOLS` must hold: the tools' own results."""
    temperature = LOCAL_TOOLS["weather"].run({"city": "Seattle"}).split(":")[1].split(",")[0]
    return ("144", temperature.strip())


@check(
    expects="both answers in one reply, and words for a question that no tool can answer.",
    hint="go round until the model's message has no tool calls; append every message, tool results included.",
    timeout=20,
)
async def naked_loop(turn: Callable[[str], Awaitable[str]]) -> str:
    """The loop in plain Python answers with two tools, and ends when there is nothing to call."""
    reply = await turn(TWO_TOOLS)
    missing = [fact for fact in _facts() if fact not in str(reply)]
    if missing:
        raise NotYet(saw=f"{reply!r}, without {' and '.join(missing)}")
    if not await turn("What is the capital of France?"):
        raise NotYet(saw="no words for a question without a tool")
    return f"the reply holds {' and '.join(_facts())}"


@check(
    expects="two completed `execute_tool` and two completed `plan_next_action` activities.",
    hint="the tool goes the way of the model call above it: `execute_activity`, the request, its options.",
    timeout=25,
)
async def durable_loop(client: Client, workflow: type) -> str:
    """Model calls and tool calls are activities, so their results are in the history."""
    handle, reply = await trial(client, workflow, TWO_TOOLS, [plan_next_action, execute_tool])
    found = await history_of(handle)
    for name in ("execute_tool", "plan_next_action"):
        done = sum(run.completed for run in found.named(name))
        if done != 2:
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
    found = await history_of(handle)
    if not found.lost:
        raise NotYet(
            saw="a history in which no model call and no tool call was lost with its worker"
        )
    if "1000" not in str(reply):
        raise NotYet(saw=f"the reply {reply!r}")
    plans = found.named("plan_next_action")
    names = ", ".join(run.name for run in found.lost)
    return f"{len(plans)} model calls recorded; lost with the worker and made again: {names}"
