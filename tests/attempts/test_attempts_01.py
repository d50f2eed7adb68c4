"""Attempts at notebook 01: other loops, naked and durable."""

import pytest
from attempts_ground import Attempt, assert_judged, cases, right, wrong
from lab_cells import Notebook

from workshop_lib.lab.checks import nb01
from workshop_lib.lab.classroom import start

WORLD = """
import asyncio
from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.lab.lessons.naked import run_tool
from workshop_lib.llm import gateway
from workshop_lib.llm.gateway import complete
from workshop_lib.llm.messages import Message
tools = [tool.spec for tool in LOCAL_TOOLS.values()]
"""
WHILE = """
async def turn(text):
    talk, rounds = [Message.user(text)], 0
    while (rounds := rounds + 1) <= 8:
        plan = (await complete(messages=talk, tools=tools)).message
        talk += [plan, *(Message.tool_result(c, run_tool(c)) for c in plan.tool_calls)]
        if not plan.tool_calls:
            return plan.content
    raise RuntimeError("no end")
"""
RECURSION = """
async def go_round(talk, left=8):
    plan = (await gateway.complete(talk, tools)).message
    if not plan.tool_calls or not left:
        return plan.content
    results = [Message.tool_result(call, run_tool(call)) for call in plan.tool_calls]
    return await go_round([*talk, plan, *results], left - 1)

async def turn(text):
    return await go_round([Message.system("Be brief."), Message.user(text)])
"""
IN_TASKS = """
async def run(call):
    return Message.tool_result(call, await asyncio.to_thread(run_tool, call))

class Talk(list):
    async def ask(self):
        async with asyncio.timeout(20):
            self.append((await asyncio.create_task(complete(self, tools))).message)
        return self[-1]

async def turn(text):
    talk = Talk([Message.user(text)])
    for _ in range(8):
        if calls := (await talk.ask()).tool_calls:
            talk.extend(await asyncio.gather(*map(run, calls)))
        else:
            break
    return talk[-1].content
"""
ONCE = """
async def turn(text):
    plan = (await complete([Message.user(text)], tools)).message
    return plan.content or " ".join(run_tool(call) for call in plan.tool_calls)
"""
TWICE = """
async def turn(text):
    talk = [Message.user(text)]
    plan = (await complete(talk, tools)).message
    if not plan.tool_calls:
        return plan.content
    talk += [plan, *(Message.tool_result(call, run_tool(call)) for call in plan.tool_calls)]
    return (await complete(talk, tools)).message.content
"""
ROUNDS = "for _ in range(8):"
RESULT = "conversation.append(Message.tool_result(call, run_tool(call)))"
ASKED = "(await complete(conversation, tools)).message"
NOT_ASYNC = "def turn(text: str) -> str:\n    return 'Hello.'\n\n\nasync def other("
ENDLESS = "calls of a model that only ever calls tools"
LOOPS = [
    Attempt("naked_loop", "while", WHILE, None),
    Attempt("naked_loop", "recursion", RECURSION, None),
    Attempt("naked_loop", "tasks", IN_TASKS, None),
    Attempt("naked_loop", "no loop", ONCE, "1 model calls and the reply '1001'"),
    Attempt("naked_loop", "two calls", TWICE, "2 model calls and the reply None"),
    *(
        wrong("naked_loop", *case)
        for case in [
            ("no end", ROUNDS, "while True:", f"40 or more {ENDLESS}"),
            ("too long", ROUNDS, "for _ in range(20):", f"20 {ENDLESS}"),
            ("no wish", "conversation.append(plan)", "pass", "append the model's own message, too"),
            ("no result", RESULT, "run_tool(call)", "append a `Message.tool_result` for each call"),
            ("one result", "in plan.tool_calls:", "in plan.tool_calls[:1]:", "run them all"),
            ("no text", "return plan.content", "return plan", "a reply that is no text"),
            ("no await", ASKED, "complete(conversation, tools).message", "an `await` is missing"),
            ("no tools", ASKED, "(await complete(conversation)).message", "no tools on offer"),
            ("not async", "async def turn(", NOT_ASYNC, "`async def`"),
        ]
    ),
]


@pytest.mark.parametrize("attempt", cases(LOOPS))
async def test_a_naked_loop(nb: Notebook, attempt: Attempt) -> None:
    await start()
    nb.run(WORLD)
    await assert_judged(nb, attempt, lambda: nb01.naked_loop(nb["turn"]))


TOOL_RUN = "await workflow.execute_activity(execute_tool, tool, **TOOL_OPTIONS)"
HELPER = """
    async def tool(self, request):
        return await workflow.execute_activity(execute_tool, request, **TOOL_OPTIONS)

    @workflow.run"""
DURABLE = [
    right(
        "durable_loop", "by name", (TOOL_RUN, TOOL_RUN.replace("execute_tool", '"execute_tool"'))
    ),
    right("durable_loop", "started", (TOOL_RUN, TOOL_RUN.replace("execute_act", "start_act"))),
    right(
        *("durable_loop", "helper"),
        (TOOL_RUN, "await self.tool(tool)"),
        ("    @workflow.run", HELPER),
    ),
    right("durable_loop", "bounded", ("while True:", "for _ in range(8):")),
    wrong(
        *("durable_loop", "inside", TOOL_RUN, "LOCAL_TOOLS[tool.name].run(tool.arguments)"),
        "0 completed `execute_tool` activities",
    ),
    wrong("durable_loop", "not awaited", TOOL_RUN, TOOL_RUN.removeprefix("await "), "await"),
    wrong(
        *("durable_loop", "another argument", TOOL_RUN, TOOL_RUN.replace(", tool,", ", call,")),
        "failing",
    ),
]


@pytest.mark.parametrize("attempt", cases(DURABLE, always=2))
async def test_a_durable_loop(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    await assert_judged(nb, attempt, lambda: nb01.durable_loop(client, nb["Agent"]))
