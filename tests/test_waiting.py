"""Awaiting a workflow never hangs a cell: each way of being stuck is explained, and nothing is lost."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lab_cells import GREETING, Notebook, notebook, spec_of
from lab_environment import fresh
from temporalio.client import (
    Client,
    FetchWorkflowHistoryEventsInput,
    Interceptor,
    NexusOperationFailureError,
    OutboundInterceptor,
    WorkflowHandle,
)

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import identity, identity_alive, stop_all
from workshop_lib.lab.server.lifecycle import ensure_server
from workshop_lib.lab.server.namespaces import ensure_namespaces
from workshop_lib.lab.watching.pending import waits_for
from workshop_lib.lab.watching.waiting import (
    NobodyPolls,
    Once,
    StuckWorkflow,
    WorkflowFailed,
    result,
    watch,
    within,
)
from workshop_lib.lab.workers.process import start_process
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.machine.records import remove_record
from workshop_lib.settings import get_settings
from workshop_lib.teams.finance import contract
from workshop_lib.teams.finance.dispatcher import finance_the_simple_way
from workshop_lib.teams.finance.worker import finance
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.service import announce
from workshop_lib.temporal.worker import WorkerSpec

pytestmark = pytest.mark.usefixtures("lab_server")

SOON = 20.0  # seconds within which a cell is told what is wrong; a second or two where nothing else runs

# The bug is in line 6 of the cell: the magic is line 1.
WITH_BUG = """\
from temporalio import workflow
@workflow.defn
class Sum:
    @workflow.run
    async def run(self, numbers: list[int]) -> int: return sum(numbers) / none_of_these
"""
WAITING = """\
import asyncio
from datetime import timedelta
from temporalio import activity, workflow

@activity.defn
async def count() -> int:
    return 1

@workflow.defn
class Waiting:
    def __init__(self) -> None:
        self.go_on = False

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.go_on)
        return "done"

    @workflow.signal
    def go(self) -> None:
        self.go_on = True

    @workflow.update
    async def ask(self, question: str) -> str:
        return question.upper()
"""
FAILING = """\
from datetime import timedelta
from temporalio import activity, workflow
from temporalio.common import RetryPolicy

@activity.defn
async def shaky(name: str) -> str:
    raise ValueError("the disk is full")

@workflow.defn
class Shaky:
    @workflow.run
    async def run(self, attempts: int) -> str:
        retry = RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=attempts)
        return await workflow.execute_activity(
            shaky, "Ada", start_to_close_timeout=timedelta(seconds=5), retry_policy=retry
        )
"""
SIMPLE = """\
from datetime import timedelta
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.teams.finance.dispatcher import SlowPriceInput, SynchronousFinance

@workflow.defn
class SimpleCaller:
    @workflow.run
    async def run(self, seconds: float) -> str:
        door = workflow.create_nexus_client(
            service=SynchronousFinance, endpoint="finance-nexus-endpoint"
        )
        price = await door.execute_operation(
            SynchronousFinance.slow_price,
            SlowPriceInput(ticker="AAPL", seconds=seconds),
            schedule_to_close_timeout=timedelta(seconds=60),
        )
        return f"{price.price} {price.currency}"
"""
HANDLER = """\
from nexusrpc.handler import StartOperationContext, service_handler, sync_operation
from workshop_lib.teams.finance import contract

@service_handler(service=contract.FinanceService)
class MyFinance:
    @sync_operation
    async def stock_price(
        self, ctx: StartOperationContext, request: contract.StockPriceInput
    ) -> contract.StockPrice:
        return ctx.request_idd

    @sync_operation
    async def calculate_roi(
        self, ctx: StartOperationContext, request: contract.RoiInput
    ) -> contract.Roi:
        raise NotImplementedError
"""


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    yield await connect()


async def start(
    client: Client, spec: WorkerSpec, workflow: str, *args: Any, **options: Any
) -> WorkflowHandle[Any, Any]:
    """A run of a workflow type on a worker's queue."""
    return await client.start_workflow(
        workflow, args=args, id=fresh("run"), task_queue=spec.task_queue, **options
    )


