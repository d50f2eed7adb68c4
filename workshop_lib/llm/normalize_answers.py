"""Any provider's answer as one that everybody behind it can read: whole, or piece by piece.

Servers that call themselves compatible send content as a list of parts, arguments as an object, calls
without ids, half a character, no choices at all. What has arrived is paid for, so it is made readable, or
said to be unreadable, and not asked for again. What an answer lacks is said in its text: that the model
declines, that a filter stopped it, that it ends where the limit of length was reached. And its length is
bounded. Left out: how an answer gets here (`openai_client`, `gateway`).
"""

import json
import math
from typing import Any

from workshop_lib.llm.messages import json_object
from workshop_lib.temporal.bounded import whole

MAX_ANSWER = 100_000  # characters of text
MAX_ARGUMENTS = 50_000  # characters of one call's arguments
MAX_CALLS = 200  # in one answer, and together no more arguments than ten calls may have
MAX_EXTRAS = 200_000  # characters of what a provider wants sent back, thoughts for one

DECLINED = "The model declines to answer that"
FILTERED = "(The provider's content filter has stopped this answer.)"
TOO_LONG = "(The answer ends here: the model has reached its limit of length.)"
UNREADABLE = "The model's answer has arrived and cannot be read"

_NOT_TEXT = '"half a character, or no JSON that can be read"'  # no object: handed back to the model
_LONG = ("length", "max_tokens", "model_length")
_STOPPED = ("content_filter", "safety", "blocklist", "prohibited_content", "recitation")
_DEPTH = 20


def mended(answer: Any) -> dict[str, Any]:
    """The body of a chat completion, as the API describes it. Mending it again changes nothing.

    Args:
        answer: JSON of any shape.
    """
    if not isinstance(answer, dict) or not ("choices" in answer or "error" in answer):
        answer = unreadable_answer("it is no chat completion")
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    choice = choice if isinstance(choice, dict) else {"message": choice}
    message = choice.get("message", choice.get("text"))
    if not isinstance(message, dict):
        message = {"content": message}
    # A whole answer is one that comes in one piece. Where each call has its number, none is another's rest.
    calls = [call | {"index": number} for number, call in enumerate(_raw_calls(message))]
    delta = message | {"tool_calls": calls, "function_call": None}
    pieces = Pieces()
    pieces.mended(
        {name: answer.get(name) for name in ("id", "model", "created", "usage")}
        | {"choices": [{"delta": delta, "finish_reason": choice.get("finish_reason") or ""}]}
    )
    said_nothing = not (pieces.text or pieces.calls)
    return dict(answer) if answer.get("error") and said_nothing else pieces.whole()


def unreadable_answer(reason: str) -> dict[str, Any]:
    """A chat completion that says that the one which came cannot be read."""
    message = {"content": f"{UNREADABLE}: {reason}."}
    return {"choices": [{"message": message, "finish_reason": "stop"}]}


def extras_of(message: dict[str, Any]) -> dict[str, Any] | None:
    """What a provider's message holds beside its text and calls, to be sent back as it is."""
    found = {k: v for k, v in message.items() if k not in ("role", "content", "tool_calls")}
    # LiteLLM puts away what it does not know. Whoever wrote it looks for it where it was.
    moved = found.pop("provider_specific_fields", None)
    found = (moved if isinstance(moved, dict) else {}) | found
    return {k: v for k, v in found.items() if v not in (None, "", [], {})} or None


