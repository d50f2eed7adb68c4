"""The circuit breakers of this process, in words: of models, and of MCP servers.

Each worker process has its own. Of one that runs elsewhere the last failure of the activity tells
(`lab.waits_for`); so it does of the server's own breaker, which is of Nexus endpoints.
"""

from workshop_lib.temporal import breaker


def breakers() -> list[str]:
    """How each stands: closed, open or half-open, and why; those of targets that were called from here."""
    return [_line(one) for one in breaker.breakers()] or [
        "nothing was called from this process yet"
    ]


def _line(one: breaker.Breaker) -> str:
    if not one.failures:
        return f"{one.target}: {one.state}"
    times = f"{one.failures} failure{'s' * (one.failures > 1)} in a row"
    soon = f"; one may try in {one.pause_left:.1f} s" if one.state == "open" else ""
    return f"{one.target}: {one.state}, {times} within {one.down_for:.0f} s{soon}. The last: {one.reason}"
