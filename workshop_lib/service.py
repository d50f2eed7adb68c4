"""Runs one worker as a service: what `python -m workshop_lib.….worker` calls."""

import logging

from workshop_lib.connect import connect
from workshop_lib.edge import log_to_stderr
from workshop_lib.worker_spec import WorkerSpec

logger = logging.getLogger(__name__)


async def serve(spec: WorkerSpec) -> None:
    """Connect to the spec's namespace and poll until cancelled.

    Raises:
        WorkshopError: no server answers, or it refuses the credentials.
    """
    log_to_stderr(logging.INFO)
    client = await connect(spec.namespace, plugins=[make() for make in spec.client_plugins])
    logger.info(spec.banner())
    await spec.build(client).run()
