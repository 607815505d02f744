"""How a fault looks on the wire."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

from lamina_batch.sandbox.envelope import JSON_TYPE
from lamina_batch.sandbox.faults import FaultStage
from lamina_batch.sandbox.requests import INVALID_KEY, bad_request
from lamina_batch.sandbox.responses import ApiError, HttpReply
from lamina_batch.sandbox.service import INSUFFICIENT_CREDITS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lamina_batch.sandbox.envelope import Envelope
    from lamina_batch.sandbox.faults import SandboxFault

_BAD_GATEWAY = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_ENDLESS_CHUNK = b'"' + b"lamina " * 9362 + b'",'


def fault_reply(fault: SandboxFault, envelope: Envelope) -> HttpReply | None:
    """What a fault of the stages REFUSE and ACCEPTED sends; None: nothing comes back."""
    match fault.name:
        case "429":
            return envelope.limited()
        case "500" | "500_accepted":
            code = fault.code or "INTERNAL_ERROR"
            return envelope.written(ApiError(status=500, message="Internal server error", code=code))
        case "502" | "502_accepted":
            # A proxy wrote this one: it knows nothing of the rate limit.
            return HttpReply(status=502, body=_BAD_GATEWAY, headers={"Content-Type": "text/html", "Server": "nginx"})
        case "503":
            return envelope.written(ApiError(status=503, message="Service unavailable", code="RESOURCE_UNAVAILABLE"))
        case "unauthorized":
            return envelope.written(INVALID_KEY)
        case "credits_400":
            return envelope.written(bad_request(INSUFFICIENT_CREDITS))
        case "redirect":
            return HttpReply(status=302, body=b"", headers={**envelope.headers(JSON_TYPE), "Location": fault.to})
        case "drop_before" | "drop_after_accept" | "hang_after_accept":
            return None
        case name:
            raise ValueError(f"{name} does not replace an answer")


def is_sent_whole(reply: HttpReply | None, fault: SandboxFault | None) -> bool:
    """Whether what the service has to say about a request is sent.

    About a start that was accepted that is its id; where nothing was accepted, an error says as much as any answer.
    """
    return reply is not None and (fault is None or fault.stage is FaultStage.REFUSE)


def client_disconnected(request: web.BaseRequest) -> bool:
    """Whether the client has closed its connection, or died, as far as the kernel knows."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return True
    # asyncio learns of it a turn of its loop later than the kernel does; the socket itself is asyncio's to read.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as peeked:
        try:
            return not peeked.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


async def send(
    request: web.BaseRequest,
    reply: HttpReply | None,
    fault: SandboxFault | None,
    *,
    sleep: Callable[[float], Awaitable[None]],
) -> web.StreamResponse:
    """Send the answer, with what the fault does to its bytes."""
    if reply is None:
        if fault is not None and fault.name == "hang_after_accept":
            await sleep(fault.seconds)
        return _drop_connection(request, reset=fault is not None and fault.name == "drop_before")
    match fault.name if fault is not None else None:
        case "broken_json":
            half = reply.body[: len(reply.body) // 2]
            return web.Response(status=reply.status, body=half, headers=reply.headers)
        case "truncated":
            return await _send_truncated(request, reply)
        case "huge_body":
            return await _send_endless(request, reply)
        case _:
            return web.Response(status=reply.status, body=reply.body, headers=reply.headers)


def _drop_connection(request: web.BaseRequest, *, reset: bool) -> web.StreamResponse:
    """End the connection without an answer: by a reset, or as a peer that closes it."""
    transport = request.transport
    if transport is not None:
        if reset:
            # With no time to linger the kernel sends RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()  # aiohttp wants one, and finds that nobody is there to take it


async def _send_truncated(request: web.BaseRequest, reply: HttpReply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = len(reply.body)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _send_endless(request: web.BaseRequest, reply: HttpReply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.enable_chunked_encoding()
    with contextlib.suppress(ConnectionError):  # the only way that it ends
        await response.prepare(request)
        await response.write(b'{"data":[')
        while True:
            await response.write(_ENDLESS_CHUNK)
    return response
