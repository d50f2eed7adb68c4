"""The environment of this process, put in order before anything else reads it.

Libraries read the environment by themselves, some while they are imported, and a value that they cannot use
ends in a traceback. So it is mended in place, where every library and every child finds it: an empty value
counts as none, a path is absolute, what only a call to the outside needs and cannot be used is taken out and
remembered (`left_out`), this machine is never reached by way of a proxy, and nothing is read from the folder
that we happen to be started in. Left out: the project's `.env` and what the values mean (`settings`).
"""

import contextlib
import ipaddress
import json
import os
import re
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from workshop_lib.errors import WorkshopError

PROJECT_ROOT = Path(__file__).resolve().parents[2]

# What the workshop, and the libraries that it stands on, take their settings from.
_READ = re.compile(
    r"(WORKSHOP|TEMPORAL|LLM|OFFLINE|ORDERS|ORCHESTRATOR|REPAIR|IT|FINANCE|OPENAI|OTEL)_\w+"
    r"|USER_NAME|\w+_API_KEY|(HTTPS?|ALL|NO)_PROXY|SSL_?\w+|(REQUESTS|CURL)_CA_BUNDLE",
    re.IGNORECASE,
)
_PATHS = (
    *("WORKSHOP_STATE_DIR", "WORKSHOP_WORKSPACE", "WORKSHOP_ENV_FILE", "WORKSHOP_MODEL_JOURNAL"),
    *("TEMPORAL_CONFIG_FILE", "TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
    *("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"),
)
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!:memory:|file:)([^?]+)(.*)", re.DOTALL)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - where calls go, not a listener
# What two libraries would read for themselves, and print or fail by, while they are imported.
_NOT_READ = re.compile(r"FASTMCP_\w+|LITELLM_(?!PROXY_API_)\w+|CUSTOM_TIKTOKEN_CACHE_DIR")
_SET_HERE = {
    "FASTMCP_ENV_FILE": os.devnull,  # else the `.env` of the folder that a client starts us in,
    "LITELLM_MODE": "PRODUCTION",  # and here the nearest one
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no look-up of prices on the network
}
_LEFT_OUT = "WORKSHOP_LEFT_OUT"  # JSON, name to reason; children inherit it with the rest


def prepare_process() -> None:
    """What a process of ours does before it imports a library."""
    with contextlib.suppress(OSError):  # of a folder that was removed
        here = ("", os.getcwd())  # noqa: PTH109 - as `sys.path` spells it
        # Last: a file of that folder must not stand in for a module that is installed.
        sys.path.sort(key=here.__contains__)
    os.umask(0o077)  # what is written is for the user alone: chats, orders, reports
    put_in_order()


def put_in_order() -> None:
    """Mend the environment in place. Harmless when called again, and raises nothing."""
    os.environ |= _SET_HERE
    _certificate_trouble.cache_clear()
    found = {**left_out()}
    for name, value in list(os.environ.items()):
        if _READ.fullmatch(name):
            value = _tidy(name.upper(), value)
            os.environ[name] = value
        reason = _unusable(name.upper(), value)
        if reason:
            found[name] = reason
        if reason or (not value and _READ.fullmatch(name)):
            del os.environ[name]
    found = {name: reason for name, reason in found.items() if name not in os.environ}
    if found:
        os.environ[_LEFT_OUT] = json.dumps(found)
    else:
        os.environ.pop(_LEFT_OUT, None)
    _spare_loopback()


def left_out() -> dict[str, str]:
    """The variables that were taken out, each with the reason. No value is shown."""
    try:
        return dict(json.loads(os.environ.get(_LEFT_OUT, "{}")))
    except (ValueError, TypeError):
        return {}


def in_the_way() -> dict[str, str]:
    """Those of `left_out` that a call to the outside needs."""
    way = ("HTTP", "ALL", "SSL", "REQUESTS", "CURL")
    return {name: why for name, why in left_out().items() if name.upper().startswith(way)}


def homeless() -> list[str]:
    """The paths that begin with the home folder of nobody, as NAME=value."""
    return [f"{n}={os.environ[n]}" for n in _PATHS if os.environ.get(n, "").startswith("~")]


def names(path: Path) -> bool:
    """True for a file that a setting names: it is the user's, and meant for us."""
    given = [os.environ.get(name, "") for name in (*_PATHS, "ORDERS_DATABASE_URL")]
    return any(str(path) in value for value in given)


def lacking() -> list[str]:
    """The modules of the standard library that this Python was built without, and that are needed."""
    missing = []
    for name in ("ctypes", "sqlite3", "ssl", "zlib"):
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def require_python() -> None:
    """Raises:
    WorkshopError: this Python lacks a module that the lab cannot work without.
    """
    if missing := lacking():
        raise WorkshopError(
            f"The Python {sys.executable} was built without {', '.join(missing)}.",
            expected="a Python with its whole standard library.",
            fix="uv sync --python with another one, such as the system's: --python /usr/bin/python3.",
        )


