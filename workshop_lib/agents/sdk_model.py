"""The plugin that runs the OpenAI Agents SDK inside workflows, with LiteLLM behind it.

Model calls of the SDK become an activity of the plugin's, `invoke_model_activity`. It may run twice when a
worker dies after the provider has answered and before the answer is recorded: the call is paid for twice,
and nothing else happens. Which model answers is decided by the same settings as everywhere else; a call is
tried once and Temporal retries it; failures are explained in the same words as the gateway's.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from agents import Model, ModelProvider, ModelResponse, ModelSettings
from agents.items import TResponseStreamEvent
from agents.tracing import set_trace_processors
from temporalio.client import ClientConfig
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.plugin import SimplePlugin

from workshop_lib.agents.planner import PLAN_OPTIONS, as_application_error
from workshop_lib.agents.streaming import REPLY_TOPIC
from workshop_lib.errors import WorkshopError
from workshop_lib.llm.failures import explain_failure
from workshop_lib.llm.gateway import call_options, register_offline_provider
from workshop_lib.llm.journal import record_request
from workshop_lib.settings import get_settings


def agents_plugin() -> SimplePlugin:
    """A new plugin, for the client of one worker."""
    # Traces would be sent to OpenAI, key or no key; `set_tracing_disabled` does not stop that here.
    set_trace_processors([])
    return _Plugin(
        model_provider=_SettingsProvider(),
        model_params=ModelActivityParameters(
            start_to_close_timeout=PLAN_OPTIONS["start_to_close_timeout"],
            schedule_to_close_timeout=PLAN_OPTIONS["schedule_to_close_timeout"],
            heartbeat_timeout=PLAN_OPTIONS["heartbeat_timeout"],
            retry_policy=PLAN_OPTIONS["retry_policy"],
            streaming_topic=REPLY_TOPIC,
            streaming_batch_interval=timedelta(milliseconds=50),
        ),
        add_temporal_spans=False,
    )


class _Plugin(OpenAIAgentsPlugin):
    """Takes the place of our pydantic converter: its own is pydantic's too, and knows the SDK's types."""

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        if config.get("data_converter") is pydantic_data_converter:
            config["data_converter"] = DataConverter.default  # which the plugin replaces
        return super().configure_client(config)


class _SettingsProvider(ModelProvider):
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
            return await (await _open(name, request)).get_response(**request)
        except Exception as error:
            raise _explained(error, name) from None

    async def stream_response(self, **request: Any) -> AsyncIterator[TResponseStreamEvent]:  # type: ignore[override]
        """The answer as events, the last of which holds all of it. Raises as `get_response`."""
        name = self._resolve()
        try:
            model = await _open(name, request)
            async for event in model.stream_response(**request):
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
    await asyncio.to_thread(register_offline_provider)  # loads LiteLLM, which takes seconds
    from agents.extensions.models.litellm_model import LitellmModel

    options = call_options(name)
    if not name.startswith("offline/"):  # the offline model keeps its own journal
        items = request["input"]
        record_request(name, [items] if isinstance(items, str) else items, None)
    model = LitellmModel(name, options.pop("api_base", None), options.pop("api_key", None))
    settings: ModelSettings = request["model_settings"]
    request["model_settings"] = replace(
        settings, include_usage=True, extra_args=options | (settings.extra_args or {})
    )
    return model


def _explained(error: Exception, name: str) -> Exception:
    """The gateway's explanation of a failure, without the provider's exception, which may quote a key."""
    known = error if isinstance(error, WorkshopError) else explain_failure(error, name)
    return as_application_error(known) if known else error
