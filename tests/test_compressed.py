"""What a model is sent can be written compressed: smaller histories, the same conversation."""

import os
import zlib
from dataclasses import replace
from datetime import timedelta

import pytest
from lab_environment import LIMIT, fresh, set_env
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.worker import Replayer

from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.errors import WorkshopError
from workshop_lib.lab.history import decode, history_of
from workshop_lib.lab.workers.process import start_process
from workshop_lib.temporal.compressed import AT_LEAST, ENCODING, MOST, deflated, inflated
from workshop_lib.temporal.failures import DATA_CONVERTER
from workshop_lib.temporal.worker import WorkerSpec

JSON = {"encoding": b"json/plain"}
MODELS = {"manual": "plan_next_action", "sdk": "invoke_model_activity"}
QUESTIONS = ("What is 15 * 9973?", "What is 16 * 9973?")


def sent_to_model(event: HistoryEvent) -> int:
    """Bytes of the request of a model call; 0 for another event."""
    scheduled = event.activity_task_scheduled_event_attributes
    return event.ByteSize() if scheduled.activity_type.name in MODELS.values() else 0


@pytest.mark.parametrize("loop", MODELS)
async def test_a_request_is_less_than_a_third_and_says_the_same(
    client: Client, worker: WorkerSpec, loop: str
) -> None:
    plain = ChatClient(client, loop, task_queue=worker.task_queue)
    said = [
        (await plain.send(question, timeout=timedelta(seconds=LIMIT))).text
        for question in QUESTIONS
    ]
    spec = replace(orchestrator(), task_queue=fresh("compressed"))
    process = await start_process(spec, env={"WORKSHOP_COMPRESS": "on"})
    try:
        small = ChatClient(client, loop, task_queue=spec.task_queue)
        answers = [(await small.send(q, timeout=timedelta(seconds=LIMIT))).text for q in QUESTIONS]
    finally:
        process.stop()
    assert answers == said
    histories = [await chat.handle.fetch_history() for chat in (plain, small)]
    sizes = [sum(map(sent_to_model, history.events)) for history in histories]
    assert sizes[1] < sizes[0] / 3
    # Read as ever, by us and by a replay, where nothing is compressed.
    asked = [(await history_of(chat.handle)).named(MODELS[loop]) for chat in (plain, small)]
    assert len(asked[0]) == len(asked[1]) == 4
    assert all(step.input and step.result for step in asked[1])
    plugins = [make() for make in spec.client_plugins]
    await Replayer(workflows=spec.workflows, plugins=plugins).replay_workflow(histories[1])


async def test_another_worker_takes_a_compressed_conversation_over(
    client: Client, worker: WorkerSpec
) -> None:
    spec = replace(orchestrator(), task_queue=fresh("compressed"))
    chat = ChatClient(client, task_queue=spec.task_queue)
    for compress in ("on", "off"):
        process = await start_process(spec, env={"WORKSHOP_COMPRESS": compress})
        try:
            reply = await chat.send("What is 15 * 23?", timeout=timedelta(seconds=LIMIT))
            assert reply.text == "15 * 23 = 345."
        finally:
            process.kill()


async def test_only_what_is_large_is_compressed_and_only_where_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codec = DATA_CONVERTER.payload_codec
    assert codec
    payloads = [Payload(metadata=JSON, data=b'"%s"' % (b"x" * size)) for size in (9, AT_LEAST)]
    assert await codec.encode(payloads) == payloads
    set_env(monkeypatch, WORKSHOP_COMPRESS="on")
    small, large = await codec.encode(payloads)
    assert small == payloads[0] and large.metadata["encoding"] == ENCODING
    assert len(large.data) < AT_LEAST / 4
    assert await codec.decode([small, large]) == payloads
    assert decode(large) == "x" * AT_LEAST
    monkeypatch.undo()
    set_env(monkeypatch)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zlib",
        deflated(Payload(metadata=JSON, data=os.urandom(2000))).data[:-9],
        zlib.compress(b"\xff\xff\xff no payload"),
        zlib.compress(bytes(MOST + 1)),  # a few kilobytes that would be as many as they like
    ],
    ids=["empty", "other bytes", "cut", "no payload", "bomb"],
)
def test_a_damaged_payload_is_told(data: bytes) -> None:
    sent = Payload(metadata={"encoding": ENCODING}, data=data)
    with pytest.raises(WorkshopError, match="cannot be read"):
        inflated(sent)
    assert decode(sent) is None
