"""The programs that serve: the workers and the MCP servers, and the module that `python -m` runs for each.

Left out: their processes (`lab.services.background`, `lab.services.mcp_servers`).
"""

from importlib import import_module

from workshop_lib.temporal.worker import WorkerSpec

WORKERS = {
    "orchestrator": "workshop_lib.agents.worker",
    "it": "workshop_lib.teams.it.worker",
    "finance": "workshop_lib.teams.finance.worker",
    "repair": "workshop_lib.repair.worker",
}
MCP_SERVERS = {
    "it": "workshop_lib.teams.it.mcp_server",
    "finance": "workshop_lib.teams.finance.mcp_server",
    "repair": "workshop_lib.repair.mcp_server",
}


def spec_of(name: str) -> WorkerSpec:
    """What a worker serves; its module, which is imported for it, has a function of its name."""
    spec = getattr(import_module(WORKERS[name]), name)()
    assert isinstance(spec, WorkerSpec)
    return spec
