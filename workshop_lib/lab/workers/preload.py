"""What processes that call models need, loaded in the process that they are forked from.

The standard library's fork server imports this, and that is the loading. Nothing here starts a thread, which
a fork would not take along.
"""

import os
import sys

from workshop_lib.lab.workers.forking import write_to
from workshop_lib.llm.large_imports import large_import
from workshop_lib.machine import state_folder
from workshop_lib.settings import get_settings

# Only there: who merely reads the package does not become one.
if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    os.setsid()  # the Interrupt button reaches the kernel's whole group
    write_to(state_folder.made(get_settings().state_dir, "logs") / "fork-server.log")
    with large_import():
        import workshop_lib.agents.worker
        import workshop_lib.lab.workers.child
        import workshop_lib.repair.worker  # noqa: F401
        from workshop_lib.llm.gateway import load_now

        load_now()  # LiteLLM
