"""Forty questions written by someone who had not seen the rules: are they answered, and is nothing invented?

At least 90 % must be right. The rest must be honest refusals: an answer that no tool returned is a failure
of its own.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.lab.naked import run_tool
from workshop_lib.llm.gateway import complete
from workshop_lib.llm.messages import Message

QUESTIONS = json.loads(
    (Path(__file__).parent / "heldout_questions.json").read_text(encoding="utf-8")
)
TOOLS = [tool.spec for tool in LOCAL_TOOLS.values()]
REFUSAL = ("cannot", "can't", "no tool", "could not", "do not know", "not able", "error")


async def answer(messages: list[str]) -> tuple[str, list[str]]:
    """The last reply, and the tools called for it."""
    conversation: list[Message] = []
    called: list[str] = []
    for text in messages:
        conversation.append(Message.user(text))
        called = []
        for _ in range(8):
            plan = (await complete(conversation, TOOLS)).message
            conversation.append(plan)
            if not plan.tool_calls:
                break
            for call in plan.tool_calls:
                called.append(call.name)
                conversation.append(Message.tool_result(call, run_tool(call)))
    return conversation[-1].content or "", called


def wrong_with(item: dict[str, Any], text: str, called: list[str]) -> list[str]:
    """What is not as it should be in a reply."""
    plain = text.replace(",", "").lower()
    found = [f"lacks {want!r}" for want in item.get("expect_all", []) if want.lower() not in plain]
    any_of = item.get("expect_any") or []
    if any_of and not any(want.lower() in plain for want in any_of):
        found.append(f"lacks all of {any_of}")
    if Counter(called) != Counter(item["expect_tools"]):
        found.append(f"called {called}, not {item['expect_tools']}")
    return found


async def test_nine_of_ten_are_right_and_none_is_invented() -> None:
    assert len(QUESTIONS) == 40
    wrong: list[str] = []
    invented: list[str] = []
    for item in QUESTIONS:
        text, called = await answer(item["messages"])
        plain = text.replace(",", "").lower()
        problems = wrong_with(item, text, called)
        forbidden = [word for word in item["forbid"] if word.lower() in plain]
        if forbidden:
            invented.append(f"{item['id']} {item['messages']}: {text!r} holds {forbidden}")
        elif problems:
            line = f"{item['id']} {item['messages']}: {problems}; {text!r}"
            wrong.append(line)
            if not called and not any(word in plain for word in REFUSAL):
                invented.append(line)
    assert not invented, "\n".join(invented)
    assert len(wrong) <= len(QUESTIONS) // 10, "\n".join(wrong)
