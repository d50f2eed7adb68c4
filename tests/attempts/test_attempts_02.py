"""Attempts at notebook 02: another tool, and other memories."""

import pytest
from attempts_ground import Attempt, assert_judged, cases, right, wrong
from lab_cells import Notebook

from workshop_lib.lab.checks import nb02
from workshop_lib.lab.classroom import start
from workshop_lib.lab.lessons.flat_tools import get_weather

SIGNATURE = "async def calculate(expression: str)"
OFFER = "[activity_as_tool(t, start_to_close_timeout=soon) for t in (get_weather, calculate)]"
GROWN = """[]
        offer.append(activity_as_tool(calculate, start_to_close_timeout=soon))
        offer.append(activity_as_tool(get_weather, start_to_close_timeout=soon))"""
DESCRIBED = '"""Calculate an arithmetic expression, such as 25 + 17."""'
SENT = '{"expression": expression}'
TOOLS = [
    right("tool_added", "a plain function", (SIGNATURE, "def calculate(expression: str)")),
    right("tool_added", "a list that grows", (OFFER, GROWN)),
    wrong("tool_added", "undescribed", DESCRIBED, "", "calculate with no docstring"),
    wrong(
        *("tool_added", "fails", SENT, '{"expr": expression}'), "activity calculate keeps failing"
    ),
    Attempt(
        *("tool_added", "named otherwise"),
        [("calculate(expression: str)", "calculate(expr: str)"), (SENT, '{"expression": expr}')],
        "calculate(expr)",
    ),
]


@pytest.mark.parametrize("attempt", cases(TOOLS, always=1))
async def test_a_tool_added(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    said = await assert_judged(
        nb,
        attempt,
        lambda: nb02.tool_added(client, nb["Assistant"], [get_weather, nb["calculate"]]),
    )
    assert "goes on" not in said


APPENDED = 'self.items.append({"role": "user", "content": text})'
PARTS = 'self.items += [{"role": "user", "content": [{"type": "input_text", "text": text}]}]'
KEPT = "self.items = said.to_input_list()"
MEMORIES = [
    right(
        *("remembers", "a new list"),
        (APPENDED, 'self.items = [*self.items, {"content": text, "role": "user"}]'),
    ),
    right("remembers", "parts", (APPENDED, PARTS)),
    wrong("remembers", "half", KEPT, "pass", "append the message to `self.items`"),
    wrong(
        *("remembers", "twice", KEPT, "self.items += said.to_input_list()"),
        "messages of the user in the last call, where 3",
    ),
]


@pytest.mark.parametrize("attempt", cases(MEMORIES, always=1))
async def test_a_memory(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    await assert_judged(nb, attempt, lambda: nb02.remembers(client, nb["Conversation"]))
