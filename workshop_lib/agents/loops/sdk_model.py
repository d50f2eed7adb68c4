"""The plugin that runs the OpenAI Agents SDK inside workflows, with LiteLLM behind it.

Model calls of the SDK become an activity of the plugin's, `invoke_model_activity`. It may run twice when a
worker dies after the provider has answered and before the answer is recorded: the call is paid for twice,
and nothing else happens. Which model answers is decided by the same settings as everywhere else; a call is
tried once and Temporal retries it; failures are explained in the same words as the gateway's.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, cast

from agents import Model, ModelProvider, ModelResponse, ModelSettings
from agents.items import TResponseInputItem, TResponseOutputItem, TResponseStreamEvent
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
from agents.tracing import (
    TraceProvider,
    get_trace_provider,
    set_trace_processors,
    set_trace_provider,
)
from temporalio.client import ClientConfig
from temporalio.converter import DataConverter, DefaultPayloadConverter
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.plugin import SimplePlugin
from temporalio.worker import ReplayerConfig, Worker

from workshop_lib.agents.model_call import PLAN_OPTIONS
from workshop_lib.agents.streaming import PUBLISH_EVERY, REPLY_TOPIC
from workshop_lib.llm.call_in_activity import calling
from workshop_lib.llm.gateway import call_options, load, read_answer, unreadable
from workshop_lib.llm.journal import record_request
from workshop_lib.llm.normalize_answers import UNREADABLE, Pieces, own_id, readable
from workshop_lib.settings import get_settings
from workshop_lib.temporal.failures import DATA_CONVERTER
from workshop_lib.temporal.tries import tries

SPOKEN = ("content", "reasoning_content")  # what of a streamed reply comes a word at a time
PIECE_SECONDS = 0.05  # a streamed reply is recorded piece by piece, and its history has an end


def agents_plugin(models: ModelProvider | None = None) -> SimplePlugin:
    """A new plugin, for the client of one worker.

    Args:
        models: by default the model of the settings.
    """
    # Traces would be sent to OpenAI, key or no key; `set_tracing_disabled` does not stop that here.
    set_trace_processors([])
    return _Plugin(
        model_provider=models or SettingsProvider(),
        model_params=ModelActivityParameters(
            **cast(dict[str, Any], PLAN_OPTIONS),
            streaming_topic=REPLY_TOPIC,
            streaming_batch_interval=PUBLISH_EVERY,
        ),
        add_temporal_spans=False,
    )


class _Plugin(OpenAIAgentsPlugin):
    """Temporal's plugin, for a process in which workers come and go.

    Its converter of payloads takes the place of ours: it is pydantic's too, and knows the SDK's types. And
    a worker that ends while a newer one runs, as in a notebook that starts its worker again, must not take
    the SDK's runner with it: that is one for the whole process.
    """

    _running: ClassVar[list[tuple[AgentRunner, TraceProvider]]] = []  # of the workers that run

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        config["data_converter"] = _to_replace(config.get("data_converter"))
        return super().configure_client(config)

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        config["data_converter"] = _to_replace(config.get("data_converter"))
        return super().configure_replayer(config)

    async def run_worker(
        self,
        worker: Worker,
        next: Callable[[Worker], Awaitable[None]],  # noqa: A002
    ) -> None:
        async def run(worker: Worker) -> None:
            mine = get_default_agent_runner(), get_trace_provider()
            self._running.append(mine)
            try:
                await next(worker)
            finally:
                self._running.remove(mine)

        try:
            await super().run_worker(worker, run)
        finally:
            if self._running:
                runner, traces = self._running[-1]
                set_default_agent_runner(runner)
                set_trace_provider(traces)


def _to_replace(converter: DataConverter | None) -> DataConverter:
    """Our converter with the SDK's default for payloads, the only one that the plugin replaces."""
    if converter in (None, DataConverter.default, DATA_CONVERTER):
        return replace(DATA_CONVERTER, payload_converter_class=DefaultPayloadConverter)
    assert converter is not None
    return converter


class SettingsProvider(ModelProvider):
    """The model that an agent names, or else the one of the settings."""

    def get_model(self, model_name: str | None) -> Model:
        return _Model(model_name)


