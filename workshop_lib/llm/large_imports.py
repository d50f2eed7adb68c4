"""Imports of large packages, made quicker.

A package such as LiteLLM makes some hundred thousand objects, all of them to stay. Python's garbage
collector looks through them again and again meanwhile and finds nothing, which is a fifth of the time that
somebody waits. Left out: which packages are imported when; whoever needs one imports it late.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_import() -> Iterator[None]:
    """Keep the garbage collector off while the block imports."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # What is loaded stays. Looked through once more, it would hold the whole process for a second.
        gc.freeze()
        if was_on:
            gc.enable()
