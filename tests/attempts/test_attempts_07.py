"""Attempts at notebook 07 that are nearly right: each check refuses them and says why."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from identity_ground import House, house, say
from lab_environment import set_env

from workshop_lib.auth.tokens import ISSUER, LEEWAY
from workshop_lib.lab.checks import CheckNotMet, nb07
from workshop_lib.lab.lessons.attacker import Attacker
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.states import RecordedDecision

Claims = dict[str, Any]
TEXTS = ("iss", "aud", "sub", "scope", "jti")
TIMES = ("iat", "nbf", "exp")


def right(claims: Claims, now: float) -> str | None:
    missing = [name for name in TEXTS if not isinstance(claims.get(name), str)]
    missing += [name for name in TIMES if not isinstance(claims.get(name), int | float)]
    missing += [name for name in ("sub", "jti", "act") if not claims.get(name)]
    missing += [] if isinstance(claims.get("act"), dict) else ["act"]
    if missing or (claims["iss"], claims["aud"]) != (ISSUER, "it"):
        return "wrong or missing"
    late = claims["exp"] + LEEWAY <= now or claims["exp"] - claims["iat"] > 3600
    early = max(claims["iat"], claims["nbf"]) - LEEWAY > now
    return "not now" if late or early else None


def without(*names: str) -> Callable[[Claims, float], str | None]:
    """The right check, which does not look at these claims."""
    good: Claims = {"iss": ISSUER, "aud": "it", "sub": "a", "act": {"sub": "a"}, "scope": "x"}

    def check(claims: Claims, now: float) -> str | None:
        full = good | {"jti": "x", "iat": now, "nbf": now, "exp": now + 60}
        return right(claims | {name: full[name] for name in names}, now)

    return check


def of_any_type(claims: Claims, now: float) -> str | None:
    good: Claims = {"sub": "a", "act": {"sub": "a"}, "jti": "x"}
    return right(claims | {name: good[name] for name in good if claims.get(name)}, now)


def no_leeway(claims: Claims, now: float) -> str | None:
    return right(claims, now) or ("early" if claims["iat"] > now else None)


def scope_required(claims: Claims, now: float) -> str | None:
    return right(claims, now) or (None if claims["scope"] else "no scope")


def list_of_audiences(claims: Claims, now: float) -> str | None:
    inside = "it" in (claims.get("aud") or [])
    return right(claims | ({"aud": "it"} if inside else {}), now)


def no_leeway_at_the_end(claims: Claims, now: float) -> str | None:
    return right(claims, now) or ("expired" if claims["exp"] <= now else None)


def less_than_an_hour(claims: Claims, now: float) -> str | None:
    return right(claims, now) or ("long" if claims["exp"] - claims["iat"] >= 3600 else None)


def endless(claims: Claims, now: float) -> str | None:
    while claims:
        now += 1
    return None


async def later(claims: Claims, now: float) -> str | None:
    return right(claims, now)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_env(monkeypatch, WORKSHOP_STATE_DIR=tmp_path / "state")


async def test_the_right_check_passes(capsys: pytest.CaptureFixture[str]) -> None:
    await nb07.claims(right)
    assert "Check passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (lambda claims, now: None, "let in: "),
        (lambda claims, now: "no", "a good token of alice's was refused"),
        (without("exp"), "no expiry"),
        (without("sub"), "no subject"),
        (without("nbf", "iat"), "not valid yet"),
        (without("act", "jti"), "no actor"),
        (without("iss"), "another issuer"),
        (list_of_audiences, "for two teams"),
        (of_any_type, "let in: subject as a list, actor as text, id as a number"),
        (no_leeway, "a token from a clock 3 seconds ahead of ours was refused: early"),
        (no_leeway_at_the_end, "a token that expired 3 seconds ago was refused: expired"),
        (less_than_an_hour, "a good token of alice's was refused: long"),
        (endless, "look at its loops"),
        (scope_required, "a token without scopes is a good token too"),
        (lambda claims, now: True, "words where something is"),
        (lambda claims, now: right(claims, now) if claims["exp"] > 0 else "", "before you compare"),
        (later, "`def`, not `async def`"),
        (lambda claims, now: claims["exp"] + LEEWAY < now or None, "your code raised KeyError"),
    ],
)
async def test_a_check_of_claims_that_misses_something(attempt: Any, why: str) -> None:
    with pytest.raises(CheckNotMet) as refused:
        await nb07.claims(attempt)
    assert why in str(refused.value)


@pytest_asyncio.fixture
async def ground(temporal_server: str, tmp_path: Path) -> AsyncIterator[House]:
    async with house(temporal_server, tmp_path / "other") as running:
        yield running


async def test_a_value_that_is_not_that_of_alices_call(ground: House) -> None:
    alice = await ground.chat("alice")
    await say(alice, "Get JIRA metrics for project HR-1")
    await say(await ground.chat("bob", session=alice.session), "What is my IP address?")
    attacker = Attacker(ground.urls["it"], ground.chat_spec.task_queue)
    await attacker.read_histories(alice.workflow_id)
    for value, why in [
        ("", "Saw: ''"),
        (None, "Saw: None"),
        (..., "Saw: Ellipsis"),
        ({"workshop-asker": attacker.stolen}, 'take `["workshop-asker"]`'),
        (b"v1.x", "Saw: b'v1.x'"),
        (attacker.message[2], "which is another value"),
        (attacker.stolen[:20], "which is another value"),
        (attacker.calls[1], "Alice's is the first"),
    ]:
        with pytest.raises(CheckNotMet) as refused:
            await nb07.copied(value, attacker)  # type: ignore[arg-type]
        assert why in str(refused.value)
    await nb07.copied(attacker.stolen, attacker)


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (None, "nobody has decided yet"),
        ({"approve": False, "decided_by": "carol"}, "it was decided by carol: a rejection"),
        ({"approve": True, "decided_by": "alice"}, "it was decided by alice"),
        ({"approve": True, "decided_by": "bob"}, "it was decided by bob"),
        ({"approve": True, "decided_by": "Minerva"}, "it was decided by Minerva"),
    ],
)
async def test_a_decision_that_is_not_the_right_persons(
    monkeypatch: pytest.MonkeyPatch, decision: dict[str, Any] | None, why: str
) -> None:
    class Status:
        pass

    async def status(self: RepairClient) -> Any:
        found = Status()
        given = {"plan_digest": "x", "decided_at": "2025-06-28T09:00:00Z", "way": "update"}
        found.decision = RecordedDecision(**given, **decision) if decision else None  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(RepairClient, "status", status)
    with pytest.raises(CheckNotMet) as refused:
        await nb07.approved(None, RepairClient(None, "repair-1"))  # type: ignore[arg-type]
    assert why in str(refused.value)
