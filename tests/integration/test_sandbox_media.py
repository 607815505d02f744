"""Output URLs serve real files, as a storage service would."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sandbox_support import CARTOONIFY, FULL_SET, PHOTO, Answered, ask, journal, read, start, wait_for_end
from thorough import examples

from lamina_batch.sandbox import SandboxOptions, embedded
from lamina_batch.sandbox.apps import load_apps
from lamina_batch.sandbox.cards import Card, card_for, draw_card, printable
from lamina_batch.sandbox.executions import ExecutionStore, SandboxExecution
from lamina_batch.sandbox.media import MediaReply, MediaRequest, MediaStore
from lamina_batch.sandbox.signed_urls import LinkSigner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPS = load_apps(None)
APP = APPS[FULL_SET]


@pytest.fixture(scope="module")
def outputs() -> Iterator[dict[str, str]]:
    """URLs of one finished execution, by output type, while the sandbox runs."""
    with embedded(SandboxOptions(limit=10**6, speed=5000)) as base_url:
        data = wait_for_end(base_url, start(base_url, FULL_SET, {"Front": PHOTO}))
        yield {output["type"]: output["value"] for output in data["outputs"]}


def media(url: str, *, method: str = "GET", **headers: str) -> Answered:
    return ask(url, method=method, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_an_image_is_a_png_that_decodes(outputs: dict[str, str]) -> None:
    answered = media(outputs["image"])
    assert (answered.status, answered.headers["Content-Type"]) == (200, "image/png")
    assert urlsplit(outputs["image"]).path.endswith(".png")
    with Image.open(io.BytesIO(answered.body)) as picture:
        picture.load()
        assert picture.format == "PNG"
    assert len(answered.body) < 60_000
    assert media(outputs["image"]).body == answered.body


def test_a_video_is_an_mp4(outputs: dict[str, str]) -> None:
    answered = media(outputs["video"])
    assert (answered.status, answered.headers["Content-Type"]) == (200, "video/mp4")
    assert urlsplit(outputs["video"]).path.endswith(".mp4")
    assert answered.body[4:8] == b"ftyp"


@pytest.mark.parametrize("kind", ["image", "video"])
def test_length_and_etag_are_right_also_without_the_body(outputs: dict[str, str], kind: str) -> None:
    full, head = media(outputs[kind]), media(outputs[kind], method="HEAD")
    assert head.body == b""
    for name in ("Content-Length", "ETag", "Content-Type", "Accept-Ranges"):
        assert head.headers[name] == full.headers[name]
    assert int(full.headers["Content-Length"]) == len(full.body)
    again = media(outputs[kind], If_None_Match=full.headers["ETag"])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_range_is_that_part_of_the_file(outputs: dict[str, str], kind: str) -> None:
    whole = media(outputs[kind]).body
    size = len(whole)
    for asked, first, last in (
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, size - 1),
        ("bytes=-50", size - 50, size - 1),
        (f"bytes=10-{size * 2}", 10, size - 1),
        (f"bytes=-{size * 2}", 0, size - 1),
    ):
        answered = media(outputs[kind], Range=asked)
        assert answered.status == 206
        assert answered.body == whole[first : last + 1]
        assert answered.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert int(answered.headers["Content-Length"]) == len(answered.body)


def test_a_range_past_the_end_is_416(outputs: dict[str, str]) -> None:
    size = len(media(outputs["video"]).body)
    for asked in (f"bytes={size}-", "bytes=-0"):
        answered = media(outputs["video"], Range=asked)
        assert (answered.status, answered.headers["Content-Range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "nonsense"])
def test_what_is_no_single_range_gets_the_whole_file(outputs: dict[str, str], asked: str) -> None:
    answered = media(outputs["video"], Range=asked)
    assert (answered.status, answered.body) == (200, media(outputs["video"]).body)


def test_if_range_with_another_etag_gets_the_whole_file(outputs: dict[str, str]) -> None:
    etag = media(outputs["video"]).headers["ETag"]
    assert media(outputs["video"], Range="bytes=0-9", If_Range=etag).status == 206
    assert media(outputs["video"], Range="bytes=0-9", If_Range='"other"').status == 200


@pytest.mark.parametrize(
    "spoil",
    [
        lambda url: url.partition("?")[0],
        lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
        lambda url: url.replace("expires=", "expires=9"),
        lambda url: url.replace(".png", "x.png"),
        lambda url: url + "%FF%C3%A9",
    ],
)
def test_a_bad_signature_is_403(outputs: dict[str, str], spoil: object) -> None:
    assert callable(spoil)
    answered = media(spoil(outputs["image"]))
    assert (answered.status, answered.headers["Content-Type"]) == (403, "application/xml")
    assert b"SignatureDoesNotMatch" in answered.body


# --- what depends on the time: the store itself, with a clock of our own

EXECUTION = SandboxExecution(
    execution_id="e1", app_id=FULL_SET, inputs={}, created_at=1000.0, queued_seconds=1.0, seconds=11.0
)


def asked_at(now: float, *, output: int = 0, execution: SandboxExecution = EXECUTION) -> MediaReply:
    executions = ExecutionStore(None)
    executions.add(execution)
    store = MediaStore(apps=APPS, executions=executions, signer=LinkSigner(secret=b"s"), url_lifetime=60)
    url = urlsplit(store.value_of("http://sandbox", execution, APP.outputs[output]))
    query = parse_qs(url.query)
    _, _, execution_id, file_name = url.path.split("/")
    return asyncio.run(
        store.answer(
            MediaRequest(
                execution_id=execution_id,
                file_name=file_name,
                expires=query["expires"][0],
                signature=query["sig"][0],
            ),
            now,
        )
    )


def test_a_url_works_from_the_output_to_the_end_of_its_lifetime() -> None:
    assert asked_at(1002.9).status == 404
    assert asked_at(1003.1).status == 200
    assert asked_at(1011.0 + 60).status == 200
    expired = asked_at(1011.0 + 61)
    assert expired.status == 403
    assert b"Request has expired" in expired.body


def test_an_output_that_failed_has_no_file() -> None:
    failed = replace(EXECUTION, failed_output=0)
    assert asked_at(1020.0, execution=failed).status == 404
    assert asked_at(1020.0, output=1, execution=failed).status == 200


def test_a_key_that_comes_with_a_download_is_recorded(tmp_path: Path) -> None:
    with embedded(SandboxOptions(data=tmp_path, limit=10**6, speed=5000)) as base_url:
        execution_id = start(base_url)
        url = wait_for_end(base_url, execution_id)["outputs"][0]["value"]
        media(url)
        media(url, x_api_key="lma_sandbox")
        media(url, Authorization="Bearer lma_sandbox")
        media(url, Cookie="a=lma_sandbox")
    lines = [line for line in journal(tmp_path, "requests.jsonl") if line["path"].startswith("/media/")]
    assert [line["leaked_key"] for line in lines] == [False, True, True, True]
    assert {(line["status"], line["execution_id"], line["app_id"]) for line in lines} == {
        (200, execution_id, CARTOONIFY)
    }


# --- the pictures


def test_a_card_names_the_row_and_the_output() -> None:
    inputs = {"Front": "https://cdn.example.com/p/AP-1001%20front.jpg?v=2", "Model Gender": "Female"}
    card = card_for(APP, APP.outputs[1], execution_id="fc32ae7d-6840", inputs=inputs)
    assert card.title == "AP-1001 front"
    assert card.details == (("Model Gender", "Female"),)
    assert card.label == f"{APP.outputs[1].label}  2/{len(APP.outputs)}"
    assert "fc32ae7d" in card.footer


def test_rows_look_different_and_the_same_row_looks_the_same() -> None:
    def drawn(front: str, output: int) -> bytes:
        inputs = {"Front": front}
        return draw_card(card_for(APP, APP.outputs[output], execution_id="e", inputs=inputs))

    assert drawn("https://a.example/1.jpg", 0) == drawn("https://a.example/1.jpg", 0)
    assert len({drawn(f"https://a.example/{n}.jpg", output) for n in range(3) for output in range(2)}) == 6


@pytest.mark.parametrize(
    ("ratio", "size"), [("1:1", (640, 640)), ("16:9", (640, 360)), ("9:16", (360, 640)), ("3:4", (480, 640))]
)
def test_the_picture_has_the_aspect_ratio_asked_for(ratio: str, size: tuple[int, int]) -> None:
    cartoonify = APPS[CARTOONIFY]
    card = card_for(cartoonify, cartoonify.outputs[0], execution_id="e", inputs={"Aspect Ratio": ratio})
    with Image.open(io.BytesIO(draw_card(card))) as picture:
        assert picture.size == size


def test_a_ratio_in_the_label_of_an_output_wins() -> None:
    output = replace(APPS[CARTOONIFY].outputs[0], label="English 9:16")
    card = card_for(APPS[CARTOONIFY], APPS[CARTOONIFY].outputs[0], execution_id="e", inputs={})
    assert card.ratio == 1.0
    app = replace(APPS[CARTOONIFY], outputs=(output,))
    assert card_for(app, output, execution_id="e", inputs={"Aspect Ratio": "1:1"}).ratio == 9 / 16


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Café Größe 42", "Cafe Grosse 42"),
        ("10 × 20 — “new”…", '10 x 20 - "new"...'),
        ("a\tb\r\n c\x00d", "a b c d"),
        ("e\u0301\u200b\ufe0f", "e"),
        ("日本 M", "\ufffd\ufffd M"),
        ("\ud800x", "\ufffdx"),
    ],
)
def test_text_becomes_letters_that_the_font_has(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_title_that_the_font_cannot_show_gives_way_to_one_it_can() -> None:
    ad = next(app for app in APPS.values() if {p.type for p in app.parameters} >= {"text", "url"})
    text = next(p.name for p in ad.parameters if p.type == "text")
    url = next(p.name for p in ad.parameters if p.type == "url")
    inputs = {text: "日本のシャツ", url: PHOTO}
    assert card_for(ad, ad.outputs[0], execution_id="e", inputs=inputs).title == "AP-1001"


@settings(max_examples=examples(40))
@given(
    texts=st.lists(st.text(st.characters(), max_size=200), min_size=4, max_size=4),
    ratio=st.floats(1 / 3, 3),
)
def test_any_text_in_any_shape_can_be_drawn(texts: list[str], ratio: float) -> None:
    title, name, value, label = (printable(text) for text in texts)
    card = Card(
        title=title,
        details=((name, value),) * 3,
        label=label,
        footer="sandbox",
        ratio=ratio,
        digest=title.encode(errors="replace").ljust(32, b"\x80")[:32],
    )
    drawn = draw_card(card)
    assert len(drawn) < 60_000
    with Image.open(io.BytesIO(drawn)) as picture:
        assert max(picture.size) == 640


def test_reading_again_does_not_change_the_url() -> None:
    with embedded(SandboxOptions(limit=10**6, speed=5000)) as base_url:
        execution_id = start(base_url)
        url = wait_for_end(base_url, execution_id)["outputs"][0]["value"]
        assert read(base_url, execution_id)["outputs"][0]["value"] == url