class Pieces:
    """Mends the chunks of one streamed answer, given in their order, each of any shape; and puts it together.

    Attributes:
        ended: the answer has said how it ends.
        text: of the answer so far. calls: its calls, as the API describes them.
    """

    def __init__(self) -> None:
        self.ended = False
        self.text = ""
        self.calls: list[dict[str, Any]] = []
        self._answer: dict[str, Any] = {}
        self._extras: dict[str, Any] = {}
        self._refused = False
        self._half = ""  # of a character, whose other half may come with the next chunk
        self._given: list[str] = []  # the ids of the calls as the provider has them
        self._left = 10 * MAX_ARGUMENTS
        self._current: dict[str, int] = {}  # the provider's index to ours

    def mended(self, chunk: Any) -> dict[str, Any]:
        """A chunk as the API describes it."""
        if not isinstance(chunk, dict):
            chunk = {}
        if chunk.get("error"):
            return dict(chunk)
        head = {name: chunk[name] for name in ("id", "model") if isinstance(chunk.get(name), str)}
        head["created"] = _count(chunk.get("created"))
        if chunk.get("usage"):
            head["usage"] = _usage(chunk["usage"])
        self._answer |= head
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        mended = [self._choice(choice)] if isinstance(choice, dict) else []
        return head | {"object": "chat.completion.chunk", "choices": mended}

    def whole(self) -> dict[str, Any]:
        """The chunks so far as one answer, in the shape of the API."""
        for call in self.calls:
            call["function"]["arguments"] = readable(call["function"]["arguments"])
        message = self._extras | {
            "role": "assistant",
            "content": self.text or None,
            "tool_calls": self.calls or None,
        }
        finish = "tool_calls" if self.calls else "stop"
        return (
            {"usage": _usage(None), "created": 0}
            | self._answer
            | {
                "object": "chat.completion",
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            }
        )

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        delta = choice.get("delta") or choice.get("message") or choice.get("text") or {}
        if not isinstance(delta, dict):
            delta = {"content": delta}
        text = _text(delta.get("content"))
        if refusal := _refusal(delta):
            text += refusal if self._refused else f"{DECLINED}: {refusal}"
            self._refused = True
        calls = [mended for call in _raw_calls(delta) if (mended := self._call(call))]
        finish = choice.get("finish_reason")
        text = self._bounded(self._joined(text, last=finish is not None))
        if finish is not None:
            self.ended = True
            note = _ending(finish, bool(self.calls))
            text += f" {note}" if note and (self.text or text) else note
            finish = "tool_calls" if self.calls else "stop"
        self.text += text
        extras = _extras(delta)
        _add(self._extras, extras)
        kept = {"role": "assistant", "content": text or None, "tool_calls": calls or None}
        return {"index": 0, "delta": extras | kept, "finish_reason": finish}

    def _joined(self, text: str, *, last: bool) -> str:
        text, self._half = self._half + text, ""
        if not last and text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole(text)

    def _bounded(self, text: str) -> str:
        room = MAX_ANSWER - len(self.text)
        if len(text) <= room:
            return text
        return f"{text[:room]} …" if room >= 0 else ""

    def _call(self, piece: dict[str, Any]) -> dict[str, Any] | None:
        """A piece of a call under an index of its own; what was said before is not said again."""
        index, function, given = str(piece.get("index")), piece["function"], piece.get("id")
        name = whole(_text(function.get("name")))[:200]
        given = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else ""
        arguments = _written(function.get("arguments"))
        number = self._current.get(index, -1)
        if self._begins(number, given, name, arguments):
            number = self._current[index] = len(self.calls)
            if number < MAX_CALLS:
                own = own_id(given, {call["id"] for call in self.calls})
                function = {"name": "", "arguments": ""}
                self.calls.append({"id": own, "type": "function", "function": function})
                self._given.append(given)
        if number >= MAX_CALLS:
            return None
        call = self.calls[number]
        known = call["function"]
        room = min(self._left, MAX_ARGUMENTS - len(known["arguments"]))
        arguments = whole(arguments)[:room]
        self._left -= len(arguments)
        known["arguments"] += arguments
        extras = _extras(piece)
        _add(call, extras)
        new: dict[str, Any] = {"arguments": arguments}
        kept = extras | {"index": number, "type": "function", "function": new}
        if name and not known["name"]:
            known["name"] = new["name"] = name
            kept["id"] = call["id"]
        return kept

    def _begins(self, number: int, given: str, name: str, arguments: str) -> bool:
        """Whether a piece is of a new call: it has another id or name than the call under way, or name and
        arguments again although that call is complete."""
        if not 0 <= number < len(self.calls):
            return number < 0 or bool(given or name)
        known, before = self.calls[number]["function"], self._given[number]
        if given and before and given != before:
            return True
        complete = bool(arguments) and json_object(known["arguments"]) is not None
        return bool(name and known["name"]) and (name != known["name"] or complete)


def _add(known: dict[str, Any], more: dict[str, Any]) -> None:
    """Add what a chunk brings to what is there: texts and lists grow."""
    for name, value in more.items():
        grows = isinstance(value, str | list) and type(known.get(name)) is type(value)
        known[name] = known[name] + value if grows else value


def own_id(given: str, used: set[str]) -> str:
    """An id for a call that no other one has: the given one where it is free."""
    own, number = whole(given) or "call", len(used)
    while own in used or not given:
        own, given, number = f"{whole(given) or 'call'}_{number}", given or "call", number + 1
    return own


