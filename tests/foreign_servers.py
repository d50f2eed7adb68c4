"""MCP servers that nobody here has written, in the places of the teams'."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastmcp import FastMCP
from fastmcp.tools import Tool
from fastmcp.tools.base import ToolResult
from lab_environment import free_port
from pydantic import PrivateAttr

SettingsEnv = Callable[..., None]
called: list[str] = []  # names of the tools, in order


class Foreign(Tool):
    """A tool of a server that nobody here has written."""

    _answer: ToolResult = PrivateAttr()

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        called.append(self.name)
        return self._answer


def foreign(name: str, answer: Any = "ok", schema: Any = None) -> Foreign:
    parameters = {"type": "object", "properties": {}} if schema is None else schema
    tool = Foreign(name=name, description=f"About {name}.", parameters=parameters)
    tool._answer = answer if isinstance(answer, ToolResult) else ToolResult(content=answer)
    return tool


@asynccontextmanager
async def servers(
    settings_env: SettingsEnv, it: list[Tool], finance: list[Tool]
) -> AsyncIterator[None]:
    """Two MCP servers in the places of the teams'."""
    ports = {"it": free_port(), "finance": free_port()}
    settings_env(IT_MCP_PORT=ports["it"], FINANCE_MCP_PORT=ports["finance"])
    serving = []
    for name, tools in (("it", it), ("finance", finance)):
        server = FastMCP(name)
        for tool in tools:
            server.add_tool(tool)
        serving.append(
            asyncio.create_task(
                server.run_http_async(
                    host="127.0.0.1", port=ports[name], show_banner=False, log_level="error"
                )
            )
        )
    try:
        async with asyncio.timeout(30):
            for port in ports.values():
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        break
                    except OSError:
                        await asyncio.sleep(0.05)
        yield
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
