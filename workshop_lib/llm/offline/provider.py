"""The offline model as a LiteLLM provider: `offline/rules`.

Thin on purpose. What is answered comes from `reply`, a pure function of messages and tools; here it is put
into LiteLLM's shapes, whole or as a stream, after the failure or the delay that the settings ask for.
It is rules, not a language model. Token figures are an estimate: four characters a token.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any, NamedTuple

import litellm
from litellm.utils import custom_llm_setup

from workshop_lib.errors import WorkshopError
from workshop_lib.llm.journal import record_request, request_hash, request_text
from workshop_lib.llm.offline import faults
from workshop_lib.llm.offline.reply import Reply, reply
from workshop_lib.settings import OFFLINE_MODEL, get_settings
from workshop_lib.temporal.chaos.injection import model_strike

PROVIDER, _MODEL = OFFLINE_MODEL.split("/")
CHARACTERS_A_TOKEN = 4
RAISED = {"rate_limit", "server_error", "timeout"}  # of the faults those that are no answer
_NAMES = {"model": OFFLINE_MODEL, "llm_provider": PROVIDER}
# LiteLLM's generic chunk, with nothing in it.
_EMPTY = {
    "text": "",
    "tool_use": None,
    "is_finished": False,
    "finish_reason": "",
    "usage": None,
    "index": 0,
}


class OfflineModel(litellm.CustomLLM):  # type: ignore[misc]  # LiteLLM is not typed
    """What LiteLLM calls for every model named `offline/…`."""

    async def acompletion(self, **request: Any) -> Any:
        """The whole answer, as a `litellm.ModelResponse`."""
        asked = _Asked(request)
        await asyncio.sleep(_latency())
        return _response(request, asked.answered())

    def completion(self, **request: Any) -> Any:
        """The same for callers without an event loop."""
        asked = _Asked(request)
        time.sleep(_latency())
        return _response(request, asked.answered())

    async def astreaming(self, **request: Any) -> AsyncIterator[dict[str, Any]]:
        """The answer word by word, as LiteLLM's generic chunks; tool calls come whole."""
        answer = _Asked(request).answered()
        pieces = [{"text": word} for word in re.findall(r"\S+\s*|\s+", answer.text or "")]
        pieces += [{"tool_use": call | {"index": n}} for n, call in enumerate(answer.calls)]
        for piece in pieces:
            await asyncio.sleep(_latency() / len(pieces))
            yield _EMPTY | piece
        finish = "tool_calls" if answer.calls else "stop"
        yield _EMPTY | {"is_finished": True, "finish_reason": finish, "usage": answer.usage}


def install() -> None:
    """Tell LiteLLM of the provider, once."""
    if any(item["provider"] == PROVIDER for item in litellm.custom_provider_map):
        return
    litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": OfflineModel()})
    custom_llm_setup()
    # With a price of nothing on record LiteLLM does not search its list at every call.
    litellm.register_model(
        {
            OFFLINE_MODEL: {
                "litellm_provider": PROVIDER,
                "mode": "chat",
                "max_tokens": 100_000,
                "input_cost_per_token": 0.0,
                "output_cost_per_token": 0.0,
                "cache_read_input_token_cost": 0.0,
                "cache_creation_input_token_cost": 0.0,
                "supports_function_calling": True,
                "supports_parallel_function_calling": True,
            }
        }
    )


def _latency() -> float:
    return get_settings().offline_latency_ms / 1000


class _Answer(NamedTuple):
    """A text, or tool calls in the API's shape; and an estimate of the tokens."""

    text: str | None
    calls: list[dict[str, Any]]
    usage: dict[str, int]


