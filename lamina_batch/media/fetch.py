"""One file from another host, within bounds: streamed aside and hashed, and whole or not at all.

The host is not trusted: not its length, not its type, not where it redirects to. It gets no header of ours that tells
more than the program's name; the API key is not even known here.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

import aiohttp
from yarl import URL

import lamina_batch
from lamina_batch.client.retry import retryable
from lamina_batch.media.disk import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from io import FileIO
    from pathlib import Path

    from lamina_batch.media.disk import Disk

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Links that have expired answer so.
_EXPIRED = frozenset({401, 403, 404, 410})
#: A longer Retry-After is for the next run.
_MOST_RETRY_AFTER = 120.0
#: What is written at once.
_BLOCK = 256 * 1024
#: So much of the beginning shows whether it is a web page.
_HEAD = 512

#: RFC 3986: only such a URL goes out byte for byte. A signature may cover how it was written.
_PROPER = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")
_MEDIA_KINDS = frozenset({"image", "video", "audio"})
#: What is said in these is said about the file; the file is something else.
_PAGES: Mapping[str, str] = {
    "text/html": "a web page",
    "application/xhtml+xml": "a web page",
    "text/xml": "an XML text",
    "application/xml": "an XML text",
    "application/json": "a JSON text",
    "application/problem+json": "a JSON text",
}
_PAGE_BEGINS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<?xml", b"<error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    #: bytes of one file, unpacked
    most_bytes: int = 1024**3
    #: seconds for one try, redirects included
    total: float = 900.0
    #: seconds without a byte
    idle: float = 60.0
    #: seconds until a connection stands
    connect: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    #: stands aside, whole and on the disk
    temp: Path
    #: hex
    sha256: str
    size: int
    #: as the server named it; "" where it did not
    content_type: str
    #: after redirects
    final_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    #: in words; never holds the URL, which may be signed
    reason: str
    #: whether it may end better when tried again soon
    again: bool = False
    #: seconds that the server wants to be left alone
    retry_after: float | None = None
    #: no answer of any kind came: it may be the network, or the whole host
    silent: bool = False


def open_session(limits: Limits) -> aiohttp.ClientSession:
    """A session for other hosts: no cookies, no proxy and no .netrc of the environment, bodies as they come."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": f"lamina-batch/{lamina_batch.__version__}",
            "Accept": "*/*",
            # Content-Length shall be the file's.
            "Accept-Encoding": "identity",
        },
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.idle),
        auto_decompress=False,
        trust_env=False,
    )


async def fetch(
    session: aiohttp.ClientSession, url: str, *, kind: str, temp: Callable[[], Path], limits: Limits, disk: Disk
) -> Fetched | Failure:
    """Bring the file behind `url`, which shall be of this kind (`image`, `video`, `audio`; others are not checked).

    `session` is one of `open_session`. `temp`, called in a thread, names a path with nothing there; a file is left
    there only with Fetched. Nothing that the network, the server or the disk does is raised.
    """
    part = _Part(temp)
    clock = asyncio.timeout(limits.total)
    done = False
    try:
        async with clock:
            ended = await _follow(session, url, kind=kind, part=part, limits=limits, disk=disk)
        done = isinstance(ended, Fetched)
    except TimeoutError as error:
        if clock.expired():
            # It had its time; another quarter of an hour in this run would go the same way.
            return Failure(reason=f"it did not end within {limits.total:g} s")
        return _network_failure(error, limits)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return _network_failure(error, limits)
    except DiskError as error:
        return Failure(reason=str(error))
    finally:
        if not done:
            part.discard()
    return ended


async def _follow(
    session: aiohttp.ClientSession, url: str, *, kind: str, part: _Part, limits: Limits, disk: Disk
) -> Fetched | Failure:
    """Redirects are followed here and not by aiohttp, so that each address is looked at like the first."""
    try:
        at = _read_url(url)
    except ValueError:
        return Failure(reason="its address is no URL")
    for redirects in range(_MOST_REDIRECTS + 1):
        unfit = _unfit(at)
        if unfit:
            return Failure(reason=f"it redirects, and {unfit}" if redirects else unfit)
        async with session.get(at, allow_redirects=False) as response:
            if response.status not in _REDIRECTS:
                return await _take(response, kind=kind, part=part, limits=limits, disk=disk)
            try:
                at = at.join(_read_url(response.headers.get("Location", "")))
            except ValueError:
                return Failure(reason=f"HTTP {response.status} leads nowhere")
    return Failure(reason=f"it redirects more than {_MOST_REDIRECTS} times")


def _read_url(text: str) -> URL:
    if not text:
        raise ValueError(text)
    return URL(text, encoded=_PROPER.fullmatch(text) is not None)


def _unfit(url: URL) -> str | None:
    """Why this address is not asked; None: it is."""
    if url.scheme not in {"http", "https"} or not url.host:
        return "its address is no http(s) URL"
    if url.user is not None or url.password is not None:
        return "its address holds a user name or a password, and none is ever sent"
    return None


