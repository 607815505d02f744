"""Read CSV and TSV files: every cell is text, unchanged.

polars is fast, but it refuses some files that spreadsheets and Python's csv module read well (a lone inch mark in
`5" heel`), may join cells around such marks, and names no line in errors. So polars reads a file only if each line with
a quotation mark is strict CSV; otherwise the csv module in strict mode reads the file or names the line.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.errors import CatalogError
from lamina_batch.sources.encoding import codec_for, read_text, refuse_hidden_utf8
from lamina_batch.sources.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TAB = "\t"
SEPARATORS = (",", ";", _TAB, "|")
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", _TAB: "tabs", "|": "vertical bars"}
#: bytes at the end of a file in which the last line is searched
_TAIL_BYTES = 65_536
#: records that become a frame at a time
_BATCH_RECORDS = 50_000


def read_delimited(path: Path, *, encoding: str, separator: str | None) -> Table:
    """Read one CSV or TSV file. If `separator` is None, the header decides.

    Raises CatalogError, with the file and the line, if the file has no header, is not in the encoding, or has a record
    that does not fit the header; OSError.
    """
    codec = codec_for(path, encoding)
    refuse_hidden_utf8(path, encoding)
    try:
        if separator is None:
            separator = _TAB if path.suffix.lower() == ".tsv" else _likely_separator(path, codec)
        headers, header_row = _read_header(path, codec, separator)
        if not any(name.strip() for name in headers):
            raise CatalogError(
                "the first line holds no column names",
                where=f"{path}:{header_row}",
                hint="the first line of the file must be the header",
            )
        _refuse_wrong_separator(path, codec, separator, headers)
        _refuse_truncated(path, codec, separator, len(headers))
        frame = _read_with_polars(path, codec, separator, headers)
        if frame is None:
            frame = _read_with_csv(path, codec, separator, len(headers), header_row)
    except UnicodeDecodeError as error:
        read_text(path, encoding)  # says where
        raise CatalogError(f"the file is not {encoding}", where=str(path)) from error
    return Table(headers, frame, header_row + 1)


def _likely_separator(path: Path, codec: str) -> str:
    """The separator that splits the header into the most names."""
    return max(SEPARATORS, key=lambda separator: _count_header_names(path, codec, separator))


def _count_header_names(path: Path, codec: str, separator: str) -> int:
    try:
        return len(_read_header(path, codec, separator)[0])
    except CatalogError:  # with a wrong separator, quoted cells do not end where they should
        return 0


def _read_header(path: Path, codec: str, separator: str) -> tuple[tuple[str, ...], int]:
    """The names in the first line that is not empty, and the row number of that line."""
    for row, (_, record) in enumerate(_read_records(path, codec, separator), start=1):
        if record:
            return tuple(record), row
    raise CatalogError(
        "the file has no header: it is empty",
        where=str(path),
        hint="the first line must hold the column names; was the export cut short?",
    )


def _refuse_wrong_separator(path: Path, codec: str, separator: str, headers: tuple[str, ...]) -> None:
    better = _likely_separator(path, codec)
    if len(headers) > 1 or _count_header_names(path, codec, better) <= 1:
        return
    raise CatalogError(
        f"the header is one single column when split at {_SEPARATOR_NAMES.get(separator, repr(separator))}, "
        f"and several when split at {_SEPARATOR_NAMES[better]}",
        where=str(path),
        hint=f"set `separator: {'tab' if better == _TAB else repr(better)}` under `rows`",
    )


def _refuse_truncated(path: Path, codec: str, separator: str, width: int) -> None:
    """Refuse a file whose last line has too few cells and no line end: the export was interrupted.

    The last cell of such a file may be half a URL. A quoted cell that spans lines is checked by the csv module.
    """
    tail = path.read_bytes().decode(codec) if codec.startswith(("utf-16", "utf-32")) else _tail(path, codec)
    last = tail[max(tail.rfind("\n"), tail.rfind("\r")) + 1 :]
    if last and re.search(_strict_line(separator), last):
        cells = len(next(csv.reader([last], delimiter=separator)))
        if cells < width:
            raise _truncated(path, cells, width)


def _tail(path: Path, codec: str) -> str:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
        return file.read().decode(codec, "replace")


def _truncated(path: Path, cells: int, width: int) -> CatalogError:
    return CatalogError(
        f"the file ends in the middle of a row: its last line has {cells} of {width} cells and no line end",
        where=str(path),
        hint="was the export cut short? If the line is right as it is, end it with a line end",
    )


def _read_with_polars(path: Path, codec: str, separator: str, headers: tuple[str, ...]) -> pl.LazyFrame | None:
    """The rows as polars reads them, or None if the csv module must decide."""
    source = path if codec in {"utf-8", "utf-8-sig"} else path.read_bytes().decode(codec).encode()
    try:
        if not _is_well_quoted(source, separator):
            return None
        frame = _compress_in_memory(pl.scan_csv(source, separator=separator, infer_schema=False, glob=False))
    except pl.exceptions.PolarsError:
        return None
    # polars ends lines at \n only. In a file with the line end \r it finds other columns than the header has.
    names = frame.collect_schema().names()
    return frame if len(names) == len(headers) and names[0] == headers[0] else None


def _is_well_quoted(source: Path | bytes, separator: str) -> bool:
    """Whether each line with a quotation mark is a whole record as strict CSV writes it.

    polars reads such files as the csv module does. Of others it may join or drop cells without an error.
    """
    # This character is in no text file, so each line is one cell.
    lines = pl.scan_csv(source, separator="\x01", quote_char=None, has_header=False, infer_schema=False, glob=False)
    line = pl.first().str.strip_prefix("\ufeff")
    loose = line.str.contains('"', literal=True) & ~line.str.contains(_strict_line(separator))
    return not lines.select(loose.any()).collect().item()


def _strict_line(separator: str) -> str:
    """A pattern for a line that is a whole record: each cell is without quotation marks, or quoted from end to end."""
    sign = re.escape(separator)
    cell = f'(?:[^"{sign}]*|"(?:[^"]|"")*")'
    return f"^{cell}(?:{sign}{cell})*\r?$"


def _compress_in_memory(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The same rows, read once and kept in memory in about a tenth of their size.

    The file may change during a run, and every stage must see the same rows.
    """
    memory = io.BytesIO()
    rows.sink_parquet(memory, compression="lz4", row_group_size=65_536)
    memory.seek(0)
    return pl.scan_parquet(memory)


