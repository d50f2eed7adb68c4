"""The bill: what a conversation costs when its worker is killed, with and without durability.

`run_durable` holds the same conversation as `naked.run_naked`, as a chat session whose worker dies at the
same call to the model. Model calls are counted in the journal, which is written before each call: a call
that never came back was paid for too.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table
from temporalio.client import Client

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.lab.history import history_of
from workshop_lib.lab.lessons.naked import NakedRun
from workshop_lib.lab.workers.kill_points import KillPoint, Where
from workshop_lib.lab.workers.process import start_process
from workshop_lib.llm.journal import read_journal


class DurableRun(BaseModel):
    """What a durable conversation came to.

    Attributes:
        replies: all of them arrive.
        model_calls: calls that were started, the lost one included.
        tool_runs: tools that were run, in all attempts.
        kills: workers that died on the way.
        workflow_id: the session, for a look at its history.
    """

    replies: list[str]
    model_calls: int
    tool_runs: int
    kills: int
    workflow_id: str


async def run_durable(
    client: Client, messages: Sequence[str], *, kill_at_call: int | None = None, timeout: float = 60
) -> DurableRun:
    """Hold a conversation in a chat session, kill its worker on the way, and start another.

    Args:
        client: connected to the orchestrator's namespace.
        messages: what the user says, in order.
        kill_at_call: the worker dies by SIGKILL in this call to the model, counted from 1.
        timeout: seconds the whole conversation may take.
    """
    spec = replace(orchestrator(), name="billed", task_queue="billed-task-queue")
    point = KillPoint(Where.ACTIVITY_INSIDE, "plan_next_action", kill_at_call or 1)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "model_calls.jsonl"
        env = {"WORKSHOP_MODEL_JOURNAL": str(journal)}
        worker = await start_process(spec, kill_at=point if kill_at_call else None, env=env)
        chat = ChatClient(client, task_queue=spec.task_queue)
        talking = asyncio.create_task(_talk(chat, messages))
        kills = 0
        try:
            async with asyncio.timeout(timeout):
                if kill_at_call:
                    dying = asyncio.create_task(worker.exited(timeout))
                    # A conversation that is over before that call is not killed.
                    await asyncio.wait([dying, talking], return_when=asyncio.FIRST_COMPLETED)
                    if dying.done():
                        kills = 1
                        worker = await start_process(spec, env=env)
                    dying.cancel()
                replies = await talking
                await chat.end()
                await chat.handle.result()
        finally:
            talking.cancel()
            await asyncio.to_thread(worker.stop)
        calls = len(read_journal(journal))
    tools = (await history_of(chat.handle)).named("execute_tool")
    return DurableRun(
        replies=replies,
        model_calls=calls,
        tool_runs=sum(run.attempts for run in tools),
        kills=kills,
        workflow_id=chat.workflow_id,
    )


async def _talk(chat: ChatClient, messages: Sequence[str]) -> list[str]:
    return [(await chat.send(message)).text for message in messages]


def show_bill(naked: Sequence[NakedRun], durable: DurableRun) -> Table:
    """The two side by side, as a table that notebooks and terminals can show.

    Args:
        naked: the attempts it took, the ones that were killed included.
    """
    table = Table(title="The same conversation, the same kill")
    for heading in ("", "naked", "durable"):
        table.add_column(heading)
    replies = sum(1 for run in naked if not run.killed) and naked[-1].replies
    rows = [
        ("model calls paid", sum(run.model_calls for run in naked), durable.model_calls),
        ("tools run", sum(run.tool_runs for run in naked), durable.tool_runs),
        ("replies in the end", len(replies or []), len(durable.replies)),
        ("starts from the first message", len(naked), 1),
    ]
    for name, *numbers in rows:
        table.add_row(name, *(str(number) for number in numbers))
    return table
