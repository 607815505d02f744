"""The client against servers that answer byte by byte what the test says."""

from __future__ import annotations

import asyncio
import gzip
import json
import traceback
import zlib
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from client_support import KEY, answering, client, read_request, said, saying, scripted

from lamina_batch.client.lamina import EXECUTIONS, Phase, StartResult, parse_execution
from lamina_batch.errors import CredentialsError, LaminaBatchError, ServiceError
from lamina_batch.execution.submission_outcome import SubmissionOutcome, classify_submission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def start(base_url: str, *, request_timeout: float = 5.0) -> StartResult:
    async with client(base_url, request_timeout=request_timeout) as session:
        return await session.start("app", "{}", submission="s1")


# -- how far a POST came ---------------------------------------------------------------------------------------


async def test_refused() -> None:
    async with answering(saying("200 OK", b"")) as url:
        pass
    end = await start(url)
    assert (end.phase, classify_submission(end)) == (Phase.NOTHING, SubmissionOutcome.NOT_ACCEPTED)


async def test_failed_lookup() -> None:
    end = await start("http://no-such-host.invalid")
    assert (end.phase, classify_submission(end)) == (Phase.NOTHING, SubmissionOutcome.NOT_ACCEPTED)


async def test_failed_tls_handshake() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said("400 Bad Request"))
        await writer.drain()

    async with answering(plain) as url:
        end = await start(url.replace("http://", "https://"))
    assert (end.phase, classify_submission(end)) == (Phase.NOTHING, SubmissionOutcome.NOT_ACCEPTED)


async def test_closed_without_an_answer() -> None:
    async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with answering(hang_up) as url:
        end = await start(url)
    assert end.phase >= Phase.REQUEST_BEGUN
    assert classify_submission(end) is SubmissionOutcome.UNKNOWN


async def test_closed_before_reading_anything() -> None:
    """The client cannot tell this from a request that was read, so it proves nothing."""

    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    async with answering(hang_up) as url:
        assert classify_submission(await start(url)) is SubmissionOutcome.UNKNOWN


async def test_no_answer_in_time() -> None:
    async def sulk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with answering(sulk) as url:
        end = await start(url, request_timeout=0.2)
    assert classify_submission(end) is SubmissionOutcome.UNKNOWN
    assert "0.2 s" in end.message


async def test_an_answer_that_breaks_off_after_a_status_of_refusal_is_a_refusal() -> None:
    async with answering(saying("400 Bad Request", b'{"error":"Inv', length=100)) as url:
        assert classify_submission(await start(url)) is SubmissionOutcome.REFUSED


async def test_an_acceptance_that_breaks_off_proves_nothing() -> None:
    async with answering(saying("202 Accepted", b'{"data":{"executionId":"e', length=100)) as url:
        assert classify_submission(await start(url)) is SubmissionOutcome.UNKNOWN


async def test_a_status_line_that_is_none_proves_nothing() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await writer.drain()

    async with answering(babble) as url:
        assert classify_submission(await start(url)) is SubmissionOutcome.UNKNOWN


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
    assert (end.execution_id, classify_submission(end)) == ("e1", SubmissionOutcome.ACCEPTED)


async def test_numbers_as_ids_are_taken_as_text() -> None:
    async with answering(saying("202 Accepted", b'{"data":{"executionId":17}}')) as url:
        assert (await start(url)).execution_id == "17"


async def test_what_is_sent() -> None:
    """Strictly: the inputs as they stand, one auth header, and a name for the submission (docs/lamina-api.md,
    "Start execution" and "Idempotency").
    """
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


async def test_every_request_that_leaves_is_counted() -> None:
    """aiohttp repeats a GET by itself where the connection closes; the limiter would count what the budget does not."""
    async with scripted(b"") as service, client(service.url) as session:
        await session.get_execution("e1")
        await session.get_execution("e1")
        assert session.requests["poll"] == len(service.requests) == 2


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
    """Parameters without ids, of unknown kinds and with null defaults (docs/lamina-api.md,
    "Get app" and "Parameters").
    """
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


