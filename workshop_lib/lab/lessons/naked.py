"""The agent loop without durability: a plain process that lessons kill.

It is the loop of notebook 01 in ordinary Python, in a process of its own. It says each step on stdout as it
takes it, so that whoever started it knows what was done, and paid for, before it died. Left out: everything
that would save it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence

from pydantic import BaseModel

from workshop_lib.agents.chat import INSTRUCTIONS, MAX_TOOL_ROUNDS
from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.workers import forking as processes
from workshop_lib.llm import gateway
from workshop_lib.llm.messages import Message, ToolCall
from workshop_lib.llm.tools import ToolInputError, arguments_for


class NakedRun(BaseModel):
    """What a conversation without durability came to.

    Attributes:
        replies: the ones that arrived.
        model_calls: calls that were started, the one that was under way when it died included.
        tool_runs: tools that were run.
        killed: True if it died.
    """

    replies: list[str]
    model_calls: int
    tool_runs: int
    killed: bool


async def converse(messages: Sequence[str], note: Callable[[str, str], None]) -> None:
    """Answer the messages in order; everything the conversation knows is in one local list."""
    conversation = [Message.system(INSTRUCTIONS)]
    tools = [tool.spec for tool in LOCAL_TOOLS.values()]
    for text in messages:
        conversation.append(Message.user(text))
        for _ in range(MAX_TOOL_ROUNDS):
            note("model", "")
            plan = (await gateway.complete(conversation, tools)).message
            conversation.append(plan)
            if not plan.tool_calls:
                break
            for call in plan.tool_calls:
                note("tool", call.name)
                conversation.append(Message.tool_result(call, run_tool(call)))
        note("reply", conversation[-1].content or "")


def run_tool(call: ToolCall) -> str:
    """A local tool's answer, or what is wrong with the call."""
    try:
        arguments = arguments_for(call, [tool.spec for tool in LOCAL_TOOLS.values()])
        return LOCAL_TOOLS[call.name].run(arguments)
    except ToolInputError as error:
        return f"Error: {error}"


async def run_naked(
    messages: Sequence[str], *, kill_at_call: int | None = None, timeout: float = 60
) -> NakedRun:
    """Hold a conversation in a process of its own.

    Args:
        messages: what the user says, in order.
        kill_at_call: the process dies by SIGKILL when it makes this call to the model, counted from 1.
        timeout: seconds the whole conversation may take.

    Raises:
        WorkshopError: it was not over in time, or it ended by an error of its own.
    """
    options = [] if kill_at_call is None else [f"--kill-at-call={kill_at_call}"]
    steps_end, theirs = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    process = processes.start(
        "workshop_lib.lab.lessons.naked",
        *options,
        "--",
        *messages,  # one may begin with a dash
        stdin=nothing,
        stdout=theirs,
        stderr=2,
        env=os.environ,
        with_models=True,
    )
    os.close(nothing)
    os.close(theirs)
    try:
        async with asyncio.timeout(timeout):
            output = await asyncio.to_thread(_read, steps_end)
    except TimeoutError:
        raise WorkshopError(
            f"The conversation was not over after {timeout:.0f} s.", fix="run the cell again."
        ) from None
    finally:
        status = await asyncio.to_thread(_end, process)
    if status not in (0, -signal.SIGKILL):
        raise WorkshopError(
            f"The conversation ended with status {status}.",
            expected="one message at least, and a model that answers.",
            fix="read what the process wrote above, or run `workshop doctor`.",
        )
    steps = [json.loads(line) for line in output.splitlines()]
    counted = Counter(step["step"] for step in steps)
    return NakedRun(
        replies=[step["text"] for step in steps if step["step"] == "reply"],
        model_calls=counted["model"],
        tool_runs=counted["tool"],
        killed=status == -signal.SIGKILL,
    )


def _read(pipe: int) -> str:
    """What the process says until its end."""
    with os.fdopen(pipe, encoding="utf-8") as steps:
        return steps.read()


def _end(process: processes.Process) -> int:
    """Its exit status; where it still runs it is killed, so that it pays for no more calls."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(0.5)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(10)
    return -signal.SIGKILL  # it is still to be made, and will be killed then


def main() -> None:
    """Hold the conversation given as arguments, saying each step as a JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("messages", nargs="+")
    parser.add_argument("--kill-at-call", type=int)
    arguments = parser.parse_args()
    calls = 0

    def note(step: str, text: str) -> None:
        nonlocal calls
        print(json.dumps({"step": step, "text": text}), flush=True)
        calls += step == "model"
        if step == "model" and calls == arguments.kill_at_call:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(converse(arguments.messages, note))


if __name__ == "__main__":
    main()
