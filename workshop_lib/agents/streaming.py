"""A reply that arrives piece by piece while the model writes it.

The model's activity publishes its events to a stream that the session's workflow hosts; here they are read
as text. A worker that dies in mid-reply writes that part of the reply again, so a reader may see words
twice: what counts is the `Reply` at the end, which comes from the history. The stream is an experimental
part of Temporal's SDK and costs about 24 kB of history for a turn with a tool, so a session has it only on
request.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.contrib.workflow_streams import WorkflowStreamClient
from temporalio.service import RPCError

from workshop_lib.agents.chat import Reply
from workshop_lib.agents.sessions import ChatClient

REPLY_TOPIC = "reply"
OFFSET_SECONDS = 10  # until a session must have said where its stream stands
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
    stream = WorkflowStreamClient.create(client, chat.workflow_id)
    try:
        async with asyncio.timeout(OFFSET_SECONDS):
            offset = await stream.get_offset()
    except (WorkflowQueryFailedError, RPCError, TimeoutError):
        # It was started without a stream, or no worker is there to say so: the reply alone will do.
        reply = await chat.send(message, timeout=timeout)
        yield reply.text
        yield reply
        return
    pieces = stream.subscribe(REPLY_TOPIC, from_offset=offset)
    sending = asyncio.ensure_future(chat.send(message, timeout=timeout))
    waiting: asyncio.Future[Any] | None = None
    streamed = ""
    try:
        while not sending.done():
            waiting = asyncio.ensure_future(anext(pieces))
            await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() or waiting.exception():
                break  # the reply is there, or the stream is not: the reply alone will do
            if waiting.result().data.get("type") == _TEXT:
                streamed += (piece := waiting.result().data["delta"])
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
