"""What outlives the command that started it: never doubled, never left, and used by who comes later."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from lab_environment import free_port
from notebook_runner import processes_of, runs
from sampled import sampled
from workshop_command import Workshop, workshop_command

PATIENCE = 150.0  # seconds, on a busy machine
WORKERS = {"orchestrator", "it", "finance", "repair"}
MCP_SERVERS = {"it", "finance", "repair"}
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with pytest.MonkeyPatch.context() as patch, workshop_command() as command:
        for name in MCP_SERVERS:
            patch.setenv(f"{name.upper()}_MCP_PORT", str(free_port()))
        for name in ("TEMPORAL", "UI", "HTTP"):
            patch.setenv(f"WORKSHOP_{name}_PORT", str(free_port()))
        yield command


def launched(workshop: Workshop, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        workshop.command(*arguments),
        env=workshop.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def begin(workshop: Workshop) -> Iterator[Begin]:
    """Start the command and go on; nothing of it is left in the end."""
    begun = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        begun.append(launched(workshop, *arguments))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()
    workshop("down")
    nothing_runs(workshop)


def eventually(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def ours(workshop: Workshop) -> list[psutil.Process]:
    """Workers, servers and JupyterLab that live."""
    kinds = ("workshop_lib", "start-dev", "jupyterlab")
    return [p for p in processes_of(workshop.state) if any(runs(p, kind) for kind in kinds)]


def nothing_runs(workshop: Workshop) -> None:
    eventually(lambda: not ours(workshop))
    said = json.loads(workshop("status", "--json").stdout)
    assert said == {"server": None, "workers": [], "mcp_servers": []}


def everything_runs_once(workshop: Workshop) -> None:
    said = json.loads(workshop("status", "--json").stdout)
    assert sorted(worker["name"] for worker in said["workers"]) == sorted(WORKERS)
    assert sorted(one["name"] for one in said["mcp_servers"]) == sorted(MCP_SERVERS)
    assert all(worker["polls"] for worker in said["workers"])
    assert all(one["works"] for one in said["mcp_servers"])
    assert len(ours(workshop)) == len(WORKERS) + len(MCP_SERVERS) + 1


# Who comes later: before the tests that stop what runs


@pytest.fixture(scope="module")
def with_workers(workshop: Workshop) -> Iterator[Workshop]:
    """All runs, once, although two have started it at the same time."""
    both = [launched(workshop, "up") for _ in range(2)]
    try:
        assert [process.wait(PATIENCE) for process in both] == [0, 0]
        everything_runs_once(workshop)
        yield workshop
    finally:
        workshop("down")
        for process in both:
            process.communicate()


def imported(stderr: str) -> set[str]:
    """The packages that `-X importtime` names."""
    return set(re.findall(r"^import time:.*\| +(\w+)$", stderr, re.MULTILINE))


@pytest.mark.parametrize("loop", sampled(["manual", "sdk", "mcp"], 1))
def test_a_question_is_answered_by_the_workers_that_poll(with_workers: Workshop, loop: str) -> None:
    question = ("ask", "--json", "--loop", loop, "What is 125 * 8?")
    done = with_workers.cold(*question, PYTHONPROFILEIMPORTTIME="1")
    assert "1000" in json.loads(done.stdout)["reply"], done.stderr
    assert not imported(done.stderr) & {"litellm", "agents", "openai", "fastmcp"}


def test_a_repair_is_carried_on_by_the_worker_that_polls(with_workers: Workshop) -> None:
    done = with_workers.cold(
        *("repair", "run", "--auto-approve", "--json"), PYTHONPROFILEIMPORTTIME="1"
    )
    assert done.returncode == 0, done.stderr
    assert not imported(done.stderr) & {"litellm", "openai"}
    listed = with_workers("repair", "list", PYTHONPROFILEIMPORTTIME="1")
    assert listed.returncode == 0 and "completed" in listed.stdout
    assert not imported(listed.stderr) & {"litellm", "agents", "openai", "fastmcp"}


def test_workers_that_would_answer_otherwise_are_not_used(with_workers: Workshop) -> None:
    faults = {"OFFLINE_FAULTS": "sequence=ok*9"}
    done = with_workers("ask", "--json", "What is 125 * 8?", **faults)
    assert "The worker orchestrator that runs" in done.stderr
    assert "has another faults" in done.stderr
    assert "1000" in json.loads(done.stdout)["reply"]
    # What was begun there goes on there, when nobody else is in the way any more.
    first = with_workers("chat", "--session", "kept", typed="What is 1 + 1?\nbye\n", **faults)
    assert "1 + 1 = 2" in first.stdout, first.stderr
    again = with_workers("chat", "--session", "kept", typed="What did I ask first?\nbye\n")
    assert again.stdout.count("What is 1 + 1?") == 2, again.stderr


def test_a_worker_that_is_held_is_not_used(with_workers: Workshop) -> None:
    (worker,) = [p for p in ours(with_workers) if runs(p, "agents.worker")]
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        said = json.loads(with_workers("status", "--json").stdout)
        assert {w["name"] for w in said["workers"] if not w["polls"]} == {"orchestrator"}
        done = with_workers("ask", "What is 125 * 8?")
        assert done.stdout == "125 * 8 = 1000.\n", done.stderr
    finally:
        os.kill(worker.pid, signal.SIGCONT)


# Starting and stopping


def test_ups_and_downs_wait_for_each_other(with_workers: Workshop, begin: Begin) -> None:
    stopping = begin("down")
    eventually(lambda: len(ours(with_workers)) < 8 or stopping.poll() is not None)
    starting = begin("up")
    assert stopping.wait(PATIENCE) == 0
    eventually(lambda: list((with_workers.state / "services").glob("*.json")))
    again = begin("down")
    assert (starting.wait(PATIENCE), again.wait(PATIENCE)) == (0, 0)
    stopped = again.communicate()[1]
    assert "waiting for it" in stopped and "dev server" in stopped
    assert all(f"worker {name}" in stopped for name in WORKERS)
    assert all(f"MCP server {name}" in stopped for name in MCP_SERVERS)
    nothing_runs(with_workers)
    assert "Nothing was running" in with_workers("down").stderr


@pytest.mark.parametrize(
    "started", sampled(["server-starting.json", "server.json", "services/*.json"], 1)
)
def test_what_a_killed_up_has_started_is_stopped(
    workshop: Workshop, begin: Begin, started: str
) -> None:
    starting = begin("up")
    eventually(lambda: list(workshop.state.glob(started)))
    starting.kill()
    starting.wait()
    assert workshop("down").returncode == 0
    nothing_runs(workshop)


def test_jupyterlab_is_stopped_where_its_workshop_was_killed(
    workshop: Workshop, begin: Begin
) -> None:
    lab = begin("--no-browser", f"--port={free_port()}")
    eventually(lambda: list((workshop.state / "services").glob("jupyterlab-*.json")))
    assert "JupyterLab" not in workshop("down").stderr  # while it lives, it is its own to end
    lab.kill()
    lab.wait()
    assert "JupyterLab" in workshop("down").stderr
    nothing_runs(workshop)


def test_a_second_mcp_server_leaves_the_first_ones_record(workshop: Workshop, begin: Begin) -> None:
    def lines() -> list[str]:
        return [line for line in workshop("status").stdout.splitlines() if "MCP" in line]

    both = [begin("mcp", "serve", "it", "--port", str(free_port())) for _ in range(2)]
    urls = [str(process.stdout and process.stdout.readline()).strip() for process in both]
    assert all(url.startswith("http://127.0.0.1:") for url in urls)
    assert len(lines()) == 2
    both[1].send_signal(signal.SIGINT)
    both[1].wait(PATIENCE)
    (left,) = lines()
    assert urls[0] in left and "None" not in left
    both[0].kill()
    both[0].wait()
    assert "MCP server it: is gone" in workshop("status").stdout
