"""Workers as services: told to stop in the middle of a turn, they lose nothing and do nothing twice."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from lab_environment import LIMIT, free_port, fresh, hold
from sampled import sampled
from temporalio.api.enums.v1 import VersioningBehavior
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode
from workshop_command import BIN

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.llm.journal import read_journal
from workshop_lib.settings import get_settings

GRACE = 20.0  # seconds; the services of this file have it, and a busy machine may need some of it
HANGS = """
import asyncio, time
from temporalio import activity
from workshop_lib.settings import get_settings
from workshop_lib.temporal.service import serve
from workshop_lib.temporal.worker import WorkerSpec

@activity.defn
async def hang() -> None:
    print("hangs", flush=True)
    time.sleep(600)

asyncio.run(serve(WorkerSpec(name="hangs", namespace="default", task_queue={queue!r}, activities=[hang])))
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def queue() -> str:
    return fresh("service")


@pytest.fixture
def service(
    client: Client, queue: str, tmp_path: Path, settings_env: Callable[..., None]
) -> Iterator[Start]:
    """Start the orchestrator's worker as `workshop up` and a container do; returns once it polls."""
    settings_env(
        WORKSHOP_STATE_DIR=tmp_path / "state",
        ORCHESTRATOR_QUEUE=queue,
        WORKSHOP_MODEL_JOURNAL=tmp_path / "journal",
        WORKSHOP_GRACE=GRACE,
    )
    begun: list[subprocess.Popen[str]] = []

    def start(
        *arguments: str, says: str = "worker orchestrator", **env: str
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "workshop_lib.agents.worker"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | env,
        )
        begun.append(process)
        assert process.stdout
        said = ""
        while says not in said:
            said = process.stdout.readline()
            assert said, f"it left: {process.wait()}"
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


async def ended(process: "subprocess.Popen[str]") -> int:
    """The status with which a process that was told to stop has ended."""
    return await asyncio.to_thread(process.wait, GRACE + LIMIT)


def requests() -> Counter[str]:
    """How often each request was made to the model."""
    path = get_settings().model_journal
    assert path
    return Counter(entry.request for entry in read_journal(path))


def metrics_at(port: str) -> Counter[str]:
    """A service's metrics by name, those of all labels added up."""
    found: Counter[str] = Counter()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT) as answer:
        for line in answer.read().decode().splitlines():
            if not line.startswith("#"):
                found[line.split("{")[0].split(" ")[0]] += float(line.rsplit(" ", 1)[1])
    return found


def rounds(count: int) -> Iterator[tuple[str, float]]:
    """A loop, and the seconds of its turn after which the service is told to stop."""
    dice = random.Random(14)
    for _ in range(count):
        yield dice.choice(["manual", "sdk"]), round(dice.uniform(0, 1.8), 2)


@pytest.mark.parametrize("count", sampled([1, 20], 0, ids=str, always=lambda count: count == 1))
@pytest.mark.timeout(900)
async def test_told_to_stop_in_mid_turn_it_finishes_what_it_has(
    count: int, client: Client, queue: str, service: Start
) -> None:
    worker = service(OFFLINE_LATENCY_MS="700")
    for loop, moment in rounds(count):
        before = requests()
        chat = ChatClient(client, loop, fresh("stopped"), task_queue=queue)
        turn = asyncio.create_task(chat.send("What is 15 * 23?"))
        await asyncio.sleep(moment)
        worker.send_signal(signal.SIGTERM)
        new = await asyncio.to_thread(service, OFFLINE_LATENCY_MS="700")
        assert await ended(worker) == 0, f"{loop}, {moment} s: it was not done in its grace"
        worker = new
        async with asyncio.timeout(LIMIT):
            reply = await turn
        assert "345" in reply.text
        made = requests() - before
        assert made.total() == reply.model_calls == 2, f"{loop}, {moment} s: {made}"
        assert set(made.values()) == {1}
        await chat.end()


async def test_a_call_that_outlasts_the_grace_is_handed_back(
    client: Client, queue: str, service: Start
) -> None:
    """The one in flight is made again, and at once: nobody waits for a heartbeat that does not come."""
    worker = service(OFFLINE_LATENCY_MS="60000", WORKSHOP_GRACE="3")
    chat = ChatClient(client, "manual", fresh("outlasts"), task_queue=queue)
    turn = asyncio.create_task(chat.send("What is 15 * 23?"))
    async with asyncio.timeout(LIMIT):
        while not requests():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert await ended(worker) == 0
    async with asyncio.timeout(LIMIT), orchestrator().with_queue(queue).build(client):
        reply = await turn
    assert "345" in reply.text
    assert sorted(requests().values()) == [1, 2]
    attempts = [
        event.activity_task_started_event_attributes
        async for event in chat.handle.fetch_history_events()
        if event.HasField("activity_task_started_event_attributes")
    ]
    (again,) = [one.last_failure for one in attempts if one.attempt == 2]
    assert again.application_failure_info.type == "WorkerShutdown"  # and no time-out


