"""Failures are small by construction, keep the learner's line, and name a forgotten `await`."""

import asyncio
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from lab_cells import Notebook, dev_server, spec_of
from lab_environment import fresh
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from nexusrpc import HandlerError, HandlerErrorType
from sampled import sampled
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError

from workshop_lib.agents.loops.mcp_clients import mcp_plugin
from workshop_lib.agents.loops.sdk_model import agents_plugin
from workshop_lib.lab.watching.failures import root_failure
from workshop_lib.lab.watching.waiting import KeepsFailing, StuckWorkflow, WorkflowFailed, result
from workshop_lib.lab.workers.process import start_process
from workshop_lib.lab.workers.threads import start_worker
from workshop_lib.temporal.connect import connect
from workshop_lib.temporal.failures import DATA_CONVERTER

LIMIT = 3_600  # bytes; the server's is 4,096
LONG = (
    "Kurs für langlebige Agenten mit einem Namen " * 3
)  # 130 characters, with blanks and an umlaut
DEEP = """
import asyncio

async def leaf(text):
    raise ConnectionError(text)

async def group(depth, text):
    if not depth:
        await leaf(text)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(group(depth - 1, text))

def down(depth, text="at the bottom"):
    if not depth:
        raise ValueError(text)
    down(depth - 1, text)

def caused(times, text="because of that", root="at the bottom"):
    try:
        down(30, root)
    except Exception as error:
        for _ in range(times):
            link = RuntimeError(text)
            link.__cause__ = error
            error = link
        raise error
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("failures") / LONG.strip()
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def deep(folder: Path) -> ModuleType:
    """A module under a long path, whose functions fail in all kinds of ways."""
    file = folder / "deep_library.py"
    file.write_text(DEEP, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("deep_library", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["deep_library"] = module
    spec.loader.exec_module(module)
    return module


def converted(work: Callable[[], Any]) -> Failure:
    """What the server gets when this is what an activity raises."""
    failure = Failure()
    try:
        work()
    except BaseException as error:
        DATA_CONVERTER.failure_converter.to_failure(
            error, DATA_CONVERTER.payload_converter, failure
        )
    return failure


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def endless() -> BaseException:
    """Two errors that are each other's cause."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this")


WORST: dict[str, Callable[[ModuleType], Any]] = {
    "many causes": lambda deep: deep.caused(50),
    "very many causes": lambda deep: deep.caused(3000, "u"),
    "causes in a circle": lambda deep: raising(endless())(),
    "long texts everywhere": lambda deep: deep.caused(50, "ü€😀" * 30_000, "😀" * 30_000),
    "deep": lambda deep: deep.down(900),
    "endless recursion": lambda deep: deep.down(10**9),
    "nested groups": lambda deep: asyncio.run(deep.group(20, "ö" * 5_000)),
    "details": lambda deep: raising(ApplicationError("m" * 9_000, "d" * 9_000, type="T" * 900))(),
    "details that cannot be sent": lambda deep: raising(ApplicationError("m", object()))(),
    "half a character": lambda deep: raising(ValueError("\ud83d" * 5_000))(),
    "no text of its own": lambda deep: raising(Broken())(),
    "a handler": lambda deep: raising(HandlerError("h" * 9_000, type=HandlerErrorType.INTERNAL))(),
}


@pytest.mark.parametrize("name", WORST)
def test_a_failure_is_small_whatever_is_raised(name: str, deep: ModuleType) -> None:
    failure = converted(lambda: WORST[name](deep))
    assert failure.ByteSize() <= LIMIT
    again = Failure.FromString(failure.SerializeToString())  # which also bounds how deep it may be
    depth = 0
    while again.HasField("cause"):
        again, depth = again.cause, depth + 1
    assert depth <= 5


def test_what_matters_is_kept(deep: ModuleType) -> None:
    failure = converted(lambda: deep.caused(50))
    kind, message, _ = root_failure(failure)
    assert (kind, message) == ("ValueError", "at the bottom")
    assert failure.message == "because of that"
    assert failure.application_failure_info.type == "RuntimeError"
    assert 'deep_library.py", line' in failure.stack_trace

    told = ApplicationError(
        "wait", {"price": 1}, type="Busy", non_retryable=True, next_retry_delay=timedelta(seconds=7)
    )
    info = converted(raising(told)).application_failure_info
    assert (info.type, info.non_retryable, info.next_retry_delay.seconds) == ("Busy", True, 7)
    assert b"price" in info.details.payloads[0].data
    # Where the details cannot be sent, what decides about retries is.
    info = converted(
        raising(ApplicationError("no", object(), type="Odd", non_retryable=True))
    ).application_failure_info
    assert (info.type, info.non_retryable) == ("Odd", True)


