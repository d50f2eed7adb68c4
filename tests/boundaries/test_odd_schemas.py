"""A tool whose schema is odd, or cannot be read, is lost itself at most: the others still answer."""

from typing import Any

import pytest

from workshop_lib.agents.local_tools import LOCAL_TOOLS
from workshop_lib.agents.toolbox import ActivityTool, Toolbox
from workshop_lib.llm.gateway import complete
from workshop_lib.llm.messages import Message, ToolSpec
from workshop_lib.settings import reload_settings

ODD: list[Any] = [
    {"type": "object", "properties": {"x": True}},
    {"type": "object", "properties": {"x": False}, "required": ["x"]},
    {"type": "object", "properties": {"x": {"type": ["string", "null"]}}},
    {"type": "object", "properties": {"x": {"anyOf": [True, {"$ref": "#/nowhere"}]}}},
    {"type": "object", "properties": {"x": {"$ref": "#/properties/x"}}},
    {"type": "object", "properties": {"x": {"enum": []}}},
    {"type": "object", "properties": {"x": {"items": True}}, "required": ["y"]},
    {"type": "object"},
    {},
]
UNREADABLE: list[Any] = [
    {"type": "array"},
    {"type": "object", "properties": []},
    {"type": "object", "properties": {"x": 5}},
    {"type": "object", "required": "x"},
    {"type": "object", "properties": {f"p{n}": {} for n in range(9_999)}},
]


class Odd:
    """A tool with a schema that somebody else has written."""

    def __init__(self, schema: Any) -> None:
        self.spec = ToolSpec(name="odd", description="Something odd.", parameters=schema)

    async def call(self, arguments: dict[str, Any]) -> str:
        """Do nothing."""
        return ""


def box_with(schema: Any) -> Toolbox:
    return Toolbox([Odd(schema), *(ActivityTool(tool) for tool in LOCAL_TOOLS.values())])


@pytest.mark.parametrize("schema", UNREADABLE)
def test_a_schema_that_cannot_be_read_costs_that_tool_alone(schema: Any) -> None:
    assert [spec.name for spec in box_with(schema).specs] == list(LOCAL_TOOLS)


@pytest.mark.parametrize("schema", ODD)
def test_an_odd_schema_is_passed_on(schema: Any) -> None:
    assert [spec.name for spec in box_with(schema).specs] == ["odd", *LOCAL_TOOLS]


# One that cannot be read costs its own tool, and nothing else.
@pytest.mark.parametrize("schema", ODD)
async def test_the_offline_model_still_uses_the_other_tools(
    schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_MODEL", "offline")
    reload_settings()
    specs = box_with(schema).specs
    answer = await complete([Message.user("What is the weather in Seattle?")], specs)
    assert [call.name for call in answer.message.tool_calls] == ["weather"]
