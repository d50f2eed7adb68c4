"""`lab.pass_time`: days that pass in a moment, and lose nothing that was due in them."""

import asyncio
import itertools
from datetime import datetime, timedelta

import pytest
from lab_cells import Notebook, spec_of
from lab_environment import fresh
from temporalio.client import Client, WorkflowHandle

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.lessons.clock import pass_time
from workshop_lib.lab.registry import stop_all
from workshop_lib.lab.watching.waiting import NobodyPolls
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.temporal.connect import connect

pytestmark = pytest.mark.usefixtures("lab_server")

DAYS = """
import asyncio
from datetime import datetime, timedelta
from temporalio import activity, workflow

@activity.defn
async def work() -> None:
    await asyncio.sleep(0.3)

@workflow.defn
class Days:
    def __init__(self) -> None:
        self.begun: list[str] = []

    @workflow.run
    async def run(self) -> None:
        while len(self.begun) < 20:
            self.begun.append(workflow.now().isoformat())
            await workflow.execute_activity(work, start_to_close_timeout=timedelta(seconds=10))
            await asyncio.sleep(86400)

    @workflow.query
    def days(self) -> list[str]:
        return self.begun
"""


@pytest.fixture
def nb(nb: Notebook) -> Notebook:
    """A notebook with the workflow that all tests need."""
    nb.workflow("calendar_days", DAYS)
    return nb


async def started(client: Client, nb: Notebook) -> WorkflowHandle[object, None]:
    spec = spec_of(nb["Days"], nb["work"])
    await start_worker(spec, announce=False)
    return await client.start_workflow(nb["Days"].run, id=fresh("days"), task_queue=spec.task_queue)


async def test_an_interrupted_wait_is_taken_up_and_no_day_is_lost(
    nb: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await started(await connect(), nb)
    interrupted = asyncio.create_task(pass_time(run, days=5))
    async with asyncio.timeout(60):
        while len(await run.query(nb["Days"].days)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    interrupted.cancel()
    capsys.readouterr()
    await pass_time(run, days=5)
    assert "already; that is waited for, and no more is added" in capsys.readouterr().out
    begun = [datetime.fromisoformat(day) for day in await run.query(nb["Days"].days)]
    assert len(begun) == 5  # the sixth begins some seconds after five whole days
    for earlier, later in itertools.pairwise(begun):
        assert timedelta(days=1) < later - earlier < timedelta(days=1.1)


async def test_time_cannot_pass_where_nobody_works_nothing_runs_or_none_is_asked_for(
    nb: Notebook,
) -> None:
    client = await connect()
    run = await started(client, nb)
    with pytest.raises(WorkshopError, match="-1 hours cannot pass"):
        await pass_time(run, hours=-1)
    with pytest.raises(WorkshopError, match="a run, and this is a Client"):
        await pass_time(client, hours=1)  # type: ignore[arg-type]
    await pass_time(run, days=2)  # so that its clock is ahead
    stop_all()
    with pytest.raises(NobodyPolls, match="Nobody polls task queue"):
        await pass_time(run, days=2)
    await run.terminate()
    with pytest.raises(WorkshopError, match="it is over"):
        await pass_time(run, days=1)
