"""One call to a model, through LiteLLM: whole or piece by piece.

The same call serves a paid provider, a server of your own (LLM_API_BASE) and the offline model. It is
tried once: Temporal retries, not we. Left out: the loop around it, and any opinion on tool arguments. A
model that writes malformed ones gets them returned to its caller, who can tell the model.

A call ends in one of three ways:

* a `Completion`;
* `ModelUnavailable`: not this time (429, 5xx, timeout, no connection, cut body). Retry, after
  `retry_after` seconds where the provider says so;
* `ModelRefused`: never like this (key, model name, malformed or too long request). Do not retry.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from workshop_lib.errors import WorkshopError
from workshop_lib.llm.answers import UNREADABLE, Pieces, extras_of, mended, own_id
from workshop_lib.llm.failures import ModelRefused, ModelUnavailable, explain_failure
from workshop_lib.llm.journal import record_request
from workshop_lib.llm.large_imports import large_import
from workshop_lib.llm.messages import Completion, Message, ToolCall, ToolSpec, Usage
from workshop_lib.llm.wire import client_of
from workshop_lib.settings import OFFLINE_MODEL, get_settings, provider_key, provider_of

__all__ = [
    "ModelRefused",
    "ModelUnavailable",
    "call_options",
    "complete",
    "load",
    "register_offline_provider",
    "stand_in",
    "stream",
    "warm_up",
]

OFFLINE_PROVIDER = "offline"

# Who answers `complete` in place of the model, in this task and those that it starts: for a look at a loop.
stand_in: ContextVar[
    Callable[[Sequence[Message], Sequence[ToolSpec]], Awaitable[Completion]] | None
] = ContextVar("stand_in", default=None)

_setup_lock = threading.Lock()
_litellm_module: Any = None


async def complete(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    *,
    model: str | None = None,
    timeout: float | None = None,
) -> Completion:
    """Ask a model once and wait for its whole answer.

    Args:
        messages: the conversation, oldest first.
        tools: what the model may ask to be called.
        model: in LiteLLM's spelling (provider/name); by default the one of the settings.
        timeout: seconds the call may take; by default LLM_TIMEOUT.

    Raises:
        ModelUnavailable: it did not answer; another try may help.
        ModelRefused: another try cannot help.
    """
    if answers := stand_in.get():
        return await answers(messages, tools)
    model = model or get_settings().model.name
    seconds = timeout or get_settings().llm_timeout
    litellm = await asyncio.to_thread(_litellm) if _litellm_module is None else _litellm_module
    request = _request(messages, tools, model, seconds)
    _journal(model, request)
    failure: Exception
    try:
        async with asyncio.timeout(seconds):
            response = await litellm.acompletion(**request)
        return _completion(read_answer(response.model_dump(), model), model, messages)
    except Exception as error:
        failure = _translated(error, model)
    # Raised outside the except block: the provider's exception, which may quote a key, must not hang on
    # as the context of ours.
    raise failure


async def stream(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    *,
    model: str | None = None,
    timeout: float | None = None,
) -> AsyncIterator[str | Completion]:
    """Ask a model once and yield its text piece by piece; the last item is the whole `Completion`.

    Args:
        timeout: seconds until the first piece, and between two pieces; by default LLM_TIMEOUT.

    Raises:
        ModelUnavailable, ModelRefused: as in `complete`, also in the middle of an answer.
    """
    model = model or get_settings().model.name
    seconds = timeout or get_settings().llm_timeout
    litellm = await asyncio.to_thread(_litellm) if _litellm_module is None else _litellm_module
    request = _request(messages, tools, model, seconds)
    request |= {"stream": True, "stream_options": {"include_usage": True}}
    _journal(model, request)
    answer, pieces = _StreamedAnswer(), Pieces()
    chunks: AsyncIterator[Any] | None = None
    failure: Exception | None = None
    while failure is None:
        try:
            async with asyncio.timeout(seconds):
                if chunks is None:
                    chunks = aiter(await litellm.acompletion(**request))
                chunk = await anext(chunks)
            text = answer.add(pieces.mended(chunk.model_dump()))
        except StopAsyncIteration:
            break
        except Exception as error:
            failure = _translated(error, model)
        else:
            if text:
                yield text
    if failure is None:
        try:
            completion = _completion(read_answer(answer.whole(), model), model, messages)
        except Exception as error:
            failure = _translated(error, model)
    if failure is not None:
        raise failure
    yield completion


async def warm_up() -> None:
    """Load LiteLLM, off the event loop, so that the first call does not wait seconds for it."""
    litellm = await asyncio.to_thread(_litellm)
    # A call that reaches no model: LiteLLM loads much of itself only when the first call is made.
    with large_import():
        await asyncio.to_thread(
            litellm.completion,
            model=OFFLINE_MODEL,
            messages=[Message.user("warm-up").to_openai()],
            mock_response="warm",
        )


async def load() -> None:
    """Load LiteLLM where that was not done yet, off the event loop: it takes seconds."""
    if _litellm_module is None:
        await asyncio.to_thread(_litellm)


def register_offline_provider() -> None:
    """Make `offline/rules` a model that LiteLLM knows, whoever calls LiteLLM. Repeating it is harmless."""
    _litellm()


def _litellm() -> Any:
    """The litellm module, imported and set up once: quiet, no look-up of prices, our provider in place."""
    global _litellm_module
    with _setup_lock:
        if _litellm_module is None:
            with large_import():
                import litellm

            from workshop_lib.llm.offline.provider import install

            litellm.suppress_debug_info = True
            install()
            _litellm_module = litellm
    return _litellm_module


def _request(
    messages: Sequence[Message], tools: Sequence[ToolSpec], model: str, seconds: float
) -> dict[str, Any]:
    """The arguments of `litellm.acompletion`."""
    request: dict[str, Any] = {
        "model": model,
        "messages": [message.to_openai() for message in messages],
        **call_options(model, seconds),
    }
    if tools:
        request["tools"] = [tool.to_openai() for tool in tools]
    return request


def call_options(model: str, seconds: float | None = None) -> dict[str, Any]:
    """How LiteLLM is to call a model: where, how long, and once. For whoever calls it past `complete`.

    Args:
        seconds: how long the call may take; by default LLM_TIMEOUT.
    """
    settings = get_settings()
    options: dict[str, Any] = {
        "timeout": seconds or settings.llm_timeout,
        "max_retries": 0,
        "num_retries": 0,
    }
    if provider_of(model) == OFFLINE_PROVIDER:
        # Said outright: LiteLLM would work both out anew, several times a call.
        options |= {"custom_llm_provider": OFFLINE_PROVIDER, "api_base": OFFLINE_PROVIDER}
    elif settings.llm_api_base:
        options["api_base"] = settings.llm_api_base
        if provider_of(model) == "openai":
            # The client insists on a key, the server does not.
            key = provider_key("OPENAI_API_KEY") or "no-key-needed"
            options |= {"api_key": key, "client": client_of(settings.llm_api_base, key)}
    return options


def _journal(model: str, request: dict[str, Any]) -> None:
    if provider_of(model) != OFFLINE_PROVIDER:  # the offline model keeps its own
        record_request(model, request["messages"], request.get("tools"))


def _translated(error: Exception, model: str) -> Exception:
    return error if isinstance(error, WorkshopError) else explain_failure(error, model)


def read_answer(response: dict[str, Any], model: str) -> dict[str, Any]:
    """LiteLLM's response, dumped, as a chat completion that can be read, whoever the provider is.

    Raises:
        ModelRefused: it cannot be, and so is not asked for again.
    """
    answer = mended(response)
    text = answer["choices"][0]["message"]["content"] or ""
    if text.startswith(UNREADABLE):
        raise unreadable(text, model)
    return answer


def unreadable(text: str, model: str) -> ModelRefused:
    """What is said of an answer that has arrived and cannot be read."""
    return ModelRefused(
        text,
        expected=f"that {model} answers as the chat completions API describes it.",
        fix="see that LLM_API_BASE in .env points to a model's server.",
    )


def _completion(answer: dict[str, Any], model: str, asked: Sequence[Message]) -> Completion:
    """A mended answer as ours; each of its calls gets an id that none before it has."""
    written = answer["choices"][0]["message"]
    used = {call.id for message in asked for call in message.tool_calls}
    calls = []
    for call in written["tool_calls"] or ():
        more = {k: v for k, v in call.items() if k not in ("id", "type", "function")}
        calls.append(ToolCall(id=own_id(call["id"], used), **call["function"], extras=more or None))
        used.add(calls[-1].id)
    # Thoughts and signatures belong to the calls that they led to; without calls nobody asks for them.
    thoughts = extras_of(written) if calls else None
    return Completion(
        message=Message(
            role="assistant", content=written["content"], tool_calls=calls, extras=thoughts
        ),
        usage=Usage.model_validate(answer["usage"]),
        model=_spelled(answer.get("model"), model),
    )


def _spelled(answered: str | None, asked: str) -> str:
    """The model's name as the provider gives it, which leaves the offline model's provider out."""
    return answered if answered and provider_of(asked) != OFFLINE_PROVIDER else asked


class _StreamedAnswer:
    """Collects the mended pieces of a streamed answer."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._calls: list[dict[str, Any]] = []

    def add(self, chunk: dict[str, Any]) -> str:
        """Take a chunk in and return the text that it adds."""
        self._answer |= {k: v for k, v in chunk.items() if k in ("id", "model", "usage") and v}
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for piece in delta.pop("tool_calls") or ():
                if piece["index"] == len(self._calls):
                    self._calls.append({"function": {"name": "", "arguments": ""}})
                call, function = self._calls[piece.pop("index")], piece.pop("function")
                call["function"]["name"] += function.get("name") or ""
                call["function"]["arguments"] += function["arguments"]
                call |= {k: v for k, v in piece.items() if v}
            for name, value in delta.items():
                known: Any = self._message.get(name)
                grows = isinstance(value, str | list) and type(known) is type(value)
                if value is not None:
                    self._message[name] = known + value if grows and name != "role" else value
            return delta["content"] or ""
        return ""

    def whole(self) -> dict[str, Any]:
        """The whole answer, as the body of a chat completion."""
        return self._answer | {
            "choices": [{"message": self._message | {"tool_calls": self._calls}}]
        }
