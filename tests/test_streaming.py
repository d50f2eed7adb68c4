"""Replies that arrive piece by piece, in the library and on the command line."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lab_environment import LIMIT, fresh
from notebook_runner import isolated_state
from temporalio.client import Client

from workshop_lib.agents.chat import ChatStart, Reply
from workshop_lib.agents.sessions import ChatClient, MessageRefused
from workshop_lib.agents.streaming import stream_reply
from workshop_lib.agents.turn import STOPPED
from workshop_lib.lab.watching.waiting import result
from workshop_lib.lab.workers.process import start_process
from workshop_lib.llm.gateway import load
from workshop_lib.temporal.worker import WorkerSpec

QUESTION = "What is the weather in Seattle?"
ANSWER = "The weather in Seattle: 14 °C, light rain, wind 15 km/h."
BIN = Path(sys.executable).parent


def new_chat(
    client: Client, spec: WorkerSpec, loop: str = "sdk", stream: bool = True
) -> ChatClient:
    return ChatClient(client, loop, task_queue=spec.task_queue, start=ChatStart(stream=stream))


async def items_of(stream: AsyncIterator[str | Reply]) -> tuple[list[str], Reply]:
    """The pieces and the reply that comes last."""
    async with asyncio.timeout(LIMIT):
        *pieces, reply = [item async for item in stream]
    assert isinstance(reply, Reply)
    texts = [piece for piece in pieces if isinstance(piece, str)]
    assert len(texts) == len(pieces)
    return texts, reply


async def test_the_pieces_together_are_the_reply(
    client: Client, worker: WorkerSpec, settings_env: Callable[..., None]
) -> None:
    settings_env(OFFLINE_LATENCY_MS=2000)  # of a call, from the first word to the last
    chat = new_chat(client, worker)
    pieces, reply = await items_of(stream_reply(client, chat, QUESTION))
    assert "".join(pieces) == reply.text == ANSWER
    assert len(pieces) > 1
    assert isinstance(reply, Reply) and reply == Reply(
        text=ANSWER, turn=1, model_calls=2, tool_calls=["weather"], tokens=reply.tokens
    )
    # What was streamed before is not streamed again.
    pieces, reply = await items_of(stream_reply(client, chat, "And in Portland?"))
    assert "".join(pieces) == reply.text
    assert "Portland: 17 °C" in reply.text and "Seattle" not in reply.text
    assert reply.turn == 2


@pytest.mark.parametrize(("loop", "stream"), [("sdk", False), ("manual", True)])
async def test_a_session_without_a_stream_gives_the_reply_in_one_piece(
    client: Client, worker: WorkerSpec, loop: str, stream: bool
) -> None:
    chat = new_chat(client, worker, loop, stream)
    for turn in (1, 2):
        pieces, reply = await items_of(stream_reply(client, chat, QUESTION))
        assert pieces == [reply.text] == [ANSWER]
        assert reply.turn == turn


async def test_a_message_to_a_session_that_has_ended_is_refused(
    client: Client, worker: WorkerSpec
) -> None:
    chat = new_chat(client, worker)
    await items_of(stream_reply(client, chat, QUESTION))
    await chat.end()
    async with asyncio.timeout(LIMIT):
        await result(chat.handle)
    with pytest.raises(MessageRefused, match="ended"):
        await items_of(stream_reply(client, chat, QUESTION))


async def test_a_worker_killed_in_mid_stream_leaves_the_right_reply(
    client: Client, spec: WorkerSpec
) -> None:
    spec = replace(spec, name=fresh("stream"), warm_ups=[load])
    doomed = await start_process(spec, env={"OFFLINE_LATENCY_MS": "2000"})
    heir = None
    streamed = ""
    reply = None
    try:
        async with asyncio.timeout(LIMIT):
            async for item in stream_reply(client, new_chat(client, spec), QUESTION):
                if isinstance(item, Reply):
                    reply = item
                    break
                streamed += item
                if heir is None:
                    assert doomed.alive and ANSWER not in streamed
                    doomed.kill()
                    heir = await start_process(replace(spec, name=f"{spec.name}-heir"))
    finally:
        for worker in (doomed, heir):
            if worker and worker.alive:
                worker.kill()
    assert heir  # it did come to a kill
    assert isinstance(reply, Reply) and reply == Reply(
        text=ANSWER, turn=1, model_calls=2, tool_calls=["weather"], tokens=reply.tokens
    )
    # What was streamed twice is followed by what counts, on a line of its own. Where the stream broke with
    # the worker, the rest of the reply follows.
    assert streamed == ANSWER or streamed.endswith(f"\n{ANSWER}")


def test_the_command_prints_a_reply_while_it_is_written() -> None:
    with isolated_state() as state:
        (state / "empty.env").touch()
        chat = subprocess.Popen(
            [BIN / "workshop", "chat", "--loop", "sdk"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"WORKSHOP_STATE_DIR": str(state), "OFFLINE_LATENCY_MS": "2000"},
        )
        try:
            assert chat.stdin and chat.stdout
            chat.stdin.write(f"{QUESTION}\nbye\n".encode())
            chat.stdin.flush()
            seen: list[bytes] = []
            while chunk := os.read(chat.stdout.fileno(), 65536):
                seen.append(chunk)
            assert chat.wait(LIMIT) == 0
        finally:
            chat.kill()
            chat.wait()
    printed = b"".join(seen).decode()
    assert f"Agent: {ANSWER}\n" in printed
    assert not any(ANSWER.encode() in chunk for chunk in seen)  # it did not come in one piece


def test_ctrl_c_stops_a_reply_and_the_talk_goes_on() -> None:
    with isolated_state() as state:
        (state / "empty.env").touch()
        chat = subprocess.Popen(
            [BIN / "workshop", "chat", "--loop", "sdk"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ
            | {
                "WORKSHOP_STATE_DIR": str(state),
                "WORKSHOP_MODEL_JOURNAL": str(state / "calls"),
                "OFFLINE_LATENCY_MS": "20000",
            },
            process_group=0,  # as a terminal's
        )
        try:
            assert chat.stdin and chat.stdout and chat.stderr
            chat.stdin.write(f"{QUESTION}\n".encode())
            chat.stdin.flush()
            while not (state / "calls").exists():  # until the model is asked
                assert chat.poll() is None
                time.sleep(0.05)
            os.killpg(chat.pid, signal.SIGINT)
            printed = b""
            while STOPPED.encode() not in printed:
                chunk = os.read(chat.stdout.fileno(), 65536)
                assert chunk, printed
                printed += chunk
            chat.stdin.write(b"bye\n")
            chat.stdin.close()
            told = chat.stderr.read()
            assert chat.wait(LIMIT) == 0
        finally:
            chat.kill()
            chat.wait()
    assert b"Stopping this reply." in told and b"Traceback" not in told
    assert ANSWER.encode() not in printed
