"""The offline model as a LiteLLM provider: `offline/rules`.

Thin on purpose. What is answered comes from `rules`, a pure function of messages and tools; here it is put
into LiteLLM's shapes, whole or as a stream, after the failure or the delay that the settings ask for.
It is rules, not a language model. Token figures are an estimate: four characters a token.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import litellm
from litellm.utils import custom_llm_setup

from workshop_lib.errors import WorkshopError
from workshop_lib.llm.journal import record_request, request_hash
from workshop_lib.llm.offline import faults
from workshop_lib.llm.offline.reply import Reply, reply
from workshop_lib.settings import OFFLINE_MODEL, get_settings

PROVIDER, _MODEL = OFFLINE_MODEL.split("/")
CHARACTERS_A_TOKEN = 4
_NAMES = {"model": OFFLINE_MODEL, "llm_provider": PROVIDER}


class OfflineModel(litellm.CustomLLM):  # type: ignore[misc]  # LiteLLM is not typed
    """What LiteLLM calls for every model named `offline/…`."""

    async def acompletion(self, **request: Any) -> Any:
        """The whole answer, as a `litellm.ModelResponse`."""
        fault = _begin(request)
        await asyncio.sleep(get_settings().offline_latency_ms / 1000)
        return _response(request, _answer(request, fault))

    def completion(self, **request: Any) -> Any:
        """The same for callers without an event loop."""
        fault = _begin(request)
        time.sleep(get_settings().offline_latency_ms / 1000)
        return _response(request, _answer(request, fault))

    async def astreaming(self, **request: Any) -> AsyncIterator[dict[str, Any]]:
        """The answer word by word, as LiteLLM's generic chunks; tool calls come whole."""
        answer = _answer(request, _begin(request))
        words = re.findall(r"\S+\s*|\s+", answer.text or "")
        calls = _calls(answer, request)
        pause = get_settings().offline_latency_ms / 1000 / max(len(words) + len(calls), 1)
        for word in words:
            await asyncio.sleep(pause)
            yield _chunk(text=word)
        for index, call in enumerate(calls):
            await asyncio.sleep(pause)
            yield _chunk(tool_use=call | {"index": index})
        yield _chunk(
            is_finished=True,
            finish_reason="tool_calls" if calls else "stop",
            usage=_usage(answer, request),
        )


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


def _begin(request: dict[str, Any]) -> str | None:
    """Note the request in the journal and see which failure is planned for it, if any.

    Raises:
        litellm.BadRequestError: a setting of the offline model cannot be used.
    """
    messages, tools = request["messages"], _tools(request)
    try:
        record_request(OFFLINE_MODEL, messages, tools)
        plan = get_settings().offline_faults
        return faults.next_fault(request_hash(messages, tools)) if plan else None
    except WorkshopError as error:
        raise litellm.BadRequestError(message=str(error), **_NAMES) from None


def _answer(request: dict[str, Any], fault: str | None) -> Reply:
    """The rules' reply, unless a failure is planned.

    Raises:
        litellm.RateLimitError, litellm.InternalServerError, litellm.Timeout: the planned failure.
    """
    if fault == "rate_limit":
        import httpx

        asked = httpx.Request("POST", "http://offline")
        response = httpx.Response(429, headers={"retry-after": "1"}, request=asked)
        raise litellm.RateLimitError(message="a planned 429", response=response, **_NAMES)
    if fault == "server_error":
        raise litellm.InternalServerError(message="a planned 500", **_NAMES)
    if fault == "timeout":
        raise litellm.Timeout(message="a planned timeout", **_NAMES)
    answer = reply(request["messages"], _tools(request), gullible=fault == "gullible")
    return _spoiled(answer, fault) if fault and answer.calls else answer


def _response(request: dict[str, Any], answer: Reply) -> Any:
    """A reply in the `ModelResponse` that LiteLLM has made ready."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.calls:
        message["tool_calls"] = _calls(answer, request)
    response = request["model_response"]
    response.model = _MODEL
    response.choices[0].message = litellm.Message(**message)
    response.choices[0].finish_reason = "tool_calls" if answer.calls else "stop"
    response.usage = litellm.Usage(**_usage(answer, request))
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


def _calls(answer: Reply, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Tool calls in the API's shape; an id is a hash of the request and the call's place."""
    base = request_hash(request["messages"], _tools(request))
    return [
        {
            "id": f"call_{hashlib.sha256(f'{base}:{place}'.encode()).hexdigest()[:20]}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for place, (name, arguments) in enumerate(answer.calls)
    ]


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


def _usage(answer: Reply, request: dict[str, Any]) -> dict[str, int]:
    asked = len(json.dumps([request["messages"], _tools(request)], default=str))
    written = len(answer.text or "") + sum(len(name) + len(args) for name, args in answer.calls)
    prompt, completion = asked // CHARACTERS_A_TOKEN, max(1, written // CHARACTERS_A_TOKEN)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _chunk(**values: Any) -> dict[str, Any]:
    return {
        "text": "",
        "tool_use": None,
        "is_finished": False,
        "finish_reason": "",
        "usage": None,
        "index": 0,
        **values,
    }
