"""Everything that is read from the environment, once.

`.env` at the project root is read first, and only for names that the environment does not set already.
A key that is still a placeholder ("sk-...", "your_key_here") counts as no key. With no key at all the
offline model answers. Every name that two places must agree on (namespaces, task queues, endpoints,
ports) is written down here and nowhere else.

Left out: how Temporal is reached. That is Temporal's own environment configuration, read in
`temporal.connect`.
"""

import io
import os
import re
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from workshop_lib import in_sandbox
from workshop_lib.errors import WorkshopError
from workshop_lib.harmless import faults
from workshop_lib.machine import environment, state_folder
from workshop_lib.machine.environment import PROJECT_ROOT as PROJECT_ROOT

OFFLINE_MODEL = "offline/rules"

Port = Annotated[int, Field(ge=1, le=65535)]
DEFAULT_MCP_PORTS = {"finance": 8001, "it": 8002, "repair": 8003}  # on 127.0.0.1

# The variable that holds a provider's key, and the model we call when the key is all that is set.
PROVIDERS = {
    "openai": ("OPENAI_API_KEY", "openai/gpt-5-mini"),
    "anthropic": ("ANTHROPIC_API_KEY", "anthropic/claude-sonnet-4-5"),
    "gemini": ("GOOGLE_API_KEY", "gemini/gemini-2.5-flash"),
}
# What LiteLLM infers a provider from when the model is given without one.
BARE_MODEL_PREFIXES = {"gpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai",
                       "claude-": "anthropic", "gemini-": "gemini"}  # fmt: skip

_PLACEHOLDER = re.compile(
    r"""^(
        \W*                                     # empty, or nothing but dots and dashes
        | sk-(ant-|proj-)?[.…x*-]*              # sk-..., sk-ant-..., sk-xxxx
        | .*(your|paste|change|replace)[-_ ]?.* # your-key-here, your_key, replace me
        | .*[-_ ]here | <.*> | todo | none | null | x+
    )$""",
    re.IGNORECASE | re.VERBOSE,
)


class ModelChoice(NamedTuple):
    """The model that answers, in LiteLLM's spelling, and why it is that one."""

    name: str
    why: str

    @property
    def offline(self) -> bool:
        """True for the rules that come with the workshop, which need no key and no network."""
        return self.name == OFFLINE_MODEL