def is_loopback(url: str) -> bool:
    """True where a URL, or a host alone, is this machine."""
    with contextlib.suppress(ValueError):
        host = (urlsplit(url if "://" in url else f"//{url}").hostname or "").rstrip(".")
        if host == "localhost" or host.endswith(".localhost"):
            return True
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    return False


def _tidy(name: str, value: str) -> str:
    """A value without blanks around it; a path absolute, and meant from the project's root."""
    value = value.strip()
    if value and name in _PATHS:
        return absolute(value)
    if name == "ORDERS_DATABASE_URL" and (found := _SQLITE.fullmatch(value)):
        return f"{found[1]}{absolute(found[2])}{found[3]}"
    return value


def absolute(path: str) -> str:
    """A path as the environment gives it: `~` is a home folder, and relative is to the project's root."""
    path = os.path.expanduser(path)  # noqa: PTH111 - Path's raises where there is no such home
    return path if path.startswith("~") else str(PROJECT_ROOT / path)


def _unusable(name: str, value: str) -> str | None:
    """Why a variable would make an import or a call fail, or None where it does not."""
    if _NOT_READ.fullmatch(name) and name not in _SET_HERE:
        return "it is not read here: servers and calls say themselves how they are set up"
    if not value:
        return None
    if name in _PROXIES:
        return _proxy_trouble(value)
    if name.startswith("OTEL_"):
        return _telemetry_trouble(name, value)
    if name.startswith(("SSL", "REQUESTS_CA", "CURL_CA")):
        return _tls_trouble(name, value)
    return None


def _tls_trouble(name: str, value: str) -> str | None:
    path = Path(value)
    if name == "SSLKEYLOGFILE":
        return None if path.parent.is_dir() else "there is no such folder"
    if name == "SSL_CERT_DIR":
        return None if path.is_dir() else "there is no such folder"
    if name == "SSL_CERTIFICATE":
        return None if path.is_file() else "there is no such file"
    if name == "SSL_VERIFY" and value.lower() in ("true", "false", "1", "0"):
        return None
    if name.endswith(("FILE", "VERIFY")) or (name.endswith("BUNDLE") and not path.is_dir()):
        return _certificate_trouble(value)
    if name == "SSL_SECURITY_LEVEL":
        try:
            import ssl

            ssl.create_default_context().set_ciphers(value)
        except (ImportError, ValueError, OSError):  # an SSLError is an OSError
            return "it names no ciphers"
    return None


@cache  # several variables name one file, which takes as long to read as all the rest
def _certificate_trouble(path: str) -> str | None:
    try:
        import ssl  # there are Pythons without it, and most users have no such variable

        ssl.create_default_context(cafile=path)
    except FileNotFoundError:
        return "there is no such file"
    except (ImportError, OSError, ValueError):
        return "it holds no certificates"
    return None


def _proxy_trouble(value: str) -> str | None:
    try:
        proxy = urlsplit(value if "://" in value else f"http://{value}")
        if not proxy.hostname or re.search(r"[\s\\]", value) or proxy.port == 0:
            return "it is not the address of a proxy"
    except ValueError:
        return "it is not the address of a proxy"
    if proxy.scheme in ("socks5", "socks5h"):
        return (
            None if find_spec("socksio") else "SOCKS needs the package socksio, which is not here"
        )
    return None if proxy.scheme in ("http", "https") else "it is not a proxy of HTTP or SOCKS 5"


def _telemetry_trouble(name: str, value: str) -> str | None:
    """Why OpenTelemetry, which other libraries bring along, could not be imported."""
    if name.endswith("_LIMIT"):
        return None if value.isdecimal() else "it is not a number"
    found = re.fullmatch(r"OTEL_(?:PYTHON_)?(PROPAGATOR|CONTEXT|ID_GENERATOR|\w+_PROVIDER)S?", name)
    if not found:
        return None
    from importlib.metadata import entry_points  # every start would wait for it, and few need it

    installed = {e.name for e in entry_points(group=f"opentelemetry_{found[1].lower()}")} | {"none"}
    names = {part.strip() for part in value.split(",")}
    return None if names <= installed else f"it is none of {', '.join(sorted(installed))}"


def _spare_loopback() -> None:
    """Have every HTTP client reach this machine directly, whatever proxy the environment names."""
    if not any(os.environ.get(name) or os.environ.get(name.lower()) for name in _PROXIES):
        return
    base = os.environ.get("LLM_API_BASE", "")
    theirs = [urlsplit(base).hostname or ""] if is_loopback(base) else []  # 127.0.0.2, say
    for name in ("NO_PROXY", "no_proxy"):  # clients differ in which they read
        value = os.environ.get(name) or os.environ.get(name.swapcase(), "")
        hosts = [host.strip() for host in value.split(",") if host.strip()]
        if "*" not in hosts:
            hosts += [host for host in (*_LOOPBACK, *theirs) if host not in hosts]
            os.environ[name] = ",".join(hosts)
