"""What the first bytes of a file show: what it is, and how large a picture. Pure; the bytes are not trusted."""

from __future__ import annotations

import io
import re
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from lamina_batch.media.http import looks_like_page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.ImageFile import ImageFile

#: What of a file shows these things. The size of a JPEG stands behind its metadata, which rarely fill so much.
HEAD_BYTES = 64 * 1024

#: (how it begins, kind, name)
_SIGNATURES: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(begins, re.DOTALL), kind, name)
    for begins, kind, name in (
        (rb"\xff\xd8\xff", "image", "JPEG"),
        (rb"\x89PNG\r\n\x1a\n", "image", "PNG"),
        (rb"RIFF....WEBP", "image", "WEBP"),
        (rb"GIF8[79]a", "image", "GIF"),
        (rb"....ftypavi[fs]", "image", "AVIF"),
        (rb"....ftyp(hei|hev|mif1|msf1)", "image", "HEIC"),
        (rb"II\*\x00|MM\0\*|II\+\x00|MM\0\+", "image", "TIFF"),
        (rb"BM....\x00{4}", "image", "BMP"),
        (rb"8BPS", "image", "Photoshop"),
        (rb"\x00{3}\x0cJXL |\xff\x0a", "image", "JPEG XL"),
        (rb"\x00{3}\x0cjP  |\xff\x4f\xff\x51", "image", "JPEG 2000"),
        (rb"\x00\x00\x01\0[^\0]\0", "image", "icon"),
        (rb"....ftypM4[AB]", "audio", "M4A"),
        (rb"....ftypqt", "video", "QuickTime"),
        (rb"....ftyp", "video", "MP4"),
        (rb"\x1aE\xdf\xa3", "video", "WebM"),
        (rb"RIFF....AVI ", "video", "AVI"),
        (rb"\x00\x00\x01[\xb3\xba]", "video", "MPEG"),
        (rb"RIFF....WAVE", "audio", "WAV"),
        (rb"ID3|\xff[\xfb\xf3\xf2]", "audio", "MP3"),
        (rb"fLaC", "audio", "FLAC"),
        (rb"OggS", "audio", "Ogg"),
        (rb"%PDF", "document", "PDF"),
        (rb"PK\x03\x04", "archive", "ZIP"),
        (rb"\x1f\x8b", "archive", "gzip"),
        (rb"Rar!", "archive", "RAR"),
    )
)
#: What everybody can read, and can be measured by its beginning. Opened by their own classes and not by `Image.open`,
#: which refuses to tell the size of a picture that is too large.
_READERS: Mapping[str, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
}
#: An SVG begins with one of these, and what makes it one follows soon.
_SVG_PREFIXES = (b"<svg", b"<?xml", b"<!--", b"<!doctype svg")
_SVG_SEARCH_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SniffedFile:
    """What the first bytes of a file say about it."""

    #: image, video, audio, page, document, archive; "" if unknown
    kind: str = ""
    #: as people call it: JPEG, MP4, PDF
    name: str = ""
    #: pixels, where the beginning tells them
    width: int | None = None
    height: int | None = None
    #: it is whole, and yet does not tell its size: no more than a beginning
    broken: bool = False


def sniff(head: bytes, *, whole: bool) -> SniffedFile:
    """What this file is. `whole`: there is no more of it than `head`."""
    begin = head[:_SVG_SEARCH_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if begin.startswith(_SVG_PREFIXES) and b"<svg" in begin:
        return SniffedFile(kind="image", name="SVG")
    if looks_like_page(head):
        return SniffedFile(kind="page", name="web page")
    for begins, kind, name in _SIGNATURES:
        if begins.match(head):
            if name != "WEBP" and name not in _READERS:
                return SniffedFile(kind=kind, name=name)
            size = _webp_size(head) if name == "WEBP" else _read_dimensions(head, _READERS[name])
            if size is None:
                return SniffedFile(kind=kind, name=name, broken=whole)
            return SniffedFile(kind=kind, name=name, width=size[0], height=size[1])
    return SniffedFile()


def _read_dimensions(head: bytes, reader: type[ImageFile]) -> tuple[int, int] | None:
    """Width and height in pixels; None if these bytes do not tell them. Nothing is decoded."""
    with warnings.catch_warnings():
        # Of odd metadata; and who only measures a picture need not fear its size.
        warnings.simplefilter("ignore")
        try:
            with reader(io.BytesIO(head), "") as image:
                return image.size
        except Exception:  # noqa: BLE001  # a reader of foreign bytes raises anything: they tell nothing then
            return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Pillow reads a WebP only as a whole (RFC 9649 sections 2.5 to 2.7)."""
    match head[12:16]:
        case b"VP8X" if len(head) >= 30:
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8L" if len(head) >= 25 and head[20] == 0x2F:
            (bits,) = struct.unpack_from("<I", head, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 " if len(head) >= 30 and head[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            return None
