"""What a model is sent stands in every history, and is mostly the same words again: written compressed.

The request of each model call holds the conversation and the descriptions of all tools, nine tenths of the
bytes of a turn. Every client and worker reads what was written compressed; who writes it so is decided by
`WORKSHOP_COMPRESS`. It is off where people learn: compressed, the Web UI cannot show it. A history stays
whole in itself, which one that points to a store elsewhere would not.

`model_requests.1.txt` holds two typical requests: what a payload shares with them costs next to nothing. It
must never change, since histories are read by it; a better one would be a second file beside it.

Left out: encryption, which would take the same place and needs keys.
"""

import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from workshop_lib.errors import WorkshopError
from workshop_lib.settings import get_settings

ENCODING = b"binary/zlib"
AT_LEAST = 600  # bytes of a payload; below, little is won
WORDS = "model_requests.1.txt"
MOST = 8_000_000  # bytes that one may grow to; a server takes a quarter of that


class Compressed(PayloadCodec):
    """Reads compressed payloads, and writes them where the settings say so."""

    async def encode(self, payloads: Iterable[Payload]) -> list[Payload]:
        """The large ones compressed, each in its place."""
        if not get_settings().compress:
            return list(payloads)
        return [
            deflated(payload) if payload.ByteSize() >= AT_LEAST else payload for payload in payloads
        ]

    async def decode(self, payloads: Iterable[Payload]) -> list[Payload]:
        """All of them as they were."""
        return [inflated(payload) for payload in payloads]


def deflated(payload: Payload) -> Payload:
    """A payload as the compressed content of another one."""
    writer = zlib.compressobj(zdict=_words())
    data = writer.compress(payload.SerializeToString()) + writer.flush()
    return Payload(metadata={"encoding": ENCODING, "words": WORDS.encode()}, data=data)


def inflated(payload: Payload) -> Payload:
    """What a compressed payload holds; any other one as it is.

    Raises:
        WorkshopError: it is damaged, or grows beyond all measure.
    """
    if payload.metadata.get("encoding") != ENCODING:
        return payload
    reader = zlib.decompressobj(zdict=_words())
    try:
        data = reader.decompress(payload.data, MOST)
        if reader.eof:
            return Payload.FromString(data)
    except Exception:  # noqa: S110 - zlib's or protobuf's: said below, without what was sent
        pass
    raise WorkshopError(
        "A payload that says it is compressed cannot be read.",
        expected=f"one that was written by {__name__} and holds at most {MOST:,} bytes.",
    )


@lru_cache
def _words() -> bytes:
    return (Path(__file__).parent / WORDS).read_bytes()
