"""Every command at the edges of its terminal and its machine: words and a status, and never a traceback.

Streams that are closed, full or not in UTF-8, a state folder that cannot be used or holds what nobody wrote,
signals at any moment, and command lines that nobody would type.
"""

import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from sampled import sampled
from workshop_command import BIN, LIMIT, Workshop, workshop_command

from workshop_lib.cli.main import Later, app

PROGRAMS = [
    f"workshop_lib.{name}"
    for name in (
        *("agents.worker", "repair.worker", "teams.it.worker", "teams.finance.worker"),
        *("repair.mcp_server", "teams.it.mcp_server", "teams.finance.mcp_server"),
    )
]
CELSIUS = "What's the weather like in San Francisco?"  # the reply has a character that ASCII lacks


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of a group, by the words that call it."""
    for name, command in sorted(group.commands.items()):
        command = command.load() if isinstance(command, Later) else command
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(leaves(typer.main.get_command(app)))
# What starts much, stops it or serves for ever is tried by name.
TRIED = [words for words in COMMANDS if words not in (("up",), ("clean",), ("mcp", "serve"))]
# With the least that they need.
CALLS = [
    [*words, *(["x"] if any(p.required for p in COMMANDS[words].params) else [])] for words in TRIED
]
READS = [
    ["status"],
    ["status", "--json"],
    ["doctor"],
    ["progress"],
    ["down"],
    ["mcp", "config", "goose"],
]


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with workshop_command() as command:
        command("repair", "orders")
        command("sessions")  # starts the server that the others find
        yield command


def assert_in_words(done: "subprocess.CompletedProcess[str]") -> None:
    """It has ended with a status of its own, and in words of ours."""
    said = f"{done.stdout}{done.stderr}"
    assert done.returncode in (0, 1, 2), f"{done.args}: {done.returncode} {said}"
    for word in ("Traceback", "Exception ignored", "fault of the workshop"):
        assert word not in said, f"{done.args}: {said}"
    if done.returncode == 1 and not {"doctor", "status"} & {*done.args}:  # their answer is no error
        assert done.stderr.strip(), done.args


def shell(workshop: Workshop, redirection: str, *arguments: str, **env: str) -> Any:
    """A command with streams of a shell's making."""
    script = f'exec "$0" "$@" {redirection}'
    return workshop.run(["sh", "-c", script, *workshop.command(*arguments)], **env)


# --- streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", sampled(["ascii", "latin-1"], 1))
def test_a_reply_is_shown_on_a_terminal_that_lacks_a_character(
    workshop: Workshop, encoding: str
) -> None:
    done = subprocess.run(
        workshop.command("ask", CELSIUS),
        capture_output=True,
        timeout=LIMIT,
        env=workshop.environment(PYTHONIOENCODING=encoding),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).startswith("The weather in San Francisco: 15 ")


def test_json_is_ascii(workshop: Workshop) -> None:
    done = workshop.cold("ask", "--json", CELSIUS, PYTHONIOENCODING="ascii")
    assert done.stdout.isascii() and "15 °C" in json.loads(done.stdout)["reply"]


def test_a_reader_that_has_gone_changes_nothing(workshop: Workshop) -> None:
    for redirection in (">&-", "<&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"):
        done = shell(workshop, redirection, "repair", "orders")
        assert (done.returncode, done.stderr) == (0, ""), redirection
    assert shell(workshop, "<&- >&- 2>&-", "ask", "What is 2 + 3?").returncode == 0
    there, here = os.pipe()
    os.close(there)
    done = subprocess.run(
        workshop.command("repair", "orders"),
        stdout=here,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        env=workshop.environment(),
    )
    os.close(here)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["ask", "--json", CELSIUS], ["--help"]])
def test_what_a_full_disk_refuses_is_shown_on_stderr(
    workshop: Workshop, arguments: list[str]
) -> None:
    done = shell(workshop, ">/dev/full", *arguments)
    assert done.returncode == 0  # that of the work
    said, _, shown = done.stderr.partition("What belongs there follows here.\n")
    assert "No space left" in said
    assert "15" in shown or "Usage" in shown


@pytest.mark.parametrize(
    ("redirection", "call"),
    sampled(itertools.product([">/dev/full", "<&- >&- 2>&-", "2>/dev/full"], READS), 6),
)
def test_no_command_minds_its_streams(
    workshop: Workshop, redirection: str, call: list[str]
) -> None:
    done = shell(workshop, redirection, *call)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1)


