"""A reply that arrives piece by piece while the model writes it.

The model's activity publishes its events to a stream that the session's workflow hosts; here they are read
as text. A worker that dies in mid-reply writes that part of the reply again, so a reader may see words
twice: what counts is the `Reply` at the end, which comes from the history. The stream is an experimental
part of Temporal's SDK, and what is published is in the history: a session has it only on request.

What is new is asked for by queries, a few times a second. An update would wait for it, but each would be
one of the 2,000 that a run may have, and six of its events; a query leaves nothing behind.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.contrib.workflow_streams import PollInput, PollResult
from temporalio.service import RPCError

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.temporal.client_retries import query

REPLY_TOPIC = "reply"
PUBLISH_EVERY = timedelta(
    milliseconds=250
)  # a signal and a workflow task each time, while a model writes
READ_EVERY = 0.2  # seconds
_OFFSET, _POLL = "__temporal_workflow_stream_offset", "__temporal_workflow_stream_poll"
_TEXT = "response.output_text.delta"


async def stream_reply(
    client: Client, chat: ChatClient, message: str, *, timeout: timedelta = timedelta(minutes=5)
) -> AsyncIterator[str | Reply]:
    """Send a message and yield its reply in pieces; the last item is the whole `Reply`.

    The pieces together are the reply's text, or end with the whole of it on a new line where what was
    streamed was not what counts in the end (a model call that died in mid-sentence and was repeated).

    Args:
        client: the one that `chat` was made with.
        chat: a session that was started with `stream`; of any other the reply comes in one piece.

    Raises:
        MessageRefused, WorkshopError: as `ChatClient.send`.
    """
    await chat.begin()
    try:
        offset = await query(chat.handle, _OFFSET, int)
    except (WorkflowQueryFailedError, RPCError):
        # It was started without a stream, or no worker is there to say so: the reply alone will do.
        reply = await chat.send(message, timeout=timeout)
        yield reply.text
        yield reply
        return
    pieces = _pieces(client, chat, offset)
    sending = asyncio.ensure_future(chat.send(message, timeout=timeout))
    waiting: asyncio.Future[Any] | None = None
    streamed = ""
    try:
        while not sending.done():
            waiting = asyncio.ensure_future(anext(pieces))
            await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() or waiting.exception():
                break  # the reply is there, or the stream is not: the reply alone will do
            streamed += (piece := waiting.result())
            yield piece
        reply = await sending
    finally:
        for task in (sending, waiting):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(t for t in (sending, waiting) if t), return_exceptions=True)
    if rest := reply.text.removeprefix(streamed):
        yield rest if reply.text.startswith(streamed) else f"\n{rest}"
    yield reply


async def _pieces(client: Client, chat: ChatClient, offset: int) -> AsyncIterator[str]:
    """The text that is published from a place of the stream on, without an end."""
    converter = client.data_converter.payload_converter
    while True:
        asked = PollInput(topics=[REPLY_TOPIC], from_offset=offset)
        found: PollResult = await query(chat.handle, _POLL, PollResult, args=[asked])
        for item in found.items:
            event = converter.from_payload(Payload.FromString(base64.b64decode(item.data)))
            if event.get("type") == _TEXT:
                yield event["delta"]
        offset = found.next_offset
        if not found.more_ready:
            await asyncio.sleep(READ_EVERY)
