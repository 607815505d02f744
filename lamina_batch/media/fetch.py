"""One file from another host, within bounds: streamed aside and hashed, and whole or not at all."""

from __future__ import annotations

import hashlib
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import aiohttp

from lamina_batch.media.content_encoding import decoder
from lamina_batch.media.disk import DiskError
from lamina_batch.media.http import (
    PAGE_TYPES,
    FetchFailure,
    FetchLimits,
    content_type,
    looks_like_page,
    network_failure,
    refused_failure,
    request_url,
    truncated_failure,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from pathlib import Path

    from lamina_batch.media.disk import DiskWorker

#: What is written at once.
_BLOCK_BYTES = 256 * 1024
_MEDIA_KINDS = frozenset({"image", "video", "audio"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFile:
    """A file that was fetched whole."""

    #: the temporary file, whole and on the disk
    temp: Path
    #: hex
    sha256: str
    size: int
    #: as the server named it; "" where it did not
    content_type: str
    #: after redirects
    final_url: str


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    *,
    kind: str,
    temp: Callable[[], Path],
    limits: FetchLimits,
    disk: DiskWorker,
) -> FetchedFile | FetchFailure:
    """Bring the file behind `url`, which shall be of this kind (`image`, `video`, `audio`; others are not checked).

    `session` is one of `open_session`. `temp`, called in a thread, names a path with nothing there; a file is left
    there only with Fetched. Nothing that the network, the server or the disk does is raised.
    """
    part = _PartFile(temp)
    ended: FetchedFile | FetchFailure | None = None
    try:
        ended = await request_url(
            session, url, partial(_receive, kind=kind, part=part, limits=limits, disk=disk), limits=limits
        )
    except DiskError as error:
        ended = FetchFailure(reason=str(error))
    finally:
        if not isinstance(ended, FetchedFile):
            part.discard()
    return ended


async def _receive(  # noqa: C901  # one exit for each way in which a body can be wrong
    response: aiohttp.ClientResponse, *, kind: str, part: _PartFile, limits: FetchLimits, disk: DiskWorker
) -> FetchedFile | FetchFailure:
    named, unpack, length = content_type(response), decoder(response), response.content_length
    failure = _headers_failure(response, kind=kind, limits=limits)
    if failure is not None or unpack is None:
        return failure or FetchFailure(reason="it comes in an encoding that was not asked for")
    received = 0
    size = 0
    block = bytearray()

    def page() -> bool:
        """Whether the file begins as a web page does, whatever its type says."""
        return kind in _MEDIA_KINDS and "svg" not in named and looks_like_page(block)

    try:
        async for chunk in response.content.iter_any():
            received += len(chunk)
            if received > limits.most_bytes:
                return _too_large_failure(limits)
            for piece in unpack.feed(chunk):
                size += len(piece)
                if size > limits.most_bytes:
                    return _too_large_failure(limits)
                block += piece
                if len(block) >= _BLOCK_BYTES:
                    if not part.begun and page():
                        return _page_failure("a web page", kind)
                    await disk.run(part.write, bytes(block))
                    block.clear()
    except aiohttp.ClientPayloadError:
        return truncated_failure(length)
    except (aiohttp.ClientError, OSError) as error:
        return replace(network_failure(error, limits), silent=False)
    except zlib.error:
        return FetchFailure(reason="it came packed, and cannot be unpacked", again=True)
    failure = _body_failure(received, length, size, complete=unpack.complete())
    if failure is None and not part.begun and page():
        failure = _page_failure("a web page", kind)
    if failure is not None:
        return failure
    temp = await disk.run(part.finish, bytes(block))
    return FetchedFile(
        temp=temp,
        sha256=part.sha256,
        size=size,
        content_type=named,
        final_url=str(response.url),
    )


def _headers_failure(response: aiohttp.ClientResponse, *, kind: str, limits: FetchLimits) -> FetchFailure | None:
    """Why the body is not worth reading; None if it is."""
    if response.status != 200:
        return refused_failure(response)
    named = content_type(response)
    if kind in _MEDIA_KINDS and named in PAGE_TYPES:
        return _page_failure(PAGE_TYPES[named], kind)
    too_large = response.content_length is not None and response.content_length > limits.most_bytes
    return _too_large_failure(limits) if too_large else None


def _body_failure(received: int, length: int | None, size: int, *, complete: bool) -> FetchFailure | None:
    """Why the body is no whole file: `received` of `length` announced bytes came, which unpacked to `size`."""
    if length is not None and received != length:
        return truncated_failure(length)
    if not complete:
        return truncated_failure(None)
    return FetchFailure(reason="it is empty", again=length is None) if not size else None


def _page_failure(what: str, kind: str) -> FetchFailure:
    name = "an image" if kind == "image" else kind
    return FetchFailure(reason=f"{what} came instead of {name}: the link has probably expired")


def _too_large_failure(limits: FetchLimits) -> FetchFailure:
    return FetchFailure(reason=f"it is larger than {limits.most_bytes} bytes")


class _PartFile:
    """The temporary file of a download. `write` and `finish` block, so they run in threads."""

    def __init__(self, temp: Callable[[], Path]) -> None:
        self._name = temp
        self._path: Path | None = None
        self._file: FileIO | None = None
        self._hash = hashlib.sha256()

    @property
    def begun(self) -> bool:
        return self._file is not None

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        if self._file is None:
            self._path = self._name()
            # Unbuffered: what is written at once is large, and closing must not write what failed before.
            self._file = self._path.open("xb", buffering=0)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(data)

    def finish(self, data: bytes) -> Path:
        self.write(data)
        if self._file is None or self._path is None:  # write has just set both
            raise AssertionError
        os.fsync(self._file.fileno())
        self._file.close()
        return self._path

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
