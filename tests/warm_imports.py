"""What `forked_workers` imports before it forks: what the agents' workers need. Starts no thread."""

import workshop_lib.agents.worker
import workshop_lib.lab.worker_child
import workshop_lib.repair.worker  # noqa: F401
from workshop_lib.llm.gateway import register_offline_provider

register_offline_provider()  # loads LiteLLM
