"""Workers of the lab: in threads and in processes, one a name, gone when they should be."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import psutil
import pytest
from fastmcp import Client as McpClient
from lab_cells import GREETING, Notebook, spec_of
from lab_environment import fresh
from sampled import sampled
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import (
    ActivitySerializationContext,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.worker.workflow_sandbox import _runner

from workshop_lib.errors import WorkshopError
from workshop_lib.lab.registry import registered, stop_all, stop_worker
from workshop_lib.lab.watching.waiting import result, watch
from workshop_lib.lab.workers.process import start_process
from workshop_lib.lab.workers.threads import start_worker, start_worker_now
from workshop_lib.teams.finance.worker import finance
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.failures import DATA_CONVERTER
from workshop_lib.temporal.worker import WorkerSpec

pytestmark = pytest.mark.usefixtures("lab_server")

BLOCKING = """\
import os, time
from datetime import timedelta
from temporalio import activity, workflow

@activity.defn
def slow(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()

@workflow.defn
class Slow:
    @workflow.run
    async def run(self, seconds: float) -> int:
        return await workflow.execute_activity(
            slow, seconds, start_to_close_timeout=timedelta(seconds=3)
        )
"""


@pytest.fixture
def spec(nb: Notebook) -> WorkerSpec:
    """A worker that greets."""
    nb.workflow("greeting", GREETING)
    return spec_of(nb["Greeting"], nb["say_hello"])


async def greet(spec: WorkerSpec, name: str = "Ada") -> str:
    return str(await result(await greeting(spec, name), timeout=30))


async def greeting(spec: WorkerSpec, name: str = "Ada") -> WorkflowHandle[Any, Any]:
    client = await connect(spec.namespace)
    return await client.start_workflow(
        "Greeting", name, id=fresh("run"), task_queue=spec.task_queue, result_type=str
    )


async def served_by(handle: WorkflowHandle[Any, Any]) -> set[str]:
    """Identities of the workers that the history names."""
    kinds = (EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED, EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED)
    events = (await handle.fetch_history()).events
    started = [event for event in events if event.event_type in kinds]
    return {
        event.workflow_task_started_event_attributes.identity
        or event.activity_task_started_event_attributes.identity
        for event in started
    }


async def test_it_says_what_it_serves_and_serves_it(
    spec: WorkerSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = await start_worker(spec)
    assert capsys.readouterr().out == spec.banner() + "\n"
    assert registered() == {spec.name: worker} and worker.alive
    handle = await greeting(spec)
    assert await result(handle, timeout=20) == "Hello, Ada!"
    assert await served_by(handle) == {worker.identity}
    stop_worker(spec.name)
    assert not worker.alive and registered() == {}
    stop_worker(spec.name)  # nothing to stop is no error


async def test_a_name_started_again_leaves_one_worker(nb: Notebook, spec: WorkerSpec) -> None:
    old = await start_worker(spec)
    nb.workflow("newer", GREETING.replace("Hello", "Good day"))
    new = await start_worker(
        replace(spec, workflows=[nb["Greeting"]], activities=[nb["say_hello"]])
    )
    assert not old.alive and registered() == {spec.name: new}
    # Were the old one still polling, half of these would be its own.
    assert {await greet(spec) for _ in range(8)} == {"Good day, Ada!"}


async def test_a_process_takes_the_name_of_a_thread_and_back(spec: WorkerSpec) -> None:
    thread = await start_worker(spec)
    process = await start_process(spec)
    assert not thread.alive and registered() == {spec.name: process}
    again = await start_worker(spec)
    assert not process.alive and registered() == {spec.name: again}


async def test_an_mcp_client_in_the_process_does_not_slow_every_run_down(
    spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert McpClient  # with FastMCP's client in the process, beartype looks at each of its imports
    loaded: list[str] = []
    execute = SourceFileLoader.exec_module

    def watched(loader: SourceFileLoader, module: ModuleType) -> None:
        loaded.append(module.__name__)
        execute(loader, module)

    monkeypatch.setattr(SourceFileLoader, "exec_module", watched)
    await start_worker(spec)
    assert await greet(spec) == "Hello, Ada!"
    assert spec.workflows[0].__module__ in loaded  # for the run, anew
    assert [name for name in loaded if name.startswith("beartype")] == []


async def test_a_busy_cell_does_not_stall_it(spec: WorkerSpec) -> None:
    await start_worker(spec)
    handle = await greeting(spec)
    done: list[str] = []

    async def ask() -> None:  # a second client, on a loop of its own
        client = await connect()
        done.append(await client.get_workflow_handle(handle.id, result_type=str).result())

    other = threading.Thread(target=lambda: asyncio.run(ask()), daemon=True)
    other.start()
    other.join(20)  # this loop does nothing meanwhile, like that of a cell that computes
    assert done == ["Hello, Ada!"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As a kernel is. A shell that starts the tests in its background has interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_interrupt_button_does_not_stop_it(spec: WorkerSpec) -> None:
    worker = start_worker_now(spec)
    process = asyncio.run(start_process(replace(spec, name=fresh("other"))))
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)
    os.kill(process.pid, signal.SIGINT)
    assert asyncio.run(greet(spec)) == "Hello, Ada!"
    assert worker.alive and process.alive


async def test_a_plain_function_can_be_an_activity(nb: Notebook) -> None:
    nb.workflow("slow", BLOCKING)
    spec = spec_of(nb["Slow"], nb["slow"])
    await start_worker(spec)
    client = await connect()
    handle = await client.start_workflow(
        "Slow", 0.0, id=fresh("run"), task_queue=spec.task_queue, result_type=int
    )
    assert await result(handle, timeout=20) == os.getpid()


async def test_a_namespace_that_is_not_there_is_said(spec: WorkerSpec) -> None:
    elsewhere = replace(spec, namespace="nowhere")
    for start in (start_worker, start_process):
        with pytest.raises(WorkshopError, match="there is no namespace nowhere"):
            await start(elsewhere)
    assert registered() == {}


@pytest.mark.parametrize("named", ["finance", finance], ids=["name", "function"])
@pytest.mark.parametrize("start", [start_worker, start_process])
async def test_what_is_no_spec_is_said(start: Any, named: Any) -> None:
    with pytest.raises(WorkshopError) as said:
        await start(named)
    assert said.value.what == "'finance' says which worker, and not what it serves."
    assert said.value.fix == "write `finance()` there."


async def test_no_server_is_said(spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:9")
    for start in (start_worker, start_process):
        with pytest.raises(WorkshopError):
            await start(spec)
    assert registered() == {}


async def test_a_class_without_a_decorator_is_said(nb: Notebook) -> None:
    nb.workflow("plain", "class NoWorkflow:\n    pass\n")
    for start in (start_worker, start_process):
        with pytest.raises(WorkshopError, match="NoWorkflow missing attributes"):
            await start(spec_of(nb["NoWorkflow"]))


# --- processes ---------------------------------------------------------------------------------------


async def test_a_killed_process_is_followed_by_another(spec: WorkerSpec) -> None:
    first = await start_process(spec)
    handle = await greeting(spec)
    assert await result(handle, timeout=20) == "Hello, Ada!"
    assert {identity.split("@")[1] for identity in await served_by(handle)} == {str(first.pid)}
    first.kill()
    assert not first.alive and not psutil.pid_exists(first.pid)
    assert await first.exited(1) == -signal.SIGKILL
    handle = await greeting(spec)
    second = await start_process(spec)
    assert await result(handle, timeout=20) == "Hello, Ada!"
    assert {identity.split("@")[1] for identity in await served_by(handle)} == {str(second.pid)}


async def test_a_kill_point_that_a_run_does_not_pass_is_not_waited_for(
    spec: WorkerSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when a cell is run a second time and nothing is left to do."""
    alive = await start_process(spec, kill_at="activity-report@say_hello#9")
    handle = await greeting(spec)
    assert await alive.exited(30, unless=handle) is None
    assert alive.alive and "has not passed activity-report@say_hello#9" in capsys.readouterr().out
    alive.kill()
    doomed = await start_process(spec, kill_at="activity-report@say_hello#1")
    assert await doomed.exited(30, unless=await greeting(spec)) == -signal.SIGKILL


async def test_a_kill_point_ends_it_and_another_finishes(spec: WorkerSpec) -> None:
    victim = await start_process(spec, kill_at="activity-report@say_hello#1")
    handle = await greeting(spec)
    assert await victim.exited(20) == -signal.SIGKILL
    assert registered() == {}
    await start_process(spec)
    answer = await watch(handle.result(), handle, timeout=30, expect_no_worker=True)
    assert answer == "Hello, Ada!"


async def test_one_that_runs_on_is_said(spec: WorkerSpec) -> None:
    process = await start_process(spec)
    with pytest.raises(WorkshopError, match=f"Worker process {spec.name} still runs"):
        await process.exited(0.2)


async def test_an_unknown_kill_point_starts_nothing(spec: WorkerSpec) -> None:
    with pytest.raises(WorkshopError, match="is not a kill point"):
        await start_process(spec, kill_at="somewhere")
    assert registered() == {}


async def test_stop_is_gentle(nb: Notebook) -> None:
    nb.workflow("gentle", BLOCKING)
    spec = spec_of(nb["Slow"], nb["slow"])
    process = await start_process(spec)
    client = await connect()
    handle = await client.start_workflow(
        "Slow", 1.0, id=fresh("run"), task_queue=spec.task_queue, result_type=int
    )
    async with asyncio.timeout(20):
        while not (await handle.describe()).raw_description.pending_activities:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.to_thread(process.stop)
    assert await process.exited(1) == 0
    kinds = [event.event_type for event in (await handle.fetch_history()).events]
    assert EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED in kinds


async def test_what_a_plain_cell_defines_is_refused(nb: Notebook) -> None:
    nb.run("from temporalio import activity\n@activity.defn\nasync def here() -> None: ...")
    here = nb["here"]
    here.__module__ = "__main__"  # as in a kernel
    with pytest.raises(WorkshopError) as raised:
        await start_process(spec_of(here))
    assert "cannot import here" in raised.value.what
    assert raised.value.fix and "%%workflow" in raised.value.fix
    with pytest.raises(WorkshopError, match="cannot import"):
        await start_process(replace(spec_of(), client_plugins=[lambda: None]))  # type: ignore[list-item, return-value]


async def test_environment_and_log_are_its_own(nb: Notebook) -> None:
    code = GREETING.replace(
        'return f"Hello, {name}!"', "print('in the log'); return os.environ[name]"
    )
    nb.workflow("environ", "import os\n" + code)
    spec = spec_of(nb["Greeting"], nb["say_hello"])
    process = await start_process(spec, env={"COLOUR": "green"})
    assert await greet(spec, "COLOUR") == "green"
    assert process.log.name == f"worker-{spec.name}-{process.pid}.log"
    assert "in the log" in process.log.read_text()


async def test_stop_all_ends_threads_and_processes(spec: WorkerSpec) -> None:
    thread = await start_worker(spec)
    process = await start_process(replace(spec, name=fresh("other")))
    stop_all()
    assert not thread.alive and not process.alive and registered() == {}


PARENT = """
import asyncio, os, sys
sys.path[:0] = {path!r}
from workshop_lib.lab.workers.process import start_process
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.temporal.worker import WorkerSpec
import {module} as cell

async def main():
    spec = dict(namespace="default", task_queue="orphans", activities=[cell.say_hello])
    process = await start_process(WorkerSpec(name="child", **spec))
    await start_worker(WorkerSpec(name="thread", **spec), announce=False)
    print(process.pid, flush=True)
    {end}

asyncio.run(main())
"""


def parent(nb: Notebook, end: str) -> "subprocess.Popen[str]":
    """A process that starts workers and then ends in some way."""
    nb.workflow("orphans", GREETING)
    module = nb["say_hello"].__module__
    folder = str(Path(sys.modules[module].__file__ or "").parent)
    code = PARENT.format(path=[folder], module=module, end=end)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("end", sampled(["os.kill(os.getpid(), 9)", "os._exit(0)", "return"], 1))
def test_a_child_leaves_with_its_parent(nb: Notebook, end: str) -> None:
    with parent(nb, end) as process:
        said, errors = process.communicate(timeout=60)
    child = int(said)
    psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=10)
    assert not psutil.pid_exists(child)
    if end == "return":  # an orderly end is a quiet one: no abort, no stack trace
        assert (process.returncode, errors) == (0, "")


