"""Questions written by people who had not seen the rules: are they answered, and is nothing invented?

`heldout_questions.json` holds forty about the calculator and the weather, `heldout_tools.json` seventy about
seventeen sets of tools that no rule knows. What is not right must be an honest refusal or a tool's own error:
an answer that no tool returned, and a call with a value from the wrong slot, are failures of their own.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.lab.lessons.naked import run_tool
from workshop_lib.llm.gateway import complete
from workshop_lib.llm.messages import Message, ToolCall, ToolSpec
from workshop_lib.llm.tools import ToolInputError

HERE = Path(__file__).parent
FORTY = json.loads((HERE / "heldout_questions.json").read_text(encoding="utf-8"))
SEVENTY = json.loads((HERE / "heldout_tools.json").read_text(encoding="utf-8"))
TOOLS = [tool.spec for tool in LOCAL_TOOLS.values()]
REFUSES = re.compile(
    r"can't|cannot|could ?n.t|unable|not able|no tool|none of|do(?:es)? ?n.t|(?:do|does|could) not|not know"
    r"|unknown|sorry|missing|need|tell me|error|not available|\?"
)


async def test_nine_of_ten_are_right_and_none_is_invented() -> None:
    assert len(FORTY) == 40
    wrong: list[str] = []
    invented: list[str] = []
    for item in FORTY:
        calls, text = await ask(item["messages"], TOOLS, run_tool)
        plain = text.replace(",", "").lower()
        lacks = [want for want in item.get("expect_all") or [] if want.lower() not in plain]
        any_of = item.get("expect_any") or []
        lacks += [] if not any_of or any(want.lower() in plain for want in any_of) else any_of
        if lacks or Counter(call.name for call in calls) != Counter(item["expect_tools"]):
            wrong.append(f"{item['messages'][-1]!r}: lacks {lacks}, called {calls}: {text}")
            if not calls and not REFUSES.search(plain):
                invented.append(wrong[-1])
    assert not invented
    assert len(wrong) <= 4, "\n".join(wrong)


async def test_nine_of_ten_about_tools_never_seen_are_right_and_none_is_made_up() -> None:
    assert len(SEVENTY["cases"]) == 70
    wrong: list[str] = []
    invented: list[str] = []
    plainly_wrong: list[str] = []
    for case in SEVENTY["cases"]:
        tools = {tool["name"]: tool for tool in SEVENTY["toolsets"][case["toolset"]]}
        fields = ToolSpec.model_fields
        specs = [
            ToolSpec(
                **(
                    {"description": ""}
                    | {k: v for k, v in tool.items() if k in fields and v is not None}
                )
            )
            for tool in tools.values()
        ]
        calls, text = await ask(case["messages"], specs, lambda call, t=tools: result_of(t, call))
        reply = text.replace("’", "'")
        fault = fault_of(
            case, tools, [(call.name, json.loads(call.arguments)) for call in calls], reply
        )
        if fault is None:
            continue
        wrong.append(f"{case['id']} {case['messages'][-1]!r}: {fault}; reply: {reply}")
        refuses = bool(REFUSES.search(reply.lower()))
        if any(holds(reply, text) for text in case["forbid"]) or not (calls or refuses):
            invented.append(wrong[-1])
        if calls and not refuses:
            plainly_wrong.append(wrong[-1])
    assert not invented
    assert len(plainly_wrong) <= 3, "\n".join(plainly_wrong)
    assert len(wrong) <= 7, "\n".join(wrong)


async def ask(messages: list[str], specs: list[ToolSpec], run: Any) -> tuple[list[ToolCall], str]:
    """The calls of the last turn, and its reply."""
    conversation: list[Message] = []
    calls: list[ToolCall] = []
    for text in messages:
        conversation.append(Message.user(text))
        calls = []
        for _ in range(8):
            answer = (await complete(conversation, specs)).message
            conversation.append(answer)
            if not answer.tool_calls:
                break
            calls += answer.tool_calls
            conversation += [Message.tool_result(call, run(call)) for call in answer.tool_calls]
    return calls, conversation[-1].content or ""


def calculated(expression: str) -> str | None:
    """What the project's own calculator makes of an expression, or None."""
    try:
        return LOCAL_TOOLS["calculator"].run({"expression": expression})
    except ToolInputError:
        return None


def same(a: Any, b: Any, key: str = "") -> bool:
    """Are two arguments one value? An expression counts as what it comes to, 2 as 2.0, Paris as paris."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], k) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, str) and isinstance(b, str):
        if key == "expression" and (x := calculated(a)) and (y := calculated(b)):
            return f"{float(x):.12g}" == f"{float(y):.12g}"
        return " ".join(a.split()).casefold() == " ".join(b.split()).casefold()
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def stripped(arguments: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The arguments without those that say nothing: null, {}, or the schema's default."""
    known = schema.get("properties", {})
    kept = {
        k: stripped(v, known.get(k, {})) if isinstance(v, dict) else v for k, v in arguments.items()
    }
    default = {k: part.get("default") for k, part in known.items()}
    return {k: v for k, v in kept.items() if v not in (None, {}) and not same(v, default.get(k))}


def result_of(tools: dict[str, Any], call: ToolCall) -> str:
    """What the tool returns; a calculation may be done in steps that nobody listed."""
    arguments = json.loads(call.arguments)
    if call.name not in tools:
        return f"Error: there is no tool {call.name!r}"
    schema = tools[call.name]["parameters"]
    for row in tools[call.name]["results"]:
        if same(stripped(row["arguments"], schema), stripped(arguments, schema)):
            return str(row["result"])
    step = calculated(str(arguments.get("expression"))) if call.name == "calculator" else None
    return step or str(tools[call.name]["otherwise"])


def holds(reply: str, text: str) -> bool:
    """Is the text in the reply, and not as a piece of a longer number?"""
    reply, text = (t.replace(",", "").replace("\u00a0", " ").casefold() for t in (reply, text))
    before = r"(?<![\d.])" if text[:1].isdigit() else ""
    zeros = "0*" if re.search(r"\.\d+$", text) else r"(?:\.0+)?"
    after = zeros + r"(?!\d|\.\d)" if text[-1:].isdigit() else ""
    return bool(re.search(before + re.escape(text) + after, reply))


def fault_of(
    case: dict[str, Any], tools: dict[str, Any], calls: list[tuple[str, Any]], reply: str
) -> str | None:
    """Why the answer is wrong, or None."""
    left = list(calls)
    for want in case["expect_calls"]:
        schema = tools[want["name"]]["parameters"]
        options = [stripped(o, schema) for o in want.get("arguments_any") or [want["arguments"]]]
        fits = [
            call
            for call in left
            if call[0] == want["name"] and any(same(o, stripped(call[1], schema)) for o in options)
        ]
        if not fits:
            return f"no {want['name']}({options[0]}), but {calls}"
        left.remove(fits[0])
    calculates = any(want["name"] == "calculator" for want in case["expect_calls"])
    if left := [call for call in left if not (calculates and call[0] == "calculator")]:
        return f"call not wanted: {left}"
    if lost := [text for text in case["expect_all"] if not holds(reply, text)]:
        return f"not in the reply: {lost}"
    if case["expect_any"] and not any(holds(reply, text) for text in case["expect_any"]):
        return f"none in the reply of {case['expect_any']}"
    if told := [text for text in case["forbid"] if holds(reply, text)]:
        return f"forbidden: {told}"
    refuses = case["kind"] != "refusal" or REFUSES.search(reply.lower())
    return None if refuses else "does not refuse"
