"""What `forked_worker` forks its workers from: a process that has imported this, and done nothing else."""

import asyncio

import workshop_lib.repair.worker  # noqa: F401
from workshop_lib.llm.gateway import register_offline_provider, warm_up

register_offline_provider()
asyncio.run(warm_up())  # seconds of work that no worker need do again