class _Model(Model):
    """A model behind LiteLLM, called as the gateway would call it.

    Args:
        name: in LiteLLM's spelling; None for the model of the settings.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name

    async def get_response(self, **request: Any) -> ModelResponse:  # type: ignore[override]
        """The whole answer.

        Raises:
            ApplicationError: as in `plan_next_action`.
        """
        async with self._opened(request) as model:
            response = await model.get_response(**request)
        _mend(response.output, request["input"])
        _count_attempts(response.usage)
        return response

    async def stream_response(self, **request: Any) -> AsyncIterator[TResponseStreamEvent]:  # type: ignore[override]
        """The answer as events, the last of which holds all of it. Raises as `get_response`."""
        async with self._opened(request) as model:
            async for event in model.stream_response(**request):
                if event.type == "response.completed":  # of all events the SDK goes by this one
                    _mend(event.response.output, request["input"])
                    _count_attempts(event.response.usage)
                yield event

    @asynccontextmanager
    async def _opened(self, request: dict[str, Any]) -> AsyncIterator[Model]:
        """The SDK's own model for a request. What fails becomes what it is in the gateway's calls."""
        with calling(self._name):
            yield await _open(self._name or get_settings().model.name, request)


async def _open(name: str, request: dict[str, Any]) -> Model:
    """The SDK's own LiteLLM model; `request` gets our options for the call."""
    await load()
    options = call_options(name)
    if not name.startswith("offline/"):  # the offline model keeps its own journal
        items = request["input"]
        record_request(name, [items] if isinstance(items, str) else items, None)
    model = _mending_model()(
        name,
        options.get("api_base"),
        options.get("api_key"),
        # Thoughts go back to the model whose they are: some can use no tool without.
        should_replay_reasoning_content=lambda context: (
            context.reasoning.origin_model in (None, context.model)
        ),
    )
    settings: ModelSettings = request["model_settings"]
    if settings.reasoning and not _reasons(name):
        # An agent's default settings are those of an OpenAI model; others refuse them.
        settings = replace(settings, reasoning=None)
    request["model_settings"] = replace(settings, include_usage=True)
    return model


@lru_cache
def _mending_model() -> Callable[..., Model]:
    """The SDK's own LiteLLM model, which reads no answer before it is mended. Made late: it takes seconds."""
    import litellm
    from agents.extensions.models.litellm_model import LitellmModel

    class Mending(LitellmModel):
        async def _fetch_response(self, *args: Any, **options: Any) -> Any:
            system, items, settings, *others = args
            # Not before: the SDK writes the settings down, and a connection cannot be.
            extra = call_options(self.model) | (settings.extra_args or {})
            for given in ("api_base", "api_key"):
                extra.pop(given, None)
            settings = replace(settings, extra_args=extra)
            answer = await super()._fetch_response(system, items, settings, *others, **options)
            if not isinstance(answer, tuple):
                return litellm.ModelResponse(**read_answer(answer.model_dump(), self.model))
            return answer[0], self._mended(answer[1])

        async def _mended(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
            """The chunks, mended, and no more than some twenty a second: all of them are recorded."""
            pieces, held, last = Pieces(), dict.fromkeys(SPOKEN, ""), 0.0
            async for chunk in chunks:
                mended = pieces.mended(chunk.model_dump())
                choice = next(iter(mended["choices"]), None)
                if choice:
                    delta = choice["delta"]
                    if (delta["content"] or "").startswith(UNREADABLE):
                        raise unreadable(delta["content"], self.model)
                    held = {name: said + (delta.get(name) or "") for name, said in held.items()}
                    more = choice["finish_reason"] or any(
                        said for name, said in delta.items() if name not in ("role", *SPOKEN)
                    )
                    if not more and time.monotonic() - last < PIECE_SECONDS:
                        continue
                    delta |= {name: said or None for name, said in held.items()}
                    held, last = dict.fromkeys(SPOKEN, ""), time.monotonic()
                yield litellm.ModelResponseStream(**mended)

    return Mending


@lru_cache
def _reasons(name: str) -> bool:
    """Whether a model can be told how much to reason."""
    import litellm

    return "reasoning_effort" in (litellm.get_supported_openai_params(name) or ())


def _count_attempts(usage: Any) -> None:
    """What an attempt before this one has cost, nobody knows: each counts as much, as in `ask_model`."""
    for name in ("input_tokens", "output_tokens", "total_tokens") if usage else ():
        setattr(usage, name, getattr(usage, name) * tries())


def _mend(output: list[TResponseOutputItem], asked: str | list[TResponseInputItem]) -> None:
    """Make tool calls such that the SDK can take them into the conversation.

    It tells calls apart by their id, which some local servers count from 0 in every answer, and stumbles
    over half a character in an argument, which JSON can write and UTF-8 cannot.
    """
    used = {str(item.get("call_id")) for item in asked if isinstance(item, dict)}
    for item in output:
        if item.type == "function_call":
            item.call_id = own_id(item.call_id, used)
            used.add(item.call_id)
            item.arguments = readable(item.arguments)
