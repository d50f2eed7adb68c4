"""The system that the notebooks build: agents that survive being killed, and the classroom around them.

From the ground up: `settings` and `errors`; `llm` (calls to a model); `connect` and `worker_spec`
(Temporal); `agents` (the chat loops). `lab` is the classroom (dev server, workers in threads and
processes, checks) and only notebooks and the command line import it.
"""

import sys

__version__ = "0.1.0"


def in_sandbox() -> bool:
    """True in the code of a workflow, where what belongs to the process is in order already."""
    workflow = sys.modules.get("temporalio.workflow")
    return workflow is not None and bool(workflow.unsafe.in_sandbox())


if not in_sandbox():
    from workshop_lib.surroundings import prepare_process

    prepare_process()
