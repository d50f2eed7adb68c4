"""The plugin that runs the OpenAI Agents SDK inside workflows, with LiteLLM behind it.

Model calls of the SDK become an activity of the plugin's, `invoke_model_activity`. It may run twice when a
worker dies after the provider has answered and before the answer is recorded: the call is paid for twice,
and nothing else happens. Which model answers is decided by the same settings as everywhere else; a call is
tried once and Temporal retries it; failures are explained in the same words as the gateway's.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

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

from workshop_lib.agents.model_call import as_application_error
from workshop_lib.agents.planner import PLAN_OPTIONS
from workshop_lib.agents.streaming import PUBLISH_EVERY, REPLY_TOPIC
from workshop_lib.errors import WorkshopError
from workshop_lib.failures import DATA_CONVERTER
from workshop_lib.llm.failures import explain_failure
from workshop_lib.llm.gateway import call_options, load
from workshop_lib.llm.journal import record_request
from workshop_lib.settings import get_settings


def agents_plugin() -> SimplePlugin:
    """A new plugin, for the client of one worker."""
    # Traces would be sent to OpenAI, key or no key; `set_tracing_disabled` does not stop that here.
    set_trace_processors([])
    return _Plugin(
        model_provider=SettingsProvider(),
        model_params=ModelActivityParameters(
            start_to_close_timeout=PLAN_OPTIONS["start_to_close_timeout"],
            schedule_to_close_timeout=PLAN_OPTIONS["schedule_to_close_timeout"],
            heartbeat_timeout=PLAN_OPTIONS["heartbeat_timeout"],
            retry_policy=PLAN_OPTIONS["retry_policy"],
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
        name = self._resolve()
        try:
            response = await (await _open(name, request)).get_response(**request)
        except Exception as error:
            raise _explained(error, name) from None
        _mend(response.output, request["input"])
        return response

    async def stream_response(self, **request: Any) -> AsyncIterator[TResponseStreamEvent]:  # type: ignore[override]
        """The answer as events, the last of which holds all of it. Raises as `get_response`."""
        name = self._resolve()
        try:
            model = await _open(name, request)
            async for event in model.stream_response(**request):
                if event.type == "response.completed":  # of all events the SDK goes by this one
                    _mend(event.response.output, request["input"])
                yield event
        except Exception as error:
            raise _explained(error, name) from None

    def _resolve(self) -> str:
        try:
            return self._name or get_settings().model.name
        except WorkshopError as error:
            raise as_application_error(error) from None


async def _open(name: str, request: dict[str, Any]) -> Model:
    """The SDK's own LiteLLM model; `request` gets our options for the call."""
    await load()
    from agents.extensions.models.litellm_model import LitellmModel

    options = call_options(name)
    if not name.startswith("offline/"):  # the offline model keeps its own journal
        items = request["input"]
        record_request(name, [items] if isinstance(items, str) else items, None)
    model = LitellmModel(name, options.pop("api_base", None), options.pop("api_key", None))
    settings: ModelSettings = request["model_settings"]
    if settings.reasoning and not _reasons(name):
        # An agent's default settings are those of an OpenAI model; others refuse them.
        settings = replace(settings, reasoning=None)
    request["model_settings"] = replace(
        settings, include_usage=True, extra_args=options | (settings.extra_args or {})
    )
    return model


@lru_cache
def _reasons(name: str) -> bool:
    """Whether a model can be told how much to reason."""
    import litellm

    return "reasoning_effort" in (litellm.get_supported_openai_params(name) or ())


def _mend(output: list[TResponseOutputItem], asked: str | list[TResponseInputItem]) -> None:
    """Make tool calls such that the SDK can take them into the conversation.

    It tells calls apart by their id, which some local servers count from 0 in every answer, and stumbles
    over half a character in an argument, which JSON can write and UTF-8 cannot.
    """
    used = {item.get("call_id") for item in asked if isinstance(item, dict)}
    for number, item in enumerate(output):
        if item.type != "function_call":
            continue
        if item.call_id in used:
            item.call_id = f"{item.call_id}_{len(asked)}_{number}"
        used.add(item.call_id)
        if not _is_text(item.arguments):
            item.arguments = '"half a character"'  # no object: handed back to the model


def _is_text(arguments: str) -> bool:
    try:
        json.dumps(json.loads(arguments), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except (ValueError, RecursionError):
        pass  # malformed in ways that are seen later
    return True


def _explained(error: Exception, name: str) -> Exception:
    """The gateway's explanation of a failure, without the provider's exception, which may quote a key."""
    known = error if isinstance(error, WorkshopError) else explain_failure(error, name)
    return as_application_error(known) if known else error