async def test_two_clients_of_two_namespaces(spec: WorkerSpec) -> None:
    client: Client = await connect()
    from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest

    other = fresh("namespace")
    retention = RegisterNamespaceRequest(namespace=other)
    retention.workflow_execution_retention_period.FromSeconds(86400)
    await client.workflow_service.register_namespace(retention)
    await start_worker(spec)
    elsewhere = replace(spec, name=fresh("elsewhere"), namespace=other)
    async with asyncio.timeout(20):
        while True:  # a new namespace reaches the server's cache after a moment
            try:
                await start_worker(elsewhere)
                break
            except WorkshopError:
                await asyncio.sleep(0.2)
    assert await greet(spec) == await greet(elsewhere) == "Hello, Ada!"
    assert len(registered()) == 2


async def test_a_kill_point_in_something_that_is_not_served_is_refused() -> None:
    from workshop_lib.agents.worker import orchestrator

    with pytest.raises(WorkshopError, match="has no activity 'plan'"):
        await start_process(orchestrator(), kill_at="activity-inside@plan#2")


async def test_a_thread_that_is_to_be_killed_is_refused_in_words(
    nb: Notebook,
) -> None:
    nb.workflow("greeting", GREETING)
    with pytest.raises(WorkshopError, match="start_process"):
        await start_worker(spec_of(nb["Greeting"]), kill_at="activity-inside@say_hello")


