"""What an MCP server of ours and its callers say to each other: `server` serves, `wire` is what both know."""
