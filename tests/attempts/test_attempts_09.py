"""Attempts at notebook 09: other breakers, other ways to change a workflow while runs of it wait."""

from typing import Any

import pytest
from attempts_ground import Attempt, assert_judged, cases, right, wrong
from lab_cells import Notebook

from workshop_lib.lab.checks import CheckNotMet, nb09
from workshop_lib.lab.classroom import new_id, spec, start
from workshop_lib.lab.lessons.forensic import open_case
from workshop_lib.lab.lessons.refunds import STEPS
from workshop_lib.lab.lessons.stopping import until_begun
from workshop_lib.lab.workers.threads import start_worker

STATES = """
from datetime import datetime, timedelta

from temporalio.exceptions import ApplicationError


class Breaker:
    def __init__(self, most, pause):
        self.most, self.pause = most, timedelta(seconds=pause)
        self.state, self.row, self.again = "closed", 0, None

    def allow(self):
        now = datetime.now()
        if self.state != "closed" and now < self.again:
            raise ApplicationError("open", type="Open", next_retry_delay=self.again - now)
        if self.state != "closed":
            self.state, self.again = "half-open", now + self.pause

    def succeeded(self):
        self.state, self.row = "closed", 0

    def failed(self):
        self.row += 1
        if self.row >= self.most or self.state == "half-open":
            self.state, self.again = "open", datetime.now() + self.pause
"""
TIMES = """
import time
from datetime import timedelta

from temporalio.exceptions import ApplicationError


class Breaker:
    def __init__(self, most=3, pause=1.0):
        self.most, self.pause, self.times, self.probed = most, pause, [], 0.0

    def allow(self):
        if len(self.times) < self.most:
            return True
        left = max(self.times[-1], self.probed) + self.pause - time.time()
        if left > 0:
            delay = timedelta(milliseconds=max(1, 1000 * left))
            raise ApplicationError(f"again in {left:.1f} s", next_retry_delay=delay)
        self.probed = time.time()
        return True

    def succeeded(self):
        self.times.clear()

    def failed(self):
        self.times.append(time.time())
"""
LEFT = "left = self.until - time.monotonic()"
OPEN = "if self.failures >= self.most and left > 0:"
RAISED = 'raise ApplicationError("The breaker is open.", next_retry_delay=lab.seconds(left))'
PROBE = """
        self.until = time.monotonic() + self.pause

    def succeeded"""
NO_PROBE = "\n\n    def succeeded"
RESET, COUNT = "self.failures = 0\n\n", "self.failures += 1"
DELAY = "next_retry_delay=lab.seconds(left)"
BREAKERS = [
    Attempt("breaker", "states", STATES, None),
    Attempt("breaker", "times", TIMES, None),
    right("breaker", "counted down", (OPEN, "if not (self.failures < self.most or left <= 0):")),
    *(
        wrong("breaker", *case)
        for case in [
            ("nothing", OPEN, "if False:", "let through after 3 failures in a row"),
            ("every one tries", PROBE, NO_PROBE, "two requests let through after the pause"),
            ("counts for ever", RESET, "pass\n\n", "a refusal after … failures in a row"),
            ("one too late", ">= self.most", "> self.most", "let through after 3 failures"),
            ("one too early", ">= self.most", ">= self.most - 1", "a refusal after 2 failures"),
            ("closes for ever", " and left > 0", "", "nobody may ever try"),
            ("no delay", f", {DELAY}", "", "next_retry_delay=None"),
            ("a number", DELAY, "next_retry_delay=left", "next_retry_delay=0."),
            ("too long", "seconds(left)", "seconds(60)", "`next_retry_delay` of 60.00 s"),
            ("for good", DELAY, f"{DELAY}, non_retryable=True", "is `non_retryable`"),
            ("another error", "ApplicationError(", "RuntimeError(", "your code raised TypeError"),
            ("waits", RAISED, "time.sleep(left)", "it waits, where it should refuse"),
            ("hangs", RAISED, "while True: pass", "did not return within 2 seconds"),
            ("raises", COUNT, "self.failures += 1 / 0", "your code raised ZeroDivisionError"),
            ("awaits", "def allow", "async def allow", "`def`, not `async def`"),
            ("no method", "def failed", "def fails", "no method `failed`"),
            ("no arguments", "most=3, pause=1.0", "", "TypeError"),
        ]
    ),
]


