"""A session that goes on from an earlier turn of another: nothing before it is paid again or taken back."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sampled import sampled
from temporalio.client import Client

from workshop_lib.agents.chat import ChatStart, SessionLimits
from workshop_lib.agents.sessions import ChatClient, EffectsRemain, MessageRefused
from workshop_lib.errors import WorkshopError
from workshop_lib.llm.journal import read_journal
from workshop_lib.temporal.worker import WorkerSpec

LIMIT = timedelta(seconds=60)
loops = pytest.mark.parametrize("loop", ["manual", "sdk"])
SettingsEnv = Callable[..., None]


def new_chat(client: Client, spec: WorkerSpec, loop: str, updates: int = 1_000) -> ChatClient:
    start = ChatStart(limits=SessionLimits(updates=updates))
    return ChatClient(client, loop, task_queue=spec.task_queue, start=start)


async def talk(chat: ChatClient, turns: int) -> None:
    """A name, and then sums."""
    await chat.send("My name is Ada.", timeout=LIMIT)
    for number in range(2, turns + 1):
        await chat.send(f"What is {number} * 9973?", timeout=LIMIT)


FORKS = [(loop, *at) for loop in ("manual", "sdk") for at in ((4, 1_000), (4, 2), (3, 2), (2, 2))]


@pytest.mark.parametrize(("loop", "turn", "updates"), sampled(FORKS, 3))
async def test_an_earlier_message_is_changed(
    client: Client,
    worker: WorkerSpec,
    loop: str,
    turn: int,
    updates: int,
    settings_env: SettingsEnv,
    tmp_path: Path,
) -> None:
    chat = new_chat(client, worker, loop, updates)
    await talk(chat, 6)
    before = await chat.transcript()
    settings_env(WORKSHOP_MODEL_JOURNAL=tmp_path / "calls")
    fork, reply = await chat.fork(turn, "What is my name?", timeout=LIMIT)
    assert "Ada" in reply.text and reply.turn == turn
    assert len(read_journal(tmp_path / "calls")) == reply.model_calls == 1  # for the prefix: 0
    assert await chat.transcript() == before  # the first one is as it was
    lines = await fork.transcript()
    assert lines[: 2 * turn - 2] == before[: 2 * turn - 2]
    assert [line.text for line in lines[2 * turn - 2 :]] == ["What is my name?", reply.text]
    # It goes on as any other does, and can be forked itself.
    assert (await fork.send("What is 15 * 23?", timeout=LIMIT)).turn == turn + 1
    again, reply = await fork.fork(1, "My name is Bob.", timeout=LIMIT)
    assert reply.turn == 1
    assert "Bob" in (await again.send("What is my name?", timeout=LIMIT)).text
    assert len(await again.transcript()) == 4


@pytest.mark.parametrize("turn", [99, 7, 0, -1])
async def test_a_turn_that_there_is_not(client: Client, worker: WorkerSpec, turn: int) -> None:
    chat = new_chat(client, worker, "manual", 2)
    with pytest.raises(WorkshopError, match="no turn"):
        await chat.fork(turn, "Hello")  # it has not begun
    await talk(chat, 6)
    with pytest.raises(WorkshopError, match=rf"(?s)no turn {turn} .*from 1 to 6"):
        await chat.fork(turn, "Hello", timeout=LIMIT)


async def test_what_no_session_would_take_starts_none(client: Client, worker: WorkerSpec) -> None:
    chat = new_chat(client, worker, "manual")
    await talk(chat, 2)
    with pytest.raises(MessageRefused, match="empty"):
        await chat.fork(2, " ")
    with pytest.raises(MessageRefused, match="already"):
        await chat.fork(2, "Hello", session=chat.session)


@loops
async def test_what_was_changed_since_is_listed_before_it_is_confirmed(
    client: Client, worker: WorkerSpec, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workshop_lib.agents.local_tools import LOCAL_TOOLS

    monkeypatch.setattr(LOCAL_TOOLS["weather"], "changes", "asks the weather for rain")
    chat = new_chat(client, worker, loop, 2)
    await chat.send("Hello", timeout=LIMIT)
    for city in ("Seattle", "Portland", "Tokyo"):
        await chat.send(f"What is the weather in {city}?", timeout=LIMIT)
    effects = await chat.effects_from(3)
    assert [effect.turn for effect in effects] == [3, 4]
    assert (
        "weather" in effects[0].what and "Portland" in effects[0].what and "rain" in effects[0].what
    )
    with pytest.raises(EffectsRemain, match=r"Portland.*rain.*Tokyo") as refused:
        await chat.fork(3, "Hello", timeout=LIMIT)
    assert "confirmed=True" in str(refused.value)
    fork, _ = await chat.fork(3, "Hello", confirmed=True, timeout=LIMIT)
    # They are the other session's: what this one has in common with it ends before.
    assert [effect.turn for effect in await fork.effects_from(1)] == [2]
