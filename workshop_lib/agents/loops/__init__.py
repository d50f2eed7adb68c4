"""The loops that answer a chat's messages: `manual` spelled out, `sdk` the Agents SDK's, `mcp` over MCP."""
