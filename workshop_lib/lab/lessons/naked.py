"""The agent loop without durability: a plain process that lessons kill.

It is the loop of notebook 01 in ordinary Python, in a process of its own. It says each step on stdout as it
takes it, so that whoever started it knows what was done, and paid for, before it died. Left out: everything
that would save it.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from pydantic import BaseModel

from workshop_lib.agents.chat import INSTRUCTIONS, MAX_TOOL_ROUNDS
from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.workers.forking import Child
from workshop_lib.llm import gateway
from workshop_lib.llm.messages import Message, ToolCall
from workshop_lib.llm.tools import ToolInputError, arguments_for
from workshop_lib.machine import state_folder
from workshop_lib.settings import get_settings


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
        WorkshopError: there is no message, it was not over in time, or it ended by an error of its own.
    """
    if not messages:
        raise WorkshopError("A conversation needs a message.", fix="give one at least.")
    steps, theirs = multiprocessing.Pipe(duplex=False)
    log = state_folder.made(get_settings().state_dir, "logs") / "naked.log"
    process = Child(_hold, list(messages), kill_at_call, theirs, log=log, with_models=True)

    def hear() -> list[tuple[str, str]]:
        process.start()
        theirs.close()
        heard = []
        with contextlib.suppress(EOFError):
            while True:
                heard.append(steps.recv())
        return heard

    try:
        async with asyncio.timeout(timeout):
            heard = await asyncio.to_thread(hear)
    except TimeoutError:
        raise WorkshopError(
            f"The conversation was not over after {timeout:.0f} s.", fix="run the cell again."
        ) from None
    finally:
        status = await asyncio.to_thread(_end, process)
    if status not in (0, -signal.SIGKILL):
        raise WorkshopError(
            f"The conversation ended with status {status}.",
            expected="a model that answers.",
            fix=f"read {log}, or run `workshop doctor`.",
        )
    counted = Counter(step for step, _ in heard)
    return NakedRun(
        replies=[text for step, text in heard if step == "reply"],
        model_calls=counted["model"],
        tool_runs=counted["tool"],
        killed=status == -signal.SIGKILL,
    )


def _end(process: Child) -> int:
    """Its exit status; where it still runs it is killed, so that it pays for no more calls."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(0.5)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(10)
    return -signal.SIGKILL  # it is still to be made, and will be killed then


def _hold(messages: list[str], kill_at_call: int | None, steps: Connection) -> None:
    """Hold a conversation, saying each step."""
    calls = 0

    def note(step: str, text: str) -> None:
        nonlocal calls
        steps.send((step, text))
        calls += step == "model"
        if step == "model" and calls == kill_at_call:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(converse(messages, note))
