"""One call to a model, through LiteLLM.

The same call serves a paid provider, a server of your own (LLM_API_BASE) and the offline model. It is
tried once: Temporal retries, not we. Left out: the loop around it; answers piece by piece, which are the
Agents SDK's (`agents.loops.sdk_model`); and any opinion on tool arguments. A model that writes malformed
ones gets them returned to its caller, who can tell the model.

A call ends in one of three ways:

* a `Completion`;
* `ModelUnavailable`: not this time (429, 5xx, timeout, no connection, cut body). Retry, after
  `retry_after` seconds where the provider says so;
* `ModelRefused`: never like this (key, model name, malformed or too long request). Do not retry.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from workshop_lib.llm.failures import ModelRefused, ModelUnavailable, explain_failure
from workshop_lib.llm.journal import record_request
from workshop_lib.llm.large_imports import large_import
from workshop_lib.llm.messages import Completion, Message, ToolCall, ToolSpec, Usage
from workshop_lib.llm.normalize_answers import UNREADABLE, extras_of, mended, own_id
from workshop_lib.llm.openai_client import client_of
from workshop_lib.llm.tokens import counted
from workshop_lib.settings import OFFLINE_MODEL, get_settings, provider_key, provider_of

__all__ = [
    "ModelRefused",
    "ModelUnavailable",
    "call_options",
    "complete",
    "load",
    "load_now",
    "stand_in",
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
    max_tokens: int | None = None,
) -> Completion:
    """Ask a model once and wait for its whole answer.

    Args:
        messages: the conversation, oldest first.
        tools: what the model may ask to be called.
        model: in LiteLLM's spelling (provider/name); by default the one of the settings.
        timeout: seconds the call may take; by default LLM_TIMEOUT.
        max_tokens: that the answer may have; None leaves it to the provider.

    Raises:
        ModelUnavailable: it did not answer; another try may help.
        ModelRefused: another try cannot help.
    """
    if answers := stand_in.get():
        return await answers(messages, tools)
    litellm, request = await _prepared(messages, tools, model, timeout)
    model = request["model"]
    if max_tokens is not None:
        request["max_tokens"] = max_tokens
    try:
        async with asyncio.timeout(request["timeout"]):
            response = await litellm.acompletion(**request)
        return _completion(read_answer(response.model_dump(), model), messages, litellm, request)
    except Exception as error:
        failure = explain_failure(error, model)
    # Raised outside the except block: the provider's exception, which may quote a key, must not hang on
    # as the context of ours.
    raise failure


async def warm_up() -> None:
    """Load LiteLLM, off the event loop, so that the first call does not wait seconds for it."""
    litellm = await load()
    # A call that reaches no model: LiteLLM loads much of itself only when the first call is made.
    with large_import():
        await asyncio.to_thread(
            litellm.completion,
            model=OFFLINE_MODEL,
            messages=[Message.user("warm-up").to_openai()],
            mock_response="warm",
        )


async def load() -> Any:
    """LiteLLM, loaded off the event loop where that was not done yet: it takes seconds."""
    return _litellm_module or await asyncio.to_thread(load_now)


def load_now() -> Any:
    """LiteLLM, loaded and set up once: quiet, no look-up of prices, `offline/rules` a model that it knows."""
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


async def _prepared(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    model: str | None,
    seconds: float | None,
) -> tuple[Any, dict[str, Any]]:
    """LiteLLM, and the arguments of its `acompletion`; the request is in the journal."""
    model = model or get_settings().model.name
    litellm = await load()
    request: dict[str, Any] = {
        "model": model,
        "messages": [message.to_openai() for message in messages],
        **call_options(model, seconds),
    }
    if tools:
        request["tools"] = [tool.to_openai() for tool in tools]
    if provider_of(model) != OFFLINE_PROVIDER:  # the offline model keeps its own journal
        record_request(model, request["messages"], request.get("tools"))
    return litellm, request


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


def _completion(
    answer: dict[str, Any], asked: Sequence[Message], litellm: Any, request: dict[str, Any]
) -> Completion:
    """A mended answer as ours; each of its calls gets an id that none before it has."""
    model: str = request["model"]
    written = answer["choices"][0]["message"]
    used = {call.id for message in asked for call in message.tool_calls}
    calls = []
    for call in written["tool_calls"] or ():
        more = {k: v for k, v in call.items() if k not in ("id", "type", "function")}
        calls.append(ToolCall(id=own_id(call["id"], used), **call["function"], extras=more or None))
        used.add(calls[-1].id)
    # Thoughts and signatures belong to the calls that they led to; without calls nobody asks for them.
    thoughts = extras_of(written) if calls else None
    usage = Usage.model_validate(answer["usage"])
    named = answer.get("model")  # which leaves the offline model's provider out
    return Completion(
        message=Message(
            role="assistant", content=written["content"], tool_calls=calls, extras=thoughts
        ),
        usage=usage if usage.tokens else counted(litellm, request, written),
        model=named if named and provider_of(model) != OFFLINE_PROVIDER else model,
    )
