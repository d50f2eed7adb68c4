"""What `forked_workers` imports before it forks: what an orchestrator's worker needs. Starts no thread."""

import workshop_lib.agents.worker
import workshop_lib.lab.worker_child  # noqa: F401
from workshop_lib.llm.gateway import register_offline_provider

register_offline_provider()  # loads LiteLLM
