"""What the tests of the client share: servers on loopback that answer byte by byte what a test says."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from runtimes import make_runtime

from lamina_batch.client.budget import Budget
from lamina_batch.client.lamina import EXECUTIONS, LaminaClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lamina_batch.client.lamina import ApiVersion

KEY = "lma_test_key_of_nobody"


class Clock:
    """The real one."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251  # the test is the edge


class Leaping(Clock):
    """Pauses between requests take no time; the requests themselves are not in it."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def client(
    base_url: str,
    *,
    request_timeout: float = 5.0,
    generation: ApiVersion = EXECUTIONS,
    key: str = KEY,
    clock: Clock | None = None,
) -> LaminaClient:
    clock = clock or Clock()
    return LaminaClient(
        base_url=base_url,
        api_key=key,
        budget=Budget(),
        runtime=make_runtime(now=clock.now, sleep=clock.sleep, random=random.Random(0), notice=lambda _: None),
        request_timeout=request_timeout,
        generation=generation,
    )


@asynccontextmanager
async def answering(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server on loopback that does `answer` with each connection, then closes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return head + await reader.readexactly(int(value))
    return head


def said(status: str, body: object = b"", *headers: str, length: int | None = None) -> bytes:
    """A response on the wire; a body that is not bytes goes out as JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers = ("Content-Type: application/json; charset=utf-8", *headers)
    announced = len(body) if length is None else length
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {announced}", "Connection: close", *headers])
    return head.encode() + b"\r\n\r\n" + body


def saying(
    status: str, body: object = b"", *headers: str, length: int | None = None
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said(status, body, *headers, length=length))
        await writer.drain()

    return answer


@dataclass(slots=True)
class Scripted:
    """A service that gives its answers in order, the last one for ever, and keeps what it was asked."""

    answers: tuple[bytes, ...]
    url: str = ""
    requests: list[bytes] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        """Methods and targets, as they came."""
        return [request.partition(b" HTTP/1.1\r\n")[0].decode() for request in self.requests]

    def query(self, number: int) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.asked[number].partition(" ")[2]).query, strict_parsing=True)


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[Scripted]:
    service = Scripted(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service.requests.append(await read_request(reader))
        writer.write(service.answers[min(len(service.requests), len(service.answers)) - 1])
        await writer.drain()

    async with answering(answer) as service.url:
        yield service
