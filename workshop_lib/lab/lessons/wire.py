"""MCP by hand: JSON-RPC messages over HTTP, to see what goes over the wire."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from workshop_lib.errors import WorkshopError

_KINDS = "application/json, text/event-stream"  # an answer may come as either


async def json_rpc(url: str, method: str, *, timeout: float = 20, **params: Any) -> Any:
    """Send one request to an MCP server and return the answer's `result`. The request is printed.

    Args:
        url: of the server, as in "http://127.0.0.1:8001/mcp".
        method: "tools/list", "tools/call" …
        timeout: seconds that the server may take.

    Raises:
        WorkshopError: nothing answers there, or the answer is an error.
    """
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    print("→", json.dumps(request))
    try:
        body = await asyncio.to_thread(_post, url, json.dumps(request).encode(), timeout)
    except OSError as error:
        raise WorkshopError(
            f"No answer from {url}: {error}.",
            fix="is the server running? `await lab.start_mcp_server(…)` starts it.",
        ) from None
    answer = json.loads(body)
    if "error" in answer:
        raise WorkshopError(f"The server refused: {answer['error'].get('message')}.")
    return answer["result"]


def _post(url: str, body: bytes, timeout: float) -> str:
    headers = {"content-type": "application/json", "accept": _KINDS}
    if not url.startswith("http://"):
        raise WorkshopError(
            f"{url!r} is not the address of an MCP server.", expected="http://…/mcp"
        )
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - looked at right above
    # Not by way of a proxy that the environment may name: it is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as response:
        text: str = response.read().decode()
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data:")]
    return lines[-1] if lines else text
