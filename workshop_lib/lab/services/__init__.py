"""What runs beside notebooks, in processes of its own: workers and MCP servers."""
