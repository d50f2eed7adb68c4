"""The keys, in the state folder: the issuer's pair, its public half for verifiers, and one for each audience.

The issuer signs with ES256. What is written into histories is sealed by a key that the audience shares with
those who may send to it. Of each kind there may be several: the newest makes, the older ones open what they
have made until then, so keys can be rotated while conversations run, and histories can be replayed after it.
All files have mode 600. Here they lie in one folder; in production each party has its own and no other.

Left out: what is made with them (`tokens`, `sealed`).
"""

import base64
import json
import secrets
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey

from workshop_lib.machine import state_folder
from workshop_lib.machine.files import write_whole
from workshop_lib.settings import get_settings

FOLDER = "identity"
ISSUER_KEYS, PUBLIC_KEYS = "issuer", "jwks"
AUDIENCES = ("chat", "it", "finance", "repair")  # parties that a sealed value can be for
OVERLAP = 600.0  # seconds after a rotation in which a process may still use the older key

Key = dict[
    str, Any
]  # a JWK with `kid`, `made` and, once a newer one is there, `retired` (Unix seconds)


class Keyring:
    """The keys of one file.

    Args:
        path: of the file. It is read again where it has changed, when somebody calls `refresh` or asks for a
            key that is not known yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_at: tuple[int, int] | None = None
        self.keys: list[Key] = []
        self.refresh()

    def refresh(self) -> None:
        """Read the file, if it is another than the one read last. Input and output: not in a workflow."""
        try:
            found = self.path.stat()
            if self._read_at != (found.st_ino, found.st_mtime_ns):
                self.keys = json.loads(self.path.read_text(encoding="utf-8"))["keys"]
                self._read_at = (found.st_ino, found.st_mtime_ns)
        except (OSError, ValueError, KeyError):
            pass  # what was read before still holds

    @property
    def newest(self) -> Key:
        """The key to make something with."""
        return self.keys[-1]

    def find(self, kid: str) -> Key | None:
        """The key of this id, or None."""
        for _ in range(2):
            for key in self.keys:
                if secrets.compare_digest(str(key["kid"]).encode(), kid.encode()):
                    return key
            self.refresh()  # it may have been made since
        return None


def as_jwk(key: Key) -> ECKey:
    """One of the issuer's keys, or its public half, as the library wants it."""
    return ECKey.import_key({n: v for n, v in key.items() if n not in ("made", "retired")})


def was_good(key: Key, at: float) -> bool:
    """Whether a key may have made something at this moment (Unix seconds)."""
    return at <= float(key.get("retired", at)) + OVERLAP


def ring(name: str) -> Keyring:
    """The keys of `ISSUER_KEYS`, `PUBLIC_KEYS` or an audience, in the state folder. Made where missing.

    Raises:
        OSError: the state folder cannot be written.
    """
    return _ring(get_settings().state_dir, name)


def fresh(name: str) -> Keyring:
    """The same, as they are now in the file. Input and output: not in a workflow."""
    keys = ring(name)
    keys.refresh()
    return keys


@lru_cache(maxsize=64)
def _ring(state: Path, name: str) -> Keyring:
    folder = state_folder.made(state, FOLDER)
    path = folder / (f"seal-{name}.json" if name in AUDIENCES else f"{name}.json")
    if not path.exists():
        if name in (ISSUER_KEYS, PUBLIC_KEYS):
            _write(folder / f"{ISSUER_KEYS}.json", [_new_pair()], anew=True)
            pairs = json.loads((folder / f"{ISSUER_KEYS}.json").read_text(encoding="utf-8"))["keys"]
            _write(folder / f"{PUBLIC_KEYS}.json", [_public(pair) for pair in pairs], anew=True)
        else:
            _write(path, [_new_secret()], anew=True)
    return Keyring(path)


def rotate() -> None:
    """Make a new key of each kind. The ones before open what was made with them, and make nothing more."""
    now = time.time()
    for name in (ISSUER_KEYS, *AUDIENCES):
        old = fresh(name)
        new = _new_pair() if name == ISSUER_KEYS else _new_secret()
        _write(old.path, [*({"retired": now} | key for key in old.keys), new])
    _write(ring(PUBLIC_KEYS).path, [_public(pair) for pair in fresh(ISSUER_KEYS).keys])


def _write(path: Path, keys: list[Key], *, anew: bool = False) -> None:
    write_whole(path, json.dumps({"keys": keys}), anew=anew)


def _new_pair() -> Key:
    pair = ECKey.generate_key("P-256", {"kid": secrets.token_hex(8), "use": "sig", "alg": "ES256"})
    return {**pair.as_dict(private=True), "made": time.time()}


def _public(pair: Key) -> Key:
    return {name: value for name, value in pair.items() if name != "d"}


def _new_secret() -> Key:
    value = base64.urlsafe_b64encode(secrets.token_bytes(64)).decode()
    return {"kid": secrets.token_hex(8), "kty": "oct", "k": value, "made": time.time()}
