"""What an answer of a host says about a URL that the service is to fetch. Pure.

An error is what comes out wrong for sure, whoever asks and whenever; anything else is a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from lamina_batch.catalog.input_validator import Verdict, quote_value
from lamina_batch.media.http import PAGE_TYPES, FetchFailure
from lamina_batch.preflight.addresses import expires_at, share_hint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from lamina_batch.apps.app import Parameter
    from lamina_batch.catalog.input_validator import FindingCode, Severity
    from lamina_batch.preflight.sniff import SniffedFile

    Said = tuple[FindingCode, Severity, str, str]

#: Pixels of the shorter side below which a picture is an icon or a placeholder, and below which it is small.
TINY, SMALL = 32, 256
#: Megapixels and megabytes above which a picture is more than an app needs, and may take.
MOST_MEGAPIXELS, MOST_MEGABYTES = 50, 25

_MEDIA_KINDS = frozenset({"image", "video", "audio"})
#: What any service reads. Others are pictures too, to those who can open them.
_COMMON_FORMATS = frozenset({"JPEG", "PNG", "WEBP", "GIF"})
#: What hosts say of files about which they know nothing.
_GENERIC_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/binary"})
_XML_TYPES = frozenset({"application/xml", "text/xml"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What a host answered, by the first bytes."""

    status: int
    #: as the host names it; "" where it does not
    content_type: str
    contents: SniffedFile
    #: bytes of the whole file, where that is known
    size: int | None
    #: after redirects
    final_url: str


def url_verdict(
    url: str, seen: ProbeResult | FetchFailure, *, parameter: Parameter, now: datetime, needed: timedelta
) -> Verdict | None:
    """What is to be said first about this URL as a value of `parameter`; None: nothing.

    `needed`: for how long from `now` on it must be good.
    """
    accept = {kind.partition("/")[0] for kind in parameter.accept}
    said = list(
        _failure_verdict(seen) if isinstance(seen, FetchFailure) else _answer_verdict(url, seen, accept, now, needed)
    )
    first = next((one for one in said if one[1] == "error"), said[0] if said else None)
    if first is None:
        return None
    code, severity, message, hint = first
    return Verdict(url, code, severity, f"{quote_value(url)} {message}", hint)


def private_url_verdict(url: str) -> Verdict:
    """The verdict on an address that only this machine or its network knows."""
    return Verdict(
        url,
        "private_url",
        "error",
        f"{quote_value(url)} is an address of this machine or its own network",
        "the service fetches it over the internet: put the file where anybody can get it",
    )


def _failure_verdict(seen: FetchFailure) -> Iterator[Said]:
    if seen.sure and seen.silent:
        yield "host_not_found", "error", "is at a host that does not exist", "correct the address"
    elif seen.sure:
        yield "url_refused", "error", f"leads nowhere: {seen.reason}", "correct the address"
    else:
        hint = "check again later; where the service gets no file either, the row comes out wrong"
        yield "url_unanswered", "warning", f"gave no file: {seen.reason}", hint


def _answer_verdict(url: str, seen: ProbeResult, accept: set[str], now: datetime, needed: timedelta) -> Iterator[Said]:
    good = 200 <= seen.status < 300
    lapses = expires_at(url)
    if lapses is not None and lapses <= now and not good:
        yield "url_lapses", "error", f"was signed until {_format_instant(lapses)}", "sign it anew"
    if seen.status in {404, 410}:
        yield "url_not_found", "error", f"is not there: HTTP {seen.status}", "upload the file, or correct the address"
    elif seen.status == 401 or (not good and seen.content_type in _XML_TYPES):
        # A storage says so in XML, and refuses everybody; a shop may only refuse programs like us.
        hint = share_hint(url) or "the service fetches it without a login: let anybody get it"
        yield "url_refused", "error", f"is refused: HTTP {seen.status}", hint
    elif not good:
        hint = "the service fetches it without a login, and may be refused as well"
        yield "url_refused", "warning", f"is refused: HTTP {seen.status}", hint
    else:
        yield from _file_verdict(url, seen, accept)
    if good and lapses is not None and now < lapses < now + needed:
        hint = "sign it for a day or more"
        yield "url_lapses", "warning", f"is signed until {_format_instant(lapses)}, and a run may take longer", hint


def _file_verdict(url: str, seen: ProbeResult, accept: set[str]) -> Iterator[Said]:
    what = seen.contents
    known = accept <= _MEDIA_KINDS and bool(accept)
    wanted = _expected_kinds(accept)
    if seen.size == 0:
        yield "broken_file", "error", "is empty", "upload the file again"
    elif what.kind == "page" or (not what.kind and seen.content_type in PAGE_TYPES):
        hint = share_hint(url) or share_hint(seen.final_url) or f"give the address of the {wanted} itself"
        yield (
            "web_page",
            "error",
            f"answers with {PAGE_TYPES.get(seen.content_type, 'a web page')}, not {_with_article(wanted)}",
            hint,
        )
    elif known and what.kind not in accept and (what.kind or not _declared_type_matches(seen.content_type, accept)):
        called = f"; its host calls it {seen.content_type}" if seen.content_type else ""
        is_one = f"is {_with_article(what.name)} file" if what.kind else f"begins as nothing known{called}"
        yield (
            "wrong_type",
            "error",
            f"{is_one}, not {_with_article(wanted)}",
            f"give the address of {_with_article(wanted)}",
        )
    elif what.broken:
        yield "broken_file", "error", f"begins as {_with_article(what.name)} and breaks off", "upload the file again"
    elif known and what.kind == "image":
        yield from _image_verdict(seen)
        if not (_declared_type_matches(seen.content_type, accept) or seen.content_type in _GENERIC_TYPES):
            message = f"holds {_with_article(what.name)}, and its host calls it {seen.content_type}"
            yield "wrong_type", "warning", message, "let the host name its true Content-Type"


def _image_verdict(seen: ProbeResult) -> Iterator[Said]:
    what = seen.contents
    if what.width is not None and what.height is not None:
        size, shorter = f"is {what.width} × {what.height} pixels", min(what.width, what.height)
        if shorter < TINY:
            yield "tiny_image", "error", f"{size}: a placeholder or an icon", "give the picture itself"
        elif shorter < SMALL:
            yield "tiny_image", "warning", f"{size}, and little can be made of that", "give a larger picture"
        if what.width * what.height > MOST_MEGAPIXELS * 1_000_000:
            yield "huge_image", "warning", f"{size}: more than {MOST_MEGAPIXELS} megapixels", "give a smaller picture"
    if seen.size is not None and seen.size > MOST_MEGABYTES * 1_000_000:
        yield "huge_image", "warning", f"has {seen.size / 1_000_000:.0f} MB", "give a smaller picture"
    if what.name not in _COMMON_FORMATS:
        message = f"is {_with_article(what.name)} image, which not every service can read"
        yield "wrong_type", "warning", message, "save it as JPEG, PNG or WebP"


def _declared_type_matches(content_type: str, accept: set[str]) -> bool:
    return content_type.partition("/")[0] in accept


def _expected_kinds(accept: set[str]) -> str:
    return " or ".join(sorted(accept)) or "file"


def _with_article(name: str) -> str:
    # As it is said aloud: an image, an MP4, an SVG; a PNG.
    return f"an {name}" if name[0] in "aeioAMO" or name == "SVG" else f"a {name}"


def _format_instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