async def _take(
    response: aiohttp.ClientResponse, *, kind: str, part: _Part, limits: Limits, disk: Disk
) -> Fetched | Failure:
    if response.status != 200:
        return _refused(response)
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    content_type = content_type if _MEDIA_TYPE.fullmatch(content_type) else ""
    if kind in _MEDIA_KINDS and content_type in _PAGES:
        return _page(_PAGES[content_type], kind)
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in _CODINGS:
        return Failure(reason="it comes in an encoding that was not asked for")
    decoder = _CODINGS[coding]()
    length = response.content_length
    if length is not None and length > limits.most_bytes:
        return _too_large(limits)
    received = 0
    size = 0
    block = bytearray()

    def page() -> bool:
        """Whether the file begins as a web page does, whatever its type says."""
        return kind in _MEDIA_KINDS and "svg" not in content_type and _begins_as_page(block)

    try:
        async for chunk in response.content.iter_any():
            received += len(chunk)
            if received > limits.most_bytes:
                return _too_large(limits)
            for piece in decoder.feed(chunk):
                size += len(piece)
                if size > limits.most_bytes:
                    return _too_large(limits)
                block += piece
                if len(block) >= _BLOCK:
                    if not part.begun and page():
                        return _page("a web page", kind)
                    await disk.run(part.write, bytes(block))
                    block.clear()
    except aiohttp.ClientPayloadError:
        return _cut_short(length)
    except (aiohttp.ClientError, OSError) as error:
        return replace(_network_failure(error, limits), silent=False)
    except zlib.error:
        return Failure(reason="it came packed, and cannot be unpacked", again=True)
    if length is not None and received != length:
        return _cut_short(length)
    if not decoder.complete():
        return _cut_short(None)
    if not size:
        return Failure(reason="it is empty", again=length is None)
    if not part.begun and page():
        return _page("a web page", kind)
    temp = await disk.run(part.finish, bytes(block))
    return Fetched(
        temp=temp,
        sha256=part.sha256,
        size=size,
        content_type=content_type,
        final_url=str(response.url),
    )


def _refused(response: aiohttp.ClientResponse) -> Failure:
    status = response.status
    if status in _EXPIRED:
        return Failure(reason=f"HTTP {status}: the link has expired, or was never good")
    again = status == 425 or retryable(status)
    retry_after = _retry_after(response.headers)
    if again and retry_after is not None and retry_after > _MOST_RETRY_AFTER:
        return Failure(reason=f"HTTP {status}: not before {retry_after:.0f} s from now")
    return Failure(reason=f"HTTP {status}", again=again, retry_after=retry_after)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; a date is measured by the server's own clock, as the answer tells it."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    with suppress(ValueError, KeyError, TypeError):
        return max(0.0, (parsedate_to_datetime(said) - parsedate_to_datetime(headers["Date"])).total_seconds())
    return None


def _begins_as_page(head: bytes | bytearray) -> bool:
    return bytes(head[:_HEAD]).removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE_BEGINS)


def _page(what: str, kind: str) -> Failure:
    name = "an image" if kind == "image" else kind
    return Failure(reason=f"{what} came instead of {name}: the link has probably expired")


def _too_large(limits: Limits) -> Failure:
    return Failure(reason=f"it is larger than {limits.most_bytes} bytes")


def _cut_short(length: int | None) -> Failure:
    # How much came is not told: aiohttp may drop some of it when the connection ends.
    of = f" before its {length} bytes had come" if length is not None else ""
    return Failure(reason=f"it broke off{of}", again=True)


def _network_failure(error: Exception, limits: Limits) -> Failure:
    """What happened, without the URL: the words of aiohttp often hold it."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            reason = f"no connection within {limits.connect:g} s"
        case aiohttp.SocketTimeoutError():
            reason = f"nothing came for {limits.idle:g} s"
        case aiohttp.ClientConnectorCertificateError():
            return Failure(reason="the host's certificate is not good", silent=True)
        case aiohttp.ClientConnectorDNSError():
            reason = "the host's name is not found"
        case aiohttp.ClientConnectorError():
            # asyncio puts the address where the words of the system should be.
            number = error.os_error.errno
            reason = f"no connection to the host ({os.strerror(number) if number else type(error.os_error).__name__})"
        case aiohttp.InvalidURL():
            return Failure(reason="its address is no URL")
        case aiohttp.ServerDisconnectedError():
            reason = "the connection was closed without an answer"
        case aiohttp.ClientResponseError():
            # Somebody is there, at least.
            return Failure(reason="the answer is no HTTP", again=True)
        case OSError() if error.strerror:
            reason = f"the connection broke ({error.strerror})"
        case ValueError():
            # The last resort of URL and name handling, such as a host name that cannot be encoded.
            return Failure(reason="its address is no URL")
        case _:
            reason = f"the connection broke ({type(error).__name__})"
    return Failure(reason=reason, again=True, silent=True)


class _Decoder(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def complete(self) -> bool:
        """Whether what was fed may end here."""


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def complete(self) -> bool:
        return True


class _Gunzip:
    """For servers that pack without being asked. It yields small pieces, so that a bomb can be seen in time."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._member.decompress(data, _BLOCK)
            yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if self._member.eof and data:
                self._member = zlib.decompressobj(wbits=31)
            elif not data and len(piece) < _BLOCK:
                return

    def complete(self) -> bool:
        return self._member.eof


_CODINGS: Mapping[str, Callable[[], _Decoder]] = {
    "": _Plain,
    "identity": _Plain,
    "gzip": _Gunzip,
    "x-gzip": _Gunzip,
}


class _Part:
    """The file that stands aside while it comes. `write` and `finish` block: they run in threads."""

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
