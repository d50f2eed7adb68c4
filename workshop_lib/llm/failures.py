"""What a failed call to a model means: worth another try, or not.

A provider's failure arrives as one of LiteLLM's exceptions. Here it becomes `ModelUnavailable` or
`ModelRefused`, with the sentence a learner needs and without a key or a part of one, even where the
provider's own text quotes it. Left out: trying again, which is Temporal's work.
"""

import os
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

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


_KEY = (
    "{variable} in .env, a key that is valid for this model.",
    "edit .env and restart the kernel; `workshop doctor` checks it; LLM_MODEL=offline needs no key.",
)
# What is said of each kind of failure: what happened, what was expected, what mends it.
_PASSING: dict[str, tuple[str, str | None, str | None]] = {
    "timeout": ("The model {model} did not answer in time.", None,
        "it is tried again; LLM_TIMEOUT (seconds) in .env allows it more time."),
    "slow down": ("The provider of {model} asks us to slow down (429).", None,
        "it is tried again after the pause the provider asks for."),
    "no connection": ("No connection to the model {model}{at_base}.", None,
        "see that the network, or the server at LLM_API_BASE in .env, is up: `workshop doctor`."),
    "cut answer": ("The answer of {model} arrived cut or garbled: it is not valid JSON.", None,
        "it is tried again; if it stays so, see that LLM_API_BASE in .env points to a model's server."),
    "outage": ("The provider of {model} failed ({status}): {text}", None,
        "it is tried again; LLM_MODEL=offline in .env works without any provider."),
}  # fmt: skip
_LASTING: dict[str, tuple[str, str | None, str | None]] = {
    "no credit": ("The account behind the key of {model} has no credit left (429, insufficient_quota).",
        None, "add credit at the provider, or set LLM_MODEL=offline in .env."),
    # The provider's text is not passed on: it likes to quote the key.
    "no key": ("The model {model} cannot be called: there is no key for it.", *_KEY),
    "bad key": ("The model {model} cannot be called: the provider refused the key ({status}).", *_KEY),
    "endless": ("The model {model} repeats one word without end.", None, None),
    # Asked again, this side would stumble again, and an answer that has arrived is paid for.
    "unreadable": ("What {model} has answered, or was sent, cannot be read here: {name}: {last_line}", None,
        "another model may be read; whoever maintains this workshop should hear of it."),
    "too long": ("The conversation is too long for {model}.", None,
        "start a new chat, or make its context window smaller."),
    "policy": ("The provider of {model} declines to answer this: content policy.", None, None),
    "no model": ("There is no model {model} ({status}).",
        "provider/name, such as openai/gpt-5-mini, or offline.",
        "mend LLM_MODEL in .env and restart the kernel; `workshop doctor` checks it."),
    "no address": ("The server at LLM_API_BASE={base} has no such address, or no model {model} ({status}).",
        "the address of its API, which mostly ends in /v1, and a model that it serves.",
        "mend LLM_API_BASE or LLM_MODEL in .env, restart the kernel; `workshop doctor` checks them."),
    "our setting": ("The offline model cannot answer: {own_text}", None, None),
    "refused": ("The provider of {model} refused the request ({status}): {text}", None,
        "if the text does not say why, run `workshop doctor` or set LLM_MODEL=offline in .env."),
}  # fmt: skip
# Which kind it is, the first that fits: by the status, by the exception or one of its bases, by the text.
_BY_STATUS = {429: "slow down", 401: "bad key", 403: "bad key"}
_BY_CLASS = {
    **dict.fromkeys(("Timeout", "TimeoutError"), "timeout"),
    **dict.fromkeys(("APIConnectionError", "OSError"), "no connection"),
    # The OpenAI client raises a cut or garbled body as it is.
    **dict.fromkeys(("JSONDecodeError", "UnicodeDecodeError"), "cut answer"),
    **dict.fromkeys(("NotFoundError", "LiteLLMUnknownProvider"), "no model"),
    "ContextWindowExceededError": "too long",
    "ContentPolicyViolationError": "policy",
}
_BY_TEXT = {
    r"API key not valid|API_KEY_INVALID": "bad key",
    r"Connection error": "no connection",
    r"LLM Provider NOT provided": "no model",
    r"repeating the same chunk": "endless",  # LiteLLM has stopped reading, and the model is not done
    r"Expecting (value|property name|',')|Unterminated string|[Ii]nvalid response from LLM": "cut answer",
    # LiteLLM could not read the answer and puts its own traceback into the message.
    r"Traceback \(most recent call last\)": "unreadable",
}
_CONNECTING = ("httpx", "httpx2", "httpcore", "aiohttp")  # whose exceptions have no status


def explain_failure(error: BaseException, model: str) -> WorkshopError:
    """The error to raise instead of what a call to `model` raised: `ModelUnavailable` or `ModelRefused`.

    Args:
        error: LiteLLM's exception, or `TimeoutError` from our own time limit; one of ours stays as it is.
        model: the model as it was asked for.
    """
    if isinstance(error, WorkshopError):
        return error
    said = str(getattr(error, "message", error))
    status, base = getattr(error, "status_code", None), get_settings().llm_api_base
    kind = _kind(error, status, said)
    closer = (
        ("slow down", "insufficient_quota" in f"{said} {getattr(error, 'body', '')}", "no credit"),
        ("no connection", "api_key" in said and "must be set" in said, "no key"),
        ("no model", base and status in (404, 405), "no address"),
        ("refused", provider_of(model) == "offline", "our setting"),
    )
    kind = next((named for known, holds, named in closer if kind == known and holds), kind)
    facts = {
        "model": model,
        "status": status,
        "base": base,
        "at_base": f" at {base}" if base else "",
        "name": type(error).__name__,
        "text": without_secrets(said),
        "last_line": without_secrets(said.strip().rpartition("\n")[2]),
        "own_text": said.split(": ", 1)[-1],
        "variable": PROVIDERS.get(provider_of(model), ("the provider's key", ""))[0],
    }
    sentences = _PASSING.get(kind) or _LASTING[kind]
    what, expected, fix = (text and text.format(**facts) for text in sentences)
    if kind in _LASTING:
        return ModelRefused(what or "", expected=expected, fix=fix)
    return ModelUnavailable(
        what or "", expected=expected, fix=fix, retry_after=retry_after_of(error)
    )


def _kind(error: BaseException, status: Any, said: str) -> str:
    """The kind of a failure."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    for base in type(error).__mro__:
        if base.__name__ in _BY_CLASS:
            return _BY_CLASS[base.__name__]
    if not isinstance(status, int):
        family = type(error).__module__.partition(".")[0]
        return "no connection" if family in _CONNECTING else "unreadable"
    for pattern, kind in _BY_TEXT.items():
        if re.search(pattern, said):
            return kind
    return "outage" if status >= 500 or status in (408, 409, 425) else "refused"


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
