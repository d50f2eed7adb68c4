"""What notebook 07 does with identity: turns it on, signs people in, and shows what a verifier lets in.

Left out: identity itself (`auth`), and the attacks on it (`lab.lessons.attacks`).
"""

import base64
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from temporalio import client as client_side
from temporalio.client import Client
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from workshop_lib.auth import tokens
from workshop_lib.auth.issuer import Grant, make_keys
from workshop_lib.auth.issuer import sign_in as believe
from workshop_lib.auth.outbound import Person
from workshop_lib.auth.tokens import Refused
from workshop_lib.lab.lessons.attacker import Attacker
from workshop_lib.lab.lessons.attacks import try_all
from workshop_lib.lab.lessons.forgeries import crafted_tokens, stock_verifier
from workshop_lib.lab.watching.waiting import Notices
from workshop_lib.mcp.addresses import reachable_url
from workshop_lib.settings import reload_settings
from workshop_lib.temporal.caller import Asker, asked_by
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.worker import WorkerSpec

EVERYTHING = Asker("anybody", frozenset({"it:read", "it:confidential", "finance:read"}))

# What the notebook lets one guess about.
ASKED_ABOUT = ("no expiry", "no subject", "an ID token", "for another team", "expired")


def require_identity() -> None:
    """From here on, workers and servers that this kernel makes check who is asking."""
    os.environ["WORKSHOP_IDENTITY"] = "on"
    reload_settings()
    make_keys()


async def sign_in(name: str) -> Client:
    """The client of somebody who has signed in.

    Raises:
        WorkshopError: nobody of that name can.
    """
    return await client_of(believe(name, "notebook"))


async def client_of(grant: Grant) -> Client:
    """A client with which a person sends messages."""
    return await connect(interceptors=[Notices(), Person(grant)])


def open_to_all(spec: WorkerSpec) -> WorkerSpec:
    """The same worker in a team that lets everybody see everything."""
    return replace(spec, interceptors=[_Everybody])


class _Everybody(client_side.Interceptor, Interceptor):
    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _ForAnybody(next)


class _ForAnybody(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        with asked_by(EVERYTHING):
            return await super().execute_activity(input)


def read_token(token: str) -> dict[str, Any]:
    """What a token says, as anybody can read it who has one: it is signed, and not secret."""
    body = token.split(".")[1]
    said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return said


async def stock_verdicts() -> dict[str, bool]:
    """Whether FastMCP's own verifier lets each of the crafted tokens in."""
    logging.getLogger("fastmcp").setLevel(logging.ERROR)  # it logs each token that it refuses
    stock, verdicts = stock_verifier(), {}
    for name, token in _made().items():
        verdicts[name] = bool(token and await stock.verify_token(token))
    return verdicts


def verdicts_of(check: Callable[[dict[str, Any], float], str | None]) -> dict[str, bool]:
    """Whether each crafted token passes, where this check of the claims follows our check of signatures."""
    verdicts = {}
    for name, token in _made().items():
        try:
            verdicts[name] = check(tokens.signed_claims(token), time.time()) is None
        except Refused:
            verdicts[name] = False
    return verdicts


def show_verdicts(verdicts: dict[str, bool]) -> None:
    """Print those that the notebook asks about one by one, and what became of the others."""
    for name in ASKED_ABOUT:
        print("LET IN " if verdicts[name] else "refused", name)
    others = [name for name in verdicts if name not in ASKED_ABOUT]
    let_in = [name for name in others if verdicts[name]]
    print(f"Of {len(others)} more it let in: {', '.join(let_in) or 'none'}.")
    print(f"{sum(verdicts.values())} of {len(verdicts)} forged tokens were let in.")


async def sealed_values(session: str) -> Attacker:
    """Read what stands in the histories of a session and of the team that it has asked."""
    attacker = Attacker(reachable_url("it") or "")
    await attacker.read_histories(session)
    return attacker


async def try_attacks(attacker: Attacker) -> None:
    """Try every attack of the table and print how it is refused, attacks with the same answer in one line.

    Raises:
        LetIn: one was not refused.
    """
    refusals = await try_all(attacker)
    attacks: dict[str, list[str]] = {}  # by the words of their refusal
    for name, words in refusals.items():
        attacks.setdefault(" ".join(words.split())[:72], []).append(name)
    for words, names in attacks.items():
        print(f"{len(names):>2} × {words:<72}  {names[0]}{', …' if names[1:] else ''}")
    print(f"{len(refusals)} attacks, every one refused.")


def _made() -> dict[str, str | None]:
    made: dict[str, str | None] = {}
    for name, make in crafted_tokens().items():
        if name in ("another scope", "empty scope"):
            continue  # good tokens, of somebody who may less: a call is refused, not the token
        try:
            made[name] = make()
        except Refused:
            made[name] = None
    return made
