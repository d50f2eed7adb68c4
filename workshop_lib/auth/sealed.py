"""Sealed values: what is written into histories in place of a token.

A header of an update, a start, an activity or a Nexus operation is recorded, and the server itself sends it
again. So it must be worth nothing to whoever reads it, and the same each time workflow code makes it. A
sealed value is both: encrypted with AES-SIV, which is deterministic, readable by its audience and by who
made it, and *bound*: to one call, at one place, with these arguments. The same value again is the same
call.

A sealed value for a Nexus call cannot know who sends it on. Whoever has read it in a history can send it once
more: that never starts a second run, and the door hands the result to nobody but the run that made it.

Left out: keys (`keys`), and who takes them along (`outbound`) and checks them (`door`).
"""

import base64
import hashlib
import json
import re
import time
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from pydantic import BaseModel, ConfigDict, ValidationError

from workshop_lib.auth.keys import Keyring, was_good
from workshop_lib.auth.tokens import LEEWAY, MAX_CHARS, Refused
from workshop_lib.temporal.caller import Asker

LONGEST = 7 * 24 * 3600  # seconds; an operation may take days
_FORM = re.compile(r"v1\.[0-9a-f]{16}\.[\w-]+", re.ASCII)


class Who(BaseModel):
    """Who is asking: a person, through whom, with which scopes and by which grant."""

    model_config = ConfigDict(frozen=True)

    sub: str
    act: str
    scope: str
    grant: str = ""

    @property
    def asker(self) -> Asker:
        """The same, as the work that is asked for sees it."""
        return Asker(self.sub, frozenset(self.scope.split()))


class Binding(NamedTuple):
    """What a sealed value counts for, and nothing else.

    Attributes:
        what: kind and name, as in "update:send_message" or "nexus:ITService/get_ip".
        where: the workflow's id, or empty where its receiver is nobody's workflow.
        arguments: `digest` of them.
        call: an id of this call's own.
    """

    what: str
    where: str
    arguments: str
    call: str = ""


class Contents(BaseModel):
    """What is inside. Times in Unix seconds.

    Attributes:
        run: where it was made, as "workflow id/run id"; for a receipt, the plan's digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    who: Who
    what: str
    where: str
    arguments: str
    call: str
    run: str
    iat: float
    exp: float


_UNFIT = {
    "what": "what it asks for does",
    "where": "its place does",
    "arguments": "its arguments do",
    "call": "its id does",
}


def digest(arguments: Any) -> str:
    """What tells arguments from others: of a typed input, of those fields that differ from their default, so
    that a contract may get more of them."""
    return hashlib.sha256(json.dumps(_plain(arguments), sort_keys=True).encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def seal(
    keys: Keyring,
    audience: str,
    who: Who,
    bound: Binding,
    *,
    now: float | None = None,
    lifetime: float,
    run: str = "",
) -> str:
    """The value, as text that any header can hold. In a workflow `now` is workflow time."""
    made = time.time() if now is None else now
    inside = Contents(who=who, **bound._asdict(), run=run, iat=made, exp=made + lifetime)
    key = keys.newest
    sealed = _cipher(key).encrypt(inside.model_dump_json().encode(), _context(audience, key["kid"]))
    return f"v1.{key['kid']}.{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"


def unseal(keys: Keyring, audience: str, value: Any) -> Contents:
    """What is inside of a value for this audience, whatever it counts for, and however old.

    Raises:
        Refused: it is no such value.
    """
    if not value:
        raise Refused("There is no proof of who is asking.")
    if not isinstance(value, str) or len(value) > MAX_CHARS or not _FORM.fullmatch(value):
        raise Refused("That is no sealed value.")
    _, kid, body = value.split(".")
    key = keys.find(kid)
    try:
        if key is None:
            raise ValueError
        secret = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        inside = Contents.model_validate_json(
            _cipher(key).decrypt(secret, _context(audience, kid)), strict=False
        )
    except (InvalidTag, ValueError, ValidationError):
        raise Refused(f"The sealed value is not one for {audience!r}, or was changed.") from None
    if not was_good(key, inside.iat):
        raise Refused("The sealed value was made with a key that has been withdrawn.")
    return inside


def check(inside: Contents, bound: Binding, now: float) -> None:
    """Refuse a value that counts for something else, or not now.

    Args:
        bound: what is asked for. Where its `call` is empty, any is right.

    Raises:
        Refused: the text says what does not fit.
    """
    for name, is_for, asked in zip(bound._fields, _bound(inside), bound, strict=True):
        if is_for != asked and (name != "call" or asked):
            raise Refused(f"The sealed value is for another call: {_UNFIT[name]} not fit.")
    if inside.exp + LEEWAY <= now:
        raise Refused("The sealed value has expired.")
    if inside.iat - LEEWAY > now or inside.exp - inside.iat > LONGEST:
        raise Refused("The sealed value is not valid yet, or for too long.")


def _bound(inside: Contents) -> Binding:
    return Binding(inside.what, inside.where, inside.arguments, inside.call)


def _cipher(key: dict[str, Any]) -> AESSIV:
    return AESSIV(base64.urlsafe_b64decode(key["k"]))


def _context(audience: str, kid: str) -> list[bytes]:
    return [b"workshop v1", audience.encode(), kid.encode()]
