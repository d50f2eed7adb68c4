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
from collections.abc import AsyncIterator, Sequence
from typing import Any

from workshop_lib.large_imports import large_import
from workshop_lib.llm.failures import ModelRefused, ModelUnavailable, explain_failure
from workshop_lib.llm.journal import record_request
from workshop_lib.llm.messages import Completion, Message, ToolCall, ToolSpec, Usage
from workshop_lib.settings import OFFLINE_MODEL, get_settings, provider_key, provider_of

__all__ = [
    "ModelRefused",
    "ModelUnavailable",
    "call_options",
    "complete",
    "load",
    "register_offline_provider",
    "stream",
    "warm_up",
]

OFFLINE_PROVIDER = "offline"

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
    model = model or get_settings().model.name
    seconds = timeout or get_settings().llm_timeout
    litellm = await asyncio.to_thread(_litellm) if _litellm_module is None else _litellm_module
    request = _request(messages, tools, model, seconds)
    _journal(model, request)
    failure: Exception
    try:
        async with asyncio.timeout(seconds):
            response = await litellm.acompletion(**request)
        return _completion(response, model)
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
    answer = _StreamedAnswer(model)
    chunks: AsyncIterator[Any] | None = None
    failure: Exception | None = None
    while failure is None:
        try:
            async with asyncio.timeout(seconds):
                if chunks is None:
                    chunks = aiter(await litellm.acompletion(**request))
                chunk = await anext(chunks)
            text = answer.add(chunk)
        except StopAsyncIteration:
            break
        except Exception as error:
            failure = _translated(error, model)
        else:
            if text:
                yield text
    if failure is not None:
        raise failure
    yield answer.completion()


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

            from workshop_lib.llm.offline import install

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
        if provider_of(model) == "openai" and provider_key("OPENAI_API_KEY") is None:
            options["api_key"] = "no-key-needed"  # the client insists on one, the server does not
    return options


def _journal(model: str, request: dict[str, Any]) -> None:
    if provider_of(model) != OFFLINE_PROVIDER:  # the offline model keeps its own
        record_request(model, request["messages"], request.get("tools"))


def _translated(error: Exception, model: str) -> Exception:
    return explain_failure(error, model) or error


def _completion(response: Any, model: str) -> Completion:
    """LiteLLM's response as ours."""
    if not response.choices:
        raise ValueError("an answer without choices")
    written = response.choices[0].message
    calls = [
        ToolCall(id=call.id, name=call.function.name or "", arguments=call.function.arguments or "")
        for call in written.tool_calls or ()
    ]
    return Completion(
        message=Message(role="assistant", content=written.content, tool_calls=calls),
        usage=_usage(getattr(response, "usage", None)),
        model=_spelled(response.model, model),
    )


def _usage(usage: Any) -> Usage:
    return Usage(
        prompt_tokens=getattr(usage, "prompt_tokens", None) or 0,
        completion_tokens=getattr(usage, "completion_tokens", None) or 0,
    )


def _spelled(answered: str | None, asked: str) -> str:
    """The model's name as the provider gives it, which leaves the offline model's provider out."""
    return answered if answered and provider_of(asked) != OFFLINE_PROVIDER else asked


class _StreamedAnswer:
    """Collects the pieces of a streamed answer."""

    def __init__(self, model: str) -> None:
        self._asked = self._model = model
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage = Usage()

    def add(self, chunk: Any) -> str:
        """Take a chunk in and return the text that it adds."""
        if getattr(chunk, "usage", None):
            self._usage = _usage(chunk.usage)
        self._model = _spelled(getattr(chunk, "model", None), self._asked)
        if not chunk.choices:
            return ""
        delta = chunk.choices[0].delta
        for piece in delta.tool_calls or ():
            call = self._calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
            call["id"] = call["id"] or piece.id or ""
            call["name"] += piece.function.name or ""
            call["arguments"] += piece.function.arguments or ""
        text: str = delta.content or ""
        self._text.append(text)
        return text

    def completion(self) -> Completion:
        """The whole answer."""
        calls = [ToolCall(**call) for _, call in sorted(self._calls.items())]
        return Completion(
            message=Message(
                role="assistant", content="".join(self._text) or None, tool_calls=calls
            ),
            usage=self._usage,
            model=self._model,
        )
