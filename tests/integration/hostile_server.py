"""A file server that lies, on raw sockets: what it sends is exactly what a test says, byte for byte, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

#: What is sent before the connection is closed: bytes, or whatever a function does with the connection.
Script = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


def answer(body: bytes = PNG, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole answer. `length` is the Content-Length told, the right one unless given; -1: none."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if end else b"")


def redirect(to: str, *headers: str, status: str = "302 Found") -> bytes:
    return answer(b"", f"Location: {to}", *headers, status=status)


def then_hang(begin: bytes) -> Script:
    """Send this, then nothing, with the connection open until the other side gives up."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        await writer.drain()
        await asyncio.Event().wait()

    return send


def endless(begin: bytes, again: bytes) -> Script:
    """Send `again` for ever after `begin`, as fast as it is read."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(again)
            await writer.drain()

    return send


def drip(begin: bytes, byte: bytes) -> Script:
    """Send `byte` every hundredth of a second for ever: never silent, never done."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(byte)
            await writer.drain()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.01)

    return send


def when(gate: asyncio.Event, *parts: bytes) -> Script:
    """Send the first part, and the others once the gate opens."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(parts[0])
        await writer.drain()
        await gate.wait()
        writer.writelines(parts[1:])

    return send


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    #: as it stood in the request line
    target: str
    #: lower case names
    headers: dict[str, str]


@dataclass(slots=True)
class HostileServer:
    """Use as `async with`. Each connection takes one request; a path that is not scripted answers 404."""

    #: by path: what to send first, second, ...; the last for ever
    scripts: dict[str, list[Script]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    #: requests that are being answered, and the most there ever were
    open: int = 0
    most_open: int = 0
    #: set and cleared by nobody but tests: `arrived` is released for each request
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def port(self) -> int:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, path: str, *scripts: Script) -> str:
        """Script a path, and give its URL."""
        self.scripts[path] = list(scripts)
        return self.url + path

    def asked(self, path: str) -> int:
        return sum(request.target.partition("?")[0] == path for request in self.requests)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who is asked of a hostile server hangs up often; that is no error of the test.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *lines = head.split("\r\n")
                target = line.split(" ")[1]
                headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines[:-2])}
                self.requests.append(Request(target=target, headers=headers))
                scripts = self.scripts.get(target.partition("?")[0], [answer(b"no", status="404 Not Found")])
                script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                self.arrived.release()
                try:
                    if isinstance(script, bytes):
                        writer.write(script)
                    else:
                        await self._until_gone(reader, script(writer))
                    await writer.drain()
                finally:
                    self.open -= 1
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

    async def _until_gone(self, reader: asyncio.StreamReader, script: Awaitable[None]) -> None:
        """Run a script that may never end, for as long as the other side is there."""
        running = asyncio.ensure_future(script)
        gone = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait([running, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (running, gone):
                task.cancel()
            await asyncio.gather(running, gone, return_exceptions=True)
