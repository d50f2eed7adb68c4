"""Ways to get at another team's figures without the right to: a table, each tried at a real door.

Crafted tokens at the IT team's MCP server, crafted sealed values at its Nexus endpoint, its workflows and its
queue, messages at chat sessions, and a note in an order that tells an agent to be somebody else. Left out:
the doors (`attacker`).
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from workshop_lib.agents.sessions import LOOPS
from workshop_lib.auth.issuer import sign_in
from workshop_lib.auth.keys import ring
from workshop_lib.auth.tokens import Refused
from workshop_lib.lab.lessons.attacker import Attacker
from workshop_lib.lab.lessons.forgeries import HOUR, crafted_tokens, sealed_for
from workshop_lib.teams.finance.contract import FinanceService, StockPriceInput
from workshop_lib.teams.it.contract import IpInput, JiraMetricsInput

# Tries it. Returns the words of the refusal; raises `LetIn` where there is none.
Attempt: TypeAlias = Callable[[Attacker], Awaitable[str]]


async def try_all(attacker: Attacker) -> dict[str, str]:
    """Try every attack. Returns the words of each refusal by the attack's name.

    Raises:
        LetIn: one was not refused.
    """
    attacks = table()
    words = await asyncio.gather(*(attempt(attacker) for attempt in attacks.values()))
    return dict(zip(attacks, words, strict=True))


def table() -> dict[str, Attempt]:
    """All attacks, by name."""
    now = time.time()
    sealed_values: dict[str, Attempt] = {
        "no sealed value": lambda a: a.nexus(None),
        "other arguments": lambda a: a.nexus(a.stolen, JiraMetricsInput(project="DEMO-456")),
        "another operation": lambda a: a.nexus(a.stolen, IpInput(), "get_ip"),
        "another team": lambda a: a.nexus(
            a.stolen, StockPriceInput(ticker="AAPL"), "stock_price", FinanceService
        ),
        "another caller": lambda a: a.nexus(a.stolen),
        "another caller with a forged link": lambda a: a.nexus(a.stolen, nexus_link=a.link),
        "a forged request id": lambda a: a.nexus(a.stolen, nexus_request_id=uuid.uuid4().hex),
        "a forged link and request id": lambda a: a.nexus(
            a.stolen, nexus_link=a.link, nexus_request_id=uuid.uuid4().hex
        ),
        "cut off": lambda a: a.nexus(a.stolen[:-8]),
        "changed": lambda a: a.nexus(a.stolen[:-8] + "AAAAAAAA"),
        "sent twice in one header": lambda a: a.nexus(f"{a.stolen},{a.stolen}"),
        "with a line break": lambda a: a.nexus(f"{a.stolen}\r\nx: y"),
        "huge": lambda a: a.nexus(a.stolen + "A" * 6000),
        "a token in its place": lambda a: a.nexus(sign_in("alice").token("it")),
        "a message's in its place": lambda a: a.nexus(a.message[2]),
        "the team's own in its place": lambda a: a.nexus(a.start),
        "expired": lambda a: a.nexus(sealed_for("it", now=now - 7200)),
        "made in the future": lambda a: a.nexus(sealed_for("it", now=now + 7200)),
        "valid for a year": lambda a: a.nexus(sealed_for("it", lifetime=365 * 24 * HOUR)),
        "without the scope": lambda a: a.nexus(sealed_for("it", scope="finance:read")),
        "sealed by another team": lambda a: a.nexus(sealed_for("it", ring("finance"))),
    }
    direct: dict[str, Attempt] = {
        "start the team's workflow": lambda a: a.workflow(None),
        "start it with a copied value": lambda a: a.workflow(a.start),
        "schedule the team's activity": lambda a: a.activity(None),
        "schedule it with a copied value": lambda a: a.activity(a.work),
        "send a message without proof": lambda a: a.update(None),
        "send Alice's value to another session": lambda a: a.update(
            a.message[2], text=a.message[1]
        ),
        "send Alice's value with other words": lambda a: a.update(
            a.message[2], a.message[0], "Get JIRA metrics for project HR-1!"
        ),
        "send Alice's value again": lambda a: a.update(a.message[2], a.message[0], a.message[1]),
        "stop a turn without proof": lambda a: a.meddle(a.message[0], "cancel_turn"),
        "set a budget without proof": lambda a: a.meddle(a.message[0], "set_budget", {"tokens": 1}),
        "send a token as proof": lambda a: a.update(sign_in("alice").token("chat"), a.message[0]),
    }
    return {
        **{f"token: {name}": _token(make) for name, make in crafted_tokens().items()},
        **{f"Nexus: {name}": attempt for name, attempt in sealed_values.items()},
        **direct,
        **{f"an order's note, {loop} loop": partial(Attacker.note, loop=loop) for loop in LOOPS},
    }


def _token(make: Callable[[], str | None]) -> Attempt:
    async def attempt(attacker: Attacker) -> str:
        try:
            token = make()
        except Refused as error:  # the issuer made none
            return error.what
        return await attacker.mcp(token)

    return attempt
