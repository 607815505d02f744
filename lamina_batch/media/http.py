"""How other hosts are asked: few headers, redirects looked at one by one, bounds on time, and what went wrong in words.

The host is not trusted: not its length, not its type, not where it redirects to. It gets no header of ours that tells
more than the program's name; the API key is not even known here.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from yarl import URL

from lamina_batch._version import __version__
from lamina_batch.client.retry import retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

_Taken = TypeVar("_Taken")

_MAX_REDIRECTS = 5
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
#: Links that have expired answer so.
_EXPIRED_STATUSES = frozenset({401, 403, 404, 410})
#: A longer Retry-After is for the next run.
_MAX_RETRY_AFTER = 120.0

#: RFC 3986: only such a URL goes out byte for byte. A signature may cover how it was written.
_VALID_URL = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")
#: What is said in these is said about the file; the file is something else.
PAGE_TYPES: Mapping[str, str] = {
    "text/html": "a web page",
    "application/xhtml+xml": "a web page",
    "text/xml": "an XML text",
    "application/xml": "an XML text",
    "application/json": "a JSON text",
    "application/problem+json": "a JSON text",
}
#: So much of the beginning shows whether it is a web page.
_HEAD_BYTES = 512
_PAGE_PREFIXES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<?xml", b"<error")
#: Lookup errors for a name that does not exist. Other lookup errors may be temporary.
_NAME_NOT_FOUND_ERRORS = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How much and how long a request to another host may take."""

    #: bytes of one file, unpacked
    most_bytes: int = 1024**3
    #: seconds for one try, redirects included
    total: float = 900.0
    #: seconds without a byte
    idle: float = 60.0
    #: seconds to connect
    connect: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFailure:
    """Why a request to another host failed."""

    #: in words; never holds the URL, which may be signed
    reason: str
    #: whether it may end better when tried again soon
    again: bool = False
    #: seconds that the server wants to be left alone
    retry_after: float | None = None
    #: the server says that it is asked too often
    too_many: bool = False
    #: no answer of any kind came: it may be the network, or the whole host
    silent: bool = False
    #: the link itself is wrong: whoever asks, and whenever, it ends so
    sure: bool = False


_INVALID_URL = FetchFailure(reason="its address is no URL", sure=True)


