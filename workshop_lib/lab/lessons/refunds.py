"""The steps of a refund, for notebook 09: what a workflow does stays the same while its code changes.

Left out: the order in which they are done, which is the workflow's own, and the lesson.
"""

from datetime import timedelta

from temporalio import activity
from temporalio.workflow import ActivityConfig

STEP: ActivityConfig = {"start_to_close_timeout": timedelta(seconds=5)}


@activity.defn
async def look_up(order: str) -> int:
    """What was paid for an order, in dollars."""
    return 40 + len(order)


@activity.defn
async def check_fraud(order: str) -> bool:
    """Whether all is well with an order. The step that came later."""
    return bool(order)


@activity.defn
async def ask_clerk(order: str) -> None:
    """Tell a human that a refund waits for an approval."""


@activity.defn
async def pay_back(order: str) -> str:
    """Pay it back. Returns a receipt."""
    return f"{order} is paid back"


STEPS = (look_up, check_fraud, ask_clerk, pay_back)
