"""The URLs of rows, asked over real sockets: what is found, how much is asked, and what never goes out."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import io
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hostile_server import HostileServer, answer, chunked, drip, endless, redirect, then_hang, when
from PIL import Image
from runtimes import make_runtime

from lamina_batch.apps.app import App, parse_app
from lamina_batch.catalog.check_rows import CheckedRows, check_rows
from lamina_batch.catalog.mapping import RowMapping, map_rows
from lamina_batch.media.host_queue import HostLimits
from lamina_batch.media.http import FetchLimits
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.preflight.preflight import PREFLIGHT_LIMITS, PreflightResult, UrlChecker
from lamina_batch.preflight.sniff import HEAD_BYTES
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hostile_server import Script

    from lamina_batch.pipeline.spec import Pipeline

HTML = b"<!doctype html><title>Google Drive</title>"


def photo(width: int = 800, height: int = 600) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 80).convert("RGB").save(out, "JPEG")
    return out.getvalue()


PHOTO = photo()
GOOD = answer(PHOTO, "Content-Type: image/jpeg")


class Desk:
    """A pipeline over rows with the columns sku, front and more, a URL or a list of URLs each."""

    def __init__(self, folder: Path, cells: Sequence[str], *, inputs: str = "Front: {column: front}") -> None:
        rows = "".join(f"K{at}\t{cell}\n" for at, cell in enumerate(cells))
        (folder / "rows.tsv").write_text(f"sku\tfront\n{rows}", encoding="utf-8")
        (folder / "p.yaml").write_text(
            f"version: 1\napp: an-app\nrows: {{from: rows.tsv, key: sku}}\ninputs:\n  {inputs}\n", encoding="utf-8"
        )
        self.pipeline: Pipeline = load_pipeline(folder / "p.yaml", environ={}, today=dt.date(2026, 1, 31))
        names: list[dict[str, Any]] = [
            {"name": "Front", "accept": ["image"]},
            {"name": "More", "accept": ["image"], "multiple": True},
        ]
        self.app: App = parse_app({"appId": "an-app", "parameters": [{"type": "url", **one} for one in names]})
        self.mapped: RowMapping = map_rows(read_catalog(self.pipeline), self.pipeline, self.app)
        self.told: list[tuple[int, int]] = []
        self.pauses: list[float] = []

    async def look(self, *, local: bool = True, **changes: Any) -> PreflightResult:
        clock = iter(range(1_000_000))

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        slept = changes.pop("sleep", sleep)
        return await UrlChecker(
            local=local,
            needed=2700.0,
            runtime=make_runtime(
                now=lambda: float(next(clock)) / 1000, wall=lambda: 1772366400.0, sleep=slept, random=Random(1)
            ),
            on_progress=lambda done, total: self.told.append((done, total)),
            **changes,
        ).look(self.mapped)

    def check(self, seen: PreflightResult) -> CheckedRows:
        return check_rows(self.mapped, self.pipeline, self.app, service="sandbox", url_verdicts=seen.verdicts)


async def found(
    folder: Path, script: Script, *, limits: FetchLimits = PREFLIGHT_LIMITS, path: str = "/a.jpg"
) -> tuple[str, str] | None:
    """Code and message of what is said of a URL that answers so."""
    async with HostileServer() as server:
        desk = Desk(folder, [server.on(path, script)])
        seen = await desk.look(limits=limits)
    said = next(iter(seen.verdicts["Front"].values()), None)
    if said is None:
        return None
    assert said.code is not None
    return said.code, said.message.partition("' ")[2]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(GOOD, None, id="good"),
        pytest.param(answer(PHOTO), None, id="untyped"),
        pytest.param(chunked(PHOTO), None, id="in chunks"),
        pytest.param(
            answer(PHOTO[:HEAD_BYTES], f"Content-Range: bytes 0-{HEAD_BYTES - 1}/40000000", status="206 Part"),
            ("huge_image", "has 40 MB"),
            id="a part of much",
        ),
        pytest.param(answer(photo(1, 1)), ("tiny_image", "is 1 × 1 pixels: a placeholder or an icon"), id="pixel"),
        pytest.param(answer(gzip.compress(PHOTO), "Content-Encoding: gzip"), None, id="packed without being asked"),
        pytest.param(answer(HTML), ("web_page", "answers with a web page, not an image"), id="page"),
        pytest.param(
            answer(b"{}", "Content-Type: application/json"),
            ("web_page", "answers with a JSON text, not an image"),
            id="json",
        ),
        pytest.param(answer(b""), ("broken_file", "is empty"), id="empty"),
        pytest.param(
            answer(b"", "Content-Range: bytes */0", status="416 No"),
            ("broken_file", "is empty"),
            id="no part of nothing",
        ),
        pytest.param(answer(PHOTO[:90]), ("broken_file", "begins as a JPEG and breaks off"), id="beginning only"),
        pytest.param(answer(status="404 Not Found"), ("url_not_found", "is not there: HTTP 404"), id="404"),
        pytest.param(redirect("/a.jpg"), ("url_refused", "leads nowhere: it redirects more than 5 times"), id="circle"),
        pytest.param(
            redirect("ftp://x/a"),
            ("url_refused", "leads nowhere: it redirects, and its address is no http(s) URL"),
            id="elsewhere",
        ),
        pytest.param(answer(b"", status="500 Oops"), ("url_unanswered", "gave no file: HTTP 500 (3 tries)"), id="500"),
        pytest.param(answer(PHOTO[:9000], length=300_000), ("url_unanswered", None), id="cut short"),
        pytest.param(
            b"", ("url_unanswered", "gave no file: the connection was closed without an answer (3 tries)"), id="closed"
        ),
        pytest.param(answer(PHOTO, "Content-Encoding: br"), ("url_unanswered", None), id="encoded"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n\r\n" + PHOTO, bytes(9999)), None, id="endless"),
        pytest.param(
            endless(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(bytes(10_000_000))),
            ("wrong_type", "begins as nothing known, not an image"),
            id="endless and packed",
        ),
    ],
)
async def test_what_a_host_answers_is_found(
    script: Script, expected: tuple[str, str | None] | None, tmp_path: Path
) -> None:
    said = await found(tmp_path, script)
    if expected is not None and expected[1] is None:
        assert said is not None
        assert said[0] == expected[0]
    else:
        assert said == expected


async def test_a_host_that_does_not_answer_in_time_is_a_warning(tmp_path: Path) -> None:
    quick = FetchLimits(total=0.2, idle=0.2, connect=5.0)
    said = await found(tmp_path, drip(b"HTTP/1.1 200 OK\r\n\r\n", b" "), limits=quick)
    assert said == ("url_unanswered", "gave no file: it did not end within 0.2 s")
    said = await found(tmp_path, then_hang(b""), limits=FetchLimits(total=5.0, idle=0.1, connect=5.0))
    assert said == ("url_unanswered", "gave no file: nothing came for 0.1 s (3 tries)")


async def test_a_host_that_cannot_give_a_part_is_asked_for_the_whole(tmp_path: Path) -> None:
    async with HostileServer() as server:
        desk = Desk(tmp_path, [server.on("/a.jpg", answer(b"", status="416 No"), GOOD)])
        assert not (await desk.look()).verdicts["Front"]
    assert ["range" in request.headers for request in server.requests] == [True, False]


async def test_each_url_is_asked_once_for_its_beginning_and_without_anything_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMINA_API_KEY", "lma_a_key_that_must_stay_here")
    async with HostileServer() as server:
        a, b = server.on("/a.jpg", GOOD), server.on("/b.jpg", GOOD)
        desk = Desk(
            tmp_path,
            [f"{a}|{b}", a, a, "", "no url"],
            inputs='Front: {column: front, split: "|"}\n  More: {column: front, split: "|"}',
        )
        seen = await desk.look()
    assert sorted(request.target for request in server.requests) == ["/a.jpg", "/b.jpg"]
    assert desk.told == [(1, 2), (2, 2)]
    assert seen.notes == ("image and video URLs asked, each once: 2",)
    for request in server.requests:
        assert set(request.headers) == {"host", "user-agent", "accept", "accept-encoding", "range"}
        assert request.headers["range"] == f"bytes=0-{HEAD_BYTES - 1}"


async def test_a_verdict_is_a_finding_of_every_cell_that_holds_the_url(tmp_path: Path) -> None:
    async with HostileServer() as server:
        good, gone = server.on("/good.jpg", GOOD), f"{server.url}/gone.jpg"
        small = server.on("/small.jpg", answer(photo(99, 99)))
        desk = Desk(
            tmp_path,
            [good, gone, f"{good}|{small}", gone, "half a url", ""],
            inputs='More: {column: front, split: "|", blank: app_default}',
        )
        checked = desk.check(await desk.look())
    findings = checked.findings.select("row", "key", "column", "parameter", "value", "code", "severity").rows()
    assert findings == [
        ("3", "K1", "front", "More", gone, "url_not_found", "error"),
        ("4", "K2", "front", "More", small, "tiny_image", "warning"),
        ("5", "K3", "front", "More", gone, "url_not_found", "error"),
        ("6", "K4", "front", "More", "half a url", "invalid_url", "error"),
    ]
    assert checked.jobs["valid"].to_list() == [True, False, True, False, False, True]
    assert checked.jobs["code"].to_list()[1] == "url_not_found"
    assert checked.with_inputs(checked.jobs)["inputs"].to_list()[1] is None


async def test_few_are_asked_at_once_of_one_host_and_a_pause_is_the_hosts(tmp_path: Path) -> None:
    gate = asyncio.Event()
    many = answer(b"", "Retry-After: 7", status="429 Many")
    async with HostileServer() as server:
        urls = [server.on(f"/{at}.jpg", many if at == 0 else when(gate, GOOD), GOOD) for at in range(20)]
        desk = Desk(tmp_path, urls)
        looking = asyncio.create_task(desk.look())
        for _ in range(6):
            await server.arrived.acquire()
        assert server.most_open <= 6
        gate.set()
        seen = await looking
        assert server.most_open <= 6
    assert desk.pauses == [7.0]
    assert not seen.verdicts["Front"]


async def test_a_host_that_wants_to_be_left_alone_for_long_is_not_asked_further(tmp_path: Path) -> None:
    async with HostileServer() as server:
        urls = [server.on(f"/{at}.jpg", answer(b"", "Retry-After: 9999", status="429 Many")) for at in range(50)]
        seen = await Desk(tmp_path, urls).look()
        assert len(server.requests) < 10
    assert {said.code for said in seen.verdicts["Front"].values()} == {"url_unanswered"}
    assert len(seen.verdicts["Front"]) == 50


async def test_a_silent_host_is_left_alone_between_tries(tmp_path: Path) -> None:
    """Silence after silence rests the host; else each of its URLs would knock at once."""
    over = asyncio.Event()
    async with HostileServer() as server:
        urls = [server.on(f"/{at}.jpg", b"", b"", b"", GOOD) for at in range(50)]
        desk = Desk(tmp_path, urls)

        async def sleep(_: float) -> None:
            await over.wait()

        looking = asyncio.create_task(desk.look(sleep=sleep))
        for _ in range(6):
            await server.arrived.acquire()
        with suppress(TimeoutError):
            while True:
                await asyncio.wait_for(server.arrived.acquire(), 0.3)
        # Whoever was first to fail did not yet know, and let one more go. aiohttp itself knocks twice each time.
        assert len(server.requests) <= 16
        over.set()
        seen = await looking
    assert not seen.verdicts["Front"]


async def test_a_host_that_is_gone_is_given_up_with_all_that_waits_for_it(tmp_path: Path) -> None:
    async with HostileServer() as server:
        urls = [server.on(f"/{at}.jpg", b"") for at in range(50)]
        seen = await Desk(tmp_path, urls).look(manners=HostLimits(tries=1, most_silence=0.0))
        assert len(server.requests) < 20
    messages = [said.message for said in seen.verdicts["Front"].values()]
    assert len(messages) == 50
    assert sum("not tried, because its host does not answer" in message for message in messages) > 30


async def test_addresses_of_the_own_network_are_not_asked_for_a_service_on_the_internet(tmp_path: Path) -> None:
    async with HostileServer() as server:
        desk = Desk(tmp_path, [server.on("/a.jpg", GOOD)])
        seen = await desk.look(local=False)
        (said,) = seen.verdicts["Front"].values()
        assert (said.code, said.severity) == ("private_url", "error")
    assert server.requests == []


async def test_names_for_examples_are_not_asked_for_a_service_on_this_machine(tmp_path: Path) -> None:
    seen = await Desk(tmp_path, ["https://images.example.com/a.jpg", "https://cdn.example.net/b.jpg"]).look()
    assert not seen.verdicts["Front"]
    asked, told = seen.notes
    assert asked.endswith(": 0")
    assert "names for examples (cdn.example.net, images.example.com): 2;" in told


async def test_without_any_public_host_that_answers_a_name_not_found_is_a_warning(tmp_path: Path) -> None:
    """The service was not reached over the internet either: this machine may be offline."""
    seen = await Desk(tmp_path, ["https://pictures.of-nobody-at-all.com/a.jpg"]).look(manners=HostLimits(tries=1))
    assert {(said.code, said.severity) for said in seen.verdicts["Front"].values()} == {("url_unanswered", "warning")}


async def test_constants_of_the_matrix_are_named_in_a_note(tmp_path: Path) -> None:
    async with HostileServer() as server:
        gone = f"{server.url}/gone.jpg"
        desk = Desk(
            tmp_path, [server.on("/a.jpg", GOOD)], inputs=f"Front: {{column: front}}\nmatrix:\n  More: [{gone}]"
        )
        seen = await desk.look()
    assert seen.notes[1].startswith(f"'{gone}' is not there: HTTP 404 (")
    assert list(seen.verdicts) == ["Front"]
