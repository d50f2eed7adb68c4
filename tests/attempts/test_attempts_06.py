"""Attempts at notebook 06: other ways to wait twelve hours, and other lines."""

from typing import Any

import pytest
from attempts_ground import Attempt, assert_judged, cases, right, wrong
from lab_cells import Notebook

from workshop_lib.lab.checks import nb06
from workshop_lib.lab.classroom import start

WAITS = """
        try:
            await workflow.wait_condition(lambda: self.approved, timeout=timedelta(hours=12))
        except TimeoutError:
            return "EXPIRED"
"""
IN_A_BLOCK = """
        try:
            async with asyncio.timeout(12 * 3600):
                await workflow.wait_condition(lambda: self.approved)
        except TimeoutError:
            return "EXPIRED"
"""
RACE = """
        approved = asyncio.create_task(workflow.wait_condition(lambda: self.approved))
        over = asyncio.create_task(workflow.sleep(timedelta(days=0.5)))
        done, _ = await workflow.wait([approved, over], return_when=asyncio.FIRST_COMPLETED)
        if approved not in done:
            return "EXPIRED"
"""
WAIT_FOR = """
        with contextlib.suppress(asyncio.TimeoutError):
            waiting = workflow.wait_condition(lambda: self.approved)
            await asyncio.wait_for(waiting, 43_200)
        if not self.approved:
            return "EXPIRED"
"""
MORE = ("from datetime", "import asyncio\nimport contextlib\nfrom datetime")
CATCHES, WAITED, TWELVE = (
    "except TimeoutError",
    "await workflow.wait_condition(",
    "timedelta(hours=12)",
)
STILL = "still waits after twelve hours"
EXPIRIES = [
    right("expires", "seconds", (TWELVE, "12 * 60 * 60")),
    right("expires", "any error", (CATCHES, "except Exception")),
    right("expires", "asyncio.timeout", MORE, (WAITS, IN_A_BLOCK)),
    right("expires", "race", MORE, (WAITS, RACE)),
    right("expires", "wait_for", MORE, (WAITS, WAIT_FOR)),
    *(
        wrong("expires", name, f"timeout={TWELVE}", f"timeout={limit}", why)
        for name, limit, why in [
            ("a plain number", "12", "a plain number means seconds"),
            ("too late", "timedelta(hours=14)", STILL),
            ("late", "timedelta(hours=12, minutes=50)", STILL),
            ("early", "timedelta(hours=10)", "10:00:0"),
            ("a little early", "timedelta(hours=11, minutes=30)", "11 h 30 min"),
        ]
    ),
    wrong("expires", "not caught", CATCHES, "except ZeroDivisionError", "Python's own"),
    wrong(
        *("expires", "raised", 'return "EXPIRED"', "raise RuntimeError('expired')"),
        "RuntimeError: expired",
    ),
    wrong("expires", "not awaited", WAITED, WAITED.removeprefix("await "), "ended at once"),
    wrong(
        *("expires", "slept", WAITED),
        "await workflow.sleep(12 * 3600) or (lambda *_, **__: None)(",
        "goes on after",
    ),
]


@pytest.mark.parametrize("attempt", cases(EXPIRIES, always=2))
async def test_an_expiry(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    await assert_judged(nb, attempt, lambda: nb06.expires(client, nb["Decision"]))


def by_loop(plan: Any) -> bool:
    sure = 0
    for proposal in plan.proposals:
        sure += proposal.confidence > 0.95
    return 0 < sure == len(plan.proposals)


@pytest.mark.parametrize(
    "decide",
    [
        by_loop,
        lambda plan: min((p.confidence for p in plan.proposals), default=0) > 0.95,
        lambda plan: plan.proposals and all(p.confidence > 0.95 for p in plan.proposals),
        lambda plan: (
            len(plan.proposals) > 0 and not [p for p in plan.proposals if p.confidence <= 0.95]
        ),
    ],
    ids=["loop", "min", "list", "none below"],
)
async def test_another_line(lab_server: str, decide: Any) -> None:
    await nb06.acts_alone(decide)