def open_session(limits: FetchLimits) -> aiohttp.ClientSession:
    """A session for other hosts: no cookies, no proxy and no .netrc of the environment, bodies as they come."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": f"lamina-batch/{__version__}",
            "Accept": "*/*",
            # Content-Length shall be the file's.
            "Accept-Encoding": "identity",
        },
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.idle),
        auto_decompress=False,
        trust_env=False,
    )


async def request_url(
    session: aiohttp.ClientSession,
    url: str,
    take: Callable[[aiohttp.ClientResponse], Awaitable[_Taken | FetchFailure]],
    *,
    limits: FetchLimits,
    headers: Mapping[str, str] | None = None,
) -> _Taken | FetchFailure:
    """GET `url` and answer what `take` makes of the answer, whatever its status; a redirect is followed, and none.

    `session` is one of `open_session`. Nothing that the network or the host does is raised.
    """
    try:
        async with asyncio.timeout(limits.total):
            return await _follow_redirects(session, url, take, limits=limits, headers=headers or {})
    except TimeoutError:
        # It had its time; as much again in this run would go the same way.
        return FetchFailure(reason=f"it did not end within {limits.total:g} s")
    except ValueError:
        return _INVALID_URL


async def _follow_redirects(
    session: aiohttp.ClientSession,
    url: str,
    take: Callable[[aiohttp.ClientResponse], Awaitable[_Taken | FetchFailure]],
    *,
    limits: FetchLimits,
    headers: Mapping[str, str],
) -> _Taken | FetchFailure:
    """Redirects are followed here and not by aiohttp, so that each address is looked at like the first."""
    at = _parse_url(url)
    for redirects in range(_MAX_REDIRECTS + 1):
        unfit = _url_problem(at)
        if unfit:
            return FetchFailure(reason=f"it redirects, and {unfit}" if redirects else unfit, sure=redirects > 0)
        try:
            async with session.get(at, allow_redirects=False, headers=headers) as response:
                if response.status not in _REDIRECT_STATUSES:
                    return await take(response)
                try:
                    at = at.join(_parse_url(response.headers.get("Location", "")))
                except ValueError:
                    return FetchFailure(reason=f"HTTP {response.status} leads nowhere", sure=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = network_failure(error, limits)
            # The host that `url` names is not silent: it redirected.
            return replace(failure, silent=failure.silent and not redirects)
    return FetchFailure(reason=f"it redirects more than {_MAX_REDIRECTS} times", sure=True)


def _parse_url(text: str) -> URL:
    if not text:
        raise ValueError(text)
    return URL(text, encoded=_VALID_URL.fullmatch(text) is not None)


def _url_problem(url: URL) -> str | None:
    """Why this address is not asked; None: it is."""
    if url.scheme not in {"http", "https"} or not url.host:
        return "its address is no http(s) URL"
    if url.user is not None or url.password is not None:
        return "its address holds a user name or a password, and none is ever sent"
    return None


def content_type(response: aiohttp.ClientResponse) -> str:
    """As the host names it, in lower case and without parameters; "" where it names none that is one."""
    named = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return named if _MEDIA_TYPE.fullmatch(named) else ""


def refused_failure(response: aiohttp.ClientResponse) -> FetchFailure:
    """The failure that a response other than 2xx means."""
    status = response.status
    if status in _EXPIRED_STATUSES:
        return FetchFailure(reason=f"HTTP {status}: the link has expired, or was never good")
    again = status == 425 or retryable(status)
    retry_after = _retry_after(response.headers)
    if again and retry_after is not None and retry_after > _MAX_RETRY_AFTER:
        reason = f"HTTP {status}: not before {retry_after:.0f} s from now"
        return FetchFailure(reason=reason, too_many=status == 429)
    return FetchFailure(reason=f"HTTP {status}", again=again, retry_after=retry_after, too_many=status == 429)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; a date is measured by the server's own clock, as the answer tells it."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    with suppress(ValueError, KeyError, TypeError):
        return max(0.0, (parsedate_to_datetime(said) - parsedate_to_datetime(headers["Date"])).total_seconds())
    return None


def looks_like_page(head: bytes | bytearray) -> bool:
    """Whether the first bytes are those of a web page."""
    return bytes(head[:_HEAD_BYTES]).removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE_PREFIXES)


def truncated_failure(length: int | None) -> FetchFailure:
    """The failure of a body that ended early; `length` is what was announced, in bytes."""
    # How much came is not told: aiohttp may drop some of it when the connection ends.
    of = f" before its {length} bytes had come" if length is not None else ""
    return FetchFailure(reason=f"it broke off{of}", again=True)


def network_failure(error: Exception, limits: FetchLimits) -> FetchFailure:
    """What happened, without the URL: the words of aiohttp often hold it."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            reason = f"no connection within {limits.connect:g} s"
        case aiohttp.SocketTimeoutError():
            reason = f"nothing came for {limits.idle:g} s"
        case aiohttp.ClientConnectorCertificateError():
            return FetchFailure(reason="the host's certificate is not good", silent=True)
        case aiohttp.ClientConnectorDNSError(os_error=OSError(errno=number)) if number in _NAME_NOT_FOUND_ERRORS:
            return FetchFailure(reason="the host's name is not found", silent=True, sure=True)
        case aiohttp.ClientConnectorDNSError():
            reason = "the host's name is not found"
        case aiohttp.ClientConnectorError():
            # asyncio puts the address where the words of the system should be.
            number = error.os_error.errno
            reason = f"no connection to the host ({os.strerror(number) if number else type(error.os_error).__name__})"
        case aiohttp.InvalidURL():
            return _INVALID_URL
        case aiohttp.ServerDisconnectedError():
            reason = "the connection was closed without an answer"
        case aiohttp.ClientResponseError():
            # Somebody is there, at least.
            return FetchFailure(reason="the answer is no HTTP", again=True)
        case OSError() if error.strerror:
            reason = f"the connection broke ({error.strerror})"
        case ValueError():
            # The last resort of URL and name handling, such as a host name that cannot be encoded.
            return _INVALID_URL
        case _:
            reason = f"the connection broke ({type(error).__name__})"
    return FetchFailure(reason=reason, again=True, silent=True)
