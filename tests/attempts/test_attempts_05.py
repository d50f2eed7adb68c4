"""Attempts at notebook 05: other keys for a step, and other rules."""

from collections.abc import Iterator
from typing import Any

import pytest
from attempts_ground import Attempt, Pieces, assert_judged, cases, right, wrong
from lab_cells import Notebook

from workshop_lib.lab.checks import nb05
from workshop_lib.lab.classroom import start
from workshop_lib.repair.plan_rules import shortage
from workshop_lib.repair.store import open_store
from workshop_lib.settings import get_settings

KEY = 'f"{step.workflow_run_id}/{step.activity_id}"'
TAKES = "order_badges(quantity: int)"
IMPORT = ("from datetime", "import hashlib\nimport uuid\nfrom datetime")
CALLS = "execute_activity(order_badges, quantity, start"
FROM_WORKFLOW = [
    (TAKES, "order_badges(quantity: int, key: str)"),
    (f"    key = {KEY}\n", ""),
    (CALLS, "execute_activity(order_badges, args=[quantity, KEY], start"),
]
COUNT = """
    steps = 0

    def count(self) -> int:
        self.steps += 1
        return self.steps

    @workflow.run"""
WISH = """
import {module}

{decorator}
class Wish{base}:
    quantity: int
    key: str


@activity.defn"""


def handed_over(decorator: str, base: str, module: str) -> Pieces:
    """The key made by the workflow and handed over in one object."""
    return [
        ("@activity.defn", WISH.format(decorator=decorator, base=base, module=module)),
        (TAKES, "order_badges(wish: Wish)"),
        (f"    key = {KEY}\n", "    quantity, key = wish.quantity, wish.key\n"),
        (CALLS, CALLS.replace("quantity,", "Wish(quantity=quantity, key=str(workflow.uuid4())),")),
    ]


IN_BYTES = "hashlib.md5((step.workflow_run_id + step.activity_id).encode()).digest()"
AS_UUID = 'uuid.uuid5(uuid.NAMESPACE_OID, f"{step.workflow_run_id} {step.activity_id}")'
COUNTED = [("KEY", 'f"{workflow.info().run_id}-{self.count()}"'), ("    @workflow.run", COUNT)]
KEYS = [
    right("once", "tuple", (KEY, "(step.workflow_run_id, step.activity_id)")),
    right("once", "bytes", IMPORT, (KEY, IN_BYTES)),
    right("once", "uuid", IMPORT, (KEY, AS_UUID)),
    right("once", "of the workflow", *FROM_WORKFLOW, ("KEY", "str(workflow.uuid4())")),
    right("once", "counted", *FROM_WORKFLOW, *COUNTED),
    right("once", "dataclass", *handed_over("@dataclasses.dataclass", "", "dataclasses")),
    right("once", "pydantic", *handed_over("", "(pydantic.BaseModel)", "pydantic")),
    *(
        wrong("once", name, KEY, key, why)
        for name, key, why in [
            ("workflow", "step.workflow_id", "226 badge sets from a run that orders twice"),
            ("run", "step.workflow_run_id", "226 badge sets from a run that orders twice"),
            (
                *("step", "step.activity_id"),
                "The first one's key was 1 Hint: the key must name the run, too",
            ),
            (
                *("constant", "step.activity_type, quantity"),
                "the key must name the run, too (`workflow_run_id`)",
            ),
            (
                *("attempt", 'f"{step.workflow_run_id}/{step.attempt}"'),
                "339 badge sets ordered in 3 attempts",
            ),
            ("none", "None", "339 badge sets ordered in 3 attempts; their keys: none"),
        ]
    ),
    Attempt(
        *("once", "shared by its steps", [*FROM_WORKFLOW, ("KEY", "workflow.info().run_id")]),
        "113 badge sets ordered by a run with two such steps … uuid4()",
    ),
]


@pytest.mark.parametrize("attempt", cases(KEYS, always=2))
async def test_a_key(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    await assert_judged(nb, attempt, lambda: nb05.once(client, nb["Badges"], nb["order_badges"]))


class Rules:
    """Rules as objects, tried one after the other."""

    def __call__(self, proposal: Any, shop: Any) -> str | None:
        wish = proposal.arguments
        return next((said for said, broken in self.all(wish, shop) if broken), None)

    def all(self, wish: Any, shop: Any) -> Iterator[tuple[str, bool]]:
        order, item = shop.order(wish.order_id), shop.item(wish.item_id)
        yield "unknown", not (order and item)
        yield "not on it", wish.item_id not in {line.item_id for line in order.items}
        room = item.max_stock_level - item.current_stock
        missing = shortage(order, wish.item_id, shop)
        yield "too few or too many", not missing <= wish.quantity <= room
        yield "restricted", item.needs_approval


async def test_other_rules(lab_server: str) -> None:
    store = open_store()
    store.reset()
    await nb05.validator(Rules(), store.snapshot(get_settings().today))
