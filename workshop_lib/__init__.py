"""The system that the notebooks build: agents that survive being killed, and the classroom around them.

From the ground up:

    harmless, errors, settings      words for people, and what the environment says
    machine                         environment, state folder, ports, records of processes
    temporal                        client, worker, steps: what every service stands on
    llm                             one call to a model, and a model that needs no key
    mcp                             servers of tools, and what both sides know
    auth                            who is asking: proof that travels with a call
    teams                           IT and finance: contract, workflows, handler, worker
    agents | repair                 the chat agents, and the agent that repairs orders
    lab                             the classroom; only notebooks and `cli` import it
    cli                             the `workshop` command
"""

import sys

__version__ = "0.1.0"


def quiet(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """`sys.excepthook` of a program of ours until it has `edge`: Ctrl-C is no error."""
    if kind is not KeyboardInterrupt:
        sys.__excepthook__(kind, error, error.__traceback__)


def in_sandbox() -> bool:
    """True in the code of a workflow, where what belongs to the process is in order already."""
    workflow = sys.modules.get("temporalio.workflow")
    return workflow is not None and bool(workflow.unsafe.in_sandbox())


# A program of ours begins (`workshop …`, `python -m workshop_lib.…`), and not a notebook or a test.
_program = sys.argv[0].rpartition("/")[2] if sys.argv else ""
_begins = _program in ("workshop", "-m") and sys.excepthook is sys.__excepthook__
if _begins:
    sys.excepthook = quiet
if not in_sandbox():
    from workshop_lib.machine.environment import prepare_process

    prepare_process()  # before anything else is loaded: the folder we stand in may hold modules
if _begins and _program == "-m":
    from workshop_lib import edge

    edge.begin()
