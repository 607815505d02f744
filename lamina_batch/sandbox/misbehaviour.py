"""How a fault looks on the wire."""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from lamina_batch.sandbox.answers import error
from lamina_batch.sandbox.service import INSUFFICIENT_CREDITS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lamina_batch.sandbox.faults import Fault

_BAD_GATEWAY = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_ENDLESS_CHUNK = b'"' + b"lamina " * 9362 + b'",'


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as it would go out. The headers hold the Content-Type, and the rate limit's."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def instead_of_answer(fault: Fault, *, headers: Mapping[str, str], limited: Reply) -> Reply | None:
    """What a fault of the stages REFUSE and ACCEPTED sends; None: nothing comes back.

    `headers` are those of the answer that it takes the place of, `limited` is the answer of a spent rate limit.
    """
    match fault.name:
        case "429":
            return limited
        case "500" | "500_accepted":
            return Reply(status=500, body=error(500, "Internal server error").body, headers=headers)
        case "502" | "502_accepted":
            # A proxy wrote this one: it knows nothing of the rate limit.
            return Reply(status=502, body=_BAD_GATEWAY, headers={"Content-Type": "text/html", "Server": "nginx"})
        case "unauthorized":
            return Reply(status=401, body=error(401, "Invalid API key").body, headers=headers)
        case "credits_400":
            return Reply(status=400, body=error(400, INSUFFICIENT_CREDITS).body, headers=headers)
        case "redirect":
            return Reply(status=302, body=b"", headers={**headers, "Location": fault.to})
        case "drop_before" | "drop_after_accept" | "hang_after_accept":
            return None
        case name:
            raise ValueError(f"{name} does not replace an answer")


async def send(
    request: web.BaseRequest,
    reply: Reply | None,
    fault: Fault | None,
    *,
    sleep: Callable[[float], Awaitable[None]],
) -> web.StreamResponse:
    """Send the answer, with what the fault does to it on its way."""
    if reply is None:
        if fault is not None and fault.name == "hang_after_accept":
            await sleep(fault.seconds)
        return _dropped(request, reset=fault is not None and fault.name == "drop_before")
    match fault.name if fault is not None else None:
        case "slow" if fault is not None:
            await sleep(fault.seconds)
        case "broken_json":
            half = reply.body[: len(reply.body) // 2]
            return web.Response(status=reply.status, body=half, headers=reply.headers)
        case "truncated":
            return await _truncated(request, reply)
        case "huge_body":
            return await _endless(request, reply)
        case _:
            pass
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers)


def _dropped(request: web.BaseRequest, *, reset: bool) -> web.StreamResponse:
    """End the connection without an answer: by a reset, or as a peer that closes it."""
    transport = request.transport
    if transport is not None:
        if reset:
            # With no time to linger the kernel sends RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()  # aiohttp wants one, and finds that nobody is there to take it


async def _truncated(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = len(reply.body)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _endless(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.enable_chunked_encoding()
    with contextlib.suppress(ConnectionError):  # the only way that it ends
        await response.prepare(request)
        await response.write(b'{"data":[')
        while True:
            await response.write(_ENDLESS_CHUNK)
    return response
