"""A Temporal client for a namespace.

Where the server is and how it is reached (local, mTLS, API key) is Temporal's own environment
configuration: `TEMPORAL_ADDRESS`, `TEMPORAL_API_KEY`, `TEMPORAL_TLS_*`, or a profile of a TOML file named
by `TEMPORAL_PROFILE`. Where nothing is set, it is the dev server of this project's state folder and no
other (`temporal.own_server`): there is no default address.

Left out: starting that server, which is the classroom's business (`lab.server.lifecycle`), and the
namespace's name, which comes from `settings` so that clients, workers and endpoints agree on it.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import re
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from temporalio.client import Client, Interceptor, Plugin
from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from workshop_lib.errors import WorkshopError
from workshop_lib.machine.records import live_record
from workshop_lib.settings import get_settings
from workshop_lib.temporal import tracing
from workshop_lib.temporal.failures import DATA_CONVERTER
from workshop_lib.temporal.own_server import NoServer, OwnServer


async def connect(
    namespace: str | None = None,
    *,
    plugins: Sequence[Plugin] = (),
    interceptors: Sequence[Interceptor] = (),
    data_converter: DataConverter = DATA_CONVERTER,
    identity: str | None = None,
    timeout: float = 10,
) -> Client:
    """A client of one namespace, on the server that the environment names.

    Args:
        namespace: the orchestrator's when left out.
        plugins, interceptors: also apply to the workers made with this client.
        data_converter: understands pydantic models and keeps failures small; both sides of a call need the
            same.
        identity: what histories and the Web UI call this client; process and host when left out.
        timeout: seconds until the server counts as unreachable.

    Raises:
        NoServer: no server is named, and the state folder's own does not run.
        WorkshopError: no server answers, or it refuses the key or the certificate. No secret is shown.
    """
    quiet_runtime()
    config = connect_config()
    address = server_address()
    own = [] if config.get("target_host") else [OwnServer(get_settings().state_dir)]
    options: dict[str, Any] = dict(config) | {
        "target_host": address,
        "namespace": namespace or get_settings().orchestrator_namespace,
    }
    try:
        async with asyncio.timeout(timeout):
            return await Client.connect(
                **options,
                plugins=[*own, *tracing.plugins(), *plugins],
                interceptors=list(interceptors),
                data_converter=data_converter,
                identity=identity,
                connect_timeout=timedelta(seconds=timeout),
            )
    except TimeoutError:
        raise _unreachable(address, f"no answer within {timeout:g} s") from None
    except (RuntimeError, ValueError) as error:
        # The SDK has one exception for all of it; its text tells them apart, and is not shown
        # because it may quote what the server was sent.
        if not str(error).startswith(("Failed client connect", "invalid target URL")):
            raise  # a plugin's, not the connection's
        raise _refusal(address, str(error)) from None


def connect_config() -> ClientConnectConfig:
    """What Temporal's environment configuration says, as arguments of `Client.connect`.

    Raises:
        WorkshopError: the profile or a certificate cannot be read, or there is a key and no address.
    """
    get_settings()  # puts `.env` into the environment, where `TEMPORAL_*` may stand
    try:
        config = ClientConfig.load_client_connect_config()
    except OSError as error:
        raise WorkshopError(
            f"{error.filename} cannot be read: {error.strerror}.",
            expected="a certificate or key in PEM format.",
            fix="correct TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_TLS_CLIENT_KEY_PATH and "
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH, or unset them.",
        ) from None
    except Exception as error:  # the SDK's ConfigError is not exported
        raise WorkshopError(
            f"Temporal's environment configuration cannot be used: {_config_reason(str(error))}.",
            expected="TEMPORAL_PROFILE names a profile of the file in TEMPORAL_CONFIG_FILE.",
            fix="correct these variables, or unset them to work on the local dev server.",
        ) from None
    if "api_key" in config and not config.get("target_host"):
        raise WorkshopError(
            "TEMPORAL_API_KEY is set and TEMPORAL_ADDRESS is not.",
            expected="both for Temporal Cloud, neither for the local dev server.",
            fix="set TEMPORAL_ADDRESS, or unset TEMPORAL_API_KEY.",
        )
    return config


def address_is_users() -> bool:
    """True when the environment or a profile names the server, so that it is not ours to start."""
    return bool(connect_config().get("target_host"))


def server_address() -> str:
    """`host:port`: what the user set, else where this state folder's dev server listens.

    Raises:
        NoServer: nothing is set, and that server does not run.
    """
    if users := connect_config().get("target_host"):
        return users
    if record := live_record(get_settings().state_dir):
        return str(record["address"])
    raise NoServer


def ui_url() -> str | None:
    """The Web UI's address without a slash at its end: `TEMPORAL_UI_URL`, else what belongs to the server.

    None when the server is the user's and where its UI is was not said.
    """
    users = connect_config().get("target_host")
    if url := os.environ.get("TEMPORAL_UI_URL", "").strip():
        return url.rstrip("/")
    record = live_record(get_settings().state_dir)
    if users and users.endswith((".tmprl.cloud:7233", ".temporal.io:7233")):
        return "https://cloud.temporal.io"
    if record and (not users or users == record["address"]):
        return record["ui_url"]
    return None


@cache
def quiet_runtime(metrics: PrometheusConfig | None = None) -> None:
    """Keep the SDK's core from logging warnings that a cell or a terminal need not show.

    Its errors go where Python's logs go, and not, as they are by default, in colours onto standard output,
    where a program may read what it asked us for.

    Takes effect before the process's first connection only; later calls, and calls where a program
    has set a runtime of its own, change nothing.

    Args:
        metrics: where they can be read; nowhere when left out.
    """
    # A thread of the SDK's core tells the event loop that something is done and lets go of Python's lock just
    # after. A process that ends in between aborts (`PyGILState_Release`, some runs of a hundred).
    atexit.register(time.sleep, 0.1)
    errors_only = TelemetryFilter(core_level="ERROR", other_level="ERROR")
    forwarded = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    logs = LoggingConfig(filter=errors_only, forwarding=forwarded)
    runtime = Runtime(telemetry=TelemetryConfig(logging=logs, metrics=metrics))
    with contextlib.suppress(RuntimeError):  # somebody was first, and meant it
        Runtime.set_default(runtime)


def _config_reason(text: str) -> str:
    """The part of a configuration error that cannot hold a secret: TOML errors quote the file's lines."""
    if found := re.search(r"Profile '[^']*' not found", text):
        return found[0]
    if found := re.search(r"line \d+, column \d+", text):
        return f"the profile file is not valid TOML at {found[0]}"
    return "it is not in the expected format"


