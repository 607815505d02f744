"""The receiver of webhooks: takes deliveries, verifies them, and hands them over (docs/lamina-api.md, "Verification").

    POST .../<token>  ->  405 not a POST             before the body is read
                          404 the token is unknown
                          413 the body is too large    408 it came too slowly
                          401 the signature does not fit, or is not fresh
                          503 the keys cannot be had
                          400 signed, but not a delivery, or of another execution than its header says
                          200 the execution has not ended yet: nothing to do
                          200 committed               404 not of that job        503 could not be committed

Nothing is parsed before it is verified, and an answer is a status without a body: a stranger learns nothing. The
service repeats what was not answered with 2xx (5 s, 30 s and 2 min later) and then gives up, which costs nothing but
time: polling finds what was missed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self, assert_never
from urllib.parse import quote, unquote_to_bytes, urlsplit

from aiohttp import web

from lamina_batch.client.answers import read_json
from lamina_batch.client.signatures import SignatureError, SignatureFault, VerifyKey, parse_keys, verify
from lamina_batch.errors import LaminaBatchError, ServiceError
from lamina_batch.ledger.job import DeliveryOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from lamina_batch.client.lamina import Execution
    from lamina_batch.runtime import Runtime

#: A signature that no key fits may be of a new key, or of anybody: the keys are not asked for more often than this.
KEY_REFETCH_SECONDS = 60.0

_SIGNATURE_HEADER = "X-Lamina-Webhook-Signature"
_TIMESTAMP_HEADER = "X-Lamina-Webhook-Timestamp"
_REQUEST_ID_HEADER = "X-Lamina-Webhook-Request-Id"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverLimits:
    """What anybody may make the receiver do."""

    #: bytes of a body; a delivery is as large as an answer to a poll
    body: int = 4 * 1024 * 1024
    #: open connections; one more is closed at once
    connections: int = 256
    #: seconds from the connection to the end of the request's head
    head: float = 10.0
    #: seconds from there to the answer; the service waits 15 s for it
    answer: float = 12.0
    #: seconds that requests in hand have when the receiver closes
    closing: float = 1.0


def webhook_url(public_url: str, token: str) -> str:
    """The URL for a delivery with `token`: the token is the last segment of the path, before the query."""
    parts = urlsplit(public_url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(token, safe='')}", fragment="").geturl()


def local_url(listen: tuple[str, int]) -> str:
    """Under which something on this computer reaches a receiver that listens there."""
    host, port = listen
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass(slots=True, kw_only=True)
class WebhookReceiver:
    """Listens for deliveries while it is entered (`async with`); entering spends one request, for the keys.

    Entering raises LaminaBatchError where `listen` cannot be had, and what `keys` raises, before anything is bought.
    """

    #: host and port; port 0 takes a free one
    listen: tuple[str, int]
    #: under which the service reaches us, through a tunnel or a reverse proxy
    public_url: str
    #: gets the service's JSON Web Keys; may raise ServiceError
    keys: Callable[[], Awaitable[Sequence[Mapping[str, object]]]]
    #: whether this is a job's token, also of one that ended
    knows: Callable[[str], bool]
    #: makes an execution of a delivery's JSON; None: it is none
    parse: Callable[[object], Execution | None]
    #: takes an execution that ended for the job with this token, once or often. It may be cancelled when the answer
    #: is late, and commit all the same.
    deliver: Callable[[str, Execution], Awaitable[DeliveryOutcome]]
    runtime: Runtime
    #: tells a person of each kind of refusal once
    note: Callable[[str], None]
    bounds: ReceiverLimits = field(default_factory=ReceiverLimits)

    _verify_keys: tuple[VerifyKey, ...] = ()
    #: when the keys were last asked for, well or badly
    _asked_at: float = 0.0
    #: why they could not be had then
    _trouble: str | None = None
    _fetching: asyncio.Task[None] | None = None
    _noted: set[object] = field(default_factory=set)
    _address: tuple[str, int] = ("", 0)
    _closing: AsyncExitStack | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._address

    def url_for(self, token: str) -> str:
        """The webhook URL that a submission carries."""
        return webhook_url(self.public_url, token)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as closing:
            listening = closing.enter_context(_listen(*self.listen))
            self._address = listening.getsockname()[:2]
            # Deliveries wait in the backlog meanwhile.
            self._verify_keys = parse_keys(await self.keys())
            self._asked_at = self.runtime.now()
            if not self._verify_keys:
                raise ServiceError(
                    "the service lists no key that could sign webhooks",
                    hint="write `completion: poll` under `run`: no webhook could be believed",
                )
            await self._serve(listening, closing)
            self._closing = closing.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closing is not None:
            await self._closing.aclose()

    async def _serve(self, listening: socket.socket, closing: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        http = web.Server(self._answer)

        def connect() -> asyncio.BaseProtocol:
            if len(http.connections) >= self.bounds.connections:
                return _RejectedConnection()
            return _ConnectionHandler(http, loop, head=self.bounds.head)

        async def stop() -> None:
            server.close()
            http.pre_shutdown()
            await http.shutdown(self.bounds.closing)
            if self._fetching is not None:
                self._fetching.cancel()
                await asyncio.gather(self._fetching, return_exceptions=True)
            await server.wait_closed()

        server = await loop.create_server(connect, sock=listening)
        closing.push_async_callback(stop)

    # -- one request ---------------------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, _ConnectionHandler):
            request.protocol.heard()
        try:
            status = await self._judge(request)
        except Exception as error:  # noqa: BLE001 -- it must not reach the sender, and is told to our own people
            what = error.what if isinstance(error, LaminaBatchError) else repr(error)
            self._note_once(type(error), f"a webhook delivery could not be taken: {what}")
            status = HTTPStatus.SERVICE_UNAVAILABLE
        return _empty_response(status)

    async def _judge(self, request: web.BaseRequest) -> HTTPStatus:
        if request.method != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED
        # A reverse proxy may cut or add what stands before it.
        token = _parse_token(request.rel_url.raw_path.rpartition("/")[2])
        if token is None or not self.knows(token):
            return HTTPStatus.NOT_FOUND
        late = asyncio.get_running_loop().time() + self.bounds.answer
        try:
            async with asyncio.timeout_at(late):
                body = await _read_body(request, self.bounds.body)
        except TimeoutError:
            return HTTPStatus.REQUEST_TIMEOUT
        except (web.RequestPayloadError, ConnectionError):
            return HTTPStatus.BAD_REQUEST
        if body is None:
            self._note_once("large", f"a webhook delivery was refused: it is larger than {self.bounds.body} bytes")
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        try:
            async with asyncio.timeout_at(late):
                return await self._take(token, request, body)
        except TimeoutError:
            return HTTPStatus.SERVICE_UNAVAILABLE

    async def _take(self, token: str, request: web.BaseRequest, body: bytes) -> HTTPStatus:
        try:
            if not await self._believe(request, body):
                self._note_once("keys", f"webhook deliveries cannot be verified for now: {self._trouble}")
                return HTTPStatus.SERVICE_UNAVAILABLE
        except SignatureError as error:
            self._note_once(error.fault, f"a webhook delivery was refused: {error}")
            return HTTPStatus.UNAUTHORIZED
        execution = self.parse(read_json(body))
        # The header is not signed, the id in the body is: where they differ, one delivery poses as another.
        if execution is None or execution.execution_id != _single_header(request, _REQUEST_ID_HEADER):
            self._note_once("odd", "a signed webhook delivery was refused: it is no execution, or not the one it says")
            return HTTPStatus.BAD_REQUEST
        if not execution.ended:
            return HTTPStatus.OK
        taken = await self.deliver(token, execution)
        match taken:
            case DeliveryOutcome.COMMITTED:
                return HTTPStatus.OK
            case DeliveryOutcome.UNKNOWN:
                return HTTPStatus.NOT_FOUND
            case DeliveryOutcome.UNCOMMITTED:
                return HTTPStatus.SERVICE_UNAVAILABLE
            case _:
                assert_never(taken)

    def _note_once(self, kind: object, text: str) -> None:
        if kind not in self._noted:
            self._noted.add(kind)
            self.note(text)

    # -- the signature -------------------------------------------------------------------------------------

    async def _believe(self, request: web.BaseRequest, body: bytes) -> bool:
        """True: it is signed and fresh. False: the keys to tell are missing. Raises SignatureError if it is not."""
        tried = self._verify_keys
        try:
            self._verify(tried, request, body)
        except SignatureError as error:
            if error.fault is not SignatureFault.NO_KEY_FITS:
                raise
            await self._renew()
            if self._verify_keys is not tried:
                self._verify(self._verify_keys, request, body)
            elif self._trouble is not None:
                return False
            else:
                raise
        return True

    def _verify(self, keys: tuple[VerifyKey, ...], request: web.BaseRequest, body: bytes) -> None:
        verify(
            keys,
            timestamp=_single_header(request, _TIMESTAMP_HEADER),
            signature=_single_header(request, _SIGNATURE_HEADER),
            body=body,
            now=self.runtime.wall(),
        )

    async def _renew(self) -> None:
        """Ask for the keys again, or wait for who does; not within a minute of the last time."""
        if self._fetching is None and self.runtime.now() - self._asked_at >= KEY_REFETCH_SECONDS:
            self._fetching = asyncio.create_task(self._fetch())
        if self._fetching is not None:
            # It may have to wait for the request budget, longer than this delivery can: the next one has use of it.
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            keys = parse_keys(await self.keys())
        except ServiceError as error:
            self._trouble = error.what
        else:
            if keys:
                self._verify_keys, self._trouble = keys, None
            else:
                self._trouble = "the service lists no key that could sign webhooks"
        finally:
            self._asked_at = self.runtime.now()
            self._fetching = None


class _ConnectionHandler(web.RequestHandler):
    """A connection that carries one request, whose head must come in time."""

    __slots__ = ("_head", "_silent")

    def __init__(self, http: web.Server, loop: asyncio.AbstractEventLoop, *, head: float) -> None:
        # What strangers send is nobody's log; and a body is verified as it came, so it is not unpacked either.
        mute = logging.Logger("mute", logging.CRITICAL + 1)  # noqa: LOG001 -- in no tree, so that it stays mute
        super().__init__(http, loop=loop, logger=mute, access_log=mute, auto_decompress=False, lingering_time=2.0)
        self._head = head
        self._silent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._silent = asyncio.get_running_loop().call_later(self._head, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.heard()
        super().connection_lost(exc)

    def heard(self) -> None:
        """The head is here."""
        if self._silent is not None:
            self._silent.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 -- the signature is aiohttp's
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer what is not HTTP. aiohttp's own answer would quote it."""
        return _empty_response(HTTPStatus(status))


