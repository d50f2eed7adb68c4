"""Processes of lessons: forks of one that has loaded what they need, or started from nothing."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from lab_environment import hold, lab

from workshop_lib.lab.workers import forking as processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")

CHILD = """
import os, sys, threading, time

def main():
    word = sys.argv[1]
    if word == "loaded":
        print("litellm" in sys.modules, threading.active_count(), os.environ.get("COLOUR"))
        print(sys.stdin.read(), end="")
        os.write(int(sys.argv[2]), b"on the same number")
    elif word == "exit":
        sys.exit(int(sys.argv[2]))
    elif word == "raise":
        raise RuntimeError("a bug")
    elif word == "wait":
        print(os.getpgid(0) == os.getpid(), flush=True)
        time.sleep(60)
"""


@pytest.fixture(scope="module", autouse=True)
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module that a fork can import, and a server that was started when it could."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "a_child.py").write_text(CHILD)
    with lab(folder / "state") as patch, patch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder))
        environment.setattr(processes, "_server", None)
        processes.get_ready()
        yield
        assert processes._server
        processes._server._process.kill()


Start = Callable[..., tuple[processes.Process, int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a child; returns it and the pipe with its output."""
    pipes: list[int] = []

    def started(
        *arguments: str, typed: bytes = b"", **more: object
    ) -> tuple[processes.Process, int]:
        stdin, ours = os.pipe()
        os.write(ours, typed)
        os.close(ours)
        said, theirs = os.pipe()
        pipes.append(said)
        process = processes.start(
            "a_child", *arguments, stdin=stdin, stdout=theirs, stderr=theirs,
            env=os.environ | {"COLOUR": "green"}, with_models=True, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        os.close(stdin)
        os.close(theirs)
        return process, said

    yield started
    for pipe in pipes:
        os.close(pipe)


def read(pipe: int) -> str:
    """Everything until its end."""
    with os.fdopen(os.dup(pipe)) as output:
        return output.read()


def test_a_fork_has_everything_loaded_and_its_own_files_and_environment(start: Start) -> None:
    extra, theirs = os.pipe()
    process, said = start("loaded", str(theirs), typed=b"typed", pass_fds=[theirs])
    os.close(theirs)
    assert isinstance(process, processes.Fork)
    assert read(said) == "True 1 green\ntyped"
    assert read(extra) == "on the same number"
    assert process.wait(5) == 0 == process.poll()
    os.close(extra)


@pytest.mark.parametrize(("arguments", "status"), [(["exit", "3"], 3), (["raise"], 1)])
def test_its_end_is_known(start: Start, arguments: list[str], status: int) -> None:
    process, said = start(*arguments)
    assert process.wait(10) == status
    assert ("RuntimeError: a bug" in read(said)) == (arguments == ["raise"])


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_it_is_killed_and_many_may_watch(start: Start, end: str) -> None:
    process, said = start("wait")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    assert os.read(said, 100) == b"True\n"  # a session of its own
    seen: list[int | None] = []

    def watch() -> None:
        while process.poll() is None:
            time.sleep(0.001)
        seen.append(process.poll())

    watchers = [threading.Thread(target=watch) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    getattr(process, end)()
    for watcher in watchers:
        watcher.join(10)
    number = signal.SIGKILL if end == "kill" else signal.SIGTERM
    assert seen == [-number] * 4
    process.kill()  # nobody is meant any more
    assert process.poll() == -number


def test_many_at_once(start: Start) -> None:
    both = [start("exit", str(number)) for number in range(20)]
    assert [process.wait(20) for process, _ in both] == list(range(20))


def test_a_server_that_was_killed_is_replaced(start: Start) -> None:
    before = processes._get_server()
    before._process.kill()
    before._process.wait()
    process, _ = start("exit", "4")
    assert process.wait(60) == 4
    assert processes._get_server() is not before


def test_one_that_is_not_made_yet_is_killed_as_soon_as_it_is(start: Start) -> None:
    server = processes._get_server()._process
    hold(server.pid)  # as if it were still loading
    try:
        process, _ = start("wait")
        assert process.pid == 0 and process.poll() is None
        process.kill()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert process.wait(20) == -signal.SIGKILL


def test_the_server_leaves_with_the_one_who_asked() -> None:
    code = "from workshop_lib.lab.workers import forking as p; s = p._get_server(); print(s._process.pid)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    server = int(said.stdout)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(server).wait(30)
    assert not psutil.pid_exists(server)


async def test_where_nothing_forks_it_is_started_from_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_FORKS", False)
    (Path(os.environ["PYTHONPATH"]) / "a_child.py").write_text(CHILD + "\nmain()\n")
    process, said = start("exit", "5")
    assert isinstance(process, subprocess.Popen)
    assert await asyncio.to_thread(process.wait, 20) == 5
    assert read(said) == ""