# Words of the SDK's text, and what is told instead: what is wrong, what was expected, how to mend it.
_REFUSALS = (
    (
        ("unauthenticated", "permissiondenied", "permission denied"),
        "The Temporal server at {} refused the credentials.",
        "an API key or certificate that is valid for the namespace.",
        "check TEMPORAL_API_KEY (or TEMPORAL_TLS_CLIENT_CERT_PATH and _KEY_PATH) and TEMPORAL_NAMESPACE.",
    ),
    (
        ("tls", "certificate", "privatekey", "handshake", "invalidcontenttype"),
        "No TLS connection to the Temporal server at {}.",
        "a server that speaks TLS, and a certificate and private key in PEM format.",
        "check TEMPORAL_TLS and TEMPORAL_TLS_CLIENT_CERT_PATH, _KEY_PATH, _SERVER_CA_CERT_PATH "
        "and _SERVER_NAME; for a server without TLS unset them and TEMPORAL_API_KEY.",
    ),
    (
        ("dns error", "invalid target", "invalid uri"),
        "{} is not the address of a server.",
        "TEMPORAL_ADDRESS as host:port, for example localhost:7233.",
        "correct TEMPORAL_ADDRESS, or unset it to work on the local dev server.",
    ),
)


def _refusal(address: str, text: str) -> WorkshopError:
    """The error a person can act on, from the text of the SDK's exception."""
    for words, what, expected, fix in _REFUSALS:
        if any(word in text.lower() for word in words):
            return WorkshopError(what.format(address), expected=expected, fix=fix)
    foreign = "unimplemented" in text.lower()
    reason = "what answers there is not a Temporal server" if foreign else "nothing answers there"
    return _unreachable(address, reason)


def _unreachable(address: str, reason: str) -> WorkshopError:
    if address_is_users():
        fix = "start that server, or correct or unset TEMPORAL_ADDRESS (or the profile that names it)."
    else:
        fix = "start the server with `workshop up`, or run the set-up cell of the notebook."
    return WorkshopError(f"No Temporal server at {address}: {reason}.", fix=fix)