class Settings(BaseSettings):
    """What the environment says. Frozen: change the environment and call `reload_settings()`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    # the model
    llm_model: str = ""
    llm_api_base: str | None = None  # any OpenAI-compatible server: Ollama, LM Studio, vLLM …
    llm_timeout: float = Field(60.0, gt=0)  # seconds that one call may take
    offline_faults: str = ""  # failures of the offline model, see `llm.offline.faults`
    offline_latency_ms: int = Field(0, ge=0)  # ms that a call of the offline model lasts
    model_journal: Path | None = Field(None, validation_alias="WORKSHOP_MODEL_JOURNAL")

    # names that two sides must agree on
    orchestrator_namespace: str = Field("default", validation_alias="TEMPORAL_NAMESPACE")
    it_namespace: str = "it-namespace"
    finance_namespace: str = "finance-namespace"
    orchestrator_queue: str = "orchestrator-task-queue"
    repair_queue: str = "repair-task-queue"
    it_queue: str = "it-task-queue"
    finance_queue: str = "finance-task-queue"
    it_endpoint: str = "it-nexus-endpoint"
    finance_endpoint: str = "finance-nexus-endpoint"

    # ports of the local dev server; all on 127.0.0.1. None: the default port, or another when it is taken
    temporal_port: Port | None = Field(None, validation_alias="WORKSHOP_TEMPORAL_PORT")
    http_port: Port | None = Field(None, validation_alias="WORKSHOP_HTTP_PORT")
    ui_port: Port | None = Field(None, validation_alias="WORKSHOP_UI_PORT")
    web_ui: bool = Field(True, validation_alias="WORKSHOP_WEB_UI")  # False: the server has none

    # ports of the MCP servers; same rule
    finance_mcp_port: Port | None = None
    it_mcp_port: Port | None = None
    repair_mcp_port: Port | None = None

    # what a model is sent is written into histories compressed (`temporal.compressed`)
    compress: bool = Field(False, validation_alias="WORKSHOP_COMPRESS")
    # workers and MCP servers as services (`temporal.service`)
    metrics_port: Port | None = Field(None, validation_alias="WORKSHOP_METRICS_PORT")
    log: Literal["text", "json"] = Field("text", validation_alias="WORKSHOP_LOG")
    # seconds from SIGTERM to the end
    grace: float = Field(8.0, gt=0, validation_alias="WORKSHOP_GRACE")
    # set by who deploys versions of a worker, as the controller for Kubernetes does; else there are none
    deployment_name: str = Field("", validation_alias="TEMPORAL_DEPLOYMENT_NAME")
    build_id: str = Field("", validation_alias="TEMPORAL_WORKER_BUILD_ID")

    # the order store, as an SQLAlchemy URL. None: an SQLite file in the state folder
    orders_database_url: SecretStr | None = None

    # where state and the learner's notebooks live, and who is at the keyboard
    state_dir: Path = Field(PROJECT_ROOT / ".workshop", validation_alias="WORKSHOP_STATE_DIR")
    workspace: Path = Field(PROJECT_ROOT / "workspace", validation_alias="WORKSHOP_WORKSPACE")
    user_name: str = "learner"
    # whether the teams check who is asking (`auth`), and for whom an MCP server over STDIO acts
    identity: Literal["on", "off"] = Field("off", validation_alias="WORKSHOP_IDENTITY")
    mcp_local_user: str = ""
    today: date = Field(date(2025, 6, 28), validation_alias="WORKSHOP_TODAY")

    @property
    def model(self) -> ModelChoice:
        """The model that answers: `LLM_MODEL` if its key is there, else a key's provider, else offline.

        Raises:
            WorkshopError: `LLM_MODEL` asks for one provider and the only key is another's, or a variable
                stands in the way to the provider.
        """
        choice = self._choice()
        in_the_way = environment.in_the_way()
        here = self.llm_api_base and environment.is_loopback(self.llm_api_base)
        if in_the_way and not choice.offline and not here:
            name, reason = next(iter(in_the_way.items()))
            raise WorkshopError(
                f"{name} cannot be used: {reason}.",
                expected=f"a usable {name}, or none: {choice.name} is called by way of the network.",
                fix=f"correct or unset {name}, or set LLM_MODEL=offline.",
            )
        return choice

    def _choice(self) -> ModelChoice:
        keys = [provider for provider, (variable, _) in PROVIDERS.items() if provider_key(variable)]
        name = self.llm_model.strip()
        if name in ("offline", OFFLINE_MODEL):
            return ModelChoice(OFFLINE_MODEL, "LLM_MODEL says so")
        if not name:
            if not keys:
                return ModelChoice(OFFLINE_MODEL, "no key is set")
            variable, default = PROVIDERS[keys[0]]
            return ModelChoice(default, f"{variable} is set and LLM_MODEL is not")
        provider = provider_of(name)
        if provider not in PROVIDERS or provider in keys or self.llm_api_base:
            return ModelChoice(name, "LLM_MODEL says so")
        variable = PROVIDERS[provider][0]
        if not keys:
            return ModelChoice(OFFLINE_MODEL, f"LLM_MODEL is {name} but {variable} is not set")
        raise WorkshopError(
            f"LLM_MODEL is {name}, and its key {variable} is not set.",
            expected=f"{variable} in .env, or a model of {' or '.join(sorted(keys))}, whose key is there.",
            fix="edit .env and restart the kernel, or run `workshop doctor`.",
        )


def provider_of(model: str) -> str:
    """The provider that LiteLLM would call for a model: what stands before the slash, or its guess."""
    if "/" in model:
        return model.split("/", 1)[0]
    return next(
        (p for prefix, p in BARE_MODEL_PREFIXES.items() if model.startswith(prefix)), "openai"
    )


def is_placeholder(value: str) -> bool:
    """True for a value that nobody could have been given as a key."""
    return bool(_PLACEHOLDER.match(value.strip()))


def provider_key(variable: str) -> str | None:
    """A provider's key from the environment, or None when it is missing or a placeholder."""
    # Gemini's key has two names in the wild; LiteLLM accepts both.
    names = (variable, "GEMINI_API_KEY") if variable == "GOOGLE_API_KEY" else (variable,)
    values = (os.environ.get(name, "").strip() for name in names)
    return next((value for value in values if value and not is_placeholder(value)), None)


def env_file() -> Path:
    """The `.env` that is read: at the project root, or where WORKSHOP_ENV_FILE points."""
    return Path(os.environ.get("WORKSHOP_ENV_FILE") or PROJECT_ROOT / ".env")


def load_env_file(path: Path) -> None:
    """Put the names of a `.env` file into the environment, where it does not set them already.

    Values that are placeholders are left out. LiteLLM and Temporal read the environment themselves,
    which is why the values go there and not only into `Settings`.

    Raises:
        WorkshopError: the file cannot be read, or a line of it is not NAME=value. No value is shown.
    """
    fix = f"compare {path} with .env.example, or move it away to work on the offline model."
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise WorkshopError(
            f"{path} cannot be read: {reason}.",
            expected="a text file of NAME=value lines.",
            fix=fix,
        ) from None
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key and binding.value is None):
            raise WorkshopError(
                f"Line {binding.original.line} of {path} is not NAME=value.",
                expected="one NAME=value a line; text after # is a comment.",
                fix=fix,
            )
        if binding.key and binding.value and not is_placeholder(binding.value):
            os.environ.setdefault(binding.key, binding.value)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read at the first call.

    Raises:
        WorkshopError: `.env` cannot be read, a value has the wrong shape, or the state folder is not ours.
    """
    sandboxed = in_sandbox()
    if not sandboxed:
        environment.put_in_order()
        load_env_file(env_file())
        environment.put_in_order()
    if wrong := environment.homeless():
        raise WorkshopError(
            f"There is no such home folder: {wrong[0]}.", fix="write the path out, without the ~."
        )
    try:
        settings = Settings()
    except ValidationError as error:
        raise WorkshopError(
            f"A setting cannot be used: {faults(error)}.",
            fix="mend it in .env or in the environment.",
        ) from None
    if not sandboxed:
        state_folder.check(settings.state_dir, PROJECT_ROOT, settings.workspace)
    return settings


def reload_settings() -> Settings:
    """Read the environment again, after it has changed."""
    get_settings.cache_clear()
    return get_settings()
