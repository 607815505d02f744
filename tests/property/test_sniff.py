"""What foreign bytes and foreign addresses may do to who looks at them: nothing."""

from __future__ import annotations

import datetime as dt
import io

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lamina_batch.apps.app import Parameter
from lamina_batch.preflight.addresses import expires_at, is_example, is_private, is_public_name, share_hint
from lamina_batch.preflight.sniff import sniff
from lamina_batch.preflight.url_findings import ProbeResult, url_verdict


def _picture(kind: str) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(out, kind)
    return out.getvalue()


PICTURES = [_picture(kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture with some bytes changed, cut off somewhere."""
    content = bytearray(draw(st.sampled_from(PICTURES)))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)):
        content[at] = byte
    return bytes(content[: draw(st.integers(0, len(content)))])


@given(st.one_of(damaged(), st.binary(max_size=200)), st.booleans())
def test_any_bytes_are_something_or_nothing(head: bytes, whole: bool) -> None:
    found = sniff(head, whole=whole)
    assert (found.width is None) == (found.height is None)
    assert bool(found.kind) == bool(found.name)


WORDS = st.sampled_from(
    [
        *(
            "https://",
            "drive.google.com",
            "/file/d/",
            "?id=",
            "&",
            "localhost",
            "127.0.0.1",
            "[::1]",
            ":99999",
            "@",
            "%",
        ),
        *("X-Amz-Date=", "X-Amz-Expires=", "X-Amz-Signature=", "se=", "sig=", "Expires=", "Signature="),
        *("20260301T100000Z", "9999999999999", "-1", "."),
    ]
)
URLS = st.lists(st.one_of(WORDS, st.text(max_size=6)), max_size=12).map("".join)


@given(URLS)
def test_any_address_is_read_or_left(url: str) -> None:
    lapses = expires_at(url)
    assert lapses is None or lapses.tzinfo is not None
    assert not (is_public_name(url) and is_private(url))
    assert isinstance(is_example(url), bool)
    assert isinstance(share_hint(url), str)


@given(URLS, damaged(), st.integers(100, 599), st.text(max_size=20), st.one_of(st.none(), st.integers(0, 10**12)))
def test_any_answer_has_a_verdict_in_words(url: str, head: bytes, status: int, named: str, size: int | None) -> None:
    seen = ProbeResult(status=status, content_type=named, contents=sniff(head, whole=False), size=size, final_url=url)
    parameter = Parameter(name="Front", type="url", accept=("image",))
    verdict = url_verdict(
        url, seen, parameter=parameter, now=dt.datetime(2026, 3, 1, tzinfo=dt.UTC), needed=dt.timedelta(hours=1)
    )
    assert verdict is None or (verdict.code and verdict.message and verdict.hint)
