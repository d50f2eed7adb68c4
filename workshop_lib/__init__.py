"""The system that the notebooks build: agents that survive being killed, and the classroom around them.

From the ground up: `settings` and `errors`; `llm` (calls to a model); `connect` and `worker_spec`
(Temporal); `agents` (the chat loops). `lab` is the classroom (dev server, workers in threads and
processes, checks) and only notebooks and the command line import it.
"""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == [
    "-m"
]:  # `python -m workshop_lib.…` begins: a program of ours, not a notebook or a test
    from workshop_lib import edge

    edge.begin()
