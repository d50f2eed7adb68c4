"""Ids of a team's workflow runs: readable, and the same for the same request.

A request that is sent again (a lost answer, a worker that died) must find the run that it started, so the
id holds what identifies the request, and nothing that changes between two tries.
"""

import re

_LONGEST_SUBJECT = 40


def run_id(operation: str, subject: str, request_id: str) -> str:
    """A workflow id such as `stock-price-AAPL-3f2c…`.

    Args:
        operation: the operation's name.
        subject: what is asked about. It is a caller's text, so only letters, digits, dots and dashes
            of it are kept.
        request_id: what is the same for every try of one request, and different for every other.
    """
    kept = re.sub(r"[^A-Za-z0-9.-]+", "-", subject).strip("-.")[:_LONGEST_SUBJECT]
    parts = (operation.replace("_", "-"), kept, request_id)
    return "-".join(part for part in parts if part)
