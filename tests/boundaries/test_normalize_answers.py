"""Answers of every shape that a compatible server may send: read, or said to be unreadable, and paid once."""

import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from foreign_servers import foreign, servers
from openai_server import KEY, OpenAIServer, Raw, openai_server
from streamed import stream
from temporalio.client import Client

from workshop_lib.agents.chat import MAX_TOOL_ROUNDS, ChatStart, Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.streaming import stream_reply
from workshop_lib.errors import WorkshopError
from workshop_lib.llm.gateway import ModelRefused, complete
from workshop_lib.llm.messages import Completion, Message
from workshop_lib.llm.normalize_answers import MAX_ANSWER, MAX_CALLS, TOO_LONG
from workshop_lib.settings import reload_settings
from workshop_lib.temporal.worker import WorkerSpec

HELLO = [Message.user("Hello")]
ROME = '{"city": "Rome"}'


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., OpenAIServer]]:
    """Starts servers that play a provider, and points the settings at them."""
    opened: list[Any] = []

    def start(*script: Any) -> OpenAIServer:
        opened.append(openai_server(*script))
        server: OpenAIServer = opened[-1].__enter__()
        monkeypatch.setenv("WORKSHOP_ENV_FILE", str(tmp_path / "no.env"))
        monkeypatch.setenv("LLM_MODEL", "openai/some-model")
        monkeypatch.setenv("LLM_API_BASE", server.base)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        reload_settings()
        return server

    yield start
    for context in opened:
        context.__exit__(None, None, None)
    monkeypatch.undo()
    reload_settings()