def test_of_a_group_the_leaf_is_shown(deep: ModuleType) -> None:
    failure = converted(lambda: asyncio.run(deep.group(3, "the server is gone")))
    assert failure.message == "the server is gone"
    assert failure.application_failure_info.type == "ConnectionError"
    assert "TaskGroup" not in str(failure).replace("asyncio.TaskGroup() as", "")
    refused = ApplicationError("not twice", type="Refused", non_retryable=True)
    cancelled = asyncio.CancelledError()
    failure = converted(raising(BaseExceptionGroup("errors", [cancelled, refused])))
    assert failure.message == "not twice" and failure.application_failure_info.non_retryable


def test_no_line_of_others_and_no_path_of_this_machine(deep: ModuleType, folder: Path) -> None:
    failure = converted(lambda: asyncio.run(deep.group(3, "gone")))
    while True:
        assert "asyncio/" not in failure.stack_trace and "site-packages" not in failure.stack_trace
        assert str(folder) not in failure.stack_trace
        if not failure.HasField("cause"):
            break
        failure = failure.cause


@pytest.mark.parametrize("plugins", [(), (agents_plugin, mcp_plugin)], ids=["plain", "plugins"])
async def test_every_client_has_the_converter(
    client: Client, plugins: tuple[Callable[[], Any], ...]
) -> None:
    made = await connect(plugins=[make() for make in plugins])
    assert made.data_converter.failure_converter_class is DATA_CONVERTER.failure_converter_class


# On a server, in a folder with a long name


@pytest.fixture(scope="module")
def lab_server(folder: Path) -> Iterator[str]:
    with dev_server(folder / "state") as address:
        yield address


CAUSES = """\
from datetime import timedelta
from temporalio import activity, workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    import deep_library

@activity.defn
async def look_up(name: str) -> str:
    if name == "group":
        await deep_library.group(12, "the server is gone")
    deep_library.caused(9, "ü" * 3_000, "ü" * 3_000)

@workflow.defn
class LookUp:
    @workflow.run
    async def run(self, name: str) -> str:
        often = RetryPolicy(initial_interval=timedelta(milliseconds=50), maximum_attempts=3)
        return await workflow.execute_activity(
            look_up, name, start_to_close_timeout=timedelta(seconds=5), retry_policy=often
        )
"""


async def started(nb: Notebook, name: str, code: str, argument: str) -> WorkflowHandle[Any, Any]:
    """A run of the cell's workflow, on a worker in this process."""
    nb.workflow(name, code)
    workflow = next(
        v
        for v in nb.shell.user_ns.values()
        if isinstance(v, type) and v.__module__.startswith(f"{name}__")
    )
    activities = [
        v for v in nb.shell.user_ns.values() if hasattr(v, "__temporal_activity_definition")
    ]
    activities = [v for v in activities if v.__module__.startswith(f"{name}__")]
    spec = spec_of(workflow, *activities)
    await start_worker(spec, announce=False)
    client = await connect()
    return await client.start_workflow(
        workflow.__name__, argument, id=fresh("run"), task_queue=spec.task_queue
    )


