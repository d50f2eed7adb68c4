"""One call to a model: the same over LiteLLM's OpenAI path and the offline provider, and how it fails."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai_server import KEY, OpenAIServer, openai_server
from pydantic import TypeAdapter
from streamed import stream

from workshop_lib.agents.loops import sdk_model
from workshop_lib.errors import WorkshopError
from workshop_lib.llm.failures import MAX_RETRY_AFTER, retry_after_of, without_secrets
from workshop_lib.llm.gateway import ModelRefused, ModelUnavailable, complete
from workshop_lib.llm.journal import read_journal
from workshop_lib.llm.messages import Completion, Message, ToolCall, ToolSpec
from workshop_lib.settings import reload_settings

WEATHER = ToolSpec(
    name="weather",
    description="Current weather in a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
)
QUESTION = [Message.user("What is the weather in Seattle and in Boston?")]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """No key, no `.env`, no plan of failures; settings are read again after every change."""
    for name in (
        "LLM_MODEL",
        "LLM_API_BASE",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "OFFLINE_FAULTS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORKSHOP_ENV_FILE", str(tmp_path / "no.env"))
    monkeypatch.setenv("WORKSHOP_STATE_DIR", str(tmp_path / "state"))
    reload_settings()
    yield monkeypatch
    monkeypatch.undo()
    reload_settings()


@pytest.fixture
def provider(environment: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts servers that play a provider, and points the settings at them."""
    with_server: list[Any] = []

    def start(*script: Any, key: str = KEY) -> OpenAIServer:
        context = openai_server(*script)
        server = context.__enter__()
        with_server.append(context)
        environment.setenv("LLM_MODEL", "openai/some-model")
        environment.setenv("LLM_API_BASE", server.base)
        environment.setenv("OPENAI_API_KEY", key)
        reload_settings()
        return server

    yield start
    for context in with_server:
        context.__exit__(None, None, None)


def conversation_after(completion: Completion, results: dict[str, str]) -> list[Message]:
    """The question, the calls, and their results."""
    calls = completion.message.tool_calls
    answers = [Message.tool_result(c, results[json.loads(c.arguments)["city"]]) for c in calls]
    return [*QUESTION, completion.message, *answers]


async def play() -> tuple[list[tuple[str, str]], str | None]:
    """A turn with two tool calls: what was called, and the answer."""
    first = await complete(QUESTION, [WEATHER])
    second = await complete(
        conversation_after(first, {"Seattle": "14 °C, rain", "Boston": "22 °C, sun"}), [WEATHER]
    )
    calls = [(call.name, call.arguments) for call in first.message.tool_calls]
    return calls, second.message.content


