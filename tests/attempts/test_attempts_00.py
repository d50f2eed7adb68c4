"""Attempts at notebook 00: other ways to greet two people, and other places to die."""

import pytest
from attempts_ground import Attempt, assert_judged, cases, wrong
from lab_cells import Notebook

from workshop_lib.lab.checks import nb00
from workshop_lib.lab.classroom import spec, start

COMPOSE = """%%workflow greeting
from temporalio import activity

@activity.defn
async def compose(name: str) -> str:
    return f"Hello, {name}!"
"""
PAIR = """%%workflow pair
import asyncio
from datetime import timedelta
from temporalio import activity, workflow
BEFORE
@workflow.defn
class GreetPair:
    @workflow.run
    async def run(self, names: list[str]) -> RETURNS:
        return BODY

    async def greet(self, name: str) -> str:
        return await workflow.execute_activity(
            "compose", name, start_to_close_timeout=timedelta(seconds=2), result_type=str
        )
"""


def pair(name: str, body: str, returns: str = "list[str]", before: str = "") -> Attempt:
    """Another workflow that greets two people."""
    cell = PAIR.replace("BEFORE", before).replace("RETURNS", returns).replace("BODY", body)
    return Attempt("two_greetings", name, cell, None)


GREETED = "greetings.append(greeting)"
AGAIN = "greetings.append(greeting + greetings.pop() if greetings else greeting)"
GREETINGS = [
    pair("comprehension", "[await self.greet(name) for name in names]"),
    pair("gather", "await asyncio.gather(*map(self.greet, names))"),
    pair("tuple", "tuple([await self.greet(name) for name in reversed(names)])", "tuple"),
    pair(
        "its own activity",
        "[await self.greet(names[0]), await self.greet(names[1])]",
        "list",
        COMPOSE.partition("activity\n")[2],
    ),
    pair("more words", '[f"{await self.greet(n)} How are you?" for n in names]'),
    wrong(
        *("two_greetings", "names", GREETED, "greetings.append(name)"),
        "without 'Hello, Grace!', which `compose` has returned",
    ),
    wrong(
        *("two_greetings", "one of them", GREETED, "greetings = greeting"),
        "a list of the two greetings",
    ),
    wrong("two_greetings", "one text", GREETED, AGAIN, "the two"),
    wrong("two_greetings", "nothing", GREETED, "pass", "the result []"),
]


@pytest.mark.parametrize("attempt", cases(GREETINGS, always=2))
async def test_two_greetings(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    nb.run(COMPOSE)
    await assert_judged(
        nb, attempt, lambda: nb00.two_greetings(client, nb["GreetPair"], nb["compose"])
    )


PACKING = """%%workflow packing
from datetime import timedelta
from temporalio import activity, workflow

@activity.defn
async def pack(box: int) -> str:
    return f"box {box} packed"

@workflow.defn
class Packing:
    @workflow.run
    async def run(self) -> list[str]:
        limit = timedelta(seconds=2)
        return [
            await workflow.execute_activity(pack, box, start_to_close_timeout=limit)
            for box in (1, 2, 3)
        ]
"""


@pytest.mark.parametrize("kill_at", ["activity-result@pack#3", " activity-report#3"])
async def test_another_place_after_the_packing(nb: Notebook, kill_at: str) -> None:
    client = await start()
    nb.run(PACKING)
    packer = spec("packer", workflows=[nb["Packing"]], activities=[nb["pack"]])
    await nb00.kill_third(client, packer, nb["Packing"], kill_at)