def _read_with_csv(path: Path, codec: str, separator: str, width: int, header_row: int) -> pl.LazyFrame:
    """The rows as the csv module reads them. Raises CatalogError with the line of an error."""
    records = itertools.islice(_read_records(path, codec, separator), header_row, None)
    schema = [(f"column_{number}", pl.String) for number in range(width)]
    frames = [pl.DataFrame(schema=schema)]
    last: list[str] = []
    while batch := list(itertools.islice(records, _BATCH_RECORDS)):
        rows = [_fit_to_header(path, line, record, width) for line, record in batch]
        last = batch[-1][1]
        frames.append(pl.DataFrame(rows, schema=schema, orient="row"))
    if 0 < len(last) < width and not _tail(path, codec).endswith(("\n", "\r")):
        raise _truncated(path, len(last), width)
    return _compress_in_memory(pl.concat(frames).lazy())


def _fit_to_header(path: Path, line: int, record: list[str], width: int) -> list[str | None]:
    """The record with as many cells as the header. Further cells are dropped if they are blank."""
    if any(cell.strip() for cell in record[width:]):
        raise CatalogError(
            f"this line has {len(record)} cells, and the header has {width}",
            where=f"{path}:{line}",
            hint="put a cell that holds the separator in double quotes, or set `separator` under `rows`",
        )
    return [*record[:width], *[None] * (width - len(record))]


def _read_records(path: Path, codec: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the number of its first line. A record spans several lines if a quoted cell does."""
    with path.open(encoding=codec, newline="") as text:
        reader = csv.reader(text, delimiter=separator, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise CatalogError(
                    f"the quotation marks do not pair up in the record that begins here ({error})",
                    where=f"{path}:{line}",
                    hint='close each quoted cell, and write a quotation mark inside one twice: "5"" heel"',
                ) from error
            yield line, record
