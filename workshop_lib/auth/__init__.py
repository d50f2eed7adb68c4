"""Who is asking: proof of it that travels from a person to another team's activity.

`keys` and `issuer` stand in for a company's sign-in. `tokens` checks what a person or an agent brings over
MCP, `sealed` makes and opens what is written into histories, `outbound` takes it along and `door` checks it:
both are interceptors, put around a worker where it is put together, and no loop, tool or handler names
them. `mcp` does both for MCP. All of it is on where `WORKSHOP_IDENTITY=on`, and does nothing otherwise.

Left out: passwords. A name is believed when it signs in; all that follows is not.
"""
