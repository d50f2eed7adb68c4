"""The classroom: what notebooks and the command line use, and nothing else may import.

    from workshop_lib import lab

    client = await lab.start()

The names below are all that a notebook needs. Each is loaded when it is first used, so that a command
that needs one part does not wait for the others.
"""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workshop_lib.lab.classroom import events as events
    from workshop_lib.lab.classroom import new_id as new_id
    from workshop_lib.lab.classroom import seconds as seconds
    from workshop_lib.lab.classroom import show_timeline as show_timeline
    from workshop_lib.lab.classroom import spec as spec
    from workshop_lib.lab.classroom import start as start
    from workshop_lib.lab.lessons.approving import approval_panel as approval_panel
    from workshop_lib.lab.lessons.approving import repair_reaches as repair_reaches
    from workshop_lib.lab.lessons.bill import run_durable as run_durable
    from workshop_lib.lab.lessons.bill import show_bill as show_bill
    from workshop_lib.lab.lessons.clock import pass_time as pass_time
    from workshop_lib.lab.lessons.comparison import code_lines as code_lines
    from workshop_lib.lab.lessons.comparison import compare_loops as compare_loops
    from workshop_lib.lab.lessons.comparison import show_comparison as show_comparison
    from workshop_lib.lab.lessons.forensic import open_case as open_case
    from workshop_lib.lab.lessons.growth import measure_turns as measure_turns
    from workshop_lib.lab.lessons.growth import runs_of_session as runs_of_session
    from workshop_lib.lab.lessons.growth import show_meter as show_meter
    from workshop_lib.lab.lessons.identity import open_to_all as open_to_all
    from workshop_lib.lab.lessons.identity import read_token as read_token
    from workshop_lib.lab.lessons.identity import require_identity as require_identity
    from workshop_lib.lab.lessons.identity import sealed_values as sealed_values
    from workshop_lib.lab.lessons.identity import show_verdicts as show_verdicts
    from workshop_lib.lab.lessons.identity import sign_in as sign_in
    from workshop_lib.lab.lessons.identity import stock_verdicts as stock_verdicts
    from workshop_lib.lab.lessons.identity import try_attacks as try_attacks
    from workshop_lib.lab.lessons.json_rpc import json_rpc as json_rpc
    from workshop_lib.lab.lessons.leaving import stop_in_mid_turn as stop_in_mid_turn
    from workshop_lib.lab.lessons.leaving import unprepared as unprepared
    from workshop_lib.lab.lessons.leaving import with_options as with_options
    from workshop_lib.lab.lessons.outage import live_through_outage as live_through_outage
    from workshop_lib.lab.lessons.replay_matrix import replay_matrix as replay_matrix
    from workshop_lib.lab.lessons.replaying import replay as replay
    from workshop_lib.lab.lessons.stopping import until_begun as until_begun
    from workshop_lib.lab.lessons.telemetry import json_lines as json_lines
    from workshop_lib.lab.lessons.telemetry import read_metrics as read_metrics
    from workshop_lib.lab.lessons.versions import move_run as move_run
    from workshop_lib.lab.lessons.versions import version_of as version_of
    from workshop_lib.lab.other_side import linked_runs as linked_runs
    from workshop_lib.lab.other_side import mcp_runs as mcp_runs
    from workshop_lib.lab.registry import stop_all as stop_all
    from workshop_lib.lab.registry import stop_worker as stop_worker
    from workshop_lib.lab.server.namespaces import point_endpoint as point_endpoint
    from workshop_lib.lab.services.mcp_in_kernel import serve_mcp as serve_mcp
    from workshop_lib.lab.services.mcp_servers import start_mcp_server as start_mcp_server
    from workshop_lib.lab.timeline.trace import trace as trace
    from workshop_lib.lab.watching.breakers import breakers as breakers
    from workshop_lib.lab.watching.pending import describe_endpoint as describe_endpoint
    from workshop_lib.lab.watching.pending import waits_for as waits_for
    from workshop_lib.lab.watching.waiting import result as result
    from workshop_lib.lab.watching.waiting import watch as watch
    from workshop_lib.lab.workers.chaos import chaos as chaos
    from workshop_lib.lab.workers.process import start_process as start_process
    from workshop_lib.lab.workers.threads import start_worker as start_worker
    from workshop_lib.temporal.chaos.plan_file import chaos_plan as chaos_plan


@cache
def _homes() -> dict[str, str]:
    """The modules of the names above, read there as type checkers do: each name stands once.

    Not at import, which the workflows' sandbox does too: it lets nothing be read.
    """
    return {
        name.name: node.module
        for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
        if name.asname
    }


def __getattr__(name: str) -> Any:
    if home := _homes().get(name):
        return getattr(import_module(home), name)
    raise AttributeError(f"the lab has no {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted(_homes())
