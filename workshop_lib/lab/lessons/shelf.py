"""A shelf for notebook 05: what a careless tool does to it when its step is tried again.

A file with a count for each article. `order` adds to it, as the store of the repair agent does, with as much
or as little care as the caller takes: without a key every call counts. Left out: locks, transactions and all
else that `repair.store` is for.
"""

import json
from pathlib import Path
from typing import Any

from workshop_lib.machine import state_folder
from workshop_lib.machine.files import write_whole
from workshop_lib.settings import get_settings

FIRST = {"STP-ORG-001": 247}  # badge sets, as in the inventory


def reset_shelf() -> dict[str, int]:
    """Put the shelf back as it was. Returns what lies on it."""
    _write({"stock": FIRST, "keys": []})
    return shelf_stock()


def shelf_stock() -> dict[str, int]:
    """What lies on the shelf, by article."""
    stock: dict[str, int] = _read()["stock"]
    return stock


def keys_seen() -> list[str]:
    """The keys that orders have come with since the shelf was put back, as text."""
    keys: list[str] = _read()["keys"]
    return keys


def order(item_id: str, quantity: int, *, key: object = None) -> int:
    """Order more of an article. Returns how many there are then.

    Args:
        key: text, a tuple, an id …: what `str` writes in the same way is the same key. An order that
            carries a key which has been seen before changes nothing.
    """
    content = _read()
    if key is None or str(key) not in content["keys"]:
        content["stock"][item_id] = content["stock"].get(item_id, 0) + quantity
        content["keys"] += [] if key is None else [str(key)]
        _write(content)
    count: int = content["stock"][item_id]
    return count


def _file() -> Path:
    return get_settings().state_dir / "shelf.json"


def _read() -> dict[str, Any]:
    if not _file().exists():
        reset_shelf()
    content: dict[str, Any] = json.loads(_file().read_text(encoding="utf-8"))
    return content


def _write(content: dict[str, Any]) -> None:
    state_folder.made(_file().parent)
    write_whole(_file(), json.dumps(content))
