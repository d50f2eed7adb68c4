"""What a failed call to a model means: worth another try, or not.

A provider's failure arrives as one of LiteLLM's exceptions. Here it becomes `ModelUnavailable` or
`ModelRefused`, with the sentence a learner needs and without a key or a part of one, even where the
provider's own text quotes it. Left out: trying again, which is Temporal's work.
"""

import asyncio
import json
import os
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from workshop_lib.errors import WorkshopError
from workshop_lib.settings import PROVIDERS, get_settings, provider_of
from workshop_lib.temporal.bounded import whole

MAX_RETRY_AFTER = 3600.0  # seconds; a provider that asks for more is not believed
MAX_PROVIDER_TEXT = 300  # characters of a provider's own words that we pass on

_KEY_LIKE = re.compile(
    r"""\S*(?:sk-|pk-|gsk_|xai-|AIza|AKIA|ghp_|eyJ)\S*   # how the known providers' keys begin
      | \S*\*{3,}\S*                                     # a key that the provider has masked
      | \bbearer\s+\S+ | \b(?:api[-_ ]?key|token)\s*[:=]\s*\S+
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CUT_JSON = re.compile(
    r"Expecting (value|property name|',')|Unterminated string|[Ii]nvalid response from LLM"
)
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_KEY_PART = 5  # characters of a key in a row that count as a part of it


class ModelUnavailable(WorkshopError):
    """The model did not answer this time and may the next: 429, 5xx, a timeout, no connection, a cut body.

    Attributes:
        retry_after: seconds that the provider asks us to wait, or None where it does not say.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: str | None = None,
        fix: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, expected=expected, fix=fix)
        self.retry_after = retry_after


class ModelRefused(WorkshopError):
    """The model will not answer this request however often it is asked: key, name or request are wrong."""


def explain_failure(error: BaseException, model: str) -> ModelUnavailable | ModelRefused:
    """The error to raise instead of what a call to `model` raised.

    Args:
        error: LiteLLM's exception, or `TimeoutError` from our own time limit.
        model: the model as it was asked for.
    """
    import litellm

    if isinstance(error, litellm.Timeout | asyncio.TimeoutError):
        return ModelUnavailable(
            f"The model {model} did not answer in time.",
            fix="it is tried again; LLM_TIMEOUT (seconds) in .env allows it more time.",
        )
    if isinstance(error, litellm.APIConnectionError) and _lacks_key(error):
        return _key_refused(model, "there is no key for it")
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        # The OpenAI client raises a cut or garbled body as it is: a ValueError of the JSON parser.
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            return _cut_answer(model)
        family = type(error).__module__.partition(".")[0]
        broke = isinstance(error, OSError) or family in ("httpx", "httpx2", "httpcore", "aiohttp")
        return _no_connection(model) if broke else _unreadable(error, model)
    said = str(getattr(error, "message", error))
    if status == 429:
        if "insufficient_quota" in f"{said} {getattr(error, 'body', '')}":
            return ModelRefused(
                f"The account behind the key of {model} has no credit left (429, insufficient_quota).",
                fix="add credit at the provider, or set LLM_MODEL=offline in .env.",
            )
        return ModelUnavailable(
            f"The provider of {model} asks us to slow down (429).",
            fix="it is tried again after the pause the provider asks for.",
            retry_after=retry_after_of(error),
        )
    if status in (401, 403) or "API key not valid" in said or "API_KEY_INVALID" in said:
        return _key_refused(model, f"the provider refused the key ({status})")
    if isinstance(error, litellm.APIConnectionError) or "Connection error" in said:
        return _no_connection(model)
    if "repeating the same chunk" in said:  # LiteLLM has stopped reading, and the model is not done
        return ModelRefused(f"The model {model} repeats one word without end.")
    if _CUT_JSON.search(said):
        return _cut_answer(model)
    if "Traceback (most recent call last)" in said:
        # LiteLLM could not read the answer and puts its own traceback into the message.
        return _unreadable(error, model)
    if status >= 500 or status in (408, 409, 425):
        return ModelUnavailable(
            f"The provider of {model} failed ({status}): {without_secrets(said)}",
            fix="it is tried again; LLM_MODEL=offline in .env works without any provider.",
            retry_after=retry_after_of(error),
        )
    return _request_refused(error, model, status, said)


