"""Processes of lessons: forks of one that has loaded what they need, or started from nothing."""

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe, forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from lab_environment import hold, lab

from workshop_lib.lab.workers import forking
from workshop_lib.lab.workers.forking import Child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")

CHILD = """
import os, sys, threading, time

def loaded(news):
    print("printed")
    session = os.getpgid(0) == os.getpid()
    news.send(("litellm" in sys.modules, threading.active_count(), os.environ.get("COLOUR"), session))

def leave(status):
    sys.exit(status)

def fail():
    raise RuntimeError("a bug")

def wait(news):
    news.send(os.getppid())
    time.sleep(60)
"""


@pytest.fixture(scope="module", autouse=True)
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module that a fork can import, and a server that was started when it could."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "a_child.py").write_text(CHILD)
    with lab(folder / "state") as patch, patch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder))
        environment.syspath_prepend(str(folder))
        environment.setattr(forkserver, "_forkserver", server := forkserver.ForkServer())
        for name in ("ensure_running", "connect_to_new_process", "set_forkserver_preload"):
            environment.setattr(forkserver, name, getattr(server, name))
        forking.get_ready()
        yield importlib.import_module("a_child")
        os.kill(server_pid(), signal.SIGKILL)


def server_pid() -> int:
    pid: int = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return pid


Start = Callable[..., Child]


@pytest.fixture
def make(tmp_path: Path) -> Start:
    """Makes a child, which is still to be started."""

    def made(work: Callable[..., object], *arguments: object, with_models: bool = True) -> Child:
        env = {"COLOUR": "green"}
        return Child(work, *arguments, env=env, log=tmp_path / "log", with_models=with_models)

    return made


@pytest.fixture
def start(make: Start) -> Start:
    """Starts a child."""

    def started(*arguments: object, **options: bool) -> Child:
        process = make(*arguments, **options)
        process.start()
        return process

    return started


@pytest.fixture
def news() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = Pipe(duplex=False)
    with ours, theirs:
        yield ours, theirs


def test_a_fork_has_everything_loaded_and_its_own_output_session_and_environment(
    child: ModuleType, start: Start, news: tuple[Connection, Connection], tmp_path: Path
) -> None:
    process = start(child.loaded, news[1])
    # One thread besides its own: the one that watches its parent.
    assert news[0].poll(60) and news[0].recv() == (True, 2, "green", True)
    assert process.wait(5) == 0 == process.poll()
    assert (tmp_path / "log").read_text() == "printed\n"


def test_its_end_is_known(child: ModuleType, start: Start, tmp_path: Path) -> None:
    assert start(child.leave, 3).wait(10) == 3
    assert start(child.fail).wait(10) == 1
    assert "RuntimeError: a bug" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_it_is_killed_and_many_may_watch(
    child: ModuleType, start: Start, news: tuple[Connection, Connection], end: str
) -> None:
    process = start(child.wait, news[1])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    assert news[0].poll(10) and news[0].recv() == server_pid()
    seen: list[int | None] = []

    def watch(*, waits: bool) -> None:
        while not waits and process.poll() is None:
            time.sleep(0.001)
        seen.append(process.wait(10))

    watchers = [threading.Thread(target=watch, kwargs={"waits": n % 2 == 0}) for n in range(4)]
    for watcher in watchers:
        watcher.start()
    getattr(process, end)()
    for watcher in watchers:
        watcher.join(10)
    number = signal.SIGKILL if end == "kill" else signal.SIGTERM
    assert seen == [-number] * 4
    process.kill()  # nobody is meant any more
    assert process.poll() == -number


def test_many_at_once(child: ModuleType, start: Start) -> None:
    processes = [start(child.leave, number) for number in range(20)]
    assert [process.wait(20) for process in processes] == list(range(20))


def test_a_server_that_was_killed_is_replaced(child: ModuleType, start: Start) -> None:
    before = server_pid()
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    assert start(child.leave, 4).wait(60) == 4
    assert server_pid() != before


def test_where_there_is_nothing_to_fork_from_it_works_all_the_same(
    child: ModuleType, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkserver, "connect_to_new_process", lambda fds: os.open("/none", 0))
    assert start(child.leave, 4).wait(60) == 4


def test_one_that_is_not_made_yet_is_killed_as_soon_as_it_is(
    child: ModuleType, make: Start, news: tuple[Connection, Connection]
) -> None:
    hold(server_pid())  # as if it were still loading
    process = make(child.wait, news[1])
    starting = threading.Thread(target=process.start)
    starting.start()
    try:
        assert process.pid == 0 and process.poll() is None
        process.kill()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    finally:
        os.kill(server_pid(), signal.SIGCONT)
    assert process.wait(20) == -signal.SIGKILL
    starting.join()


def test_the_server_leaves_with_the_one_who_asked() -> None:
    code = (
        "from multiprocessing import forkserver; from workshop_lib.lab.workers.forking import get_ready;"
        "get_ready(); print(forkserver._forkserver._forkserver_pid)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    server = int(said.stdout)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(server).wait(30)
    assert not psutil.pid_exists(server)


SCRIPT = """
import sys
print("run as", __name__, flush=True)
from pathlib import Path
import a_child
from workshop_lib.lab.workers.forking import Child
for with_models in (True, False):
    child = Child(a_child.leave, 3, log=Path(sys.argv[1]), with_models=with_models)
    child.start()
    print(child.wait(60))
"""


def test_a_script_is_not_run_again_and_its_folder_holds_no_module(
    tmp_path: Path,
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "tracemalloc.py").write_text("raise SystemExit('a module of this folder')")
    (tmp_path / "socket.py").write_text("raise SystemExit('a module of this folder')")
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-P", "script.py", log],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split("\n") == ["run as __main__", "3", "3", ""], done.stderr
    assert not log.read_text()


async def test_where_nothing_forks_it_is_started_from_nothing(
    child: ModuleType,
    start: Start,
    news: tuple[Connection, Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forking, "_FORKS", False)
    process = await asyncio.to_thread(start, child.wait, news[1])
    assert await asyncio.to_thread(news[0].poll, 60) and news[0].recv() == os.getpid()
    process.kill()
    assert await asyncio.to_thread(process.wait, 20) == -signal.SIGKILL
