"""Bytes of a text file -> text: which encoding it is in, and where it is not in that one."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from lamina_batch.errors import CatalogError

if TYPE_CHECKING:
    from pathlib import Path

#: the marks that spreadsheets put first in a text file; each with the names of codecs it agrees with
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, ("utf-8", "utf-8-sig")),
    (codecs.BOM_UTF16_LE, ("utf-16", "utf-16-le")),
    (codecs.BOM_UTF16_BE, ("utf-16", "utf-16-be")),
)


def codec_for(path: Path, encoding: str) -> str:
    """The Python codec that reads `path` and drops its byte order mark.

    Raises CatalogError if the mark says that the file is in another encoding.
    """
    name = codecs.lookup(encoding).name
    with path.open("rb") as file:
        start = file.read(4)
    for mark, agreeing in _BYTE_ORDER_MARKS:
        if not start.startswith(mark):
            continue
        if name not in agreeing:
            raise CatalogError(
                f"the file begins with the mark of {agreeing[0]}, and rows.encoding says {encoding}",
                where=str(path),
                hint=f"set `encoding: {agreeing[0]}` under `rows`",
            )
        return "utf-8-sig" if agreeing[0] == "utf-8" else "utf-16"
    return name


def read_text(path: Path, encoding: str) -> str:
    """The whole file as text, line ends as they stand.

    Raises CatalogError with line and byte where it is not in that encoding.
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
    """What to write under `rows.encoding`, with the word at the bad byte as it would then read."""
    if b"\x00" in content[:64]:
        return "the file has zero bytes as UTF-16 has: set `encoding: utf-16-le` (or utf-16-be) under `rows`"
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        readable = False
    else:
        readable = codecs.lookup(encoding).name != "cp1252"
    if not readable:
        return "set `encoding` under `rows` to what the file was saved in, or save it as UTF-8"
    start = max(0, offset - 20)
    around = _WORD.finditer(content[start : offset + 20].decode("cp1252"))
    word = next((found[0] for found in around if found.start() <= offset - start < found.end()), None)
    read = f", if {word!r} is right" if word else ""
    return f"set `encoding: cp1252` under `rows`{read}; or save the file as UTF-8"


_WORD = re.compile(r'[^\s,;|"]+')