def retry_after_of(error: BaseException) -> float | None:
    """Seconds from the `retry-after` header of the response behind an error, or None.

    The header holds seconds or a date; both are understood, and a nonsensical value counts as none.
    """
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    value = str(headers.get("retry-after") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) if seconds == seconds else None


def without_secrets(text: str) -> str:
    """A provider's words, shortened, with every word hidden that holds a key or a part of one."""
    text = whole(re.sub(r"^litellm\.\w+: ", "", text)[: 4 * MAX_PROVIDER_TEXT])
    text = _KEY_LIKE.sub("[hidden]", text)
    parts = {
        value[start : start + _KEY_PART]
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= 12
        for start in range(len(value) - _KEY_PART + 1)
    }
    words = ["[hidden]" if any(part in word for part in parts) else word for word in text.split()]
    short = " ".join(words)
    return short if len(short) <= MAX_PROVIDER_TEXT else short[:MAX_PROVIDER_TEXT] + " …"


def _lacks_key(error: BaseException) -> bool:
    said = str(getattr(error, "message", error))
    return "api_key" in said and "must be set" in said


def _key_refused(model: str, reason: str) -> ModelRefused:
    # The provider's text is not passed on: it likes to quote the key.
    variable = PROVIDERS.get(provider_of(model), ("the provider's key", ""))[0]
    return ModelRefused(
        f"The model {model} cannot be called: {reason}.",
        expected=f"{variable} in .env, a key that is valid for this model.",
        fix="edit .env and restart the kernel; `workshop doctor` checks it; LLM_MODEL=offline needs no key.",
    )


def _no_connection(model: str) -> ModelUnavailable:
    base = get_settings().llm_api_base
    return ModelUnavailable(
        f"No connection to the model {model}" + (f" at {base}." if base else "."),
        fix="see that the network, or the server at LLM_API_BASE in .env, is up: `workshop doctor`.",
    )


def _not_found(model: str, status: int) -> ModelRefused:
    base = get_settings().llm_api_base
    if base and status in (404, 405):
        return ModelRefused(
            f"The server at LLM_API_BASE={base} has no such address, or no model {model} ({status}).",
            expected="the address of its API, which mostly ends in /v1, and a model that it serves.",
            fix="mend LLM_API_BASE or LLM_MODEL in .env, restart the kernel; `workshop doctor` checks them.",
        )
    return ModelRefused(
        f"There is no model {model} ({status}).",
        expected="provider/name, such as openai/gpt-5-mini, or offline.",
        fix="mend LLM_MODEL in .env and restart the kernel; `workshop doctor` checks it.",
    )


def _cut_answer(model: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The answer of {model} arrived cut or garbled: it is not valid JSON.",
        fix="it is tried again; if it stays so, see that LLM_API_BASE in .env points to a model's server.",
    )


def _unreadable(error: BaseException, model: str) -> ModelRefused:
    """Something on this side stumbled over an answer, or over a request: asked again, it would again, and an
    answer that has arrived is paid for."""
    said = str(getattr(error, "message", error)).strip().splitlines() or [""]
    return ModelRefused(
        f"What {model} has answered, or was sent, cannot be read here: {type(error).__name__}: "
        f"{without_secrets(said[-1])}",
        fix="another model may be read; whoever maintains this workshop should hear of it.",
    )


def _request_refused(
    error: BaseException, model: str, status: int, said: str
) -> ModelRefused | ModelUnavailable:
    import litellm

    if provider_of(model) == "offline":
        return ModelRefused(
            f"The offline model cannot answer: {said.split(': ', 1)[-1]}"
        )  # a setting of ours
    if isinstance(error, litellm.ContextWindowExceededError):
        return ModelRefused(
            f"The conversation is too long for {model}.",
            fix="start a new chat, or make its context window smaller.",
        )
    if isinstance(error, litellm.ContentPolicyViolationError):
        return ModelRefused(f"The provider of {model} declines to answer this: content policy.")
    if isinstance(error, litellm.NotFoundError | litellm.LiteLLMUnknownProvider) or (
        "LLM Provider NOT provided" in said
    ):
        return _not_found(model, status)
    return ModelRefused(
        f"The provider of {model} refused the request ({status}): {without_secrets(said)}",
        fix="if the text does not say why, run `workshop doctor` or set LLM_MODEL=offline in .env.",
    )
