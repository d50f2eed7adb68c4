"""What processes that call models need, loaded in the process that they are forked from: to import this is to
load it. Nothing here starts a thread, which a fork would not take along."""

import os

from workshop_lib.lab.workers.forking import write_to
from workshop_lib.llm.large_imports import large_import
from workshop_lib.machine import state_folder
from workshop_lib.settings import get_settings

os.setsid()  # the Interrupt button reaches the kernel's whole group
write_to(state_folder.made(get_settings().state_dir, "logs") / "fork-server.log")
with large_import():
    import workshop_lib.agents.worker
    import workshop_lib.lab.workers.child
    import workshop_lib.repair.worker  # noqa: F401
    from workshop_lib.llm.gateway import load_now

    load_now()  # loads LiteLLM
