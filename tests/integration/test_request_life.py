"""The life of a POST: a server ends it at each point, and what is proved by that is what may be sent again.

The servers are plain sockets that do what the test says, byte by byte. What each end proves stands in
docs/lamina-api.md, "Errors and retries" and is decided by execution/certainty.py.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import struct
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from process import APP, PATIENCE, Cli, row, stopping, write_rows
from runtimes import make_runtime

from lamina_batch.client.budget import Budget
from lamina_batch.client.lamina import LaminaClient, Phase, StartResult
from lamina_batch.execution.submission_outcome import SubmissionOutcome, classify_submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pause = asyncio.sleep  # noqa: TID251  # the test is the edge

ID = b'{"data":{"executionId":"e1","status":"queued"}}'


def client(url: str, *, request_timeout: float = 5.0) -> LaminaClient:
    return LaminaClient(
        base_url=url,
        api_key="lma_test_key_of_nobody",
        budget=Budget(),
        runtime=make_runtime(now=time.monotonic, sleep=pause, random=random.Random(0), notice=lambda _: None),
        request_timeout=request_timeout,
    )


async def start(url: str, *, inputs: str = "{}", request_timeout: float = 5.0) -> StartResult:
    async with client(url, request_timeout=request_timeout) as session:
        return await session.start(APP, inputs, submission="s1")


@dataclass(slots=True)
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> bytes:
        head = await self.head()
        [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head + await self.reader.readexactly(int(length.partition(b":")[2]))

    async def say(self, words: bytes) -> None:
        self.writer.write(words)
        await self.writer.drain()

    async def answer(self, body: bytes = ID, *, length: int | None = None, status: str = "202 Accepted") -> None:
        told = len(body) if length is None else length
        await self.say(f"HTTP/1.1 {status}\r\nContent-Length: {told}\r\n\r\n".encode() + body)

    def reset(self) -> None:
        """End the connection with RST instead of FIN: with no time to linger the kernel does that."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def sulk(self) -> None:
        """Say nothing until the other side is gone."""
        while await self.reader.read(65536):
            pass