class _Curious(PayloadCodec, WithSerializationContext):
    """A codec that changes nothing and notes what it is told."""

    told: ClassVar[list[SerializationContext]] = []

    def with_context(self, context: SerializationContext) -> Self:
        self.told.append(context)
        return self

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)

    decode = encode


class _Plain(PayloadCodec):
    """One that does not want to know."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata=one.metadata, data=one.data[::-1]) for one in payloads]

    decode = encode


@pytest.mark.parametrize("codec", [_Curious(), _Plain(), None])
async def test_the_sandbox_is_entered_for_a_codec_that_asks_and_for_no_other(
    codec: PayloadCodec | None, spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[object] = []
    enter = _runner._Instance.get_serialization_context

    def entering(run: _runner._Instance, command: Any) -> Any:
        entered.append(command)
        return enter(run, command)

    monkeypatch.setattr(_runner._Instance, "get_serialization_context", entering)
    client = await connect(
        spec.namespace, data_converter=replace(DATA_CONVERTER, payload_codec=codec)
    )
    async with asyncio.timeout(30), spec.build(client):
        said = await client.execute_workflow(
            "Greeting", "Ada", id=fresh("codec"), task_queue=spec.task_queue, result_type=str
        )
    assert said == "Hello, Ada!"
    asks = isinstance(codec, WithSerializationContext)
    assert bool(entered) == asks
    types = {type(context) for context in _Curious.told} if asks else set()
    assert types == (
        {ActivitySerializationContext, WorkflowSerializationContext} if asks else set()
    )
