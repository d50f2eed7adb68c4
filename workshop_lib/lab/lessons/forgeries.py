"""Tokens and sealed values that must not count, as an attacker or a mistaken issuer would make them.

Left out: where they are tried (`lab.lessons.attacks`).
"""

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from fastmcp.server.auth import TokenVerifier
from joserfc import jwt
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from workshop_lib.auth import tokens
from workshop_lib.auth.issuer import sign_in
from workshop_lib.auth.keys import ISSUER_KEYS, PUBLIC_KEYS, Keyring, as_jwk, ring
from workshop_lib.auth.sealed import Binding, Who, digest, seal
from workshop_lib.teams.it.contract import JiraMetricsInput

SECRET = JiraMetricsInput(project="HR-1")
HOUR = 3600.0
Claims = dict[str, Any]


def good_claims(**changes: Any) -> Claims:
    """What a token of Alice's for the IT team says, with changes; None leaves a claim out."""
    claims = tokens.new_claims("alice", "chat-agent", "it", "it:read it:confidential") | changes
    return {name: value for name, value in claims.items() if value is not None}


def signed(claims: Claims, key: Any = None, /, algorithm: str = "ES256", **header: Any) -> str:
    """A token that says this, signed by the issuer's key or another; None leaves a header out."""
    own = ring(ISSUER_KEYS).newest
    head = {"alg": algorithm, "typ": tokens.TYPE, "kid": own["kid"]} | header
    head = {name: value for name, value in head.items() if value is not None}
    if algorithm == "none":
        return f"{_part(head)}.{_part(claims)}."
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    return jwt.encode(head, claims, key or as_jwk(own), [algorithm], registry)


def _part(value: Claims) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _forged_payload() -> str:
    head, _, signature = signed(good_claims(sub="bob", scope="it:read")).split(".")
    return f"{head}.{_part(good_claims())}.{signature}"


def _public_as_secret() -> str:
    public = as_jwk(ring(PUBLIC_KEYS).newest).as_pem(private=False)
    head = {"alg": "HS256", "typ": tokens.TYPE, "kid": ring(ISSUER_KEYS).newest["kid"]}
    body = f"{_part(head)}.{_part(good_claims())}"
    mac = hmac.digest(public, body.encode(), "sha256")  # by hand: the library refuses such a key
    return f"{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def _withdrawn() -> str:
    keys = ring(PUBLIC_KEYS)
    old = ECKey.generate_key("P-256", {"kid": "withdrawn"})
    keys.keys = [
        {**old.as_dict(private=False), "kid": "withdrawn", "retired": time.time() - 7200},
        *(key for key in keys.keys if key["kid"] != "withdrawn"),
    ]
    return signed(good_claims(), old, kid="withdrawn")


def _revoked() -> str:
    grant = sign_in("alice")
    grant.revoke()
    return grant.token("it")


def _mallory() -> ECKey:
    return ECKey.generate_key("P-256")


def crafted_tokens() -> dict[str, Callable[[], str | None]]:
    """Tokens that must not count, each by what is wrong with it."""
    now = time.time()
    stolen = _mallory()
    return {
        "no token": lambda: None,
        "no token but words": lambda: "let me in, please",
        "cut off": lambda: signed(good_claims())[:-20],
        "an id of 5,000 characters": lambda: signed(good_claims(jti="x" * 5000)),
        "expired": lambda: signed(good_claims(iat=now - HOUR, nbf=now - HOUR, exp=now - 60)),
        "not valid yet": lambda: signed(good_claims(nbf=now + HOUR / 2)),
        "issued in the future": lambda: signed(good_claims(iat=now + HOUR / 2)),
        "no expiry": lambda: signed(good_claims(exp=None)),
        "valid for ten years": lambda: signed(good_claims(exp=now + 10 * 365 * 24 * HOUR)),
        "expiry as text": lambda: signed(good_claims(exp="9999999999")),
        "no subject": lambda: signed(good_claims(sub=None)),
        "empty subject": lambda: signed(good_claims(sub="")),
        "subject as a list": lambda: signed(good_claims(sub=["alice"])),
        "no actor": lambda: signed(good_claims(act=None)),
        "actor as text": lambda: signed(good_claims(act="chat-agent")),
        "no id": lambda: signed(good_claims(jti=None)),
        "id as a number": lambda: signed(good_claims(jti=7)),
        "another issuer": lambda: signed(good_claims(iss="https://evil.invalid")),
        "for another team": lambda: signed(good_claims(aud="finance")),
        "for two teams": lambda: signed(good_claims(aud=["it", "finance"])),
        "for nobody": lambda: signed(good_claims(aud=None)),
        "another scope": lambda: signed(good_claims(scope="finance:read")),
        "empty scope": lambda: signed(good_claims(scope="")),
        "scopes under another name": lambda: signed(
            good_claims(scope=None, scp=["it:read", "it:confidential"])
        ),
        "an ID token": lambda: signed(good_claims(), typ="JWT"),
        "algorithm none": lambda: signed(good_claims(), algorithm="none"),
        "the public key as a secret": _public_as_secret,
        "another key under our id": lambda: signed(good_claims(), stolen),
        "an unknown key": lambda: signed(good_claims(), stolen, kid="mallory"),
        "no key id": lambda: signed(good_claims(), kid=None),
        "its own key in the header": lambda: signed(
            good_claims(), stolen, jwk=stolen.as_dict(private=False)
        ),
        "an address of a key in the header": lambda: signed(
            good_claims(), stolen, jku="https://evil.invalid/keys"
        ),
        "changed payload": _forged_payload,
        "signed by a withdrawn key": _withdrawn,
        "made from a revoked grant": _revoked,
        "a token for the chat": lambda: sign_in("alice").token("chat"),
    }


def stock_verifier() -> TokenVerifier:
    """FastMCP's own check of tokens, told our key, our issuer and the IT team's audience."""
    from fastmcp.server.auth.providers.jwt import JWTVerifier

    public = as_jwk(ring(PUBLIC_KEYS).newest).as_pem(private=False)
    return JWTVerifier(
        public_key=public.decode(), issuer=tokens.ISSUER, audience="it", algorithm="ES256"
    )


def sealed_for(
    audience: str, keys: Keyring | None = None, *, scope: str = "it:read", **changes: Any
) -> str:
    """A sealed value that is right for the secret at the IT team's Nexus endpoint, with changes."""
    bound = Binding("nexus:ITService/jira_metrics", "", digest(SECRET), secrets.token_hex(16))
    how: dict[str, Any] = {"now": time.time(), "lifetime": 60.0, **changes}
    who = Who(sub="alice", act="chat-agent", scope=scope)
    return seal(keys or ring(audience), audience, who, bound, **how)
