"""CSV and TSV files -> cells, every one of them text exactly unchanged.

polars reads the plain files, fast. It refuses some that spreadsheets and Python's csv module read well (a lone inch
mark in `5" heel`), rarely joins two cells around such marks without a word, and does not say in which line it
stopped. So wherever it refuses, or returns a cell that could have been joined, the csv module in its strict mode
decides: it returns the cells or names the line.
"""

from __future__ import annotations

import csv
import io
import itertools
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.errors import CatalogError
from lamina_batch.sources.encoding import codec_for, read_text
from lamina_batch.sources.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TAB = "\t"
SEPARATORS = (",", ";", _TAB, "|")
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", _TAB: "tabs", "|": "vertical bars"}
#: bytes at the end of a file in which its last line is looked for
_TAIL_BYTES = 65_536
#: records turned into a frame at a time
_BATCH_RECORDS = 50_000
#: rows of which what polars read is held against what the csv module reads at a time
_COMPARE_ROWS = 10_000


def read_delimited(path: Path, *, encoding: str, separator: str | None) -> Table:
    """Read one CSV or TSV file; `separator` None finds it from the header.

    Raises CatalogError with file and line where the file has no header, is not in the encoding, or has a record
    that does not fit the header; OSError.
    """
    codec = codec_for(path, encoding)
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
    """The one that parts the header into the most names."""
    return max(SEPARATORS, key=lambda separator: _count_header_names(path, codec, separator))


def _count_header_names(path: Path, codec: str, separator: str) -> int:
    try:
        return len(_read_header(path, codec, separator)[0])
    except CatalogError:  # quoted cells do not end where another separator stands
        return 0


def _read_header(path: Path, codec: str, separator: str) -> tuple[tuple[str, ...], int]:
    """The names in the first line that is not empty, and the row number it has."""
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
        f"the header is one single column when parted at {_SEPARATOR_NAMES.get(separator, repr(separator))}, "
        f"and several when parted at {_SEPARATOR_NAMES[better]}",
        where=str(path),
        hint=f"set `separator: {'tab' if better == _TAB else repr(better)}` under `rows`",
    )


def _refuse_truncated(path: Path, codec: str, separator: str, width: int) -> None:
    """A last line that stops short, without a line end, is what a broken export leaves: half a URL looks like one."""
    if not "a\n".encode(codec).endswith(b"a\n"):
        return  # in UTF-16 a line end is no single byte to look for
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
        tail = file.read()
    last = tail[max(tail.rfind(b"\n"), tail.rfind(b"\r")) + 1 :].decode(codec, "replace")
    cells = last.count(separator) + 1
    # A cell in quotes may span lines, so that less than a record is seen here; the csv module judges those.
    if last and '"' not in tail.decode(codec, "replace") and cells < width:
        raise CatalogError(
            f"the file ends in the middle of a row: its last line has {cells} of {width} cells and no line end",
            where=str(path),
            hint="was the export cut short? If the line is right as it is, end it with a line end",
        )


def _read_with_polars(path: Path, codec: str, separator: str, headers: tuple[str, ...]) -> pl.LazyFrame | None:
    """What polars makes of the file; None if the csv module must decide."""
    plain = codec in {"utf-8", "utf-8-sig"}
    source = path if plain else path.read_bytes().decode(codec).encode()
    try:
        frame = _compress_in_memory(pl.scan_csv(source, separator=separator, infer_schema=False, glob=False))
    except pl.exceptions.PolarsError:
        return None
    # polars ends lines at \n only, so the old Mac's \r leaves it with other columns than the header has.
    names = frame.collect_schema().names()
    if len(names) != len(headers) or names[0] != headers[0]:
        return None
    doubtful = frame.with_row_index("lamina_line").filter(
        pl.any_horizontal(
            pl.col(names).str.contains('"', literal=True)
            & (pl.col(names).str.contains(separator, literal=True) | pl.col(names).str.contains("\n", literal=True))
        )
    )
    return (
        frame
        if _csv_agrees(source, separator, _compress_in_memory(doubtful), frame.select(pl.len()).collect().item())
        else None
    )


def _compress_in_memory(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The same rows, held in memory in a tenth of the room: they are read once and come back byte for byte.

    The file may change during a run of hours, and every stage must see the same rows.
    """
    memory = io.BytesIO()
    rows.sink_parquet(memory, compression="lz4", row_group_size=65_536)
    memory.seek(0)
    return pl.scan_parquet(memory)


def _csv_agrees(source: Path | bytes, separator: str, doubtful: pl.LazyFrame, rows: int) -> bool:
    """Whether the csv module reads these rows from their lines as polars did; False if that cannot be told.

    `lamina_line` counts the lines below the header, of which there must be as many as `rows`.
    """
    wanted = doubtful.select("lamina_line").collect().lazy()
    count = wanted.select(pl.len()).collect().item()
    if not count:
        return True
    # No text file holds this sign: each line is one cell.
    lines = pl.scan_csv(source, separator="\x01", quote_char=None, infer_schema=False, glob=False)
    lines = lines.select(pl.first().alias("line")).with_row_index("lamina_line")
    try:
        if lines.select(pl.len()).collect().item() != rows:
            return False
        found = _compress_in_memory(
            lines.join(wanted, on="lamina_line", how="semi", maintain_order="left").select("line")
        )
        for start in range(0, count, _COMPARE_ROWS):
            texts = found.slice(start, _COMPARE_ROWS).collect().get_column("line").fill_null("")
            records = csv.reader(texts, delimiter=separator, strict=True)
            cells = (
                doubtful.slice(start, _COMPARE_ROWS).drop("lamina_line").with_columns(pl.all().fill_null("")).collect()
            )
            if [tuple(record) for record in records] != cells.rows():
                return False
    except (csv.Error, pl.exceptions.PolarsError):
        return False
    return True


def _read_with_csv(path: Path, codec: str, separator: str, width: int, header_row: int) -> pl.LazyFrame:
    """What the csv module makes of the file, or the line at which it is wrong."""
    records = itertools.islice(_read_records(path, codec, separator), header_row, None)
    schema = [(f"column_{number}", pl.String) for number in range(width)]
    frames = [pl.DataFrame(schema=schema)]
    while batch := list(itertools.islice(records, _BATCH_RECORDS)):
        rows = [_fit_to_header(path, line, record, width) for line, record in batch]
        frames.append(pl.DataFrame(rows, schema=schema, orient="row"))
    return _compress_in_memory(pl.concat(frames).lazy())


def _fit_to_header(path: Path, line: int, record: list[str], width: int) -> list[str | None]:
    """The record at the header's width. Nothing is lost: separators at the end of a line may stand over."""
    if any(cell.strip() for cell in record[width:]):
        raise CatalogError(
            f"this line has {len(record)} cells, and the header has {width}",
            where=f"{path}:{line}",
            hint="put a cell that holds the separator in double quotes, or set `separator` under `rows`",
        )
    return [*record[:width], *[None] * (width - len(record))]


def _read_records(path: Path, codec: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line it begins in. A record spans several lines where a quoted cell does."""
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
