"""The `workshop` command as a person meets it: a process with arguments, two streams and a status."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from notebook_runner import processes_of, runs
from openai_server import KEY, openai_server
from workshop_command import Workshop, workshop_command

from workshop_lib.cli.main import Commands, Later, app


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with workshop_command() as command:
        yield command


def test_ask_prints_the_reply_and_nothing_else_on_stdout(workshop: Workshop) -> None:
    done = workshop("ask", "What is 125 * 8?")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "125 * 8 = 1000.\n"


def test_ask_json_is_one_document(workshop: Workshop) -> None:
    done = workshop("ask", "--json", "What's the weather like in San Francisco?")
    document = json.loads(done.stdout)
    assert "15 °C" in document["reply"]
    assert document["tool_calls"] == ["weather"]
    assert document["model_calls"] == 2
    assert document["workflow_id"].startswith("chat-manual-")
    assert document["milliseconds"] > 0


def test_ask_without_an_answer_is_status_1(workshop: Workshop) -> None:
    with openai_server("bad_key") as model:
        setting = {"LLM_MODEL": "openai/m", "LLM_API_BASE": model.base, "OPENAI_API_KEY": KEY}
        done = workshop("ask", "--json", "Hello", **setting)
    document = json.loads(done.stdout)
    assert done.returncode == 1 and document["failed"] is True
    assert "OPENAI_API_KEY" in document["reply"] and "Traceback" not in done.stderr


def test_ask_says_a_word_while_the_model_takes_its_time(workshop: Workshop) -> None:
    done = workshop("ask", "Hello", OFFLINE_LATENCY_MS="7000")
    assert done.returncode == 0 and "No reply yet" in done.stderr and done.stdout


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_ask_by_way_of_mcp_leaves_no_server_behind(workshop: Workshop, transport: str) -> None:
    done = workshop(
        "ask", "--loop", "mcp", "--mcp-transport", transport, "What's the stock price of TSLA?"
    )
    assert "242.80 USD" in done.stdout and done.stdout.count("\n") == 1, done.stderr
    ours = processes_of(workshop.state)
    left = [process for process in ours if runs(process, "mcp_server")]
    assert left == []


def test_a_chaos_plan_that_is_none_is_told_before_anything_starts(
    workshop: Workshop, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("faults:\n  - {place: model, kind: rate_limit, chance: 1.2}\n")
    for path, said in ((plan, "line 2: fault 1 chance"), (tmp_path / "no.yaml", "does not exist")):
        asked = ("ask", "--chaos", str(path), "What is 2 + 2?")
        done = workshop(*asked, WORKSHOP_STATE_DIR=str(tmp_path / "state"))
        assert (done.returncode, done.stdout) == (1, "") and said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) <= 3
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("message", ["", "   \n", "x" * 100_000], ids=["empty", "blank", "100 kB"])
def test_a_message_that_is_refused_says_why_before_anything_is_started(
    workshop: Workshop, message: str, tmp_path: Path
) -> None:
    done = workshop("ask", message, WORKSHOP_STATE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "message" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_named_session_is_rejoined_and_listed(workshop: Workshop) -> None:
    first = workshop("chat", "--session", "mine", typed="What is 25 + 17?\n\nbye\n")
    assert "Agent: 25 + 17 = 42." in first.stdout, first.stderr
    again = workshop("chat", "--session", "mine", typed="What did I ask first?\nquit\n")
    assert "You: What is 25 + 17?" in again.stdout
    assert again.stdout.count("What is 25 + 17?") == 2
    listed = json.loads(workshop("sessions", "--json").stdout)
    assert ("mine", "running") in {(entry["session"], entry["status"]) for entry in listed}
    # A question that was asked by name and not kept has ended.
    assert all(entry["status"] == "completed" for entry in listed if entry["session"] != "mine")
    assert json.loads(workshop("sessions", "--mine", "--json").stdout) == listed
    assert json.loads(workshop("sessions", "--mine", "--json", USER_NAME="ada").stdout) == []
    # An earlier message is changed in another session; and the first one is deleted.
    fork = ("sessions", "fork", "mine", "2", "What is 15 * 23?", "--session", "other")
    assert "345" in workshop(*fork).stdout
    again = workshop(*fork)
    assert again.returncode == 1 and "There is a session 'other' already" in again.stderr
    assert workshop("sessions", "delete", "mine", typed="n\n").returncode == 1
    deleted = workshop("sessions", "delete", "mine", "--yes")
    assert deleted.returncode == 0 and "it-namespace" in deleted.stdout, deleted.stderr
    missing = workshop("sessions", "delete", "mine", typed="y\n")  # it is not asked whether to
    assert missing.returncode == 1 and "no session" in missing.stderr
    assert "Delete the session" not in missing.stderr
    other = workshop("chat", "--session", "other", typed="bye\n").stdout
    assert "Note: The server does not keep" in other and "You: What is 15 * 23?" in other


@pytest.mark.parametrize(
    "arguments", [["ask"], ["frobnicate"], ["ask", "x", "--frobnicate"], ["notebook"]]
)
def test_wrong_usage_is_status_2(workshop: Workshop, arguments: list[str]) -> None:
    done = workshop(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_unknown_loop_is_named_with_the_known_ones(workshop: Workshop) -> None:
    done = workshop("ask", "--loop", "moebius", "hello")
    assert done.returncode == 2
    assert "moebius" in done.stderr
    assert "manual" in done.stderr and "sdk" in done.stderr


def test_an_unreadable_env_file_is_said_by_line_and_without_its_content(
    workshop: Workshop, tmp_path: Path
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("LLM_MODEL=offline/rules\nsk-secret-without-a-name\n")
    done = workshop("ask", "hello", WORKSHOP_ENV_FILE=str(env_file))
    assert done.returncode == 1
    assert "Line 2" in done.stderr
    assert "secret" not in done.stderr
    env_file.write_bytes(b"\xff\xfe\x00bad")
    done = workshop("ask", "hello", WORKSHOP_ENV_FILE=str(env_file))
    assert done.returncode == 1
    assert "not UTF-8" in done.stderr


def test_a_state_folder_that_cannot_be_written(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = workshop("ask", "hello", WORKSHOP_STATE_DIR=str(tmp_path / "file" / "state"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_a_key_for_another_provider_than_the_model(workshop: Workshop) -> None:
    done = workshop(
        "ask", "hello", LLM_MODEL="anthropic/claude-x", OPENAI_API_KEY="sk-test-abcdefgh"
    )
    assert done.returncode == 1
    assert "ANTHROPIC_API_KEY" in done.stderr
    assert "abcdefgh" not in done.stderr


def test_an_unknown_notebook_is_named_with_the_known_ones(workshop: Workshop) -> None:
    done = workshop("notebook", "reset", "77")
    assert done.returncode == 1
    assert "00" in done.stderr


def test_the_interpreter_is_not_torn_down_under_the_sdks_threads(workshop: Workshop) -> None:
    """They let go of it a moment after the last word, and would now and then crash it with status 134."""
    program = (
        "import atexit, sys; atexit.register(print, 'torn down'); from workshop_lib.__main__ import main;"
        "sys.argv = ['workshop', *sys.argv[1:]]; main()"
    )

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program, *arguments]
        env = workshop.environment()
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=90)

    used = run("sessions")
    assert (used.returncode, "torn down" in used.stdout) == (0, False), used.stderr
    unused = run("--no-such-option")  # the SDK was not even loaded
    assert (unused.returncode, "torn down" in unused.stdout) == (2, True), unused.stderr


def test_the_help_of_what_is_not_loaded_is_that_of_the_command() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    for name, command in group.commands.items():
        assert isinstance(command, Later)
        command.read_help()
        assert command.help and command.help == command.load().help, name