def test_a_chat_takes_bytes_that_are_no_text(workshop: Workshop) -> None:
    done = subprocess.run(
        workshop.command("chat"),
        input=b"gr\xfc\xdfe\nWhat is 2 + 3?\nbye\n",
        capture_output=True,
        timeout=LIMIT,
        env=workshop.environment(),
    )
    assert done.returncode == 0, done.stderr
    assert b"half a character" in done.stdout and b"2 + 3 = 5." in done.stdout


# --- the state folder -------------------------------------------------------------------------------


def no_room() -> None:
    """As on a full disk: no file can grow. In the child, before the program begins."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize("kind", ["a file", "below a file", "no room"])
def test_a_state_folder_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    state = {"a file": "file", "below a file": "file/state", "no room": "state"}[kind]
    nobody = Workshop(tmp_path / state)
    calls = [*CALLS, ["mcp", "serve", "it"], ["up"], ["clean", "--yes"]]
    env = {"WORKSHOP_WORKSPACE": str(tmp_path / state / "workspace")}
    for call in calls[:: {"a file": 1, "below a file": 9, "no room": 8}[kind]]:
        if kind != "no room":
            done = nobody(*call, **env)
        else:
            done = subprocess.run(
                nobody.command(*call),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                preexec_fn=no_room,
                env=nobody.environment(**env),
            )
        assert_in_words(done)


RECORDS = [
    "server.json",
    "mcp-it.json",
    "progress.json",
    "services/it.json",
    "services/mcp-it.json",
]
CONTENTS = {
    "empty": "",
    "garbage": "\x00\xff{",
    "a list": "[]",
    "a number": "5",
    "an empty object": "{}",
    "a huge pid": json.dumps({"pid": 10**30, "create_time": 0, "name": "it", "created": 0}),
    "a negative pid": json.dumps({"pid": -1, "create_time": 0, "name": "it", "created": 0}),
    "no pid": json.dumps({"pid": "x", "create_time": [], "name": {}, "created": None}),
    "nested": "[" * 100_000,
    "other types": json.dumps(
        {"pid": os.getpid(), "create_time": psutil.Process().create_time(), "name": [], "kind": {}}
    ),
    "init": json.dumps({"pid": 1, "create_time": 0, "name": "it", "created": 0}),
}


@pytest.mark.parametrize("content", sampled(CONTENTS.values(), 5, ids=CONTENTS))
def test_records_that_nobody_wrote(tmp_path: Path, content: str) -> None:
    state = Workshop(tmp_path)
    for call in READS:
        for name in RECORDS:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content, encoding="latin-1")
        assert_in_words(state(*call))


def test_the_record_of_a_process_of_somebody_elses(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        began = psutil.Process(stranger.pid).create_time() - 1000
        record = {"pid": stranger.pid, "create_time": began, "created": began, "name": "it"}
        (tmp_path / "services").mkdir()
        for name in RECORDS:
            (tmp_path / name).write_text(json.dumps(record | {"command": ["it"]}))
        for call in READS:
            assert_in_words(Workshop(tmp_path)(*call))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# --- what ends a program ----------------------------------------------------------------------------


def test_a_bug_is_a_sentence_and_its_traceback_lies_in_a_log(workshop: Workshop) -> None:
    program = (
        "import sys; sys.argv = ['workshop', 'progress']; import workshop_lib.lab.jupyter.progress as record;"
        "record.read = lambda: {}['sk-secret']; from workshop_lib.__main__ import main; main()"
    )
    done = workshop.run([sys.executable, "-c", program])
    log = workshop.state / "logs" / "errors.log"
    assert done.returncode == 1
    assert "KeyError" in done.stderr and "Traceback" not in done.stderr
    assert "sk-secret" not in done.stderr
    assert str(log) in done.stderr and len(done.stderr.splitlines()) == 2
    assert "Traceback" in log.read_text() and "KeyError" in log.read_text()


@pytest.mark.parametrize("module", sampled(PROGRAMS, 3))
def test_a_service_without_a_state_folder_says_so(tmp_path: Path, module: str) -> None:
    (tmp_path / "file").touch()
    done = Workshop(tmp_path / "file").run([sys.executable, "-m", module], LLM_TIMEOUT="no")
    assert done.returncode == 1
    assert "llm_timeout" in done.stderr and "Traceback" not in done.stderr


def with_a_terminals_signals() -> None:
    """What a shell in the background or `nohup` has its children ignore is not ignored here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rounds", [range(4), pytest.param(range(4, 200), marks=pytest.mark.long)])
