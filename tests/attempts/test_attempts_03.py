"""Attempts at notebook 03: other ids for a request's run."""

import pytest
from attempts_ground import Attempt, assert_judged, cases, right, wrong
from lab_cells import Notebook

from workshop_lib.lab.checks import nb03
from workshop_lib.lab.classroom import start

RUN_ID = 'f"price-{request.ticker}-{ctx.request_id}"'
STARTED = "return await ctx.start_workflow(workflows.StockPrice"
SHARED, TWO_RUNS = "which another request for the same has, too", "two runs for one request"
HANDLERS = [
    *(
        right("handler", f"id {number}", (RUN_ID, run_id))
        for number, run_id in enumerate(
            [
                "ctx.request_id",
                'f"{request.ticker}/{ctx.request_id}"',
                "str(uuid.uuid5(uuid.NAMESPACE_URL, ctx.request_id))",
                'f"price-{hashlib.sha256(ctx.request_id.encode()).hexdigest()[:16]}"',
                'f"price-{ctx.request_id[:13]}"',
            ]
        )
    ),
    *(
        wrong("handler", name, RUN_ID, run_id, why)
        for name, run_id, why in [
            ("ticker", 'f"price-{request.ticker}"', SHARED),
            ("constant", '"price"', SHARED),
            ("stub", 'lab.new_id(f"price-{request.ticker}")', TWO_RUNS),
            ("half", 'lab.new_id(f"price-{ctx.request_id}")', TWO_RUNS),
            (
                "remembered",
                'self.__dict__.setdefault(ctx.request_id, lab.new_id("x"))',
                TWO_RUNS,
            ),
            ("hash", 'f"price-{hash(ctx.request_id)}"', "another one in each process"),
        ]
    ),
    wrong(
        *("handler", "not awaited", STARTED, STARTED.replace("await ", "")),
        "An `await` is missing",
    ),
    wrong(
        *("handler", "mistyped", STARTED, STARTED.replace("start_workflow", "start_workflows")),
        "has no attribute 'start_workflows', in line 15 of the handler's cell",
    ),
]

BEFORE = """
import hashlib, uuid
from workshop_lib import lab
from workshop_lib.teams.finance import contract
"""


@pytest.mark.parametrize("attempt", cases(HANDLERS, always=2))
async def test_a_handler(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    nb.run(BEFORE)
    await assert_judged(nb, attempt, lambda: nb03.handler(client, nb["MyFinance"]))