async def test_its_log_says_of_which_run_each_line_is_and_metrics_how_often(
    client: Client, queue: str, service: Start
) -> None:
    secret = "sk-proj-of-nobody-0123456789"
    port = str(free_port())
    worker = service(
        WORKSHOP_LOG="json",
        WORKSHOP_METRICS_PORT=port,
        OPENAI_API_KEY=secret,
        LLM_MODEL="offline",
        OFFLINE_FAULTS="sequence=server_error",
    )
    chat = ChatClient(client, "manual", fresh("logged"), task_queue=queue)
    async with asyncio.timeout(LIMIT):
        assert "345" in (await chat.send("What is 15 * 23?")).text
    run = (await chat.handle.describe()).run_id
    with pytest.raises(WorkflowUpdateFailedError):
        await chat.handle.execute_update("send_message", "")
    metrics = await asyncio.to_thread(metrics_at, port)
    worker.send_signal(signal.SIGTERM)
    assert await ended(worker) == 0
    assert worker.stdout
    lines = [json.loads(line) for line in worker.stdout]
    assert secret not in json.dumps(lines)
    steps = [line for line in lines if line.get("activity_type") == "plan_next_action"]
    assert {(line["workflow_id"], line["run_id"]) for line in steps} == {(chat.workflow_id, run)}
    ends = [line["message"] for line in steps if "seconds" in line]
    assert ends == ["plan_next_action failed", *["plan_next_action done"] * 2]
    assert [line["attempt"] for line in steps if line.get("error")] == [1]
    assert (metrics["workshop_turns"], metrics["workshop_refused"]) == (1, 1)
    assert metrics["workshop_model_tokens"] > 0
    assert metrics["temporal_activity_execution_failed"] == 1  # tried again
    assert metrics["temporal_activity_schedule_to_start_latency_count"] >= 3  # how long they lay


async def test_its_health_is_an_exit_status(client: Client, queue: str, service: Start) -> None:
    """As a container's health check and a liveness probe ask: is it worth starting it anew?"""
    command = [str(BIN / "workshop"), "status", "hangs"]

    async def healthy(**env: str) -> bool:
        return not await asyncio.to_thread(subprocess.call, command, env=os.environ | env)

    assert not await healthy(), "there is none yet"
    worker = service("-c", HANGS.format(queue=queue), says="worker hangs")
    async with asyncio.timeout(LIMIT):
        while not await healthy():  # the server hears of it a moment later
            pass
    away = await healthy(TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}")
    assert away, "it waits for the server, and would after a restart"
    hold(worker.pid)
    assert not await healthy()
    worker.kill()
    assert not await healthy()


async def test_as_a_version_it_gets_runs_once_that_is_current(
    client: Client, queue: str, service: Start
) -> None:
    """As the controller for Kubernetes starts it: with the names of a deployment and of a build."""
    deployment = fresh("default/orchestrator")
    service(TEMPORAL_DEPLOYMENT_NAME=deployment, TEMPORAL_WORKER_BUILD_ID="b1")
    chat = ChatClient(client, "manual", fresh("versioned"), task_queue=queue)
    turn = asyncio.create_task(chat.send("What is 15 * 23?"))
    now_current = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=deployment, build_id="b1"
    )
    async with asyncio.timeout(LIMIT):
        while True:  # the server hears of the version with the worker's first polls
            try:
                await client.workflow_service.set_worker_deployment_current_version(now_current)
                break
            except RPCError as error:
                assert error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION)
                await asyncio.sleep(0.2)
        assert "345" in (await turn).text
    described = await chat.handle.describe()
    of_run = described.raw_description.workflow_execution_info.versioning_info
    assert of_run.deployment_version.build_id == "b1"
    assert of_run.behavior == VersioningBehavior.VERSIONING_BEHAVIOR_PINNED
    await chat.end()


async def test_what_hangs_does_not_keep_the_process(
    client: Client, queue: str, service: Start
) -> None:
    code = HANGS.format(queue=queue)
    worker = service("-c", code, says="worker hangs", WORKSHOP_GRACE="2")
    assert worker.stdout
    await client.start_activity(
        "hang", id=fresh("hang"), task_queue=queue, start_to_close_timeout=timedelta(seconds=60)
    )
    assert "hangs" in await asyncio.to_thread(worker.stdout.readline)
    worker.send_signal(signal.SIGTERM)
    assert await ended(worker) == 1
    assert "the server hands over what is left" in worker.stdout.read()