class _RejectedConnection(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


def _empty_response(status: HTTPStatus) -> web.Response:
    response = web.Response(status=status, headers={"Server": "receiver"})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = "POST"
    # A connection kept open could be closed by us just as the next delivery comes over it.
    response.force_close()
    return response


def _parse_token(segment: str) -> str | None:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeError:
        return None


async def _read_body(request: web.BaseRequest, most: int) -> bytes | None:
    """The raw body; None if it is larger than `most` bytes, whatever its Content-Length says."""
    if request.content_length is not None and request.content_length > most:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


def _single_header(request: web.BaseRequest, name: str) -> str:
    """The header's text; empty if it is missing, or there twice, so that no other program reads a different one."""
    values = request.headers.getall(name, [])
    return values[0] if len(values) == 1 else ""


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # A port whose last connections still linger is free; one that somebody listens on is not.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError, UnicodeError) as error:
        listening.close()
        number = error.errno if isinstance(error, OSError) else None
        raise LaminaBatchError(
            f"the receiver of webhooks cannot listen: {getattr(error, 'strerror', None) or error}",
            where=f"run.webhook.listen, {host}:{port}",
            hint=_LISTEN_HINTS.get(number or 0, "give another host and port; nothing was submitted"),
        ) from error
    return listening


_LISTEN_HINTS: Mapping[int, str] = {
    errno.EADDRINUSE: "another program listens there, maybe another run: stop it or give another port; "
    "nothing was submitted",
    errno.EADDRNOTAVAIL: "this computer has no such address: 127.0.0.1 is for a tunnel or proxy on this computer, "
    "0.0.0.0 for one elsewhere; nothing was submitted",
    errno.EACCES: "ports below 1024 may need privileges: give a higher one; nothing was submitted",
}
