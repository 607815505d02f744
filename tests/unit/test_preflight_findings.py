"""What is said of an image URL by its address and by the first bytes of what came: pure, without a network."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import pytest
from PIL import Image

from lamina_batch.apps.app import Parameter
from lamina_batch.media.http import FetchFailure
from lamina_batch.preflight.addresses import expires_at, is_example, is_private, share_hint
from lamina_batch.preflight.sniff import HEAD_BYTES, SniffedFile, sniff
from lamina_batch.preflight.url_findings import ProbeResult, url_verdict

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
URL = "https://cdn.shop.com/a.jpg"


def picture(kind: str, width: int = 800, height: int = 600, **options: Any) -> bytes:
    out = io.BytesIO()
    # Noise: what can be packed well would be whole in its beginning.
    Image.effect_noise((width, height), 80).convert("RGB").save(out, kind, **options)
    return out.getvalue()


# -- what a file is, by its beginning ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    ],
)
def test_a_picture_is_measured_by_its_beginning(kind: str, options: dict[str, Any]) -> None:
    whole = picture(kind, **options)
    assert len(whole) > 20_000
    expected = SniffedFile(kind="image", name=kind, width=800, height=600)
    assert sniff(whole[:20_000], whole=False) == expected
    assert sniff(whole, whole=True) == expected


def test_a_picture_of_more_pixels_than_anybody_can_hold_is_still_measured() -> None:
    out = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(out, "PNG")
    assert sniff(out.getvalue()[:100], whole=False) == SniffedFile(
        kind="image", name="PNG", width=20_000, height=10_000
    )


def test_a_picture_that_breaks_off_is_broken_only_if_that_is_all_of_it() -> None:
    begin = picture("JPEG")[:100]
    assert sniff(begin, whole=True).broken
    assert not sniff(begin, whole=False).broken


@pytest.mark.parametrize(
    ("head", "kind", "name"),
    [
        (picture("AVIF", 64, 64), "image", "AVIF"),
        (picture("TIFF", 64, 64), "image", "TIFF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "image", "HEIC"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video", "MP4"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "video", "QuickTime"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "video", "WebM"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio", "WAV"),
        (b"%PDF-1.7\n", "document", "PDF"),
        (b"PK\x03\x04\x14\0", "archive", "ZIP"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='x'>", "image", "SVG"),
        (b"  <!DOCTYPE HTML><title>x</title><svg>", "page", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "page", "web page"),
        (b"", "", ""),
        (b"sku,title\n1,Dress\n", "", ""),
        (b"<!---->" * 10_000, "", ""),
        (b" " * HEAD_BYTES, "", ""),
    ],
)
def test_a_file_is_known_by_its_beginning_whatever_it_is_called(head: bytes, kind: str, name: str) -> None:
    found = sniff(head, whole=True)
    assert (found.kind, found.name) == (kind, name)


# -- what an address tells -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("X-Amz-Date=20260301T100000Z&X-Amz-Expires=3600&X-Amz-Signature=ab", "2026-03-01T11:00:00+00:00"),
        ("x-amz-date=20260301T100000Z&x-amz-expires=3600&x-amz-signature=ab", "2026-03-01T11:00:00+00:00"),
        ("X-Goog-Date=20260301T100000Z&X-Goog-Expires=60&X-Goog-Signature=ab", "2026-03-01T10:01:00+00:00"),
        ("AWSAccessKeyId=AK&Expires=1772362800&Signature=a%2Bb", "2026-03-01T11:00:00+00:00"),
        ("Expires=1772362800&Signature=x&Key-Pair-Id=K", "2026-03-01T11:00:00+00:00"),
        ("sv=2024&se=2026-03-01T11%3A00%3A00Z&sr=b&sig=ab%3D", "2026-03-01T11:00:00+00:00"),
        ("se=2026-03-01&sig=x", "2026-03-01T00:00:00+00:00"),
        ("expires=1772362800", None),
        ("se=sv&w=400", None),
        ("X-Amz-Expires=3600&X-Amz-Signature=ab", None),
        ("X-Amz-Date=yesterday&X-Amz-Expires=3600&X-Amz-Signature=ab", None),
        ("Expires=soon&Signature=x", None),
        ("Expires=999999999999999999999&Signature=x", None),
        ("X-Amz-Date=20260301T100000Z&X-Amz-Expires=99999999999999&X-Amz-Signature=ab", None),
        ("", None),
    ],
)
def test_when_a_signature_lapses_is_read_in_the_forms_of_the_storages(query: str, at: str | None) -> None:
    found = expires_at(f"https://bucket.example.com/a.jpg?{query}")
    assert (found.isoformat() if found else None) == at


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://localhost:8080/a.jpg", True),
        ("http://LOCALHOST./a.jpg", True),
        ("http://127.0.0.1/a.jpg", True),
        ("http://[::1]/a.jpg", True),
        ("http://10.0.0.7/a.jpg", True),
        ("http://169.254.169.254/latest/meta-data", True),
        ("http://[fd00::1]/a.jpg", True),
        ("http://nas/a.jpg", True),
        ("http://photos.local/a.jpg", True),
        ("https://cdn.shop.com/a.jpg", False),
        ("https://8.8.8.8/a.jpg", False),
        ("https://localhost.shop.com/a.jpg", False),
        ("https://images.example.com/a.jpg", False),
        ("http://[::1/a.jpg", False),
    ],
)
def test_an_address_that_only_this_network_knows_is_seen_by_its_name(url: str, private: bool) -> None:
    assert is_private(url) is private


def test_names_for_examples_are_known() -> None:
    assert is_example("https://images.example.com/a.jpg")
    assert is_example("https://EXAMPLE.org/a.jpg")
    assert not is_example("https://example.com.shop.de/a.jpg")
    assert not is_example("https://myexample.com/a.jpg")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://drive.google.com/file/d/1AbC-dEf_GhIj/view?usp=sharing", "uc?export=download&id=1AbC-dEf_GhIj"),
        ("https://drive.google.com/open?id=1AbC-dEf_GhIj", "uc?export=download&id=1AbC-dEf_GhIj"),
        ("https://drive.google.com/drive/folders/", "folder"),
        ("https://www.dropbox.com/scl/fi/x/a.jpg?rlkey=y&dl=0", "raw=1"),
        ("https://shop-my.sharepoint.com/:i:/g/x", "download=1"),
        ("https://photos.app.goo.gl/x", "pages only"),
        ("https://accounts.google.com/ServiceLogin", "login"),
    ],
)
def test_a_share_link_gets_the_advice_that_fits_its_host(url: str, hint: str) -> None:
    assert hint in share_hint(url)


def test_other_hosts_get_no_advice() -> None:
    assert share_hint("https://dropbox.com.evil.net/x") == ""
    assert share_hint(URL) == ""


# -- the verdict ---------------------------------------------------------------------------------------------


PHOTO = SniffedFile(kind="image", name="JPEG", width=800, height=600)


def seen(
    what: SniffedFile = PHOTO,
    **changes: Any,
) -> ProbeResult:
    fields: dict[str, Any] = {
        "status": 200,
        "content_type": "image/jpeg",
        "contents": what,
        "size": 90_000,
        "final_url": URL,
    } | changes
    return ProbeResult(**fields)


def image(width: int, height: int, name: str = "JPEG") -> SniffedFile:
    return SniffedFile(kind="image", name=name, width=width, height=height)


def said(
    came: ProbeResult | FetchFailure, *, url: str = URL, accept: tuple[str, ...] = ("image",)
) -> tuple[str, str] | None:
    parameter = Parameter(name="Front", type="url", accept=accept)
    verdict = url_verdict(url, came, parameter=parameter, now=NOW, needed=dt.timedelta(minutes=45))
    if verdict is None:
        return None
    assert verdict.sent == url
    assert verdict.message.startswith("'https://")
    assert verdict.hint
    assert verdict.code is not None
    return verdict.code, verdict.severity


PAGE = SniffedFile(kind="page", name="web page")
CLIP = SniffedFile(kind="video", name="MP4")


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        (seen(), None),
        (seen(status=206), None),
        (seen(content_type=""), None),
        (seen(content_type="binary/octet-stream"), None),
        (seen(content_type="text/plain"), ("wrong_type", "warning")),
        (seen(status=404, content_type="text/html", what=PAGE), ("url_not_found", "error")),
        (seen(status=410), ("url_not_found", "error")),
        (seen(status=401), ("url_refused", "error")),
        (seen(status=403, content_type="application/xml", what=PAGE), ("url_refused", "error")),
        (seen(status=403, content_type="text/html", what=PAGE), ("url_refused", "warning")),
        (seen(status=405), ("url_refused", "warning")),
        (seen(status=304), ("url_refused", "warning")),
        (seen(PAGE, content_type="text/html"), ("web_page", "error")),
        (seen(PAGE, content_type="image/jpeg"), ("web_page", "error")),
        (seen(SniffedFile(), content_type="application/json"), ("web_page", "error")),
        (seen(SniffedFile(), content_type="text/plain"), ("wrong_type", "error")),
        (seen(SniffedFile(), content_type="application/octet-stream"), ("wrong_type", "error")),
        (seen(SniffedFile(), content_type="image/x-canon-cr3"), None),
        (seen(CLIP, content_type="video/mp4"), ("wrong_type", "error")),
        (seen(SniffedFile(kind="document", name="PDF"), content_type="image/jpeg"), ("wrong_type", "error")),
        (seen(SniffedFile(kind="image", name="HEIC"), content_type="image/heic"), ("wrong_type", "warning")),
        (seen(size=0, what=SniffedFile()), ("broken_file", "error")),
        (seen(SniffedFile(kind="image", name="JPEG", broken=True)), ("broken_file", "error")),
        (seen(image(31, 800)), ("tiny_image", "error")),
        (seen(image(32, 800)), ("tiny_image", "warning")),
        (seen(image(800, 255)), ("tiny_image", "warning")),
        (seen(image(256, 256)), None),
        (seen(image(10_000, 5_000)), None),
        (seen(image(10_000, 5_001)), ("huge_image", "warning")),
        (seen(size=25_000_001), ("huge_image", "warning")),
        (seen(size=None), None),
        (FetchFailure(reason="the host's name is not found", silent=True, sure=True), ("host_not_found", "error")),
        (FetchFailure(reason="it redirects more than 5 times", sure=True), ("url_refused", "error")),
        (FetchFailure(reason="nothing came for 10 s", again=True, silent=True), ("url_unanswered", "warning")),
        (FetchFailure(reason="HTTP 503", again=True), ("url_unanswered", "warning")),
    ],
)
def test_an_error_is_what_comes_out_wrong_for_sure(
    came: ProbeResult | FetchFailure, expected: tuple[str, str] | None
) -> None:
    assert said(came) == expected


def test_the_input_says_which_kinds_are_right() -> None:
    assert said(seen(CLIP, content_type="video/mp4"), accept=("video",)) is None
    assert said(seen(CLIP, content_type="video/mp4"), accept=("image", "video")) is None
    assert said(seen(image(9, 9)), accept=("video",)) == ("wrong_type", "error")
    # An input that does not say takes any file, but no page in place of one.
    assert said(seen(SniffedFile(kind="document", name="PDF")), accept=()) is None
    assert said(seen(PAGE, content_type="text/html"), accept=()) == ("web_page", "error")


def signed(until: str) -> str:
    return f"{URL}?sig=x&se={until}"


@pytest.mark.parametrize(
    ("until", "came", "expected"),
    [
        ("2026-03-01T12:44:59Z", seen(), ("url_lapses", "warning")),
        ("2026-03-01T12:45:00Z", seen(), None),
        ("2026-03-01T11:59:59Z", seen(status=403, content_type="text/html"), ("url_lapses", "error")),
        # It lapsed, and the file came: it is no signature that counts.
        ("2026-03-01T11:59:59Z", seen(), None),
        # What is wrong already comes first.
        ("2026-03-01T12:10:00Z", seen(image(1, 1)), ("tiny_image", "error")),
    ],
)
def test_a_signature_has_to_last_for_as_long_as_a_run_may_need(
    until: str, came: ProbeResult, expected: tuple[str, str] | None
) -> None:
    assert said(came, url=signed(until)) == expected
