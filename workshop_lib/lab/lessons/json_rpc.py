"""MCP by hand: JSON-RPC messages over HTTP, to see what goes over the wire."""

import json
from typing import Any

import httpx2

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
        # Not by way of a proxy that the environment may name: it is on this machine.
        async with httpx2.AsyncClient(trust_env=False, timeout=timeout) as http:
            response = await http.post(url, json=request, headers={"accept": _KINDS})
        response.raise_for_status()
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise WorkshopError(
            f"No answer from {url}: {str(error).rstrip('.') or type(error).__name__}.",
            expected="the address of an MCP server that runs, as in http://127.0.0.1:8001/mcp.",
            fix="is the server running? `await lab.start_mcp_server(…)` starts it.",
        ) from None
    events = [line for line in response.text.splitlines() if line.startswith("data:")]
    answer = json.loads(events[-1].removeprefix("data:") if events else response.text)
    if "error" in answer:
        raise WorkshopError(f"The server refused: {answer['error'].get('message')}.")
    return answer["result"]
