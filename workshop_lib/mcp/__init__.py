"""What an MCP server of ours (`server`) and its callers say to each other; `addresses` are what both know."""