async def seen_soon(handle: WorkflowHandle[Any, Any]) -> WorkshopError:
    """What is said about a run within the promised time."""
    with pytest.raises(WorkshopError) as raised:
        await result(handle, timeout=SOON)
    return raised.value


async def idle(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until a run has nothing pending: a worker that is stopped now takes no task with it."""
    async with asyncio.timeout(20):
        while True:
            now = (await handle.describe()).raw_description
            if not (now.HasField("pending_workflow_task") or now.pending_activities):
                return
            await asyncio.sleep(0.05)


async def test_a_bug_is_explained_by_its_line_and_the_same_run_goes_on(
    nb: Notebook, client: Client
) -> None:
    nb.workflow("sums", WITH_BUG)
    spec = spec_of(nb["Sum"])
    await start_worker(spec)
    handle = await start(client, spec, "Sum", [1, 2], result_type=int)
    error = await seen_soon(handle)
    assert isinstance(error, StuckWorkflow)
    assert "NameError: name 'none_of_these' is not defined" in error.what
    assert "In cell `sums`, line 6: async def run" in error.what
    assert error.fix and "sees no variable of the notebook" in error.fix

    # A second bug is not on the server: the SDK reports the first failed attempt only.
    nb.workflow("sums", WITH_BUG.replace("none_of_these", "0"))
    error = await result_error(handle, timeout=20)
    assert isinstance(error, StuckWorkflow) and "ZeroDivisionError" in error.what

    nb.workflow("sums", WITH_BUG.replace(" / none_of_these", ""))
    assert await result(handle, timeout=30) == 3
    assert (await handle.describe()).run_id == handle.result_run_id


async def result_error(handle: WorkflowHandle[Any, Any], timeout: float) -> WorkshopError:
    with pytest.raises(WorkshopError) as raised:
        await result(handle, timeout=timeout)
    return raised.value


async def test_a_bug_in_another_process_is_explained_too(nb: Notebook, client: Client) -> None:
    nb.workflow("far", WITH_BUG)
    spec = spec_of(nb["Sum"])
    await start_process(spec)
    error = await seen_soon(await start(client, spec, "Sum", [1]))
    assert isinstance(error, StuckWorkflow) and "In cell `far`, line 6" in error.what
    # And so is one in this process, which looks at that other one from within workflow code.
    nb.workflow("near", WITH_BUG)
    near = spec_of(nb["Sum"])
    await start_worker(near)
    error = await seen_soon(await start(client, near, "Sum", [1]))
    assert isinstance(error, StuckWorkflow) and "NameError: name 'none_of_these'" in error.what


async def test_a_sandbox_violation_is_explained_with_the_alternative(
    nb: Notebook, client: Client
) -> None:
    code = WITH_BUG.replace("return sum(numbers) / none_of_these", "return random.random()")
    nb.workflow("dice", "import random\n" + code)
    spec = spec_of(nb["Sum"])
    await start_worker(spec)
    error = await seen_soon(await start(client, spec, "Sum", [1]))
    assert isinstance(error, StuckWorkflow)
    assert "In cell `dice`, line 7: async def run" in error.what
    assert error.fix and "`workflow.random()`" in error.fix


async def test_changed_steps_are_explained_with_the_way_out(nb: Notebook, client: Client) -> None:
    call = "await workflow.execute_activity(count, start_to_close_timeout=timedelta(seconds=5))"
    wait = "await workflow.wait_condition"
    counting = WAITING.replace(wait, f"{call}\n        {wait}")
    nb.workflow("steps", counting)
    spec = spec_of(nb["Waiting"], nb["count"])
    await start_worker(spec)
    handle = await start(client, spec, "Waiting", result_type=str)
    assert await watch(handle.execute_update("ask", "hm", result_type=str), handle) == "HM"
    await idle(handle)
    # The activity is in this run's history; the changed code has a timer in its place.
    timer = "await asyncio.sleep(0.01)"
    nb.workflow("steps", counting.replace(call, timer))
    await handle.signal("go")
    error = await seen_soon(handle)
    assert isinstance(error, StuckWorkflow) and "[TMPRL1100] at event" in error.what
    assert "the history holds 'activity task scheduled', and the code asks for" in error.what
    assert "HistoryEvent" not in error.what  # the core's own structures
    assert error.fix and "workflow.patched" in error.fix
    both = f"if workflow.patched('timer'): {timer}\n        else: {call}"
    nb.workflow("steps", counting.replace(call, both))
    assert await result(handle, timeout=30) == "done"


async def test_a_task_that_a_stopped_worker_took_along_is_explained(
    nb: Notebook, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    nb.workflow("taken", WAITING)
    spec = spec_of(nb["Waiting"])
    process = await start_process(spec, kill_at="workflow-task-after@Waiting#1")
    handle = await start(client, spec, "Waiting", result_type=str)
    await process.exited(20)
    waiting = asyncio.create_task(watch(handle.result(), handle, timeout=60, expect_no_worker=True))
    await start_process(spec)
    await handle.signal("go")
    assert await waiting == "done"
    assert capsys.readouterr().out.count("a worker took the workflow task") == 1


async def test_nobody_polls(nb: Notebook, client: Client) -> None:
    nb.workflow("alone", GREETING)
    spec = spec_of(nb["Greeting"], nb["say_hello"])
    handle = await start(client, spec, "Greeting", "Ada", result_type=str)
    error = await seen_soon(handle)
    assert isinstance(error, NobodyPolls)
    assert f"Nobody polls task queue {spec.task_queue} in namespace default" in error.what
    await start_worker(spec)
    assert await result(handle, timeout=20) == "Hello, Ada!"


async def test_a_worker_that_was_killed_does_not_count_as_polling(
    nb: Notebook, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    nb.workflow("killed", WAITING)
    spec = spec_of(nb["Waiting"])
    process = await start_process(spec)
    handle = await start(client, spec, "Waiting", result_type=str)
    assert await watch(handle.execute_update("ask", "hm", result_type=str), handle) == "HM"
    process.kill()
    await handle.signal("go")
    with pytest.raises(WorkshopError) as raised:
        await watch(handle.result(), handle, timeout=8, expect_no_worker=True)
    assert not isinstance(raised.value, NobodyPolls) and "gave no answer" in raised.value.what
    assert capsys.readouterr().out.count("Nobody polls") == 1
    assert isinstance(await seen_soon(handle), NobodyPolls)
    await start_process(spec)
    assert await result(handle, timeout=20) == "done"


async def test_an_activity_without_a_worker(nb: Notebook, client: Client) -> None:
    code = GREETING.replace("say_hello, name,", "say_hello, name, task_queue='nobody-here',")
    nb.workflow("halves", code)
    spec = spec_of(nb["Greeting"])
    await start_worker(spec)
    error = await seen_soon(await start(client, spec, "Greeting", "Ada"))
    assert isinstance(error, NobodyPolls) and "task queue nobody-here" in error.what


async def test_an_activity_that_keeps_failing_is_said_once(
    nb: Notebook, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    nb.workflow("shaky", FAILING)
    spec = spec_of(nb["Shaky"], nb["shaky"])
    await start_worker(spec, announce=False)
    handle = await start(client, spec, "Shaky", 0)
    error = await result_error(handle, timeout=8)
    printed = capsys.readouterr().out
    assert printed.count("activity shaky keeps failing") == 1
    assert "ValueError: the disk is full" in printed
    assert "In cell `shaky`, line 8: raise ValueError" in printed
    assert "gave no answer" in error.what and "activity shaky, attempt" in error.what
    assert error.fix and "nothing is lost" in error.fix


async def test_a_handler_that_keeps_failing_is_said_once_with_its_line(
    nb: Notebook, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    nb.run(HANDLER)
    await ensure_namespaces(ensure_server())
    await start_worker(replace(finance(), nexus_handlers=[nb["MyFinance"]]), announce=False)
    endpoint = get_settings().finance_endpoint
    door = client.create_nexus_client(contract.FinanceService, endpoint=endpoint)
    with pytest.raises(NexusOperationFailureError):
        await door.execute_operation(
            contract.FinanceService.stock_price,
            contract.StockPriceInput(ticker="AAPL"),
            id=fresh("price"),
            schedule_to_close_timeout=timedelta(seconds=4),  # some attempts
        )
    said = [record.getMessage() for record in caplog.records if "Nexus" in record.getMessage()]
    assert len(said) == 1
    assert "AttributeError" in said[0]
    assert "line 10 of the handler's cell: return ctx.request_idd" in said[0]


async def test_a_call_whose_caller_is_ended_is_not_asked_again(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """So a lesson that ends its slow call is not followed by complaints about it."""
    await ensure_namespaces(ensure_server())
    nb = notebook()
    nb.workflow("simple", SIMPLE)
    spec = spec_of(nb["SimpleCaller"])
    await start_worker(spec, announce=False)
    await start_worker(finance_the_simple_way(), announce=False)
    slow = await start(client, spec, "SimpleCaller", 12)
    lines = await waits_for(slow, until="timeout", timeout=60)
    assert any("timeout" in line for line in lines)
    await slow.terminate()
    caplog.clear()
    await start_worker(finance(), announce=False)  # which does not know the service
    await asyncio.sleep(8)
    stop_all()
    assert not [line for record in caplog.records if "Nexus" in (line := record.getMessage())]


async def test_nobody_behind_an_endpoint(client: Client) -> None:
    await ensure_namespaces(ensure_server())
    await start_worker(orchestrator(), announce=False)
    chat = ChatClient(client)
    asking = asyncio.create_task(chat.send("What's the stock price of TSLA?"))
    with pytest.raises(NobodyPolls) as nobody:
        await watch(asyncio.shield(asking), chat.handle, timeout=SOON)
    assert "finance-task-queue in namespace finance-namespace" in nobody.value.what
    # A case for a detective stays one: who asks what a run waits for is not told the whole of it.
    said = await waits_for(chat.handle, until="failed attempt")
    assert said[0].startswith("waits for Nexus operation stock_price")
    assert "nobody" not in "".join(said)

    doomed = await start_process(finance(), kill_at="activity-inside@look_up_price")
    await doomed.exited(SOON)
    # The workflow may have a task at that moment, for it is told that the other side has begun.
    assert (
        "waits for Nexus operation stock_price of endpoint finance-nexus-endpoint,"
        " which the other team has begun"
    ) in await waits_for(chat.handle, until="has begun")
    with pytest.raises(NobodyPolls) as nobody:
        await watch(asyncio.shield(asking), chat.handle, timeout=SOON)
    assert "finance-task-queue in namespace finance-namespace" in nobody.value.what
    await start_worker(finance(), announce=False)
    assert "242.80" in (await watch(asking, chat.handle, timeout=60)).text


async def test_a_failed_workflow_is_told_by_its_root_cause(nb: Notebook, client: Client) -> None:
    nb.workflow("given_up", FAILING)
    spec = spec_of(nb["Shaky"], nb["shaky"])
    await start_worker(spec)
    handle = await start(client, spec, "Shaky", 1)
    error = await seen_soon(handle)
    assert isinstance(error, WorkflowFailed)
    assert (
        f"Workflow {handle.id} failed: activity shaky, ValueError: the disk is full" in error.what
    )
    assert "In cell `given_up`, line 8" in error.what


async def test_a_run_that_waits_for_people_is_no_trouble(
    nb: Notebook, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    nb.workflow("patient", WAITING)
    spec = spec_of(nb["Waiting"])
    await start_worker(spec, announce=False)
    handle = await start(client, spec, "Waiting")
    await idle(handle)
    error = await result_error(handle, timeout=3)
    assert "It waits for a signal, an update or a timer" in error.what
    assert capsys.readouterr().out == ""
    await handle.signal("go")
    assert await result(handle, timeout=10) == "done"


class Unheard(Interceptor):
    """The first who waits for a run's end is never told, as now and then by a dev server."""

    def __init__(self) -> None:
        self.waited = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        return _Unheard(next, self)


class _Unheard(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, unheard: Unheard) -> None:
        super().__init__(following)
        self._unheard = unheard

    def fetch_workflow_history_events(
        self,
        input: FetchWorkflowHistoryEventsInput,  # noqa: A002
    ) -> Any:
        self._unheard.waited += 1
        if self._unheard.waited > 1:
            return super().fetch_workflow_history_events(input)
        return silence()


async def silence() -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield


async def test_an_end_that_the_server_does_not_announce_is_noticed(nb: Notebook) -> None:
    nb.workflow("unheard", GREETING)
    spec = spec_of(nb["Greeting"], nb["say_hello"])
    await start_worker(spec)
    unheard = Unheard()
    client = await connect(interceptors=[unheard])
    handle = await start(client, spec, "Greeting", "Ada", result_type=str)
    assert await result(handle, timeout=SOON) == "Hello, Ada!"
    assert unheard.waited == 2


async def test_what_a_run_waits_for_can_be_asked_before_it_has_begun(
    nb: Notebook, client: Client
) -> None:
    """As of a chat whose first message is just being sent, in a task that has not had its turn."""
    nb.workflow("late", FAILING)
    spec = spec_of(nb["Shaky"], nb["shaky"])
    handle = client.get_workflow_handle(fresh("late"))
    assert await waits_for(handle, timeout=0) == [f"there is no run {handle.id} yet"]
    asked = asyncio.create_task(waits_for(handle, until="shaky"))
    await asyncio.sleep(0)
    await start_worker(spec, announce=False)
    await client.start_workflow("Shaky", 999, id=handle.id, task_queue=spec.task_queue)
    assert "activity shaky" in " ".join(await asked)
    await handle.terminate()


async def test_the_loop_wakes_often_enough_for_the_stop_button(
    nb: Notebook, client: Client
) -> None:
    nb.workflow("awake", WAITING)
    spec = spec_of(nb["Waiting"])
    await start_worker(spec)
    handle = await start(client, spec, "Waiting")
    loop = asyncio.get_running_loop()
    wakes = 0
    select = loop._selector.select  # type: ignore[attr-defined]

    def counted(timeout: float | None = None) -> Any:
        nonlocal wakes
        wakes += 1
        assert timeout is not None and timeout <= 0.25
        return select(timeout)

    loop._selector.select = counted  # type: ignore[attr-defined]
    try:
        with pytest.raises(WorkshopError):
            await result(handle, timeout=2)
    finally:
        loop._selector.select = select  # type: ignore[attr-defined]
    assert wakes >= 8


async def test_within_names_what_did_not_come() -> None:
    assert await within(asyncio.sleep(0, "here"), 1, "the answer") == "here"
    with pytest.raises(WorkshopError, match=r"the answer did not come within 0\.1 s"):
        await within(asyncio.sleep(60), 0.1, "the answer")


def test_a_trouble_is_said_once_and_as_text() -> None:
    lines: list[str] = []
    say = Once(lines.append)
    for key in ("one", "one", "other"):
        say(key, "activity x keeps failing: \x1b[31mred\n\u202eIn a cell")
    assert lines == ["activity x keeps failing:  [31mred\n In a cell"] * 2


def test_identities_of_others_count_as_alive() -> None:
    assert identity_alive("lab@1@another-host.example")
    assert identity_alive("4711@some-host")
    assert identity_alive("a name of its own")


def test_those_of_this_machine_count_as_long_as_they_live() -> None:
    here = socket.gethostname()
    with subprocess.Popen(["sleep", "60"]) as other:
        assert identity_alive(f"{other.pid}@{here}") and identity_alive(f"lab@{other.pid}@{here}")
        other.kill()
    assert not identity_alive(f"{other.pid}@{here}")  # a command's worker
    assert not identity_alive(f"lab@{other.pid}@{here}")


def test_a_commands_own_worker_counts_while_it_polls(
    settings_env: Callable[..., None], tmp_path: Path
) -> None:
    settings_env(WORKSHOP_STATE_DIR=tmp_path)
    spec = WorkerSpec(name="own", namespace="default", task_queue="own-queue")
    assert not identity_alive(identity("own"))
    record = announce(spec, "command")
    assert identity_alive(identity("own"))
    remove_record(record)
    assert not identity_alive(identity("own"))