@asynccontextmanager
async def listening(
    serve: Callable[[Peer], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server on loopback that does `serve` with each connection, then closes it."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left first
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# -- before anything has left ----------------------------------------------------------------------------------------


async def test_a_refused_connection_proves_that_nothing_was_accepted() -> None:
    async with listening(Peer.sulk) as url:
        pass
    end = await start(url)
    assert (end.phase, classify_submission(end)) == (Phase.NOTHING, SubmissionOutcome.NOT_ACCEPTED)


async def test_a_connection_that_takes_too_long_proves_that_nothing_was_accepted() -> None:
    """Nobody takes the connections off the queue, and the queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)
            end = await start(f"http://127.0.0.1:{address[1]}", request_timeout=0.3)
        finally:
            for one in waiting:
                one.close()
    assert (end.phase, classify_submission(end)) == (Phase.NOTHING, SubmissionOutcome.NOT_ACCEPTED)


def certificate(folder: Path) -> ssl.SSLContext:
    """One that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_certificate_that_nobody_vouches_for_proves_that_nothing_was_accepted(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def listen(peer: Peer) -> None:
        heard.append(await peer.reader.read())

    async with listening(listen, tls=certificate(tmp_path)) as url:
        end = await start(url)
    assert (end.phase, classify_submission(end)) == (Phase.NOTHING, SubmissionOutcome.NOT_ACCEPTED)
    assert b"".join(heard) == b"", "the key would have gone to a stranger"


async def hang_up(_: Peer) -> None:
    """Close at once."""


async def babble(peer: Peer) -> None:
    await peer.say(b"220 mail.example.com ESMTP\r\n")


@pytest.mark.parametrize("serve", [hang_up, babble, Peer.sulk, Peer.answer], ids=lambda serve: serve.__name__)
async def test_a_tls_handshake_that_fails_proves_that_nothing_was_accepted(
    serve: Callable[[Peer], Awaitable[None]],
) -> None:
    async with listening(serve) as url:
        end = await start(url.replace("http://", "https://"), request_timeout=0.5)
    assert (end.phase, classify_submission(end)) == (Phase.NOTHING, SubmissionOutcome.NOT_ACCEPTED)


# -- once something may have left ------------------------------------------------------------------------------------


async def reset_at_once(peer: Peer) -> None:
    peer.reset()


async def close_after_the_headers(peer: Peer) -> None:
    await peer.head()


async def reset_after_the_headers(peer: Peer) -> None:
    await peer.head()
    peer.reset()


async def close_after_the_body(peer: Peer) -> None:
    await peer.request()


async def reset_after_the_body(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def never_answer(peer: Peer) -> None:
    await peer.request()
    await peer.sulk()


async def refuse_the_body(peer: Peer) -> None:
    await peer.head()
    await peer.answer(b'{"error":"Payload Too Large"}', status="413 Payload Too Large")
    await peer.sulk()


async def say_half_a_status_line(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 20")


async def say_a_status_line(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 202 Accepted\r\n")


async def say_a_status_line_and_sulk(peer: Peer) -> None:
    await say_a_status_line(peer)
    await peer.sulk()


async def break_off_in_the_headers(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Le")


async def say_no_http(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def go_on_and_close(peer: Peer) -> None:
    await peer.head()
    await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n")
    await peer.request()


async def say_the_headers_only(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"", length=len(ID))


async def cut_the_id(peer: Peer) -> None:
    await peer.request()
    await peer.answer(ID[:24], length=len(ID))


async def cut_the_id_and_sulk(peer: Peer) -> None:
    await cut_the_id(peer)
    await peer.sulk()


async def cut_the_id_and_reset(peer: Peer) -> None:
    await cut_the_id(peer)
    await pause(0.05)  # what was said before is thrown away by some systems
    peer.reset()


async def accept_without_an_id(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b'{"data":{"status":"queued"}}')


async def refuse_and_break_off(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b'{"error":"Invalid inp', length=100, status="400 Bad Request")


async def refuse_and_sulk(peer: Peer) -> None:
    await refuse_and_break_off(peer)
    await peer.sulk()


async def limit_and_break_off(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"Too many requests", length=100, status="429 Too Many Requests")


async def limit_before_the_body(peer: Peer) -> None:
    await peer.head()
    await peer.answer(b"Too many requests", status="429 Too Many Requests")
    await peer.sulk()


async def fail_and_break_off(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"<html>", length=100, status="502 Bad Gateway")


async def accept_and_reset(peer: Peer) -> None:
    await peer.request()
    await peer.answer()
    await pause(0.05)
    peer.reset()


async def accept_without_a_length(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 202 Accepted\r\n\r\n" + ID)


async def accept_and_break_off_after_the_id(peer: Peer) -> None:
    """All of the JSON is there, and still the answer is not whole."""
    await peer.request()
    await peer.say(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n")
    await peer.say(b"%x\r\n%b\r\n40\r\n" % (len(ID), ID))


async def go_on_and_accept(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n")
    await peer.answer()


#: what the server does, how far the client came, the status it read, what that proves
LIFE = [
    # docs/lamina-api.md, "Errors and retries", network error: "POST: only if it provably never left". From the first
    # byte on, nothing proves that.
    (close_after_the_headers, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (reset_after_the_headers, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (close_after_the_body, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (reset_after_the_body, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (never_answer, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (say_half_a_status_line, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (say_a_status_line, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (say_a_status_line_and_sulk, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (break_off_in_the_headers, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (say_no_http, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    (go_on_and_close, Phase.REQUEST_SENT, None, SubmissionOutcome.UNKNOWN),
    # docs/lamina-api.md, "Start execution": 202 means accepted, but without its id it can never be collected
    (say_the_headers_only, Phase.ANSWER_BEGUN, 202, SubmissionOutcome.UNKNOWN),
    (cut_the_id, Phase.ANSWER_BEGUN, 202, SubmissionOutcome.UNKNOWN),
    (cut_the_id_and_sulk, Phase.ANSWER_BEGUN, 202, SubmissionOutcome.UNKNOWN),
    (cut_the_id_and_reset, Phase.ANSWER_BEGUN, 202, SubmissionOutcome.UNKNOWN),
    (accept_without_an_id, Phase.ANSWERED, 202, SubmissionOutcome.UNKNOWN),
    # docs/lamina-api.md, "Errors and retries": 400 fix the row, 429 rejected before any work: the status says it,
    # whatever becomes of the words
    (refuse_and_break_off, Phase.ANSWER_BEGUN, 400, SubmissionOutcome.REFUSED),
    (refuse_and_sulk, Phase.ANSWER_BEGUN, 400, SubmissionOutcome.REFUSED),
    (limit_and_break_off, Phase.ANSWER_BEGUN, 429, SubmissionOutcome.NOT_ACCEPTED),
    (limit_before_the_body, Phase.ANSWERED, 429, SubmissionOutcome.NOT_ACCEPTED),
    (refuse_the_body, Phase.ANSWERED, 413, SubmissionOutcome.REFUSED),
    # docs/lamina-api.md, "Errors and retries": other 5xx, POST: ambiguous
    (fail_and_break_off, Phase.ANSWER_BEGUN, 502, SubmissionOutcome.UNKNOWN),
    # docs/lamina-api.md, "Start execution": the id is all that is needed
    (accept_and_reset, Phase.ANSWERED, 202, SubmissionOutcome.ACCEPTED),
    (accept_without_a_length, Phase.ANSWERED, 202, SubmissionOutcome.ACCEPTED),
    (accept_and_break_off_after_the_id, Phase.ANSWER_BEGUN, 202, SubmissionOutcome.ACCEPTED),
    (go_on_and_accept, Phase.ANSWERED, 202, SubmissionOutcome.ACCEPTED),
]


@pytest.mark.parametrize(("serve", "phase", "status", "proof"), LIFE, ids=lambda value: getattr(value, "__name__", ""))
async def test_where_a_post_ends_decides_what_is_proved(
    serve: Callable[[Peer], Awaitable[None]], phase: Phase, status: int | None, proof: SubmissionOutcome
) -> None:
    async with listening(serve) as url:
        end = await start(url, request_timeout=0.5)
    assert (end.phase, end.status, classify_submission(end)) == (phase, status, proof)
    assert (end.execution_id == "e1") is (proof is SubmissionOutcome.ACCEPTED)
    assert (end.message == "") is (proof is SubmissionOutcome.ACCEPTED)


@pytest.mark.parametrize("serve", [hang_up, reset_at_once], ids=lambda serve: serve.__name__)
async def test_a_connection_that_ends_as_soon_as_it_is_made_proves_nothing(
    serve: Callable[[Peer], Awaitable[None]],
) -> None:
    """It cannot be told from one that ended after the request had been read."""
    async with listening(serve) as url:
        end = await start(url)
    assert end.phase in {Phase.REQUEST_BEGUN, Phase.REQUEST_SENT}
    assert (end.status, classify_submission(end)) == (None, SubmissionOutcome.UNKNOWN)


@pytest.mark.parametrize("serve", [close_after_the_headers, reset_after_the_headers], ids=lambda serve: serve.__name__)
async def test_a_connection_that_ends_in_the_middle_of_the_body_proves_nothing(
    serve: Callable[[Peer], Awaitable[None]],
) -> None:
    """A proxy may have handed on what it had."""
    async with listening(serve) as url:
        end = await start(url, inputs=json.dumps({"Prompt": "x" * 1_000_000}))
    assert end.phase in {Phase.REQUEST_BEGUN, Phase.REQUEST_SENT}
    assert (end.status, classify_submission(end)) == (None, SubmissionOutcome.UNKNOWN)


# -- connections that idle -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Impatient:
    """Answers every request, and closes a connection that has been idle for `idle` seconds."""

    idle: float
    #: how many requests came on each connection
    requests: Counter[int] = field(default_factory=Counter)

    async def __call__(self, peer: Peer) -> None:
        connection = len(self.requests)
        self.requests[connection] = 0
        while True:
            try:
                head = await asyncio.wait_for(peer.head(), self.idle)
            except TimeoutError:
                return
            await peer.reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
            self.requests[connection] += 1
            await peer.answer()


async def test_a_server_that_closes_idle_connections_costs_nothing() -> None:
    """Eighty clients send just as it closes: a little before, at that moment, and a little after."""

    async def pace(url: str, gap: float) -> list[SubmissionOutcome]:
        async with client(url) as session:
            first = await session.start(APP, "{}", submission="s1")
            await pause(gap)
            return [classify_submission(first), classify_submission(await session.start(APP, "{}", submission="s2"))]

    idle = 3.0
    async with listening(Impatient(idle)) as url:
        gaps = [idle + 0.0005 * (number - 40) for number in range(80)]
        proofs = await asyncio.gather(*(pace(url, gap) for gap in gaps))
    assert Counter(proof for pair in proofs for proof in pair) == {SubmissionOutcome.ACCEPTED: 160}


async def test_a_post_never_leaves_on_a_connection_that_was_used_before() -> None:
    """On a kept connection an answer out of step, such as that of a poll, would be taken for the POST's."""
    seen: list[list[bytes]] = []

    async def keep_alive(peer: Peer) -> None:
        mine: list[bytes] = []
        seen.append(mine)
        while head := await peer.head():
            method = head.split()[0]
            mine.append(method)
            if method == b"POST":
                await peer.reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
            await peer.answer(status="202 Accepted" if method == b"POST" else "200 OK")

    async with listening(keep_alive) as url, client(url) as session:
        for number in range(3):
            await session.get_execution("e1")
            await session.start(APP, "{}", submission=f"s{number}")
    assert [methods for methods in seen if b"POST" in methods] == [[b"POST"]] * 3
    assert [b"GET"] * 3 in seen, "reads keep their connection"


async def test_a_connection_that_has_been_idle_for_over_two_seconds_is_not_trusted_with_a_post() -> None:
    """Something on the way has forgotten it without a word, and what is sent on it vanishes."""

    async def forgetful(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.sulk()

    async with listening(forgetful) as url, client(url, request_timeout=1.0) as session:
        first = await session.start(APP, "{}", submission="s1")
        await pause(2.05)
        second = await session.start(APP, "{}", submission="s2")
    assert (classify_submission(first), classify_submission(second)) == (
        SubmissionOutcome.ACCEPTED,
        SubmissionOutcome.ACCEPTED,
    )


# -- how many at once ------------------------------------------------------------------------------------------------

PARAMETERS = [{"id": "p", "name": "Prompt", "type": "text", "required": True, "default": ""}]
PIPELINE = f"""\
version: 1
app: {APP}
api: {{generation: executions}}
rows: {{from: rows.csv, key: sku}}
inputs:
  Prompt: {{column: title}}
"""


@dataclass(slots=True)
class Silent:
    """Serves the app, and answers a POST only when it is told to."""

    posts: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def __call__(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            if head.startswith(b"GET"):
                data = {"appId": APP, "name": "Silent", "description": None, "parameters": PARAMETERS}
                await peer.answer(json.dumps({"data": data}).encode(), status="200 OK")
                continue
            self.posts += 1
            self.came.set()
            await self.answers.acquire()
            await peer.answer(b'{"error":"no"}', status="400 Bad Request")

    async def wait_for(self, posts: int) -> None:
        while self.posts < posts:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), PATIENCE)


async def test_no_more_than_sixteen_posts_are_open_at_once(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE, encoding="utf-8")
    write_rows(tmp_path, [row(n) for n in range(40)])
    silent = Silent()
    async with listening(silent) as url:
        with stopping(cli.start("run", "p.yaml", "--no-wait", "--base-url", url)):
            await silent.wait_for(16)
            await pause(0.7)
            assert silent.posts == 16, "the others wait until one of these has ended"
            for answered in range(1, 4):
                silent.answers.release()
                await silent.wait_for(16 + answered)
            await pause(0.3)
            assert silent.posts == 19