def readable(arguments: str) -> str:
    """A call's arguments as they are, malformed or not, unless nobody behind us could take them."""
    try:
        json.dumps(json.loads(arguments or "{}"), ensure_ascii=False).encode()
        return arguments
    except json.JSONDecodeError:
        return whole(arguments)  # the model is told
    except (ValueError, RecursionError):  # half a character, 5,000 digits, 5,000 brackets
        return _NOT_TEXT


def _ending(reason: Any, calls: bool) -> str:
    """What is to be said of the way in which an answer ended."""
    reason = str(reason).lower()
    if reason in _STOPPED:
        return FILTERED
    return TOO_LONG if reason in _LONG and not calls else ""


def _text(value: Any, depth: int = 0) -> str:
    """The text in content of any shape; thoughts, images and the like are none."""
    if isinstance(value, str):
        return whole(value) if depth else value
    if value is None or depth > _DEPTH:
        return ""
    if isinstance(value, list):
        return "".join(_text(part, depth + 1) for part in value)
    if isinstance(value, dict):
        if value.get("type") in ("thinking", "reasoning", "refusal"):
            return ""
        inner = (value.get(name) for name in ("text", "content", "value"))
        return _text(next((part for part in inner if part is not None), None), depth + 1)
    return json.dumps(value)


def _refusal(message: dict[str, Any]) -> str:
    """Why the model declines, wherever its provider, or LiteLLM, has put that."""
    moved = message.get("provider_specific_fields")
    refusal = message.get("refusal") or (moved.get("refusal") if isinstance(moved, dict) else None)
    return _text(refusal, 1) or _parts(message.get("content"), "refusal")


def _parts(content: Any, kind: str) -> str:
    """The text of the parts of a kind: `{"type": kind, kind: …}`."""
    parts = content if isinstance(content, list) else [content]
    return "".join(
        _text(part.get(kind, part.get("text")), 1)
        for part in parts
        if isinstance(part, dict) and part.get("type") == kind
    )


def _raw_calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of a message, each with an object `function`."""
    calls = message.get("tool_calls")
    calls = list(calls) if isinstance(calls, list) else [calls]
    if isinstance(message.get("function_call"), dict):
        calls.append({"function": message["function_call"]})
    return [
        call if isinstance(call.get("function"), dict) else call | {"function": call}
        for call in calls
        if isinstance(call, dict)
    ]


def _written(arguments: Any) -> str:
    """A call's arguments as text; some servers send the object itself."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    try:
        return json.dumps(arguments)
    except RecursionError:
        return _NOT_TEXT


def _extras(holder: dict[str, Any]) -> dict[str, Any]:
    """What a message or a call holds beside what is known, where it is not too much to keep."""
    known = ("role", "content", "refusal", "tool_calls", "function_call", "annotations", "audio",
             "images", "id", "type", "function", "index", "name", "arguments")  # fmt: skip
    found = {k: v for k, v in holder.items() if k not in known and v not in (None, "", [], {})}
    if isinstance(moved := found.get("provider_specific_fields"), dict):
        found["provider_specific_fields"] = {k: v for k, v in moved.items() if k != "refusal"}
    # Everybody behind us takes it for text.
    thoughts = _text(found.pop("reasoning_content", None), 1)
    if thoughts := thoughts or _parts(holder.get("content"), "thinking"):
        found["reasoning_content"] = thoughts
    try:
        text = whole(json.dumps(found, ensure_ascii=False))
        kept: dict[str, Any] = json.loads(text) if len(text) <= MAX_EXTRAS else {}
        return kept
    except (TypeError, ValueError, RecursionError):
        return {}


def _usage(usage: Any) -> dict[str, Any]:
    usage = usage if isinstance(usage, dict) else {}
    prompt, completion = (_count(usage.get(n)) for n in ("prompt_tokens", "completion_tokens"))
    details = {
        name: {part: _count(count) for part, count in value.items()}
        for name, value in usage.items()
        if name in ("prompt_tokens_details", "completion_tokens_details")
        and isinstance(value, dict)
    }
    total = _count(usage.get("total_tokens")) or prompt + completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        **details,
    }


def _count(value: Any) -> int:
    """A number of tokens, or 0 for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if math.isfinite(number) and 0 < number < 1e12 else 0
