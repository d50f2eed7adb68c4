"""An extension of JupyterLab's server that prints its address.

JupyterLab itself prints it only where it has made a token: not with a password, without any token, or with a
token of the user's own. Left out: everything else about JupyterLab (`lab.jupyter.start`).
"""

import sys
from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Nothing to load; JupyterLab asks for it."""


async def _start_jupyter_server_extension(server: Any) -> None:
    """Called once it listens."""
    if not server.identity_provider.token_generated:
        # A token is not shown: the user has it.
        print(f"JupyterLab is at {server.display_url}", file=sys.stderr, flush=True)
