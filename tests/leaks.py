"""Looks for what proves who somebody is where it does not belong: tokens, keys, sealed values.

In texts, in the files of a state folder, and in every event of a namespace, decoded. Left out: what a sealed
value that was found is worth (`test_identity_leaks`).
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from temporalio.client import Client

from workshop_lib.auth.keys import FOLDER

TOKEN = re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", re.ASCII)  # a JWS in its compact form
SEALED = re.compile(r"v1\.[0-9a-f]{16}\.[\w-]+", re.ASCII)
MAX_FILE = 50_000_000  # bytes; the server's database is looked at through its histories


def keys_of(state: Path) -> set[str]:
    """The secret halves of all keys in a state folder."""
    found = set()
    for path in (state / FOLDER).glob("*.json"):
        for key in json.loads(path.read_text(encoding="utf-8")).get("keys", []):
            found |= {key[name] for name in ("d", "k") if name in key}
    return found


def leaks_in(texts: Iterable[str], keys: Iterable[str] = ()) -> list[str]:
    """The tokens and keys that stand in these texts, with what stands before them."""
    secret = [key.rstrip("=") for key in keys]
    found = []
    for text in texts:
        found += [text[max(0, m.start() - 80) : m.start() + 30] for m in TOKEN.finditer(text)]
        found += [text[:80] for key in secret if key in text]
    return found


def texts_of(state: Path) -> Iterator[str]:
    """What stands in the files of a state folder, those of keys and the server's database apart."""
    for path in sorted(state.rglob("*")):
        inside = FOLDER not in path.relative_to(state).parts and not path.name.startswith(
            "temporal"
        )
        if inside and path.is_file() and path.stat().st_size < MAX_FILE:
            yield f"{path.name}: {path.read_text(encoding='utf-8', errors='replace')}"


async def histories_of(client: Client, queues: set[str]) -> dict[str, str]:
    """All that is written down of the runs on these queues, decoded, by run."""
    found = {}
    async for run in client.list_workflows("StartTime > '2020-01-01T00:00:00Z'"):
        if run.task_queue in queues:
            handle = client.get_workflow_handle(run.id, run_id=run.run_id)
            written = json.loads((await handle.fetch_history()).to_json())
            found[run.id] = "\n".join(_texts(written))
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value
        try:
            decoded = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return
        yield decoded.decode("utf-8", "replace")
