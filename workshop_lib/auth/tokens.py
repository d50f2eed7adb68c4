"""Access tokens: what they say, and the one place where they are checked.

A token is a signed JSON (a JWT, RFC 9068): who is asking, through which agent, of exactly one team, for what,
and until when. Whoever has it may use it, so it lives for minutes, travels in a request's header and is
written down nowhere. Nothing of a token is believed that `verify` has not checked by name: libraries check
what a token says and pass over what it leaves out. Left out: who gets one (`issuer`).
"""

import base64
import json
import re
import secrets
import time
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workshop_lib.auth.keys import ISSUER_KEYS, PUBLIC_KEYS, as_jwk, fresh, ring, was_good
from workshop_lib.errors import WorkshopError
from workshop_lib.temporal.caller import FORBIDDEN, UNIDENTIFIED, Asker

ISSUER = "https://sign-in.workshop.invalid"
TYPE = "at+jwt"  # of an access token; an ID token, which says who signed in, has another
LIFETIME = 300  # seconds
LEEWAY = 10  # seconds that two clocks may be apart
LONGEST = 3600  # seconds that a token may be valid in all
MAX_CHARS = 4096
_FORM = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class Refused(WorkshopError):
    """What somebody brought as proof does not count, or not for this.

    Args:
        kind: `UNIDENTIFIED` or `FORBIDDEN`.
    """

    def __init__(self, what: str, kind: str = UNIDENTIFIED) -> None:
        fix = "sign in again." if kind == UNIDENTIFIED else "ask whoever grants it."
        super().__init__(what, fix=fix)
        self.kind = kind


class Actor(BaseModel):
    """Who acts for the subject: an agent, or a program that a person uses."""

    sub: str = Field(min_length=1, max_length=100)


class Claims(BaseModel):
    """What a token says, once it is checked. Times in Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    iss: str
    aud: str  # one audience, so no list
    sub: str = Field(min_length=1, max_length=100)
    act: Actor
    scope: str = Field(max_length=500)  # separated by spaces
    iat: float
    nbf: float
    exp: float
    jti: str = Field(min_length=1, max_length=100)

    @property
    def asker(self) -> Asker:
        """Who is asking, as the work that is asked for sees it."""
        return Asker(self.sub, frozenset(self.scope.split()))


def problem_with(claims: dict[str, Any], audience: str, now: float) -> str | None:
    """Why what a token says does not count, or None. Each claim is required by name.

    Args:
        claims: of a token whose signature is right.
        audience: whose check this is.
        now: Unix seconds.
    """
    try:
        said = Claims.model_validate(claims)
    except ValidationError as error:
        return "wrong or missing: " + ", ".join(str(e["loc"][0]) for e in error.errors())
    if said.iss != ISSUER:
        return "another issuer's"
    if said.aud != audience:
        return f"meant for {said.aud!r}, not for {audience!r}"
    if said.exp + LEEWAY <= now:
        return "expired"
    if max(said.nbf, said.iat) - LEEWAY > now:
        return "not valid yet"
    return "valid for too long" if said.exp - said.iat > LONGEST else None


def verify(token: str | None, audience: str, now: float | None = None) -> Claims:
    """What a token says.

    Raises:
        Refused: it is none, or it does not count here; the text says why, and quotes nothing secret.
    """
    claims = signed_claims(token)
    if problem := problem_with(claims, audience, time.time() if now is None else now):
        raise Refused(f"The token does not count: {problem}.")
    return Claims.model_validate(claims)


def require(who: Asker, scope: str) -> None:
    """Refuse who lacks a scope.

    Raises:
        Refused: of the kind `FORBIDDEN`; names the person and the scope.
    """
    if scope not in who.scopes:
        raise Refused(f"{who.name} lacks the scope {scope}.", FORBIDDEN)


def new_claims(
    subject: str, actor: str, audience: str, scope: str, lifetime: float = LIFETIME
) -> dict[str, Any]:
    """The claims of a token that is made now."""
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": audience,
        "sub": subject,
        "act": {"sub": actor},
        "scope": scope,
        "iat": now,
        "nbf": now,
        "exp": now + lifetime,
        "jti": secrets.token_hex(16),
    }


def sign(claims: dict[str, Any]) -> str:
    """A token with these claims, signed by the issuer's newest key."""
    key = fresh(ISSUER_KEYS).newest
    header = {"alg": "ES256", "typ": TYPE, "kid": key["kid"]}
    return jwt.encode(header, claims, as_jwk(key), algorithms=["ES256"])


def signed_claims(token: str | None) -> dict[str, Any]:
    """The claims of a token that the issuer has signed, whatever they say.

    Raises:
        Refused: it has not.
    """
    if not token:
        raise Refused("There is no token.")
    if len(token) > MAX_CHARS or not _FORM.fullmatch(token):
        raise Refused("That is no token.")
    try:
        part = token.split(".")[0]
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        # The header is the attacker's until the signature is checked: it may name a key of ours, and neither
        # bring one (`jwk`, `jku`) nor choose how it is checked.
        if set(header) - {"alg", "typ", "kid"} or (header["alg"], header["typ"]) != ("ES256", TYPE):
            raise Refused("That is no access token of ours.")
        key = ring(PUBLIC_KEYS).find(str(header["kid"]))
        if key is None:
            raise Refused("The token is signed by a key that nobody here knows.")
        found = jwt.decode(token, as_jwk(key), algorithms=["ES256"]).claims
    except (JoseError, ValueError, KeyError, TypeError):
        raise Refused("The token's signature is wrong.") from None
    issued = found.get("iat")
    if not isinstance(issued, int | float) or not was_good(key, issued):
        raise Refused("The token is signed by a key that has been withdrawn.")
    return found
