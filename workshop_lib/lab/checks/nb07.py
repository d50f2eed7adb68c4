"""Checks of notebook 07: a check of claims, a value that was copied, a decision by somebody else."""

from collections.abc import Callable, Mapping
from typing import Any

from temporalio.client import Client

from workshop_lib.auth.issuer import people
from workshop_lib.auth.tokens import Refused, new_claims
from workshop_lib.lab.checks.framework import NotYet, called, check
from workshop_lib.lab.history import history_of
from workshop_lib.lab.lessons.attacker import Attacker, LetIn
from workshop_lib.lab.lessons.identity import verdicts_of
from workshop_lib.repair.client import RepairClient
from workshop_lib.teams.it.contract import JiraMetricsInput

Claims = dict[str, Any]
_GOOD = (("alice", "it:read it:confidential"), ("bob", "it:read"), ("dave", ""))


@check(
    expects="a check that lets no forged token in, and every good one.",
    hint="a forged token may lack a claim, or hold one of another type: look at that before you compare.",
    timeout=20,
)
async def claims(problem_with: Callable[[Claims, float], str | None]) -> str:
    """Does it refuse what has to be refused, and nothing else?"""
    for name, scope in _GOOD:
        good = new_claims(name, "chat-agent", "it", scope)
        for_an_hour = good | {"exp": good["iat"] + 3600}
        problem = called(problem_with, for_an_hour, good["iat"] + 1.0)
        if problem is not None and not isinstance(problem, str):
            raise NotYet(
                saw=f"a good token of {name}'s, for which it returned {problem!r}",
                hint="return None where nothing is wrong, and words where something is.",
            )
        if problem:
            raise NotYet(
                saw=f"a good token of {name}'s was refused: {problem}",
                hint="a token without scopes is a good token too: it may list tools."
                if not scope
                else "the audience here is 'it'; a moment more or less is no reason.",
            )
        for which, now in (
            ("from a clock 3 seconds ahead of ours", good["iat"] - 3.0),
            ("that expired 3 seconds ago", good["exp"] + 3.0),
        ):
            if problem := called(problem_with, dict(good), now):
                raise NotYet(
                    saw=f"a token {which} was refused: {problem}",
                    hint="two clocks are never equal: leave LEEWAY seconds, at both ends.",
                )
    verdicts = verdicts_of(lambda claims, now: called(problem_with, claims, now))
    if let_in := [name for name, was in verdicts.items() if was]:
        raise NotYet(
            saw=f"let in: {', '.join(let_in)}",
            hint="look at their names: each says what was not asked for.",
        )
    return f"all {len(verdicts)} forged tokens are refused, and good ones are not"


@check(
    expects="the sealed value of Alice's call, out of her session's history.",
    hint="it is the header `workshop-asker` of the first event that schedules a Nexus operation: look at"
    " no other event, and stop there.",
    timeout=20,
)
async def copied(value: str, attacker: Attacker) -> str:
    """Is it that value, and is it worth nothing for another question?"""
    if not isinstance(value, str) or not value:
        is_mapping = isinstance(value, Mapping)
        raise NotYet(
            saw=f"{value!r:.80}",
            hint='all headers are here: take `["workshop-asker"]`.' if is_mapping else None,
        )
    if value in attacker.calls[1:]:
        raise NotYet(saw="the value of Bob's call", hint="Alice's is the first: stop there.")
    if value != attacker.stolen:
        raise NotYet(saw=f"{value[:40]!r}, which is another value")
    try:
        words = await attacker.nexus(value, JiraMetricsInput(project="DEMO-456"))
    except LetIn as error:
        raise NotYet(saw=error.what) from None
    return f"with another project the team says: {words}"


@check(
    expects="the plan approved by somebody who may, and who has not asked for the repair.",
    hint="`orders:approve` is in data/people.json; whoever has started it is out. It is decided with the"
    " client of that person, which `await lab.sign_in(…)` returns.",
    timeout=40,
)
async def approved(client: Client, run: RepairClient) -> str:
    """Who has approved, and was it checked where the work is done?"""
    status = await run.status()
    if status.decision is None:
        raise NotYet(saw="nobody has decided yet")
    who = status.decision.decided_by
    if not status.decision.approve:
        raise NotYet(saw=f"it was decided by {who}: a rejection", hint="begin with a new repair.")
    if "orders:approve" not in people().get(who, []) or who == "alice":
        raise NotYet(saw=f"it was decided by {who}")
    try:
        outcome = await run.outcome()
    except Refused as error:
        raise NotYet(saw=error.what) from None
    done = [result for result in outcome.results if result.done]
    if not done:
        raise NotYet(saw=f"no repair was made: {outcome.reason}")
    history = await history_of(run.handle)
    effects = [step for step in history.activities if step.name.startswith(("order_", "request_"))]
    return f"approved by {who}; {len(effects)} repairs were made on that receipt"
