"""Loops side by side, in numbers that are measured when the cell runs.

The same question goes to each loop's own session. Events and milliseconds are those of one turn once the
session is warm; lines of code are counted without blanks, comments and docstrings.
"""

import ast
import inspect
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import BaseModel
from rich.table import Table
from temporalio.client import Client

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.lab.watching.waiting import watch

TURNS = 5  # that are measured, after one that is not
_LOOPS = "workshop_lib.agents.loops"
# What a loop consists of. The session, the toolbox and the context window are shared by all, and how a model
# is reached (`llm.gateway`, `sdk_model`) is counted for none. What two that are compared share is counted for
# none of them.
CODE = {
    "manual": (f"{_LOOPS}.manual", "workshop_lib.agents.model_call"),
    "sdk": (f"{_LOOPS}.sdk", f"{_LOOPS}.sdk_session"),
    "mcp": (f"{_LOOPS}.mcp", f"{_LOOPS}.mcp_team", f"{_LOOPS}.sdk_session"),
}


class LoopFigures(BaseModel):
    """What one turn of a loop comes to.

    Attributes:
        lines: of code that only this one of the loops uses.
        events: in the history, for one turn.
        milliseconds: from message to reply, median of `TURNS`.
        bytes: of history, for one turn.
    """

    loop: str
    lines: int
    events: int
    milliseconds: float
    bytes: int
    model_calls: int
    tool_calls: int


async def compare_loops(client: Client, question: str, loops: Sequence[str]) -> list[LoopFigures]:
    """Ask each loop the same question and measure.

    Args:
        client: connected to the orchestrator's namespace, where a worker must serve the loops.

    Raises:
        WorkshopError: a reply did not come in time.
    """
    modules = Counter(name for loop in loops for name in CODE.get(loop, ()))
    own = {name for name, loops_with_it in modules.items() if loops_with_it == 1}
    return [await _measure(client, loop, question, own) for loop in loops]


def show_comparison(figures: Sequence[LoopFigures]) -> Table:
    """A row for each measure, a column for each loop."""
    table = Table(title="One turn, the same question")
    table.add_column("")
    for one in figures:
        table.add_column(one.loop, justify="right")
    for name, attribute in (
        ("lines of code of its own", "lines"),
        ("model calls", "model_calls"),
        ("tool calls", "tool_calls"),
        ("events in the history", "events"),
        ("bytes of history", "bytes"),
        ("milliseconds", "milliseconds"),
    ):
        table.add_row(name, *(f"{getattr(one, attribute):,.0f}" for one in figures))
    return table


def code_lines(*things: Any) -> int:
    """Lines of code of modules, classes or functions, without blanks, comments and docstrings."""
    return sum(_count(inspect.cleandoc(inspect.getsource(thing))) for thing in things)


async def _measure(client: Client, loop: str, question: str, own: set[str]) -> LoopFigures:
    chat = ChatClient(client, loop)
    reply = await watch(chat.send(question), chat.handle)
    before = await _size(chat)
    milliseconds = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        reply = await watch(chat.send(question), chat.handle)
        milliseconds.append((time.perf_counter() - begun) * 1000)
    after = await _size(chat)
    await chat.end()
    return LoopFigures(
        loop=loop,
        lines=sum(_module_lines(name) for name in CODE.get(loop, ()) if name in own),
        events=round((after[0] - before[0]) / TURNS),
        bytes=round((after[1] - before[1]) / TURNS),
        milliseconds=median(milliseconds),
        model_calls=reply.model_calls,
        tool_calls=len(reply.tool_calls),
    )


async def _size(chat: ChatClient) -> tuple[int, int]:
    """Events and bytes of a session's history."""
    described = await chat.handle.describe(rpc_timeout=timedelta(seconds=10))
    info = described.raw_description.workflow_execution_info
    return info.history_length, info.history_size_bytes


def _module_lines(name: str) -> int:
    file = import_module(name).__file__
    return _count(Path(file or "").read_text(encoding="utf-8"))


def _count(source: str) -> int:
    docstrings = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(map(str.strip, source.splitlines()), start=1)
    return sum(number not in docstrings and line[:1] not in ("", "#") for number, line in lines)
