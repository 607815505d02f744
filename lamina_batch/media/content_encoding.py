"""Bodies with a content encoding that was not requested."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import aiohttp

#: What is unpacked at once.
_BLOCK_BYTES = 256 * 1024


class Decoder(Protocol):
    """Decodes a body as it comes in."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes."""

    def complete(self) -> bool:
        """Whether what was fed may end here."""


class _IdentityDecoder:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def complete(self) -> bool:
        return True


class _GzipDecoder:
    """For servers that pack without being asked. It yields small pieces, so that a bomb can be seen in time."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._member.decompress(data, _BLOCK_BYTES)
            yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if self._member.eof and data:
                self._member = zlib.decompressobj(wbits=31)
            elif not data and len(piece) < _BLOCK_BYTES:
                return

    def complete(self) -> bool:
        return self._member.eof


_DECODERS: Mapping[str, Callable[[], Decoder]] = {
    "": _IdentityDecoder,
    "identity": _IdentityDecoder,
    "gzip": _GzipDecoder,
    "x-gzip": _GzipDecoder,
}


def decoder(response: aiohttp.ClientResponse) -> Decoder | None:
    """What unpacks the body of this answer; None: it comes in an encoding that was not asked for."""
    make = _DECODERS.get(response.headers.get("Content-Encoding", "identity").strip().lower())
    return make() if make is not None else None