async def test_the_same_conversation_on_both_paths(provider: Any, environment: Any) -> None:
    offline = await play()
    server = provider("rules")
    assert await play() == offline
    calls, answer = offline
    assert calls == [("weather", '{"city": "Seattle"}'), ("weather", '{"city": "Boston"}')]
    assert answer is not None and "14 °C, rain" in answer and "22 °C, sun" in answer
    sent = server.requests[1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [message["tool_call_id"] for message in sent[2:]] == [
        call["id"] for call in sent[1]["tool_calls"]
    ]


@pytest.mark.parametrize("path", ["offline", "openai"])
async def test_a_stream_adds_up_to_its_completion(
    path: str, provider: Any, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(sdk_model, "PIECE_SECONDS", 0.0)
    if path == "openai":
        provider("rules")
    pieces = [piece async for piece in stream([Message.user("who are you?")])]
    *texts, last = pieces
    assert isinstance(last, Completion) and len(texts) > 5
    assert "".join(str(text) for text in texts) == last.message.content
    assert "rules, not a language model" in (last.message.content or "")
    assert last.usage.prompt_tokens > 0 and last.usage.completion_tokens > 0


@pytest.mark.parametrize("path", ["offline", "openai"])
async def test_tool_calls_survive_streaming(path: str, provider: Any) -> None:
    if path == "openai":
        provider("rules")
    whole = await complete(QUESTION, [WEATHER])
    *_, last = [piece async for piece in stream(QUESTION, [WEATHER])]
    assert isinstance(last, Completion)
    read, said = (
        [(c.name, c.arguments) for c in m.tool_calls] for m in (last.message, whole.message)
    )
    assert read == said and len({call.id for call in last.message.tool_calls}) == len(said)
    assert last.message.content == whole.message.content


async def test_the_same_request_gets_the_same_bytes() -> None:
    first, second = await asyncio.gather(
        complete(QUESTION, [WEATHER]), complete(QUESTION, [WEATHER])
    )
    assert first == second
    assert len({call.id for call in first.message.tool_calls}) == 2


async def test_one_try_is_one_request(provider: Any) -> None:
    server = provider("server_error")
    with pytest.raises(ModelUnavailable):
        await complete(QUESTION)
    assert len(server.requests) == 1  # Temporal retries, nobody else


@pytest.mark.parametrize("step", ["server_error", "cut_body", "not_json"])
async def test_what_may_pass_is_unavailable(step: str, provider: Any) -> None:
    provider(step)
    with pytest.raises(ModelUnavailable) as caught:
        await complete(QUESTION)
    assert caught.value.retry_after is None


async def test_retry_after_is_handed_on(provider: Any) -> None:
    provider("rate_limit")
    with pytest.raises(ModelUnavailable) as caught:
        await complete(QUESTION)
    assert caught.value.retry_after == 7.0


async def test_a_silent_server_is_unavailable(
    provider: Any, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("LLM_TIMEOUT", "0.3")
    provider("hang")
    with pytest.raises(ModelUnavailable, match="in time"):
        await complete(QUESTION, timeout=0.2)
    with pytest.raises(ModelUnavailable, match="in time"):
        [piece async for piece in stream(QUESTION)]


async def test_no_server_is_unavailable(provider: Any) -> None:
    provider("rules").close()
    with pytest.raises(ModelUnavailable, match="No connection"):
        await complete(QUESTION)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("bad_key", "OPENAI_API_KEY"),
        ("quota", "credit"),
        ("no_model", "LLM_MODEL"),
        ("too_long", "too long"),
        ("bad_request", "workshop doctor"),
    ],
)
async def test_what_cannot_pass_is_refused_without_a_key(
    step: str, words: str, provider: Any
) -> None:
    provider(step)
    for call in (complete, streamed):
        with pytest.raises(ModelRefused) as caught:
            await call(QUESTION)
        assert words in str(caught.value)
        assert_no_key(caught.value)


async def streamed(messages: list[Message]) -> list[Any]:
    """All that a stream yields."""
    return [piece async for piece in stream(messages)]


async def test_a_refused_key_is_not_repeated(provider: Any) -> None:
    wrong = "sk-proj-ZYXWVUTSRQPONMLKJIHG9876543210"
    provider("rules", key=wrong)
    with pytest.raises(ModelRefused) as caught:
        await complete(QUESTION)
    assert_no_key(caught.value, wrong)


def assert_no_key(error: BaseException, key: str = KEY) -> None:
    """No six characters of a key in a row, in the error or in anything that hangs on it."""
    parts = {key[start : start + 6] for start in range(3, len(key) - 5)}
    chain: list[BaseException | None] = [error, error.__cause__, error.__context__]
    for link in chain:
        said = f"{link} {link!r} {getattr(link, 'args', '')}"
        assert not [part for part in parts if part in said]


async def test_an_unknown_provider_is_refused(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelRefused, match="LLM_MODEL"):
        await complete(QUESTION, model="nonsense-model-without-provider/x")


async def test_malformed_arguments_come_as_they_are_and_can_be_sent_back(provider: Any) -> None:
    cut = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"ci'}}
    server = provider({"role": "assistant", "content": None, "tool_calls": [cut]}, "rules")
    completion = await complete(QUESTION, [WEATHER])
    (call,) = completion.message.tool_calls
    assert call.arguments == '{"ci'
    await complete(
        [*QUESTION, completion.message, Message.tool_result(call, "Error: not JSON")], [WEATHER]
    )
    sent = server.requests[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(sent) == {"malformed": '{"ci'}  # several providers refuse anything else


async def test_a_server_of_ones_own_needs_no_key(
    provider: Any, environment: pytest.MonkeyPatch
) -> None:
    server = provider("rules")
    environment.delenv("OPENAI_API_KEY")
    reload_settings()
    with pytest.raises(ModelRefused):  # this server does check the key; the request has arrived
        await complete(QUESTION)
    assert len(server.requests) == 1


async def test_the_journal_counts_each_request_once(
    provider: Any, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal = tmp_path / "new" / "journal.jsonl"
    environment.setenv("WORKSHOP_MODEL_JOURNAL", str(journal))
    reload_settings()
    assert read_journal(journal) == []
    await complete(QUESTION, [WEATHER])
    [piece async for piece in stream(QUESTION, [WEATHER])]
    import litellm

    await litellm.acompletion(
        model="offline/rules", messages=[message.to_openai() for message in QUESTION]
    )
    litellm.completion(model="offline/rules", messages=[{"role": "user", "content": "hi"}])
    assert [entry.model for entry in read_journal(journal)] == ["offline/rules"] * 4
    provider("server_error")
    with pytest.raises(ModelUnavailable):
        await complete(QUESTION, [WEATHER])
    entries = read_journal(journal)
    assert [entry.model for entry in entries[4:]] == ["openai/some-model"]
    # The SDK writes the tools down otherwise, so a request of its is another one.
    assert entries[0].request == entries[4].request
    assert len({entry.request for entry in entries}) == 4
    assert entries[0].messages == 1
    assert "Seattle" not in journal.read_text()


async def test_a_request_that_never_ended_is_in_the_journal(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("WORKSHOP_MODEL_JOURNAL", str(tmp_path / "journal.jsonl"))
    environment.setenv("OFFLINE_LATENCY_MS", "60000")
    reload_settings()
    with pytest.raises(ModelUnavailable):
        await complete(QUESTION, timeout=1)  # time enough for it to be sent
    assert len(read_journal(tmp_path / "journal.jsonl")) == 1


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    with pytest.raises(WorkshopError, match="x cannot be read as a model journal"):
        read_journal(tmp_path / "x")


def test_workflow_code_may_import_the_messages() -> None:
    code = (
        "import workshop_lib.llm.messages, workshop_lib.llm.gateway, sys\n"
        "print([name for name in ('litellm', 'openai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_litellm_prints_nothing_and_reads_no_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-a-file-nobody-asked-for\n")
    code = (
        "import asyncio, os\n"
        "from workshop_lib.llm.gateway import complete\n"
        "from workshop_lib.llm.messages import Message\n"
        "asyncio.run(complete([Message.user('hi')], model='offline/rules'))\n"
        "assert 'OPENAI_API_KEY' not in os.environ\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_messages_are_stored_compactly() -> None:
    call = ToolCall(id="c1", name="weather", arguments="{}")
    messages = [
        Message.user("hi"),
        Message(role="assistant", tool_calls=[call]),
        Message.tool_result(call, "14 °C"),
    ]
    stored = TypeAdapter(list[Message]).dump_json(messages)
    assert json.loads(stored) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call.model_dump()]},
        {"role": "tool", "content": "14 °C", "tool_call_id": "c1"},
    ]
    assert TypeAdapter(list[Message]).validate_json(stored) == messages


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("999999", MAX_RETRY_AFTER),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_read_with_care(header: str, seconds: float | None) -> None:
    error = SimpleNamespace(response=SimpleNamespace(headers={"retry-after": header}))
    assert retry_after_of(error) == seconds  # type: ignore[arg-type]


def test_retry_after_may_be_a_date() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    error = SimpleNamespace(response=SimpleNamespace(headers={"retry-after": moment}))
    seconds = retry_after_of(error)  # type: ignore[arg-type]
    assert seconds is not None and 500 < seconds <= 600


def test_words_of_a_provider_lose_their_secrets(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SOME_API_KEY", "abcdefghijklmnopqrstuvwx")
    said = "bad value mnopqr in request; key gsk_123; Bearer zzz; api_key=99; fine otherwise"
    assert without_secrets(said) == (
        "bad value [hidden] in request; key [hidden] [hidden] [hidden] fine otherwise"
    )