class _Asked:
    """A request that has arrived: it is in the journal, and it is known whether it is to fail.

    Raises:
        litellm.BadRequestError: a setting of the offline model cannot be used.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.messages, self.tools = request["messages"], _tools(request)
        text = request_text(self.messages, self.tools)
        self.hash, self.tokens = request_hash(text), len(text) // CHARACTERS_A_TOKEN
        try:
            record_request(OFFLINE_MODEL, self.messages, self.tools)
            self._planned = model_strike()
            self.fault = faults.next_fault(self.hash) if get_settings().offline_faults else None
        except WorkshopError as error:
            raise litellm.BadRequestError(message=str(error), **_NAMES) from None
        if self._planned:
            self.fault = self._planned.kind

    def answered(self) -> _Answer:
        """The rules' reply, unless a failure is planned.

        Raises:
            litellm.RateLimitError, litellm.InternalServerError, litellm.Timeout: the planned failure.
        """
        if self.fault in RAISED:
            self._takes_effect()
        if self.fault == "rate_limit":
            import httpx

            asked = httpx.Request("POST", "http://offline")
            response = httpx.Response(429, headers={"retry-after": "1"}, request=asked)
            raise litellm.RateLimitError(message="a planned 429", response=response, **_NAMES)
        if self.fault == "server_error":
            raise litellm.InternalServerError(message="a planned 500", **_NAMES)
        if self.fault == "timeout":
            raise litellm.Timeout(message="a planned timeout", **_NAMES)
        answer = reply(self.messages, self.tools, gullible=self.fault == "gullible")
        if self.fault and answer.calls:
            self._takes_effect()
            answer = _spoiled(answer, self.fault)
        calls = [
            {
                # The same request gets the same ids, in every process.
                "id": f"call_{hashlib.sha256(f'{self.hash}:{place}'.encode()).hexdigest()[:20]}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for place, (name, arguments) in enumerate(answer.calls)
        ]
        written = len(answer.text or "") + sum(map(len, chain.from_iterable(answer.calls)))
        completion = max(1, written // CHARACTERS_A_TOKEN)
        usage = {"prompt_tokens": self.tokens, "completion_tokens": completion}
        return _Answer(answer.text, calls, usage | {"total_tokens": self.tokens + completion})

    def _takes_effect(self) -> None:
        """A fault of a chaos plan is noted when it changes something."""
        if self._planned:
            self._planned.happens()


def _response(request: dict[str, Any], answer: _Answer) -> Any:
    """An answer in the `ModelResponse` that LiteLLM has made ready."""
    response = request["model_response"]
    response.model = _MODEL
    response.choices[0].message = litellm.Message(
        role="assistant", content=answer.text, tool_calls=answer.calls or None
    )
    response.choices[0].finish_reason = "tool_calls" if answer.calls else "stop"
    response.usage = litellm.Usage(**answer.usage)
    response._hidden_params["response_cost"] = 0.0  # spares LiteLLM the search for a price
    if not litellm.callbacks and not litellm.success_callback:
        # and a log that nobody listens to
        getattr(request["logging_obj"], "claim_async_success_log", lambda: None)()
    return response


def _tools(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools that may be called, after `tool_choice`."""
    options = request.get("optional_params") or {}
    tools: list[dict[str, Any]] = options.get("tools") or []
    choice = options.get("tool_choice")
    if choice == "none":
        return []
    if isinstance(choice, dict):
        wanted = (choice.get("function") or {}).get("name")
        return [tool for tool in tools if tool.get("function", {}).get("name") == wanted]
    return tools


def _spoiled(answer: Reply, fault: str) -> Reply:
    """The answer with its first tool call made wrong in the way of the fault."""
    (name, arguments), *others = answer.calls
    if fault == "cut_json":
        arguments = arguments[: max(1, len(arguments) // 2)]
    elif fault == "unknown_tool":
        name = "look_it_up"
    elif fault == "wrong_argument":
        values = json.loads(arguments)
        first = next(iter(values), "")
        arguments = json.dumps({"unexpected": values.pop(first, ""), **values})
    return answer._replace(calls=((name, arguments), *others))