# -- a service that means harm, or is broken -------------------------------------------------------------------


def pouring(
    head: bytes, more: Callable[[int], bytes]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Sends `head`, and then `more` for ever, as fast as it is taken."""

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        number = 0
        while True:
            writer.write(more(number))
            await writer.drain()
            await asyncio.sleep(0)  # noqa: TID251  # a server of the test's own
            number += 1

    return pour


FLOODS = {
    "one header": (b"HTTP/1.1 202 Accepted\r\nX: ", lambda _: b"v" * 65536),
    "many headers": (b"HTTP/1.1 202 Accepted\r\n", lambda n: b"".join(b"X-%d-%d: v\r\n" % (n, i) for i in range(100))),
    "one reason": (b"HTTP/1.1 202 ", lambda _: b"v" * 65536),
    "continue": (b"", lambda _: b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
}


@pytest.mark.parametrize(("head", "more"), FLOODS.values(), ids=FLOODS)
async def test_a_head_that_does_not_end_proves_nothing(head: bytes, more: Callable[[int], bytes]) -> None:
    async with answering(pouring(head, more)) as url:
        end = await start(url, request_timeout=0.5)
    assert end.status is None
    assert classify_submission(end) is SubmissionOutcome.UNKNOWN
    assert len(end.message) < 400


@pytest.mark.parametrize(
    ("status", "proof"), [("202 Accepted", SubmissionOutcome.UNKNOWN), ("400 Bad Request", SubmissionOutcome.REFUSED)]
)
async def test_a_body_that_does_not_end_is_given_up_and_its_status_line_counts(
    status: str, proof: SubmissionOutcome
) -> None:
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode()
    async with answering(pouring(head, lambda _: b" " * 65536)) as url:
        end = await start(url)
    assert classify_submission(end) is proof
    assert "does not end" in end.message


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n"], ids=["head", "body"])
async def test_an_answer_that_drips_is_given_up_in_time(head: bytes) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        while True:
            writer.write(b" " if head else b"H")
            await writer.drain()
            await asyncio.sleep(0.01)  # noqa: TID251  # a server of the test's own

    async with answering(drip) as url:
        assert classify_submission(await start(url, request_timeout=0.3)) is SubmissionOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("X-GZip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_an_answer_packed_unasked_is_unpacked(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body = pack(b'{"data":{"executionId":"e1"}}')
    async with scripted(said("202 Accepted", body, f"Content-Encoding: {encoding}")) as service:
        end = await start(service.url)
    assert end.execution_id == "e1"
    assert b"\r\nAccept-Encoding: identity\r\n" in service.requests[0]


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", gzip.compress(b" " * 10_000_000), "does not end"),
        ("gzip", b"no gzip", "cannot be unpacked"),
        ("br", b'{"data":{"executionId":"e1"}}', "not asked for"),
    ],
    ids=["bomb", "garbage", "br"],
)
async def test_an_answer_that_cannot_be_unpacked_proves_nothing(encoding: str, body: bytes, words: str) -> None:
    async with answering(saying("202 Accepted", body, f"Content-Encoding: {encoding}")) as url:
        end = await start(url)
    assert classify_submission(end) is SubmissionOutcome.UNKNOWN
    assert words in end.message


ODD_ACCEPTANCES = {
    "null": b'{"data":null}',
    "not utf-8": b'{"data":{"executionId":"e\xff1"}}',
    "half a character": b'{"data":{"executionId":"e\\ud800"}}',
    "deep": b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a list": b'{"data":["e1"]}',
    "true": b'{"data":{"executionId":true}}',
    "blank": b'{"data":{"executionId":"  "}}',
    "dots": b'{"data":{"executionId":".."}}',
    "endless": b'{"data":{"executionId":"' + b"e" * 10_000 + b'"}}',
    "NaN": b'{"data":{"executionId":NaN}}',
}


@pytest.mark.parametrize("body", ODD_ACCEPTANCES.values(), ids=ODD_ACCEPTANCES)
async def test_an_acceptance_without_an_id_that_can_be_asked_about_proves_nothing(body: bytes) -> None:
    async with answering(saying("202 Accepted", body)) as url:
        end = await start(url)
    assert (end.execution_id, classify_submission(end)) == (None, SubmissionOutcome.UNKNOWN)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":{"executionId":"e0","executionId":"e1"}}',
        b'{"data":{"executionId":"e1","credits":' + b"9" * 10_000 + b"}}",
        b'{"data":{"executionId":"e1","share":NaN,"most":Infinity,"much":1e999}}',
        b'\xef\xbb\xbf{"data":{"executionId":"e1"}}',
        b'{"data":{"runId":"e1"}}',
    ],
    ids=["twice", "huge number", "no number", "byte order mark", "the other generation's field"],
)
async def test_an_id_beside_nonsense_is_still_an_acceptance(body: bytes) -> None:
    async with answering(saying("202 Accepted", body)) as url:
        end = await start(url)
    assert (end.execution_id, classify_submission(end)) == ("e1", SubmissionOutcome.ACCEPTED)


async def test_an_answer_about_another_app_is_refused() -> None:
    """Else each run would buy all rows from the app that the answer names."""
    other = {"data": {"appId": "another-app", "name": "Other", "parameters": []}}
    async with answering(saying("200 OK", other)) as url, client(url) as session:
        with pytest.raises(ServiceError, match="another-app"):
            await session.get_app("an-app")
        app = await session.get_app("ANOTHER-APP")
    assert app.app_id == "ANOTHER-APP", "content and path come from what the pipeline says"


async def test_an_answer_about_another_execution_is_none() -> None:
    """Its pictures would end up with the wrong product."""
    other = {"data": {"executionId": "e2", "status": "completed"}}
    async with answering(saying("200 OK", other)) as url, client(url) as session:
        end = await session.get_execution("e1")
        assert (end.execution, end.status) == (None, None)
        end = await session.get_execution("E2")
    assert end.execution is not None
    assert end.execution.execution_id == "E2"


async def test_an_answer_that_is_not_http_is_told_without_the_url() -> None:
    """The URL of a submission may hold the token of its callback."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await writer.drain()

    async with answering(babble) as url, client(url) as session:
        end = await session.start("app", "{}", submission="s1", webhook="https://hooks.example/token-1")
    assert "not HTTP" in end.message
    assert "token-1" not in end.message


# -- the key ---------------------------------------------------------------------------------------------------

ODD_KEY = 'lma_"+/=%'


@pytest.mark.parametrize(
    "body",
    [
        f"your key {ODD_KEY} is bad".encode(),
        {"error": f"your key {ODD_KEY} is bad"},
        {"error": f"your key {quote(ODD_KEY, safe='')} is bad"},
        {"news": f"your key {ODD_KEY} is bad"},
        {"error": "no", "details": {"details": {"errors": [{"field": ODD_KEY, "got": ODD_KEY}]}}},
        b'{"error":"your key ' + b"".join(b"\\u%04x" % ord(c) for c in ODD_KEY) + b' is bad"}',
    ],
    ids=["text", "json", "percent-encoded", "another field", "details", "escaped"],
)
async def test_a_key_that_is_echoed_goes_no_further(body: object) -> None:
    async with answering(saying("400 Bad Request", body)) as url, client(url, key=ODD_KEY) as session:
        end = await session.start("app", "{}", submission="s1")
        with pytest.raises(ServiceError) as error:
            await session.get_app("a")
    for told in (end.message, str(error.value)):
        assert "[key]" in told
        assert not [form for form in (ODD_KEY, quote(ODD_KEY, safe=""), json.dumps(ODD_KEY)[1:-1]) if form in told]


async def test_a_key_that_is_echoed_is_in_no_value() -> None:
    done = {
        "executionId": KEY,
        "status": KEY,
        "errorMessage": KEY,
        "outputs": [{"id": KEY, "label": KEY, "value": {KEY: KEY}}],
    }
    async with answering(saying("200 OK", {"data": done})) as url, client(url) as session:
        start_end = await session.start("app", "{}", submission="s1")
        read_end = await session.get_execution("[key]")
    assert read_end.execution is not None
    assert KEY not in repr((start_end, read_end))


@pytest.mark.parametrize(
    "head",
    [KEY.encode(), b"HTTP/1.1 200 OK\r\nX-Bad " + KEY.encode(), b"HTTP/1.1 200 OK\r\nX: " + KEY.encode() * 1000],
    ids=["status line", "header", "long header"],
)
async def test_a_key_that_is_echoed_where_it_is_no_http_goes_no_further(head: bytes) -> None:
    """Not even a part of it."""
    async with scripted(head + b"\r\n\r\n") as service:
        end = await start(service.url)
    assert "not HTTP" in end.message
    assert KEY[:4] not in end.message


async def test_the_key_is_in_no_repr_and_no_traceback() -> None:
    async with answering(saying("401 Unauthorized", {"error": "Invalid API key"})) as url, client(url) as session:
        assert KEY not in repr(session)
        with pytest.raises(CredentialsError) as error:
            await session.get_app("a")
    chain: list[BaseException] = [error.value]
    for link in chain:
        chain.extend(following for following in (link.__cause__, link.__context__) if following is not None)
    assert KEY not in "".join([*traceback.format_exception(error.value), *map(repr, chain)])


async def test_no_error_of_the_network_layer_hangs_on_ours() -> None:
    """It knows the headers that were sent, and its repr shows them."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"nonsense\r\n\r\n")
        await writer.drain()

    async with answering(babble) as url, client(url) as session:
        with pytest.raises(Exception, match="not HTTP") as error:
            await session._request("GET", "/v1/apps", kind="other")
    assert (error.value.__cause__, error.value.__context__) == (None, None)


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with scripted(said("200 OK", {"data": []})) as thief:
        elsewhere = f"Location: {thief.url}/v1/apps"
        async with scripted(said("307 Temporary Redirect", b"", elsewhere)) as service, client(service.url) as session:
            assert (await session.start("app", "{}", submission="s1")).status == 307
            assert (await session.get_execution("e1")).status == 307
            assert (await session.list_runs()).status == 307
            for ask in (session.list_apps, session.probe_generation):
                with pytest.raises(ServiceError, match="redirects"):
                    await ask()
        assert thief.requests == []


async def test_a_base_url_that_cannot_be_called_is_told_of() -> None:
    with pytest.raises(ServiceError, match="base URL"):
        async with client("http://127.0.0.1:99999"):
            pass


# -- what goes out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "webhook", ["https://hooks.example/l/t0k-en?a=1&b=%2B+%20#x", "http://[::1]:8/é", "https://h.example/%2F/.."]
)
async def test_the_webhook_url_arrives_as_it_is(webhook: str) -> None:
    """URL-encoded, whatever is in it (docs/lamina-api.md, "Start execution")."""
    async with (
        scripted(said("202 Accepted", {"data": {"executionId": "e1"}})) as service,
        client(service.url) as session,
    ):
        await session.start("app", "{}", submission="s1", webhook=webhook)
        await session.start("app", "{}", submission="s1")
    assert service.query(0) == {"webhook": [webhook]}
    assert service.asked[0] == f"POST /v1/apps/app/executions?webhook={quote(webhook, safe='')}"
    assert service.asked[1] == "POST /v1/apps/app/executions"


async def test_a_base_url_with_a_path_is_called_below_it() -> None:
    async with scripted(said("200 OK", {"data": []})) as service, client(f"{service.url}/a b/") as session:
        await session.list_apps(search="x&y", limit=3)
    assert service.asked == ["GET /a%20b/v1/apps?limit=3&search=x%26y"]