def test_a_signal_at_any_moment(workshop: Workshop, rounds: range) -> None:
    programs = [
        *([str(BIN / "workshop"), *call] for call in [["ask", "2 + 3"], ["chat"], ["doctor"]]),
        *([str(BIN / "workshop"), *call] for call in [["repair", "list"], ["mcp", "serve", "it"]]),
        *([sys.executable, "-m", module] for module in PROGRAMS),
    ]
    signals = [signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
    for number in rounds:
        chance = random.Random(number)
        program, sent = chance.choice(programs), chance.choice(signals)
        process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=workshop.environment(),
            preexec_fn=with_a_terminals_signals,
        )
        time.sleep(chance.choice([0.05, 0.2, 0.5, 1, 2, 4]) * chance.uniform(0.7, 1.3))
        process.send_signal(sent)
        try:
            _, said = process.communicate(timeout=15 if sent == signal.SIGPIPE else LIMIT)
        except subprocess.TimeoutExpired:  # it does not mind, and serves
            assert sent == signal.SIGPIPE
            process.terminate()
            _, said = process.communicate(timeout=LIMIT)
        # Python itself may be interrupted before it knows of us.
        assert "Traceback" not in said or "workshop_lib" not in said, (number, program, sent, said)
        assert "Exception ignored" not in said, (number, program, sent, said)


# --- command lines that nobody would type -----------------------------------------------------------

WORDS: list[str | bytes] = [
    *("", " ", "\t", "x", "x" * 1001, "x" * 100_000, "😀" * 250, "a\x1b[31mb", "a\nb", "\u202eabc"),
    *(b"\xff\xfe", "../../etc/passwd", "a/b", "$(id)", "[red]x[/red]", "--", "-1", "1e9", "nan"),
    *("0001-01-01", "9999-12-31", "9999-12-31T23:59", "2025-06-28", "24", "p1,p2", "null", "{}"),
    *("manual", "sdk", "claude", "goose", "it", "http", "stdio", "01", "99"),
]


def nonsense(chance: random.Random) -> list[str | bytes]:
    """A command with arguments and options of its own, and values of anybody's."""
    words = chance.choice(TRIED)
    line: list[str | bytes] = list(words)
    for parameter in COMMANDS[words].params:
        if parameter.param_type_name == "argument":
            if chance.random() < 0.85:
                line.append(chance.choice(WORDS))
        elif chance.random() < 0.35:
            line.append(chance.choice([*parameter.opts, *parameter.secondary_opts]))
            if not parameter.is_flag:
                line.append(chance.choice(WORDS))
    return [*line, chance.choice(WORDS)] if chance.random() < 0.1 else line


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "seeds", [pytest.param(range(30)), pytest.param(range(30, 300), marks=pytest.mark.long)]
)
def test_nonsense(workshop: Workshop, seeds: range) -> None:
    for seed in seeds:
        done = workshop(
            *nonsense(random.Random(seed)),
            typed="hello\nquit\n",
            WORKSHOP_WORKSPACE=str(workshop.state / "workspace"),
        )
        assert_in_words(done)
        assert all(c.isprintable() or c in "\n\t" for c in done.stdout), (seed, done.args)


NAMES: dict[str, str | bytes] = {
    "empty": "",
    "blank": "  ",
    "1,001": "x" * 1001,
    "100,000": "x" * 100_000,
    "half a character": b"\xff",
}
NEW_NAMES = NAMES | {
    "escape": "a\x1b[31mb",
    "two lines": "a\nb",
    "turned": "a\u202eb",
    "ends": " a",
}
GIVEN: list[tuple[list[str], dict[str, str | bytes]]] = [
    (["ask", "2 + 3", "--session"], NEW_NAMES),
    (["chat", "--session"], NEW_NAMES),
    (["repair", "run", "--id"], NEW_NAMES),
    (["repair", "proactive", "start"], NEW_NAMES),
    (["repair", "schedule", "create"], NEW_NAMES),
    (["repair", "status"], NAMES),
    (["repair", "approve", "--digest", "123456789012"], NAMES),
    (["repair", "schedule", "delete"], NAMES),
]


@pytest.mark.parametrize(("call", "names"), GIVEN, ids=[" ".join(call) for call, _ in GIVEN])
def test_what_is_no_name_is_refused_before_anything_starts(
    tmp_path: Path, call: list[str], names: dict[str, str | bytes]
) -> None:
    for kind, name in names.items():
        done = Workshop(tmp_path)(*call, name)
        assert done.returncode == 1, kind
        assert "'s name " in done.stderr and len(done.stderr) < 1000, kind
        assert list(tmp_path.iterdir()) == [], kind