@pytest.mark.parametrize("attempt", cases(BREAKERS, always=1))
async def test_a_breaker(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    nb.run("from workshop_lib import lab")
    await assert_judged(nb, attempt, lambda: nb09.breaker(client, nb["Breaker"]))


YESTERDAY = "\n".join(
    [
        "from temporalio import workflow",
        "with workflow.unsafe.imports_passed_through():",
        "    from workshop_lib.lab.lessons.refunds import STEP, ask_clerk, look_up, pay_back",
        "@workflow.defn",
        "class Refund:",
        "    approved = False",
        "    @workflow.run",
        "    async def run(self, order: str) -> str:",
        "        await workflow.execute_activity(look_up, order, **STEP)",
        "        await workflow.execute_activity(ask_clerk, order, **STEP)",
        "        await workflow.wait_condition(lambda: self.approved)",
        "        return await workflow.execute_activity(pay_back, order, **STEP)",
        "    @workflow.signal",
        "    def approve(self) -> None:",
        "        self.approved = True",
    ]
)
ASKED = 'if workflow.patched("check-fraud"):'
CHECKED = "await workflow.execute_activity(check_fraud, order, **STEP)"
LOOKED = "        await workflow.execute_activity(look_up, order, **STEP)\n"
CLERK = "        await workflow.execute_activity(ask_clerk, order, **STEP)\n"
STEP_IN = f"        {ASKED}\n            {CHECKED}\n"
TWO_WAYS = f"""        if not workflow.patched("fraud/2"):
            pass
        else:
            {CHECKED}
"""
AHEAD = f"        new = workflow.patched('x')\n{LOOKED}        if new:\n            {CHECKED}\n"
WAITED = "lambda: self.approved"
PATCHES = [
    right("patched", "other name", ("check-fraud", "2026-11 look for fraud")),
    right("patched", "both ways", (STEP_IN, TWO_WAYS)),
    right("patched", "asked ahead", (LOOKED + STEP_IN, AHEAD)),
    *(
        wrong("patched", *case)
        for case in [
            ("nothing", ASKED, "if True:", "the old run: red: [TMPRL1100]"),
            ("the wrong way round", "if workflow", "if not workflow", "the old run: red"),
            ("never", ASKED, "if False:", "a new run without it"),
            ("deprecated", ASKED, "workflow.deprecate_patch('x')\n        if True:", "red"),
            ("too late", STEP_IN + CLERK, CLERK + STEP_IN, "look_up, ask_clerk, check_fraud"),
            ("other step", CLERK, "", "the old run: red"),
            ("raises", ASKED, f"1 / 0\n        {ASKED}", "ZeroDivisionError"),
            ("waits", WAITED, "lambda: False", "gave no answer"),
            (
                "not awaited",
                f"await {CHECKED[6:]}",
                CHECKED[6:],
                "a new run without it … with `await`",
            ),
        ]
    ),
]


@pytest.mark.parametrize("attempt", cases(PATCHES, always=1))
async def test_a_changed_workflow(nb: Notebook, attempt: Attempt) -> None:
    client = await start()
    nb.workflow("refund", YESTERDAY)
    refunds = spec("refunds", workflows=[nb["Refund"]], activities=STEPS)
    await start_worker(refunds, announce=False)
    old = await client.start_workflow(
        "Refund", "ORD-7", id=new_id("refund"), task_queue=refunds.task_queue
    )
    await until_begun(old, "ask_clerk")
    await assert_judged(nb, attempt, lambda: nb09.patched(client, nb["Refund"], old))


RIGHT = ["charge_card", 2, "the server", "the charge", "a key"]


@pytest.mark.parametrize(
    "answers",
    [
        RIGHT,
        ["ChargeCard", "two", "Temporal: the heartbeat timeout", "$240", "An idempotency key."],
        [
            "the charging of the card",
            "2 of 3",
            "nobody but the server",
            240,
            "look whether it is there",
        ],
        [["charge_card"], [1, 2], "heartbeats", ["charge_card"], "Idempotent charges"],
        [
            "charge card (activity 2)",
            2.0,
            "SERVER",
            "the room in Lisbon",
            "ask for the statement first",
        ],
    ],
)
async def test_another_reading_of_the_case(answers: list[Any]) -> None:
    await nb09.forensic(open_case(), *answers)


@pytest.mark.parametrize(
    ("number", "answer", "why"),
    [
        *((number, "", f"question {number}: no answer") for number in range(1, 6)),
        *((number, None, f"question {number}: no answer") for number in range(1, 6)),
        *((number, ..., f"question {number}: Ellipsis") for number in range(1, 6)),
        (1, "plan_trip", "a worker said so"),
        (1, "charge_card and plan_trip", "one step is asked for"),
        (1, "read_statement", "Look at the attempts"),
        (1, "the workflow", "the name of a step"),
        (2, 3, "One of them was answered"),
        (2, 1, "less the one that was answered"),
        (2, "many", "less the one that was answered"),
        (3, "the worker", "was gone, or came later"),
        (3, "the guest, at last", "Who waits for a sign of life"),
        (3, "God", "who writes the history"),
        (4, "the plan", "stands twice on the statement"),
        (4, "nothing", "stands twice on the statement"),
        (5, "fewer retries", "What makes a second attempt harmless"),
        (5, "be careful", "happen once in 05"),
    ],
)
async def test_a_misreading_of_the_case(number: int, answer: Any, why: str) -> None:
    answers = [*RIGHT[: number - 1], answer, *RIGHT[number:]]
    with pytest.raises(CheckNotMet) as refused:
        await nb09.forensic(open_case(), *answers)
    assert why in " ".join(str(refused.value).split())
