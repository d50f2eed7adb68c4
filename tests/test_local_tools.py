"""The calculator and the weather: right answers, and an explanation for everything else."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from workshop_lib.agents.local_tools import (
    LOCAL_TOOLS,
    MAX_EXPRESSION,
    ToolRequest,
    execute_tool,
)
from workshop_lib.llm.messages import ToolCall
from workshop_lib.llm.tools import ToolInputError, arguments_for, arguments_of

SPECS = [tool.spec for tool in LOCAL_TOOLS.values()]


def calculate(expression: str) -> str:
    return LOCAL_TOOLS["calculator"].run({"expression": expression})


def weather(city: str) -> str:
    return LOCAL_TOOLS["weather"].run({"city": city})


def refusal_of(run: Callable[[], str]) -> str:
    with pytest.raises(ToolInputError) as refused:
        run()
    return str(refused.value)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("25 + 17", "42"),
        ("100 / 5", "20"),
        ("125 * 8", "1000"),
        ("15 * 23", "345"),
        ("  (3 + 4) * 2 ", "14"),
        ("2 + 3 * 4", "14"),
        ("-2 ** 2", "-4"),
        ("+5 - -3", "8"),
        ("7 // 2", "3"),
        ("-7 % 3", "2"),
        ("2 ** 3 ** 2", "512"),
        ("2 ** -1", "0.5"),
        ("0 ** 0", "1"),
        ("1_000 * 2", "2000"),
    ],
)
def test_whole_numbers(expression: str, result: str) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("0.1 + 0.2", "0.3"),
        ("1.1 * 1.1", "1.21"),
        ("19.99 * 3", "59.97"),
        ("10 / 4", "2.5"),
        ("2.5 * 4", "10"),
        ("1e3 + 0.5", "1000.5"),
        ("12345678901.23 + 0.01", "12345678901.24"),
        ("10 ** 16 / 2", "5000000000000000"),
    ],
)
def test_decimals_are_written_as_people_write_them(expression: str, result: str) -> None:
    assert calculate(expression) == result


def test_whole_numbers_are_exact_however_long() -> None:
    assert calculate("12345678901234567890 * 98765432109876543210") == str(
        12345678901234567890 * 98765432109876543210
    )
    assert calculate("9" * MAX_EXPRESSION) == "9" * MAX_EXPRESSION


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1/0", "division by zero"),
        ("1 // 0", "division by zero"),
        ("5 % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("9**9**9", "too large"),
        ("9.0**9**9", "too large"),
        ("2 ** 100000", "too large"),
        ("(2 ** 900) * (2 ** 900)", "digits"),
        ("1e400", "not a finite number"),
        ("1e308 * 10", "not a finite number"),
        ("1e400 - 1e400", "not a finite number"),
        ("(-8) ** 0.5", "not a real number"),
        ("", "not an arithmetic expression"),
        ("   ", "not an arithmetic expression"),
        ("2 +", "not an arithmetic expression"),
        ("\0", "not an arithmetic expression"),
        ("(" * 150, "not an arithmetic expression"),
        ("1, 2", "only numbers"),
        ("2 ^ 10", "only numbers"),
        ("1 if 1 else 2", "only numbers"),
        ("x + 1", "only numbers"),
        ("pi", "only numbers"),
        ("True + 1", "only numbers"),
        ("'a' * 9", "only numbers"),
        ("[1] * 9", "only numbers"),
        ("1j * 1j", "only numbers"),
        ("__import__('os')", "only numbers"),
        ("__import__('os').system('true')", "only numbers"),
        ("().__class__", "only numbers"),
        ("(lambda: 1)()", "only numbers"),
        ("abs(-1)", "only numbers"),
    ],
)
def test_what_cannot_be_calculated_is_explained(expression: str, reason: str) -> None:
    said = refusal_of(lambda: calculate(expression))
    assert reason in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("nested", ["(" * 90 + "1" + ")" * 90, "-" * 198 + "1", "1" + "+1" * 99])
def test_deep_nesting_is_calculated_or_refused(nested: str) -> None:
    assert calculate(nested) in ("1", "100")


def test_an_expression_cannot_eat_the_processor() -> None:
    """Processor time, not time on the clock: the machine may be busy with other things."""
    before = time.process_time()
    for hungry in ("9**9**9", "9**9**9**9", "(9**300)**300", "(((2**990)**9)**9)**9", "9**-9**9"):
        refusal_of(lambda hungry=hungry: calculate(hungry))
    assert calculate("*".join(["9**20"] * 10)) == str(9**200)
    assert time.process_time() - before < 2


def test_the_calculator_evaluates_nothing_but_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("text of a model was handed to the interpreter")

    monkeypatch.setattr("builtins.eval", forbidden)
    monkeypatch.setattr("builtins.exec", forbidden)
    assert calculate("25 + 17") == "42"
    refusal_of(lambda: calculate("__import__('os')"))


def test_known_cities_have_weather_in_any_spelling() -> None:
    seattle = weather("Seattle")
    assert seattle == "Seattle: 14 °C, light rain, wind 15 km/h"
    for spelling in ("seattle", " SEATTLE ", "Seattle, WA"):
        assert weather(spelling) == seattle
    assert weather("san  francisco").startswith("San Francisco: ")
    assert weather("Portland").startswith("Portland: ")


@pytest.mark.parametrize("city", ["Atlantis", "", ",", "Sea", "Zürich 🌧"])
def test_an_unknown_city_is_an_error_that_names_the_known_ones(city: str) -> None:
    said = refusal_of(lambda: weather(city))
    assert "unknown city" in said and "Seattle" in said and "°C" not in said


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_a_model_is_told_of_a_tool(spec: Any) -> None:
    assert spec.description.endswith(".") and "\n" not in spec.description
    schema = spec.parameters
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"])
    for argument in schema["properties"].values():
        assert argument["type"] == "string" and argument["description"]
        assert "title" not in argument
    assert "title" not in schema
    assert spec.to_openai()["function"]["name"] == spec.name


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"expression": 25},
        {"expression": None},
        {"expression": ["s3cr3t"]},
        {"expression": "s3cr3t" * 100},
        {"expression": "1", "note": "s3cr3t"},
        {"expression": "1", "two\nlines": "s3cr3t"},
    ],
)
def test_wrong_arguments_are_explained_in_one_line_without_their_values(
    arguments: dict[str, Any],
) -> None:
    said = refusal_of(lambda: LOCAL_TOOLS["calculator"].run(arguments))
    assert said.startswith("wrong arguments: ")
    assert len(said.splitlines()) == 1
    assert "s3cr3t" not in said


async def test_the_activity_returns_the_result_or_an_error_that_is_not_retried() -> None:
    environment = ActivityEnvironment()
    request = ToolRequest(name="calculator", arguments={"expression": "15 * 23"})
    assert await environment.run(execute_tool, request) == "345"
    for request in (
        ToolRequest(name="calculator", arguments={"expression": "1/0"}),
        ToolRequest(name="calculator", arguments={}),
        ToolRequest(name="format_disk", arguments={}),
    ):
        with pytest.raises(ApplicationError) as failed:
            await environment.run(execute_tool, request)
        assert failed.value.type == "ToolInputError"
        assert failed.value.non_retryable


def call(name: str, arguments: str) -> ToolCall:
    return ToolCall(id="call_1", name=name, arguments=arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"city": "Sea',
        "[1]",
        '"Seattle"',
        "null",
        "Seattle",
        "[" * 100_000,
        '{"city":' * 100_000,
        '{"city": "\\ud800"}',  # half a character, which cannot be sent on
        '{"city": %s}' % ("9" * 5000),
    ],
    ids=lambda arguments: arguments[:20],
)
def test_arguments_that_are_no_usable_json_object_are_a_problem_not_a_crash(
    arguments: str,
) -> None:
    assert arguments_of(call("weather", arguments)) is None
    with pytest.raises(ToolInputError, match="not a JSON object"):
        arguments_for(call("weather", arguments), SPECS)


def test_problems_of_a_tool_call_are_named() -> None:
    assert arguments_for(call("weather", '{"city": "Paris"}'), SPECS) == {"city": "Paris"}
    with pytest.raises(ToolInputError, match="calculator, weather"):
        arguments_for(call("look_it_up", "{}"), SPECS)
    with pytest.raises(ToolInputError, match="there are none"):
        arguments_for(call("weather", "{}"), [])
    for nothing in ("", "{}", '{"town": "Paris"}'):
        with pytest.raises(ToolInputError, match=r"^missing arguments: city$"):
            arguments_for(call("weather", nothing), SPECS)