@pytest.mark.parametrize(("name", "line"), [("group", 12), ("causes", 13)])
async def test_the_server_keeps_it_whole(
    nb: Notebook, deep: ModuleType, name: str, line: int
) -> None:
    handle = await started(nb, f"long_{name}", CAUSES, name)
    with pytest.raises(WorkflowFailed) as failed:
        await result(handle, timeout=30)
    said = failed.value.what
    assert "size limit" not in said and "TaskGroup" not in said
    assert ("ConnectionError: the server is gone" if name == "group" else "ValueError: üü") in said
    assert f"In cell `long_{name}`, line {line}:" in said
    history = await handle.fetch_history()
    [attempt] = [
        event.activity_task_started_event_attributes
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert attempt.last_failure.application_failure_info.type in ("ConnectionError", "RuntimeError")


# Forgotten awaits

FORGOTTEN = """\
from datetime import timedelta
from temporalio import activity, workflow
SOON = timedelta(seconds=5)

async def fetch() -> str:
    return "fetched"

@activity.defn
async def name_of(name: str) -> str:
    ACTIVITY

@workflow.defn
class Forgets:
    @workflow.run
    async def run(self, name: str) -> str:
        WORKFLOW
"""
CALL = "workflow.execute_activity(name_of, name, start_to_close_timeout=SOON)"
SLIPS = {
    "returned": f"return {CALL}",
    "attribute": f"return {CALL}.upper()",
    "compared": f"return 'yes' if {CALL} < 3 else 'no'",
    "argument": f"found = {CALL}; return await {CALL.replace('name,', 'found,')}",
    "inside": f"found = {CALL}; return await {CALL.replace('name,', '[found],')}",
    "length": f"return str(len({CALL}))",
}


@pytest.mark.parametrize(
    ("slip", "where"), sampled(itertools.product(SLIPS, ["thread", "process"]), 5)
)
async def test_in_a_workflow(nb: Notebook, slip: str, where: str) -> None:
    code = FORGOTTEN.replace("ACTIVITY", "return name").replace("WORKFLOW", SLIPS[slip])
    name = f"slip_{slip}_{where}"
    nb.workflow(name, code)
    spec = spec_of(nb["Forgets"], nb["name_of"])
    await (start_process(spec) if where == "process" else start_worker(spec, announce=False))
    client = await connect()
    handle = await client.start_workflow(
        "Forgets", "Ada", id=fresh("run"), task_queue=spec.task_queue
    )
    with pytest.raises(StuckWorkflow) as stuck:
        await result(handle, timeout=30)
    assert "an `await` is missing" in stuck.value.what
    if slip not in ("compared", "length"):  # there Python has let go of it already
        assert "missing, before `execute_activity(…)`" in stuck.value.what
    assert f"In cell `{name}`, line 17:" in stuck.value.what
    assert stuck.value.fix and "`await`" in stuck.value.fix


@pytest.mark.parametrize(
    "slip",
    sampled(
        ["return fetch()", "return fetch().upper()", "return [fetch()]", "return fetch() + name"], 2
    ),
)
async def test_in_an_activity(nb: Notebook, slip: str) -> None:
    code = FORGOTTEN.replace("ACTIVITY", slip).replace("WORKFLOW", f"return await {CALL}")
    handle = await started(nb, "slip_in_activity", code, "Ada")
    with pytest.raises(KeepsFailing) as failing:
        await result(handle, timeout=30, patient=False)
    said = failing.value.what
    assert "an `await` is missing" in said
    if "+" not in slip:  # there Python has let go of it already
        assert "missing, before `fetch(…)`" in said
    assert "In cell `slip_in_activity`, line 11:" in said
    await handle.terminate()


# What a cell may do with a coroutine, and whether something is raised then.
PLAIN = {
    "reply = fetch()": "reply = fetch()",
    "other = fetch()\nprint(other)": "other = fetch()",
    "fetch()": "fetch()",
    "fetch()\n1 + 1": "fetch()",
    "fetch() == 'fetched'": "fetch() == 'fetched'",
    "fetch().text": "fetch().text",
    "third = fetch()\nthird.text": "third = fetch()",
    "await echo(fetch())": "await echo(fetch())",
}
SETUP = """\
from IPython import get_ipython
from workshop_lib.temporal.connect import DATA_CONVERTER
from workshop_lib.lab.watching import listening

listening.look_after_cells(get_ipython())
listening.look_after_cells(get_ipython())

async def fetch():
    return "fetched"

async def echo(value):
    return DATA_CONVERTER.payload_converter.to_payloads([value])
"""


def test_in_a_plain_cell() -> None:
    cells = [new_code_cell(SETUP), *map(new_code_cell, PLAIN), new_code_cell("1 + await fetch()")]
    made = new_notebook(cells=cells)
    NotebookClient(made, kernel_name="python3", allow_errors=True, timeout=60).execute()
    assert made.cells[0].outputs == []
    for cell in made.cells[1:-1]:
        said = "".join(out.text for out in cell.outputs if out.output_type == "stream")
        assert "An `await` is missing, before `fetch(…)`. In a cell, line " in said, cell.source
        assert f": {PLAIN[cell.source]}\n" in said, cell.source
        assert said.count("missing") == 1, cell.source
        assert "never awaited" not in said
    assert all(out.output_type != "stream" for out in made.cells[-1].outputs)
