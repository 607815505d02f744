"""The client against servers that answer byte by byte what the test says."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from lamina_batch.client.budget import Budget
from lamina_batch.client.lamina import EXECUTIONS, LaminaClient, Phase, StartEnd, parse_execution
from lamina_batch.errors import LaminaBatchError, ServiceError
from lamina_batch.execution.certainty import Proof, prove

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

KEY = "lma_test_key_of_nobody"


def client(base_url: str, *, request_timeout: float = 5.0) -> LaminaClient:
    return LaminaClient(
        base_url=base_url,
        api_key=KEY,
        budget=Budget(),
        now=time.monotonic,
        sleep=asyncio.sleep,  # noqa: TID251  # the test is the edge
        random=random.Random(0),
        notice=lambda _: None,
        request_timeout=request_timeout,
    )


@asynccontextmanager
async def answering(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server on loopback that does `answer` with each connection, then closes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
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


def saying(
    status: str, body: bytes, *headers: str, length: int | None = None
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = "\r\n".join(
            [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
        )
        writer.write(head.encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return answer


async def start(base_url: str, **options: float) -> StartEnd:
    async with client(base_url, **options) as session:
        return await session.start("app", "{}", submission="s1")


# -- how far a POST came ---------------------------------------------------------------------------------------


async def test_refused() -> None:
    async with answering(saying("200 OK", b"")) as url:
        pass
    end = await start(url)
    assert (end.phase, prove(end)) == (Phase.NOTHING, Proof.NOT_ACCEPTED)


async def test_failed_lookup() -> None:
    end = await start("http://no-such-host.invalid")
    assert (end.phase, prove(end)) == (Phase.NOTHING, Proof.NOT_ACCEPTED)


async def test_failed_tls_handshake() -> None:
    async with answering(saying("400 Bad Request", b"")) as url:
        end = await start(url.replace("http://", "https://"))
    assert (end.phase, prove(end)) == (Phase.NOTHING, Proof.NOT_ACCEPTED)


async def test_closed_without_an_answer() -> None:
    async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with answering(hang_up) as url:
        end = await start(url)
    assert end.phase >= Phase.REQUEST_BEGUN
    assert prove(end) is Proof.UNKNOWN


async def test_closed_before_reading_anything() -> None:
    """The client cannot tell this from a request that was read, so it proves nothing."""

    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    async with answering(hang_up) as url:
        assert prove(await start(url)) is Proof.UNKNOWN


async def test_no_answer_in_time() -> None:
    async def sulk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with answering(sulk) as url:
        end = await start(url, request_timeout=0.2)
    assert prove(end) is Proof.UNKNOWN
    assert "0.2 s" in end.message


async def test_an_answer_that_breaks_off_after_a_status_of_refusal_is_a_refusal() -> None:
    async with answering(saying("400 Bad Request", b'{"error":"Inv', length=100)) as url:
        assert prove(await start(url)) is Proof.REFUSED


async def test_an_acceptance_that_breaks_off_proves_nothing() -> None:
    async with answering(saying("202 Accepted", b'{"data":{"executionId":"e', length=100)) as url:
        assert prove(await start(url)) is Proof.UNKNOWN


async def test_a_status_line_that_is_none_proves_nothing() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await writer.drain()

    async with answering(babble) as url:
        assert prove(await start(url)) is Proof.UNKNOWN


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":{"executionId":"e1","status":"queued"}}',
        b'{"executionId":"e1"}',
        b'{"data":{"executionId":"e1","news":[1]},"more":true}',
    ],
)
@pytest.mark.parametrize("status", ["202 Accepted", "200 OK", "201 Created"])
async def test_any_2xx_with_an_id_is_an_acceptance(status: str, body: bytes) -> None:
    async with answering(saying(status, body)) as url:
        end = await start(url)
    assert (end.execution_id, prove(end)) == ("e1", Proof.ACCEPTED)


async def test_numbers_as_ids_are_taken_as_text() -> None:
    async with answering(saying("202 Accepted", b'{"data":{"executionId":17}}')) as url:
        assert (await start(url)).execution_id == "17"


async def test_what_is_sent() -> None:
    """Strictly: the inputs as they stand, one auth header, and a name for the submission (API.md 2.4, 8)."""
    requests: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with answering(keep) as url, client(url) as session:
        await session.start("a/b", '{"Model  Ethnicity":"é"}', submission="s1")
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert body == b'{"inputs":{"Model  Ethnicity":"\xc3\xa9"}}'
    assert head.startswith(b"POST /v1/apps/a%2Fb/executions HTTP/1.1\r\n")
    lines = {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in head.split(b"\r\n")[1:]}
    assert lines[b"x-api-key"] == KEY.encode()
    assert lines[b"idempotency-key"] == b"s1"
    assert lines[b"content-type"] == b"application/json"
    assert b"authorization" not in lines


# -- what the service says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":"Invalid inputs","details":["a","b"]}', "Invalid inputs: a; b"),
        (b"<html>no</html>", "HTTP 400 with a web page instead of JSON"),
        (b"plain words", "plain words"),
        (b"", "HTTP 400 without a word"),
        (b'{"error":"your key lma_test_key_of_nobody is bad"}', "your key [key] is bad"),
        (b'{"error":null,"message":"m"}', "m"),
    ],
)
async def test_the_service_s_words_are_kept_and_the_key_is_not(body: bytes, words: str) -> None:
    async with answering(saying("400 Bad Request", body)) as url:
        assert (await start(url)).message == words


def test_an_execution_is_parsed_tolerantly() -> None:
    execution = parse_execution(
        {
            "status": "Completed ",
            "outputs": [
                {"id": "n1", "label": "L", "type": "image", "status": "completed", "value": "https://x"},
                {"label": None, "value": {"a": 1}, "status": "COMPLETED", "type": "hologram"},
                {"id": "n3", "status": "error", "type": "pending", "value": None, "error": "no"},
                "nonsense",
            ],
            "createdAt": "2026-03-23T12:22:40.552Z",
            "completedAt": "yesterday",
            "errorMessage": "",
        },
        EXECUTIONS,
        "asked",
    )
    assert execution is not None
    assert (execution.execution_id, execution.status, execution.ended) == ("asked", "completed", True)
    assert [output.usable for output in execution.outputs] == [True, True, False]
    assert execution.outputs[1].value == '{"a": 1}'
    assert execution.outputs[1].label == execution.outputs[1].id == "output-2"
    assert (execution.created_at, execution.completed_at) == (1774268560.552, None)
    assert execution.error_message is None


@pytest.mark.parametrize(
    ("status", "ended"), [("failed", True), ("cancelled", True), ("queued", False), ("odd", False)]
)
def test_an_unknown_status_is_no_end(status: str, ended: bool) -> None:
    execution = parse_execution({"executionId": "e", "status": status}, EXECUTIONS)
    assert execution is not None
    assert execution.ended is ended


@pytest.mark.parametrize("data", [None, [], "x", {}, {"status": 3}, {"status": "queued"}])
def test_what_holds_no_execution_is_none(data: object) -> None:
    assert parse_execution(data, EXECUTIONS) is None


@pytest.mark.parametrize(
    "body", [b'{"data":{"name":"x"}}', b'{"data":[]}', b'{"data":{"parameters":[{"type":"text"}]}}']
)
async def test_an_app_without_usable_parameters_is_an_error(body: bytes) -> None:
    async with answering(saying("200 OK", body)) as url, client(url) as session:
        with pytest.raises(ServiceError):
            await session.get_app("a")


async def test_an_app_is_parsed_tolerantly() -> None:
    """Parameters without ids, of unknown kinds and with null defaults (API.md 2.2, 3)."""
    app = {
        "appId": "a",
        "name": "N",
        "parameters": [
            {"name": "P", "type": "url", "required": True, "default": None, "accept": ["image"]},
            {"name": "Q", "type": "colour", "required": True, "default": ""},
        ],
        "news": 1,
    }
    async with answering(saying("200 OK", json.dumps({"data": app}).encode())) as url, client(url) as session:
        parsed = await session.get_app("a")
    assert [p.must_supply for p in parsed.parameters] == [True, False]


@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "302 Found", "400 Bad Request"]
)
async def test_a_final_answer_to_a_read_is_not_asked_for_again(status: str) -> None:
    async with (
        answering(saying(status, b'{"error":"no"}', "Location: http://127.0.0.1:9/")) as url,
        client(url) as session,
    ):
        with pytest.raises(LaminaBatchError) as error:
            await session.get_app("a")
        assert session.requests["other"] == 1
    assert error.value.exit_code == 1
    assert KEY not in str(error.value)
