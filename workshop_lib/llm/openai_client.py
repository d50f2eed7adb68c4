"""The connection to a model's server of one's own, whose answers are mended before anybody reads them.

LiteLLM, the OpenAI client and the Agents SDK each stumble over answers that `normalize_answers` can read, in
ways that look like an outage. So answers are mended where they arrive. Left out: providers with a name of
their own, whose answers LiteLLM translates.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from workshop_lib.llm.normalize_answers import Pieces, mended, unreadable_answer

if TYPE_CHECKING:
    from httpx import Response
    from openai import AsyncOpenAI

_clients: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], AsyncOpenAI]]"
_clients = WeakKeyDictionary()


def client_of(base: str, key: str) -> "AsyncOpenAI":
    """The OpenAI client of the running event loop for a server, made at the first call.

    Args:
        base: the server's address. One on this machine is not reached by way of a proxy.
    """
    import httpx  # LiteLLM's: of another's answers it loses the headers
    from openai import AsyncOpenAI

    mine = _clients.setdefault(asyncio.get_running_loop(), {})
    if (base, key) not in mine:
        host = urlsplit(base).hostname or ""
        here = host in ("localhost", "::1") or host.startswith("127.")
        http = httpx.AsyncClient(
            event_hooks={"response": [_mend]},
            trust_env=not here,
            verify=base.startswith("https"),
            follow_redirects=True,
            timeout=600,  # each call has its own, and a shorter one
        )
        mine[base, key] = AsyncOpenAI(
            base_url=base,
            api_key=key,
            http_client=http,  # type: ignore[arg-type]  # taken as LiteLLM's own is
            max_retries=0,
        )
    return mine[base, key]


async def _mend(response: "Response") -> None:
    """Called for each response, before its body is read."""
    if response.status_code != 200:
        return
    from httpx import AsyncByteStream, Response

    # A response of the same bytes takes the encoding off.
    arrived = Response(200, headers=response.headers, stream=response.stream)
    streamed = "event-stream" in response.headers.get("content-type", "")
    wants_stream = b'"stream":true' in response.request.content.replace(b" ", b"")
    response.headers.pop("content-encoding", None)
    response.headers.pop("content-length", None)

    class Mended(AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            lines = arrived.aiter_lines()
            if not streamed:
                body = _mended((await arrived.aread()).decode(errors="replace"), mended)
                if not wants_stream:
                    yield body.encode()
                    return
                lines = _in_one_piece(body)
            async for line in _mended_lines(lines):
                yield line.encode() + b"\n"

        async def aclose(self) -> None:
            await arrived.aclose()

    response.stream = Mended()


async def _mended_lines(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    pieces = Pieces()
    async for line in lines:
        # A long answer that is there at once must not keep heartbeats waiting.
        await asyncio.sleep(0)
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data == "[DONE]" and not pieces.ended:  # some servers do not say how it ended
            yield "data: " + json.dumps(pieces.mended({"choices": [{"finish_reason": "stop"}]}))
            yield ""
        yield f"data: {_mended(data, pieces.mended)}" if data.startswith("{") else line


async def _in_one_piece(body: str) -> AsyncIterator[str]:
    """A whole answer as a stream, for who has asked for one."""
    for line in (f"data: {body}", "", "data: [DONE]", ""):
        yield line


def _mended(text: str, mend: Callable[[Any], dict[str, Any]]) -> str:
    """JSON that was mended; as it is where it is cut or garbled on its way: LiteLLM says so."""
    try:
        # Python refuses to read a number of 5,000 digits; no figure of an answer is that long.
        return json.dumps(mend(json.loads(text, parse_int=lambda digits: int(digits[:18]))))
    except RecursionError:
        return json.dumps(mend(unreadable_answer("it is nested too deeply")))
    except ValueError:
        return text