def answer(finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion with these fields of its message."""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def call(name: Any = "weather", arguments: Any = ROME, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}} | more


async def both(_: OpenAIServer) -> list[Completion]:
    """An answer, read whole and read as a stream."""
    *_, streamed = [piece async for piece in stream(HELLO)]
    assert isinstance(streamed, Completion)
    return [await complete(HELLO), streamed]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}, "Hello"),
        ({"content": ["Hel", "lo"]}, "Hello"),
        (
            {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"}]},
            "Hi",
        ),
        ({"content": {"text": "Hello"}}, "Hello"),
        ({"content": [[{"text": {"value": "Hello"}}]]}, "Hello"),
        ({"content": 42}, "42"),
        ({"content": None}, None),
        ({}, None),
        ({"content": "a\ud83d b"}, "a\ufffd b"),
        ({"content": [{"type": "image_url", "image_url": {"url": "data:…"}}]}, None),
        ({"role": None, "content": "Hello"}, "Hello"),
    ],
)
async def test_content_of_any_shape_is_its_text(
    model: Callable[..., OpenAIServer], message: dict[str, Any], text: str | None
) -> None:
    server = model(Raw(answer(**message)))
    for read in await both(server):
        assert read.message.content == text
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("calls", "ids", "arguments"),
    [
        ([call(id="a", arguments={"city": "Rome"})], ["a"], [ROME]),
        ([call(id="a", arguments=None)], ["a"], [""]),
        ([call(), call()], None, [ROME, ROME]),
        ([call(id=""), call(id="")], None, [ROME, ROME]),
        ([call(id="a"), call(id="a")], None, [ROME, ROME]),
        ([call(id=7)], ["7"], [ROME]),
        ([call(id=None, index=0)], None, [ROME]),
        (call(id="a"), ["a"], [ROME]),
        ([{"id": "a", "name": "weather", "arguments": ROME}], ["a"], [ROME]),
        ([None, call(id="a"), "nonsense"], ["a"], [ROME]),
    ],
)
async def test_calls_of_any_shape_have_ids_of_their_own_and_arguments_as_text(
    model: Callable[..., OpenAIServer],
    calls: Any,
    ids: list[str] | None,
    arguments: list[str],
) -> None:
    for read in await both(model(Raw(answer(content=None, tool_calls=calls)))):
        found = read.message.tool_calls
        assert [c.name for c in found] == ["weather"] * len(arguments)
        assert [c.arguments for c in found] == arguments
        assert ids is None or [c.id for c in found] == ids
        assert len({c.id for c in found}) == len(found) and all(c.id for c in found)


async def test_a_legacy_call_and_ids_that_count_from_zero_in_every_answer(
    model: Callable[..., OpenAIServer],
) -> None:
    legacy = {"function_call": {"name": "weather", "arguments": ROME}, "content": None}
    model(Raw(answer("function_call", **legacy)), Raw(answer(tool_calls=[call(id="call_0")])))
    first = await complete(HELLO)
    (made,) = first.message.tool_calls
    assert (made.name, made.arguments) == ("weather", ROME)
    then = await complete([*HELLO, first.message, Message.tool_result(made, "12 °C")])
    assert then.message.tool_calls[0].id != made.id


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        {"choices": None},
        {"choices": "none"},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        answer(None, content="x") | {"usage": {"prompt_tokens": -1, "completion_tokens": 1.5}},
        answer(3, content="x") | {"usage": "many", "model": None, "id": 5, "created": "now"},
    ],
)
async def test_what_is_missing_is_no_outage(model: Callable[..., OpenAIServer], body: Any) -> None:
    for read in await both(model(Raw(body))):
        assert read.message.tool_calls == []
        assert min(read.usage.prompt_tokens, read.usage.completion_tokens) >= 0


@pytest.mark.parametrize("body", [[], "ok", 5, {"status": "ok"}, None])
async def test_what_is_no_chat_completion_is_refused_and_names_the_setting(
    model: Callable[..., OpenAIServer], body: Any
) -> None:
    server = model(Raw(body))
    with pytest.raises(ModelRefused, match=r"(?s)cannot be read.*LLM_API_BASE"):
        await complete(HELLO)
    assert len(server.requests) == 1


async def test_an_answer_is_bounded(model: Callable[..., OpenAIServer]) -> None:
    many = [call(id=str(n), arguments="x" * 100_000) for n in range(1000)]
    model(Raw(answer(content="y" * 3_000_000)), Raw(answer(tool_calls=many)))
    assert len((await complete(HELLO)).message.content or "") < MAX_ANSWER + 100
    found = (await complete(HELLO)).message.tool_calls
    assert len(found) == MAX_CALLS and sum(len(c.arguments) for c in found) < 2_000_000


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (answer(content=None, refusal="I will not."), "declines to answer that: I will not."),
        (answer(content=[{"type": "refusal", "refusal": "No."}]), "declines to answer that: No."),
        (answer("content_filter", content=""), "content filter has stopped"),
        (answer("content_filter", content="Half an"), "content filter has stopped"),
        (answer("length", content="Half an"), "limit of length"),
        (answer("length", content=""), "limit of length"),
    ],
)
async def test_refusals_filters_and_cut_answers_are_said_as_what_they_are(
    model: Callable[..., OpenAIServer], body: Any, said: str
) -> None:
    for read in await both(model(Raw(body))):
        assert said in (read.message.content or "")


async def test_what_a_provider_wants_to_see_again_is_sent_back(
    model: Callable[..., OpenAIServer],
) -> None:
    thoughts: dict[str, Any] = {
        "reasoning_content": "hm",
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
        "reasoning_details": [{"kind": "x", "data": "…"}],
    }
    signed = call(id="a", extra_content={"google": {"thought_signature": "S"}})
    said = answer(content="I look.", tool_calls=[signed], **thoughts)
    server = model(Raw(said), Raw(answer(content="Done.")))
    read = await complete(HELLO)
    results = [Message.tool_result(c, "12 °C") for c in read.message.tool_calls]
    stored = Message.model_validate_json(read.message.model_dump_json())
    await complete([*HELLO, stored, *results])
    sent = server.requests[-1]["messages"][1]
    assert {name: sent[name] for name in thoughts} == thoughts
    assert sent["tool_calls"][0]["extra_content"] == signed["extra_content"]


def pieces(*calls: dict[str, Any]) -> list[Any]:
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in calls]
    return [*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]


def piece(index: int | None, name: str | None, arguments: str, **more: Any) -> dict[str, Any]:
    return {"index": index, "function": {"name": name, "arguments": arguments}} | more


TWO = [("calculator", '{"expression": "1+1"}'), ("weather", ROME)]


@pytest.mark.parametrize(
    ("chunks", "calls"),
    [
        (pieces(piece(0, "calculator", TWO[0][1], id="a"), piece(0, "weather", ROME, id="b")), TWO),
        (pieces(piece(0, "calculator", TWO[0][1]), piece(0, "weather", ROME)), TWO),
        (pieces(piece(0, "weather", ROME), piece(0, "weather", ROME)), [TWO[1]] * 2),
        (
            pieces(piece(0, "weather", ROME, id="a"), piece(0, "weather", ROME, id="a")),
            [TWO[1]] * 2,
        ),
        (pieces(piece(0, "weather", ROME[:4], id="a"), piece(0, None, ROME[4:])), [TWO[1]]),
        (
            pieces(piece(0, "weather", ROME[:4], id="a"), piece(0, "weather", ROME[4:], id="a")),
            [TWO[1]],
        ),
        (
            pieces(
                piece(0, "calculator", TWO[0][1][:3], id="a"),
                piece(1, "weather", ROME[:3], id="b"),
                piece(0, None, TWO[0][1][3:]),
                piece(1, None, ROME[3:]),
            ),
            TWO,
        ),
        (pieces(piece(None, "calculator", TWO[0][1]), piece(None, "weather", ROME)), TWO),
    ],
)
async def test_streamed_calls_are_told_apart(
    model: Callable[..., OpenAIServer], chunks: list[Any], calls: list[tuple[str, str]]
) -> None:
    model(Raw(None, chunks))
    *_, read = [p async for p in stream(HELLO)]
    assert isinstance(read, Completion)
    found = read.message.tool_calls
    assert [(c.name, c.arguments) for c in found] == calls
    assert len({c.id for c in found}) == len(calls)


async def test_a_server_that_does_not_stream_is_read_all_the_same(
    model: Callable[..., OpenAIServer],
) -> None:
    model(Raw(answer(content="Hello", tool_calls=[call(id="a")]), whole=True))
    *_, read = [p async for p in stream(HELLO)]
    assert isinstance(read, Completion)
    assert (read.message.content, read.message.tool_calls[0].id) == ("Hello", "a")


async def test_a_character_in_two_halves_is_one(model: Callable[..., OpenAIServer]) -> None:
    halves = [{"choices": [{"delta": {"content": half}}]} for half in ("a\ud83d", "\ude00b")]
    model(Raw(None, halves))  # and it never says that it has ended
    *texts, _ = [p async for p in stream(HELLO)]
    assert "".join(map(str, texts)) == "a😀b"


# --- in the loops ------------------------------------------------------------------------------------


def shape(chance: random.Random) -> Any:
    """A shape of an answer that some server might send."""
    odd: list[Any] = [
        None,
        42,
        True,
        "",
        "x\ud800",
        [],
        {},
        [None],
        "null",
        {"text": 5},
        [[["x"]]],
        -1.5,
    ]
    message: dict[str, Any] = {}
    for name in ("role", "content", "refusal", "reasoning_content", "function_call", "annotations"):
        if chance.random() < 0.4:
            message[name] = chance.choice(odd)
    if chance.random() < 0.6:
        made = []
        for _ in range(chance.randint(1, 3)):
            one = call(
                chance.choice(["weather", "weather", "no_such", None, 5, "x\ud800"]),
                chance.choice([ROME, "", None, {"city": "Oslo"}, "{", "[" * 5000, "9" * 5000, 7]),
            )
            if chance.random() < 0.7:
                one["id"] = chance.choice(["call_0", "", None, 3, "x\udc00"])
            made.append(chance.choice([one, one, one, one["function"], None, "x"]))
        message["tool_calls"] = chance.choice([made, made, made, {}, "x", made[0]])
    body = answer(chance.choice(["stop", "length", "content_filter", None, 3, "x"]), **message)
    if chance.random() < 0.3:
        body["choices"] = chance.choice([[], None, "x", [None], [{}], [message]])
    if chance.random() < 0.3:
        body["usage"] = chance.choice(odd)
    if chance.random() < 0.2:
        body.pop(chance.choice(list(body)))
    return body


def test_mending_a_seeded_shape_is_harmless_and_done_once() -> None:
    from workshop_lib.llm.normalize_answers import Pieces, mended

    for seed in range(300):
        body = json.loads(json.dumps(shape(random.Random(seed))))
        once = mended(body)
        assert mended(json.loads(json.dumps(once))) == once
        json.dumps(once, ensure_ascii=False).encode()
        pieces = Pieces()
        for chunk in (body, body, None, 5, {"choices": [{"finish_reason": "stop"}]}):
            mended_piece = pieces.mended(chunk)
            json.dumps(mended_piece, ensure_ascii=False).encode()
            for choice in mended_piece["choices"]:
                assert isinstance(choice["delta"].get("reasoning_content", ""), str)


@pytest_asyncio.fixture
async def teams(settings_env: Callable[..., None]) -> AsyncIterator[None]:
    """MCP servers for the loop that asks some."""
    async with servers(settings_env, [foreign("no_such_weather")], [foreign("price", "5")]):
        yield


@pytest.mark.parametrize(
    ("loop", "streams"), [("manual", False), ("sdk", False), ("sdk", True), ("mcp", False)]
)
async def test_a_chat_survives_answers_of_seeded_shapes_at_a_bounded_price(
    model: Callable[..., OpenAIServer],
    client: Client,
    worker: WorkerSpec,
    teams: None,
    loop: str,
    streams: bool,
) -> None:
    server = model(Raw(answer(content="Hello.")))
    start = ChatStart(stream=streams)
    chat = ChatClient(client, loop, task_queue=worker.task_queue, start=start)
    for seed in range(25):
        server.script = [Raw(shape(random.Random(seed))), Raw(answer(content="Done."))]
        before = len(server.requests)
        if streams:
            *_, reply = [p async for p in stream_reply(client, chat, f"Question {seed}")]
        else:
            reply = await chat.send(f"Question {seed}")
        assert isinstance(reply, Reply) and reply.text, seed
        # One call, and one more where it asked for tools. A late heartbeat may cost one of them again.
        assert len(server.requests) - before <= 4, (seed, reply)
        assert "unavailable" not in reply.text and "Traceback" not in reply.text
    server.script = [Raw(answer(content="Goodbye."))]
    assert (await chat.send("Bye")).text == "Goodbye."


@pytest.mark.parametrize("loop", ["manual", "sdk"])
async def test_a_chat_says_why_there_is_no_answer(
    model: Callable[..., OpenAIServer], client: Client, worker: WorkerSpec, loop: str
) -> None:
    chat = ChatClient(client, loop, task_queue=worker.task_queue)
    server = model(Raw(answer(content=None, refusal="I will not.")))
    assert "declines" in (await chat.send("One")).text
    server.script = [Raw(answer("content_filter", content=None))]
    assert "content filter" in (await chat.send("Two")).text
    server.script = [Raw(answer("length", content="Half an"))]
    reply = await chat.send("Three")
    assert reply.text == f"Half an {TOO_LONG}" and not reply.failed
    server.script = [Raw({"status": "ok"})]
    before = len(server.requests)
    reply = await chat.send("Four")
    assert "LLM_API_BASE" in reply.text and reply.failed
    assert len(server.requests) == before + 1


@pytest.mark.parametrize("loop", ["manual", "sdk"])
async def test_a_model_that_repeats_itself_is_told_so_and_soon_stopped(
    model: Callable[..., OpenAIServer], client: Client, worker: WorkerSpec, loop: str
) -> None:
    again = Raw(answer(tool_calls=[call(id="a", arguments='{"city": "Seattle"}')]))
    server = model(again)
    chat = ChatClient(client, loop, task_queue=worker.task_queue)
    reply = await chat.send("What is the weather in Seattle?")
    assert reply.tool_calls == ["weather"] and reply.failed
    assert "again and again" in reply.text and reply.model_calls == 3
    assert "made before" in server.requests[2]["messages"][-1]["content"]
    # Told so, it may come to its senses; and asking twice at once is no repetition.
    two = [
        call(id="a", arguments='{"city":"Seattle"}'),
        call(id="b", arguments='{ "city": "Seattle" }'),
    ]
    server.script = [Raw(answer(tool_calls=two)), again, Raw(answer(content="14 °C."))]
    reply = await chat.send("Again?")
    assert reply.text == "14 °C." and not reply.failed
    # Another question each time is another matter.
    server.script = [
        Raw(answer(tool_calls=[call(id="a", arguments=json.dumps({"city": f"City {n}"}))]))
        for n in range(2 * MAX_TOOL_ROUNDS)
    ]
    assert (await chat.send("Everywhere?")).failed


async def test_a_call_of_a_team_is_not_repeated_either(
    model: Callable[..., OpenAIServer], client: Client, worker: WorkerSpec, teams: None
) -> None:
    server = model(Raw(answer(tool_calls=[call("price", "{}", id="a")])))
    reply = await ChatClient(client, "mcp", task_queue=worker.task_queue).send("The price?")
    assert "again and again" in reply.text and reply.failed
    assert reply.tool_calls == ["price"] and reply.model_calls == len(server.questions) == 3


def test_an_address_without_its_path_is_named(model: Callable[..., OpenAIServer]) -> None:
    import asyncio

    server = model("no_address")
    with pytest.raises(WorkshopError, match=r"(?s)LLM_API_BASE=http://127.*/v1"):
        asyncio.run(complete(HELLO))
    assert len(server.requests) == 1
