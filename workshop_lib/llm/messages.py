"""What goes to a model and what comes back, as pydantic models.

These types cross the border between workflow and activity and are stored in event histories. So they
leave empty fields out when they are serialised, and this module imports little more than pydantic:
workflow code may use it. Left out: images, audio and whatever else a chat request may hold.
"""

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

Role = Literal["system", "user", "assistant", "tool"]


class _Compact(BaseModel):
    """A frozen model that writes only the fields that say something."""

    model_config = ConfigDict(frozen=True)

    @model_serializer(mode="wrap")
    def _leave_empty_fields_out(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if value not in (None, [])}


class ToolSpec(BaseModel):
    """A tool as the model sees it.

    Attributes:
        name: what the model writes when it calls the tool.
        description: when to use it. The model has nothing else to go by.
        parameters: JSON schema of the arguments, an object.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    parameters: dict[str, Any]

    def to_openai(self) -> dict[str, Any]:
        """The tool in the shape of the chat completions API."""
        return {"type": "function", "function": self.model_dump()}


class ToolCall(_Compact):
    """A model's wish to have a tool called.

    Attributes:
        id: links the call to its result.
        arguments: JSON text exactly as the model wrote it. It may be malformed.
        extras: what else its provider said of it and wants to see again, such as a signature.
    """

    id: str
    name: str
    arguments: str
    extras: dict[str, Any] | None = None

    def to_openai(self) -> dict[str, Any]:
        """The call in the shape of the chat completions API, with arguments that are valid JSON."""
        return (self.extras or {}) | {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": sendable_arguments(self.arguments)},
        }


def sendable_arguments(arguments: str) -> str:
    """A past call's arguments as they may be sent: several providers refuse malformed ones for ever."""
    malformed = json_object(arguments) is None
    return json.dumps({"malformed": arguments}) if malformed else arguments


def json_object(text: Any) -> dict[str, Any] | None:
    """A JSON object that a model wrote, or None where it wrote something else."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Message(_Compact):
    """One message of a conversation.

    Attributes:
        content: the text, or None where the assistant only calls tools.
        tool_calls: the calls an assistant's message asks for.
        tool_call_id: for a tool's result, the call it answers.
        extras: what else a provider put into a message with calls and wants to see again: thoughts,
            signatures. Nobody here looks into it.
    """

    role: Role
    content: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_call_id: str | None = None
    extras: dict[str, Any] | None = None

    @classmethod
    def system(cls, text: str) -> Self:
        """Instructions that stand above the conversation."""
        return cls(role="system", content=text)

    @classmethod
    def user(cls, text: str) -> Self:
        """What a person wrote."""
        return cls(role="user", content=text)

    @classmethod
    def assistant(cls, text: str) -> Self:
        """What the model answered."""
        return cls(role="assistant", content=text)

    @classmethod
    def tool_result(cls, call: ToolCall, text: str) -> Self:
        """What a tool returned for a call."""
        return cls(role="tool", content=text, tool_call_id=call.id)

    def to_openai(self) -> dict[str, Any]:
        """The message in the shape of the chat completions API."""
        message: dict[str, Any] = (self.extras or {}) | {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.to_openai() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


class Usage(BaseModel):
    """What a call was charged for, in tokens. The offline model estimates four characters a token.

    Attributes:
        estimated: the provider did not say, and some of it was counted here.
    """

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            estimated=self.estimated or other.estimated,
        )

    def times(self, attempts: int) -> "Usage":
        """What so many attempts have cost at most, of which this was the last."""
        return Usage(
            prompt_tokens=self.prompt_tokens * attempts,
            completion_tokens=self.completion_tokens * attempts,
            estimated=self.estimated or attempts > 1,
        )


class Completion(BaseModel):
    """A model's answer to one request.

    Attributes:
        message: the assistant's message: a text, tool calls, or both.
        model: the model that answered, as its provider names it.
    """

    model_config = ConfigDict(frozen=True)

    message: Message
    usage: Usage = Usage()
    model: str
