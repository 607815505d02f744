"""Decoding of text files, with the position of a byte that does not fit the encoding."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from lamina_batch.errors import CatalogError

if TYPE_CHECKING:
    from pathlib import Path

#: byte order mark -> names of the codecs that it fits
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, ("utf-8", "utf-8-sig")),
    (codecs.BOM_UTF16_LE, ("utf-16", "utf-16-le")),
    (codecs.BOM_UTF16_BE, ("utf-16", "utf-16-be")),
)


def codec_for(path: Path, encoding: str) -> str:
    """The Python codec that reads `path` without its byte order mark.

    Raises CatalogError if the mark belongs to another encoding; OSError.
    """
    name = codecs.lookup(encoding).name
    with path.open("rb") as file:
        start = file.read(4)
    for mark, names in _BYTE_ORDER_MARKS:
        if not start.startswith(mark):
            continue
        if name not in names:
            raise CatalogError(
                f"the file begins with the mark of {names[0]}, and rows.encoding says {encoding}",
                where=str(path),
                hint=f"set `encoding: {names[0]}` under `rows`",
            )
        return "utf-8-sig" if names[0] == "utf-8" else "utf-16"
    return name


def read_text(path: Path, encoding: str) -> str:
    """The whole file as text, line ends unchanged.

    Raises CatalogError with the line and the byte that does not fit the encoding; OSError.
    """
    codec = codec_for(path, encoding)
    content = path.read_bytes()
    try:
        return content.decode(codec)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(codec, errors="replace")
        raise CatalogError(
            f"byte 0x{content[error.start]:02X} at offset {error.start} is not {encoding}",
            where=f"{path}:{before.count(chr(10)) + 1}",
            hint=_encoding_hint(content, error.start, encoding),
        ) from error


def refuse_hidden_utf8(path: Path, encoding: str) -> None:
    """Raise CatalogError if `encoding` is another one and the bytes are valid UTF-8 with multi-byte characters.

    Read as cp1252, each accented letter of such a file becomes two others, and its rows would be bought again.
    """
    if codecs.lookup(encoding).name.startswith("utf"):
        return
    content = path.read_bytes()
    if content.isascii():
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    word = next(found[0] for found in _WORD.finditer(text) if not found[0].isascii())
    raise CatalogError(
        f"the file is UTF-8, and rows.encoding says {encoding}: it holds {word!r}, which would be read as "
        f"{word.encode().decode(encoding, errors='replace')!r}",
        where=str(path),
        hint="set `encoding: utf-8` under `rows`",
    )


#: encodings that a file may be in, with the characters that show it
_SCRIPTS = (
    ("shift_jis", re.compile("[\u3040-\u30ff]")),
    ("euc_jp", re.compile("[\u3040-\u30ff]")),
    ("euc_kr", re.compile("[\uac00-\ud7a3]")),
    ("gb18030", re.compile("[\u4e00-\u9fff]{2}")),
    ("cp1251", re.compile("[\u0430-\u044f]{3}")),
)


def _encoding_hint(content: bytes, offset: int, encoding: str) -> str:
    """What to set as `rows.encoding`, by what the bytes show, with the word at the bad byte in that encoding."""
    if b"\x00" in content[:64]:
        return "the file has zero bytes as UTF-16 has: set `encoding: utf-16-le` (or utf-16-be) under `rows`"
    if codecs.lookup(encoding).name == "utf-8" and not content[:offset].isascii():
        return "the lines before it are UTF-8, so no single encoding is right: save the whole file as UTF-8"
    likely = next((name for name, shows in _SCRIPTS if _shows(content, name, shows)), "cp1252")
    try:
        content.decode(likely)
        is_other = codecs.lookup(encoding).name != likely
    except UnicodeDecodeError:
        is_other = False
    if not is_other:
        return "set `encoding` under `rows` to what the file was saved in, or save it as UTF-8"
    start = content.rfind(b"\n", 0, offset) + 1
    around = _WORD.finditer(content[start : offset + 20].decode(likely, errors="ignore"))
    word = next((found[0] for found in around if not found[0].isascii()), None)
    read = f", if {word!r} is right" if word else ""
    return f"set `encoding: {likely}` under `rows`{read}; or save the file as UTF-8"


def _shows(content: bytes, encoding: str, characters: re.Pattern[str]) -> bool:
    """Whether the bytes are valid in this encoding, and hold characters of its script."""
    try:
        return characters.search(content.decode(encoding)) is not None
    except UnicodeDecodeError:
        return False


_WORD = re.compile(r'[^\s,;|"]+')
