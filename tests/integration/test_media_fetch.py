"""One file from a host that cannot be trusted, over real sockets: whole and hashed, or named and gone."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import re
import resource
import socket
from typing import TYPE_CHECKING

import pytest
from hostile_server import PNG, HostileServer, answer, chunked, drip, endless, redirect, then_hang

from lamina_batch.media.disk import DiskWorker
from lamina_batch.media.fetch import FetchedFile, fetch
from lamina_batch.media.http import FetchFailure, FetchLimits, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from hostile_server import Script

LIMITS = FetchLimits(most_bytes=100_000, total=20.0, idle=10.0, connect=5.0)


async def bring(
    url: str, folder: Path, *, kind: str = "image", limits: FetchLimits = LIMITS
) -> FetchedFile | FetchFailure:
    numbers = itertools.count()
    disk = DiskWorker()
    try:
        async with open_session(limits) as session:
            return await fetch(
                session, url, kind=kind, temp=lambda: folder / f"{next(numbers)}.part", limits=limits, disk=disk
            )
    finally:
        disk.close()


async def bring_from(
    script: Script, folder: Path, *, kind: str = "image", limits: FetchLimits = LIMITS
) -> FetchedFile | FetchFailure:
    async with HostileServer() as server:
        return await bring(server.on("/secret-name.png", script) + "?token=secret", folder, kind=kind, limits=limits)


def whole(ended: FetchedFile | FetchFailure, content: bytes = PNG) -> FetchedFile:
    assert isinstance(ended, FetchedFile), ended
    assert ended.temp.read_bytes() == content
    assert ended.sha256 == hashlib.sha256(content).hexdigest()
    assert ended.size == len(content)
    return ended


def failed(ended: FetchedFile | FetchFailure, folder: Path) -> FetchFailure:
    """It failed, left no file, and its words hold nothing of the URL."""
    assert isinstance(ended, FetchFailure), ended
    assert list(folder.iterdir()) == []
    assert "secret" not in ended.reason
    return ended


def bytes_in(folder: Path) -> int | None:
    """How many bytes stand in the folder; None where there is no file."""
    sizes = [file.stat().st_size for file in folder.iterdir()]
    return sum(sizes) if sizes else None


# -- what is brought -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(answer(), id="length"),
        pytest.param(answer(length=-1), id="until the end"),
        pytest.param(chunked(PNG[:7], PNG[7:]), id="chunked"),
        pytest.param(answer(PNG, "Content-Type: image/png"), id="typed"),
        pytest.param(answer(PNG, "Content-Type: text/plain"), id="typed carelessly"),
        pytest.param(answer(PNG, "Content-Type: \xff\xfe/x", "Content-Type: ;"), id="typed madly"),
        pytest.param(answer(PNG, "Content-Encoding: identity"), id="not encoded"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), id="continue"),
    ],
)
async def test_a_file_comes_whole_and_is_hashed(script: bytes, tmp_path: Path) -> None:
    whole(await bring_from(script, tmp_path))


async def test_a_file_of_many_blocks_comes_whole(tmp_path: Path) -> None:
    content = bytes(range(251)) * 4001
    limits = FetchLimits(most_bytes=len(content))
    whole(await bring_from(answer(content, "Content-Type: Image/PNG; a=b"), tmp_path, limits=limits), content)


async def test_it_tells_the_type_and_where_the_file_came_from(tmp_path: Path) -> None:
    async with HostileServer() as server:
        there = server.on("/there.webp", answer(PNG, "Content-Type: Image/WebP; q=1"))
        fetched = whole(await bring(server.on("/here", redirect("/there.webp")), tmp_path))
    assert (fetched.content_type, fetched.final_url) == ("image/webp", there)


@pytest.mark.parametrize("packed", [gzip.compress(PNG), gzip.compress(PNG[:9]) + gzip.compress(PNG[9:])])
async def test_what_comes_packed_without_being_asked_is_unpacked(packed: bytes, tmp_path: Path) -> None:
    whole(await bring_from(answer(packed, "Content-Encoding: GZip"), tmp_path))


async def test_a_text_output_may_be_a_page(tmp_path: Path) -> None:
    page = b"<html>said on purpose</html>"
    whole(await bring_from(answer(page, "Content-Type: text/html"), tmp_path, kind="text"), page)


async def test_redirects_are_followed_five_times_and_not_six(tmp_path: Path) -> None:
    async with HostileServer() as server:
        for status, hop in zip((301, 302, 303, 307, 308), range(5), strict=True):
            server.on(f"/{hop}", redirect(f"{hop + 1}", status=f"{status} Go"))
        server.on("/5", answer())
        (tmp_path / "a").mkdir()
        whole(await bring(f"{server.url}/0", tmp_path / "a"))
        server.on("/before", redirect("/0"))
        (tmp_path / "b").mkdir()
        ended = failed(await bring(f"{server.url}/before", tmp_path / "b"), tmp_path / "b")
    assert (ended.reason, ended.again) == ("it redirects more than 5 times", False)


async def test_a_signed_url_goes_out_byte_for_byte(tmp_path: Path) -> None:
    target = "/a%2Fb/./c%20d?X-Sig=%2F%2b+%7E~a%3D&empty=&q=a%0A;b"
    async with HostileServer() as server:
        await bring(server.url + target, tmp_path)
        await bring(server.on("/r", redirect(server.url + target)), tmp_path)
    assert [request.target for request in server.requests] == [target, "/r", target]


# -- nothing of ours goes out --------------------------------------------------------------------------------


async def test_no_key_no_cookie_and_no_credentials_reach_any_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("LAMINA_API_KEY", "lma_a_key_that_must_stay_here")
    (tmp_path / "parts").mkdir()
    async with HostileServer() as first, HostileServer() as other:
        url = other.on("/b.png", answer(PNG, "Set-Cookie: c=1"))
        here = first.on("/a.png", redirect(url, "Set-Cookie: a=1; Path=/", "WWW-Authenticate: Basic realm=x"))
        whole(await bring(here, tmp_path / "parts"))
        server_headers = [request.headers for request in first.requests + other.requests]
        expected = [
            {
                "host": f"127.0.0.1:{server.port}",
                "user-agent": server_headers[0]["user-agent"],
                "accept": "*/*",
                "accept-encoding": "identity",
            }
            for server in (first, other)
        ]
    assert server_headers == expected
    assert server_headers[0]["user-agent"].startswith("lamina-batch/")


async def test_a_proxy_of_the_environment_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with HostileServer() as proxy, HostileServer() as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        whole(await bring(server.on("/a.png", answer()), tmp_path))
    assert proxy.requests == []


# -- what fails, in which words, and whether it is worth another try -----------------------------------------

BOMB = gzip.compress(bytes(50_000_000))
HTML = b"\xef\xbb\xbf \r\n<!DOCTYPE HTML><title>This link has expired</title>"


@pytest.mark.parametrize(
    ("script", "reason", "again"),
    [
        pytest.param(answer(status="404 Not Found"), "HTTP 404: the link has expired", False, id="404"),
        pytest.param(answer(status="403 Forbidden"), "HTTP 403: the link has expired", False, id="403"),
        pytest.param(answer(status="410 Gone"), "HTTP 410: the link has expired", False, id="410"),
        pytest.param(answer(status="400 Bad"), "HTTP 400", False, id="400"),
        pytest.param(answer(status="206 Partial"), "HTTP 206", False, id="206"),
        pytest.param(answer(b"", status="204 None"), "HTTP 204", False, id="204"),
        pytest.param(answer(b"", status="304 Same"), "HTTP 304", False, id="304"),
        pytest.param(answer(status="999 What"), "HTTP 999", False, id="999"),
        pytest.param(answer(status="408 Slow"), "HTTP 408", True, id="408"),
        pytest.param(answer(status="425 Early"), "HTTP 425", True, id="425"),
        pytest.param(answer(status="429 Many"), "HTTP 429", True, id="429"),
        pytest.param(answer(status="500 Oops"), "HTTP 500", True, id="500"),
        pytest.param(answer(status="503 Busy"), "HTTP 503", True, id="503"),
        pytest.param(answer(PNG, length=2000), "it broke off before its 2000 bytes had come", True, id="cut short"),
        pytest.param(chunked(PNG, end=False), "it broke off", True, id="cut short in chunks"),
        pytest.param(
            answer(b"", length=2000), "it broke off before its 2000 bytes had come", True, id="nothing of it came"
        ),
        pytest.param(answer(PNG, length=10), "the answer is no HTTP", True, id="more than it says"),
        pytest.param(answer(PNG, "Content-Length: 7"), "the answer is no HTTP", True, id="two lengths"),
        pytest.param(answer(PNG, length=-5), "the answer is no HTTP", True, id="negative length"),
        pytest.param(answer(b""), "it is empty", False, id="empty"),
        pytest.param(answer(b"", length=-1), "it is empty", True, id="empty without a length"),
        pytest.param(answer(PNG, length=100_001), "it is larger than 100000 bytes", False, id="says it is too large"),
        pytest.param(answer(bytes(100_001)), "it is larger than 100000 bytes", False, id="too large"),
        pytest.param(
            endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(9999)), "it is larger than 100000 bytes", False, id="endless"
        ),
        pytest.param(
            endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n.\r\n" * 999),
            "it is larger than 100000 bytes",
            False,
            id="endless in small chunks",
        ),
        pytest.param(answer(BOMB, "Content-Encoding: gzip"), "it is larger than 100000 bytes", False, id="gzip bomb"),
        pytest.param(
            endless(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(b"") * 99),
            "it is larger than 100000 bytes",
            False,
            id="endless nothing, packed",
        ),
        pytest.param(
            answer(gzip.compress(PNG)[:-9], "Content-Encoding: gzip"), "it broke off", True, id="gzip cut short"
        ),
        pytest.param(answer(PNG, "Content-Encoding: gzip"), "it came packed, and cannot be", True, id="no gzip"),
        pytest.param(answer(PNG, "Content-Encoding: br"), "it comes in an encoding that", False, id="brotli"),
        pytest.param(answer(PNG, "Content-Encoding: gzip, gzip"), "it comes in an encoding", False, id="gzip twice"),
        pytest.param(
            answer(HTML, "Content-Type: text/html; charset=utf-8"),
            "a web page came instead of an image: the link has probably expired",
            False,
            id="web page",
        ),
        pytest.param(
            answer(HTML, "Content-Type: image/png"), "a web page came instead of an image", False, id="disguised page"
        ),
        pytest.param(answer(b'{"a":1}', "Content-Type: application/json"), "a JSON text came", False, id="json"),
        pytest.param(answer(b"<Error/>", "Content-Type: application/xml"), "an XML text came", False, id="xml"),
        pytest.param(answer(b"<Error><Code>"), "a web page came", False, id="xml without a type"),
        pytest.param(b"", "the connection was closed without an answer", True, id="closed"),
        pytest.param(b"hello\r\n\r\n", "the answer is no HTTP", True, id="no HTTP"),
        pytest.param(answer(PNG, "X: " + "x" * 70_000), "the answer is no HTTP", True, id="endless header"),
        pytest.param(redirect("/secret-name.png"), "it redirects more than 5 times", False, id="redirect loop"),
        pytest.param(
            redirect("file:///etc/passwd"), "it redirects, and its address is no http(s) URL", False, id="to a file"
        ),
        pytest.param(redirect("ftp://127.0.0.1/"), "it redirects, and its address is no http(s)", False, id="to ftp"),
        pytest.param(
            redirect("http://a:secret@127.0.0.1/"), "it redirects, and its address holds", False, id="userinfo"
        ),
        pytest.param(answer(b"", status="302 Found"), "HTTP 302 leads nowhere", False, id="redirect to nothing"),
        pytest.param(redirect("http://[::1"), "HTTP 302 leads nowhere", False, id="redirect to nonsense"),
    ],
)
async def test_what_is_wrong_is_named_and_leaves_no_file(
    script: Script, reason: str, again: bool, tmp_path: Path
) -> None:
    ended = failed(await bring_from(script, tmp_path), tmp_path)
    assert ended.reason.startswith(reason)
    assert ended.again is again


async def test_a_large_file_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    content = bytes(3_000_000)
    limits = FetchLimits(most_bytes=10_000_000)
    ended = failed(await bring_from(answer(content, length=len(content) + 1), tmp_path, limits=limits), tmp_path)
    assert ended == FetchFailure(reason="it broke off before its 3000001 bytes had come", again=True)


async def test_a_large_page_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    limits = FetchLimits(most_bytes=10_000_000)
    ended = await bring_from(answer(HTML + bytes(3_000_000)), tmp_path / "not made", limits=limits)
    assert isinstance(ended, FetchFailure)
    assert ended.reason.startswith("a web page came")


@pytest.mark.parametrize(
    ("script", "limits", "expected"),
    [
        pytest.param(
            then_hang(b""),
            FetchLimits(idle=0.2),
            FetchFailure(reason="nothing came for 0.2 s", again=True, silent=True),
            id="never answers",
        ),
        pytest.param(
            then_hang(answer(PNG, length=2000)),
            FetchLimits(idle=1.0),
            FetchFailure(reason="nothing came for 1 s", again=True),
            id="stalls",
        ),
        pytest.param(
            drip(b"HTTP/1.1 200 OK\r\n\r\n", b"."),
            FetchLimits(total=0.4),
            FetchFailure(reason="it did not end within 0.4 s"),
            id="drips",
        ),
        pytest.param(
            drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
            FetchLimits(total=0.4),
            FetchFailure(reason="it did not end within 0.4 s"),
            id="drips its header",
        ),
    ],
)
async def test_time_is_bounded(script: Script, limits: FetchLimits, expected: FetchFailure, tmp_path: Path) -> None:
    assert failed(await bring_from(script, tmp_path, limits=limits), tmp_path) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "photo.png",
        "/etc/passwd",
        "//127.0.0.1/a.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "javascript:alert(1)",
        "http://",
        "http:///a.png",
        "http://[::1/a.png",
        "http://127.0.0.1:99999/a.png",
        "http://127.0.0.1:x/a.png",
        "http://" + "a" * 300 + ".example/a.png",
        "http://a..b/a.png",
        "http://\ud800/a.png",
    ],
)
async def test_only_http_urls_are_asked(url: str, tmp_path: Path) -> None:
    ended = failed(await bring(url, tmp_path), tmp_path)
    assert ended.reason in {"its address is no http(s) URL", "its address is no URL"}
    assert not ended.again


async def test_a_user_name_in_the_url_is_neither_sent_nor_told(tmp_path: Path) -> None:
    async with HostileServer() as server:
        ended = failed(await bring(f"http://user:secret@127.0.0.1:{server.port}/a.png", tmp_path), tmp_path)
    assert ended.reason == "its address holds a user name or a password, and none is ever sent"
    assert server.requests == []


async def test_a_line_break_in_a_url_adds_no_header(tmp_path: Path) -> None:
    async with HostileServer() as server:
        await bring(f"{server.url}/a HTTP/1.1\r\nX-Evil: 1\r\n\r\n", tmp_path)
    assert all("x-evil" not in request.headers for request in server.requests)


async def test_a_host_that_is_not_there_is_silent_and_worth_another_try(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ended = failed(await bring(f"http://127.0.0.1:{free.getsockname()[1]}/a.png", tmp_path), tmp_path)
    assert ended == FetchFailure(reason="no connection to the host (Connection refused)", again=True, silent=True)


async def test_a_host_without_tls_where_there_should_be_some_is_named(tmp_path: Path) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer(status="400 Bad Request"))
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        ended = failed(await bring(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.png", tmp_path), tmp_path)
    assert ended.reason.startswith("no connection to the host")
    assert ended.silent


DATE = "Date: Mon, 23 Mar 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "again", "retry_after"),
    [
        (["Retry-After: 7"], True, 7.0),
        (["Retry-After: 0"], True, 0.0),
        (["Retry-After: 120"], True, 120.0),
        (["Retry-After: 121"], False, None),
        (["Retry-After: 99999999999999999999"], False, None),
        ([DATE, "Retry-After: Mon, 23 Mar 2026 12:00:30 GMT"], True, 30.0),
        ([DATE, "Retry-After: Mon, 23 Mar 2026 11:00:00 GMT"], True, 0.0),
        ([DATE, "Retry-After: Tue, 24 Mar 2026 12:00:00 GMT"], False, None),
        (["Retry-After: Tue, 24 Mar 2026 12:00:00 GMT"], True, None),
        (["Retry-After: -5"], True, None),
        (["Retry-After: soon"], True, None),
        (["Retry-After: ²"], True, None),
        ([], True, None),
    ],
)
async def test_retry_after_is_heeded_up_to_a_bound(
    headers: list[str], again: bool, retry_after: float | None, tmp_path: Path
) -> None:
    ended = failed(await bring_from(answer(b"", *headers, status="503 Busy"), tmp_path), tmp_path)
    assert (ended.again, ended.retry_after) == (again, retry_after)
    assert re.match(r"HTTP 503(: not before \d+ s from now)?\Z", ended.reason) is not None


# -- the disk ------------------------------------------------------------------------------------------------


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ended = await bring_from(answer(), tmp_path / "not made")
    assert isinstance(ended, FetchFailure)
    assert ended.reason == f"cannot be written: {tmp_path}/not made/0.part: No such file or directory"
    assert not ended.again


async def test_a_file_that_the_disk_refuses_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = FetchLimits(most_bytes=10_000_000)
    async with HostileServer() as server:
        url = server.on("/a.png", answer(bytes(1_000_000)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            ended = failed(await bring(url, tmp_path, limits=limits), tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ended == FetchFailure(reason="cannot be written: File too large")


async def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    async with HostileServer() as server:
        url = server.on("/a.png", then_hang(answer(bytes(900_000), length=1_000_000)))
        task = asyncio.create_task(bring(url, tmp_path, limits=FetchLimits()))
        while not bytes_in(tmp_path):
            await asyncio.wait([task], timeout=0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert bytes_in(tmp_path) is None
