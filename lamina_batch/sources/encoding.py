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


def _encoding_hint(content: bytes, offset: int, encoding: str) -> str:
    """What to set as `rows.encoding`, with the word at the bad byte as that encoding reads it."""
    if b"\x00" in content[:64]:
        return "the file has zero bytes as UTF-16 has: set `encoding: utf-16-le` (or utf-16-be) under `rows`"
    try:
        content.decode("cp1252")
        is_cp1252 = codecs.lookup(encoding).name != "cp1252"
    except UnicodeDecodeError:
        is_cp1252 = False
    if not is_cp1252:
        return "set `encoding` under `rows` to what the file was saved in, or save it as UTF-8"
    start = max(0, offset - 20)
    around = _WORD.finditer(content[start : offset + 20].decode("cp1252"))
    word = next((found[0] for found in around if found.start() <= offset - start < found.end()), None)
    read = f", if {word!r} is right" if word else ""
    return f"set `encoding: cp1252` under `rows`{read}; or save the file as UTF-8"


_WORD = re.compile(r'[^\s,;|"]+')
