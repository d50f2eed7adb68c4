"""How many tokens a model call has cost, where its provider does not say, or may cost before it is made.

LiteLLM's counter is asked where it has the model's tokenizer at hand; for some families it would fetch one
from the network. What is left is an upper estimate, and `Usage.estimated` says so: no tokenizer in use makes
more than one token of two bytes of ordinary text. Left out: prices.
"""

import json
from typing import Any

from workshop_lib.llm.messages import Usage

BYTES_A_TOKEN = 2
_FETCHED = ("cohere", "llama2", "llama3")


def at_most(value: Any) -> int:
    """The upper estimate for anything that JSON can hold."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return -(-len(text.encode(errors="replace")) // BYTES_A_TOKEN)


def counted(litellm: Any, request: dict[str, Any], answer: Any) -> Usage:
    """What a call has cost.

    Args:
        request: its model, messages and tools, as LiteLLM was given them.
        answer: the message that came, as JSON.
    """
    model, messages, tools = request["model"], request["messages"], request.get("tools") or []
    try:
        from litellm.utils import huggingface_tokenizer_kind

        if huggingface_tokenizer_kind(model) not in _FETCHED:
            said = json.dumps(answer, ensure_ascii=False)
            return Usage(
                prompt_tokens=litellm.token_counter(model, messages=messages, tools=tools or None),
                completion_tokens=litellm.token_counter(model, text=said),
                estimated=True,
            )
    except Exception:  # noqa: S110  # whatever another's counter stumbles over
        pass
    return Usage(
        prompt_tokens=at_most([messages, tools]), completion_tokens=at_most(answer), estimated=True
    )
