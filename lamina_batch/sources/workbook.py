"""One sheet of an XLSX workbook -> cells, every one of them text.

fastexcel reads the cells. It does not say which of them hold an error or a formula without a result (both are blank to
it), nor how far a sheet reaches, and it sets aside memory for all of that; so the XML of the sheet is looked at first.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

import polars as pl

from lamina_batch.errors import CatalogError, did_you_mean
from lamina_batch.pipeline.names import normalise_name
from lamina_batch.sources.table import SOURCE_COLUMN, Table, normalise_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from fastexcel import DType, ExcelReader

#: cells, blank ones included, that a sheet may span: fastexcel needs some 50 bytes for each
_MAX_CELLS = 50_000_000
#: bytes of a workbook's list of sheets
_MAX_PART_BYTES = 4_000_000
_CHUNK_BYTES = 4_000_000
_MAX_LISTED_CELLS = 5
#: what a broken archive, or one that is no workbook, makes the standard library raise
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    ET.ParseError,
)


def read_workbook(path: Path, *, sheet: str | None, key: Sequence[str]) -> Table:
    """Read the sheet of that name, or the first visible one; `key` are the columns that name a row.

    Raises CatalogError if the file is no workbook, is protected or damaged, or has no such sheet or no header;
    OSError.
    """
    try:
        with path.open("rb") as file:
            _refuse_old_format(path, file.read(8), file)
            with zipfile.ZipFile(file) as archive:
                chosen = _choose_sheet(path, sheet, list(list_worksheets(archive)))
                look = _scan_sheet(archive, chosen.part, _zero_formats(archive))
    except _ARCHIVE_ERRORS as error:
        raise _damaged_error(path, str(error)) from error
    where = f"{path}#{chosen.name}"
    _refuse_too_large(where, look)
    return _build_table(path, chosen, look, key)


# --- the sheets of the workbook ---


class WorksheetEntry(NamedTuple):
    """A sheet of a workbook."""

    name: str
    visible: bool
    #: its XML within the archive
    part: str


def list_worksheets(archive: zipfile.ZipFile) -> Iterator[WorksheetEntry]:
    """The sheets that hold cells, in the order of their tabs."""
    parts = {
        relation.get("Id"): relation.get("Target", "")
        for relation in _xml(archive, "xl/_rels/workbook.xml.rels").iterfind("{*}Relationship")
        if relation.get("Type", "").endswith("/worksheet")
    }
    for entry in _xml(archive, "xl/workbook.xml").iterfind("{*}sheets/{*}sheet"):
        target = next((parts.get(value) for name, value in entry.items() if name.endswith("}id")), None)
        if target is not None:
            part = posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")
            yield WorksheetEntry(entry.get("name", ""), entry.get("state", "visible") == "visible", part)


def _xml(archive: zipfile.ZipFile, part: str) -> ET.Element:
    with archive.open(part) as file:
        text = file.read(_MAX_PART_BYTES + 1)
    if len(text) > _MAX_PART_BYTES:
        raise zipfile.BadZipFile(f"{part} is too long")
    return ET.fromstring(text)  # noqa: S314 - bounded above, and expat bounds what entities make of it


def _choose_sheet(path: Path, wanted: str | None, sheets: list[WorksheetEntry]) -> WorksheetEntry:
    if wanted is None:
        visible = next((sheet for sheet in sheets if sheet.visible), None)
        if visible is None:
            raise CatalogError("the workbook has no visible sheet with cells", where=str(path))
        return visible
    exact = [sheet for sheet in sheets if sheet.name == wanted]
    found = exact or [sheet for sheet in sheets if normalise_name(sheet.name) == normalise_name(wanted)]
    if len(found) == 1:
        return found[0]
    names = [sheet.name for sheet in sheets]
    near = did_you_mean(wanted, names)
    listed = f"its sheets are {', '.join(map(repr, names))}"
    raise CatalogError(
        f"the workbook has no sheet {wanted!r}", where=str(path), hint=f"{near} {listed}" if near else listed
    )


# --- the XML of the sheet ---


class _SheetScan(NamedTuple):
    """What the XML of a sheet says that fastexcel does not."""

    #: the last row and the last column that hold something, counted from 1
    rows: int
    columns: int
    #: the first column that holds something, where fastexcel begins
    first_column: int
    #: the names of cells, as the spreadsheet gives them
    errors: list[str]
    uncalculated: list[str]
    #: the first and the last cell of each block of merged cells, as (column, row) from 1
    merged: list[tuple[tuple[int, int], tuple[int, int]]]
    #: (column, row) of a number -> the digits that its format shows at the least: 5 for 00000
    padded: dict[tuple[int, int], int]


_TAG = rb"<(?:\w+:)?"
_FILLED_CELL = re.compile(_TAG + rb'c\s[^>]*?\br="([A-Z]{1,3})([0-9]{1,7})"[^>]*(?<!/)>')
_ERROR_CELL = re.compile(_TAG + rb'c\s(?=[^>]*\bt="e")[^>]*?\br="([A-Z]{1,3}[0-9]{1,7})"')
_UNCALCULATED_CELL = re.compile(
    # A formula whose result is an empty text is t="str".
    _TAG + rb'c\s(?![^>]*\bt="str")[^>]*?\br="([A-Z]{1,3}[0-9]{1,7})"[^>]*>\s*'
    rb"<(?:\w+:)?f(?:\s[^>]*)?(?:/>|>[^<]*</(?:\w+:)?f>)\s*"
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
_MERGED_RANGE = re.compile(_TAG + rb'mergeCell\s[^>]*?\bref="([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})"')
_STYLED_NUMBER = re.compile(
    _TAG + rb'c\s(?=[^>]*\bs="([0-9]{1,5})")(?![^>]*\bt="[^n])[^>]*?\br="([A-Z]{1,3})([0-9]{1,7})"[^>]*(?<!/)>'
)
_ZEROS = re.compile("0{2,}")


def _scan_sheet(archive: zipfile.ZipFile, part: str, zero_formats: Mapping[int, int]) -> _SheetScan:
    last_row, columns, valued = 0, {b"A"}, set[bytes]()
    errors: list[str] = []
    uncalculated: list[str] = []
    merged: list[tuple[tuple[int, int], tuple[int, int]]] = []
    padded: dict[tuple[int, int], int] = {}
    for text in _row_chunks(archive, part):
        filled = _FILLED_CELL.findall(text)
        here = {column for column, _ in filled}
        columns |= here
        last_row = max(last_row, *(int(row) for row in {row for _, row in filled}), 0)
        errors += (name.decode() for name in _ERROR_CELL.findall(text))
        blank = dict.fromkeys(_UNCALCULATED_CELL.findall(text))
        uncalculated += (name.decode() for name in blank)
        valued |= {column for column, row in filled if column + row not in blank} if blank else here
        for left, top, right, bottom in _MERGED_RANGE.findall(text) if b"mergeCell " in text else ():
            merged.append(((_column_number(left), int(top)), (_column_number(right), int(bottom))))
        if zero_formats:
            for style, column, row in _STYLED_NUMBER.findall(text):
                if int(style) in zero_formats:
                    padded[_column_number(column), int(row)] = zero_formats[int(style)]
    first_column = min(map(_column_number, valued), default=1)
    return _SheetScan(last_row, max(map(_column_number, columns)), first_column, errors, uncalculated, merged, padded)


def _zero_formats(archive: zipfile.ZipFile) -> dict[int, int]:
    """The styles that show numbers with zeros in front, and how many digits they show at the least."""
    if "xl/styles.xml" not in archive.namelist():
        return {}
    styles = _xml(archive, "xl/styles.xml")
    formats = {
        entry.get("numFmtId"): len(code)
        for entry in styles.iterfind("{*}numFmts/{*}numFmt")
        if _ZEROS.fullmatch(code := entry.get("formatCode", ""))
    }
    of_styles = [entry.get("numFmtId") for entry in styles.iterfind("{*}cellXfs/{*}xf")]
    return {style: formats[kind] for style, kind in enumerate(of_styles) if kind in formats}


def _row_chunks(archive: zipfile.ZipFile, part: str) -> Iterator[bytes]:
    """The XML in pieces that end where a row does."""
    rest = b""
    with archive.open(part) as file:
        while chunk := file.read(_CHUNK_BYTES):
            head, end, tail = chunk.rpartition(b"row>")
            if end:
                yield rest + head + end
                rest = tail
            else:
                rest += tail
    yield rest


def _column_number(column: bytes) -> int:
    """A as 1, Z as 26, AA as 27."""
    number = 0
    for letter in column:
        number = number * 26 + letter - 64
    return number


def _refuse_too_large(where: str, look: _SheetScan) -> None:
    if look.rows * look.columns > _MAX_CELLS:
        raise CatalogError(
            f"the sheet reaches to row {look.rows} and column {look.columns}, which is more than fits in memory",
            where=where,
            hint="often a stray cell far out is the cause: delete it (Ctrl+End goes there), or save the sheet as .csv",
        )


# --- the cells ---


def _build_table(path: Path, sheet: WorksheetEntry, look: _SheetScan, key: Sequence[str]) -> Table:
    import fastexcel  # noqa: PLC0415 - the other sources do without

    where = f"{path}#{sheet.name}"
    keys = {normalise_header(name) for name in key} - {SOURCE_COLUMN}
    try:
        reader = fastexcel.read_excel(path)
        cells = _load_as_text(reader, sheet.name)
        top, skipped = _find_header_row(where, cells, keys)
        header_row = _last_header_row(cells, top, look, keys)
        headers = _headers(cells[top : header_row + 1])
        frame = cells[header_row + 1 :]
        # Formatted columns beside the table belong to no one's catalog.
        kept = [at for at, name in enumerate(headers) if name.strip() or frame.to_series(at).null_count() < len(frame)]
        headers, frame = tuple(headers[at] for at in kept), frame[:, kept]
        of_key = [
            _KeyColumn(name, at + look.first_column, header_row + 2, frame.to_series(number))
            for number, (at, name) in enumerate(zip(kept, headers, strict=True))
            if normalise_header(name) in keys
        ]
        lost = [_lost_zeros_note(reader, sheet.name, one, look) for one in of_key]
    except fastexcel.FastExcelError as error:
        raise _damaged_error(path, str(error).partition("\n")[0]) from error
    told = [
        *skipped,
        *_blank_cells_notes(look.errors, "an error (such as #N/A)"),
        *_blank_cells_notes(look.uncalculated, _NOT_CALCULATED),
        *filter(None, lost),
    ]
    return Table(
        headers,
        frame.lazy(),
        header_row + 2,
        notes=tuple(f"{path.name}#{sheet.name}: {note}" for note in told),
        sheet=sheet.name,
        places=tuple(at + look.first_column for at in kept),
    )


_NOT_CALCULATED = "a formula that was never calculated (a spreadsheet program does it when it saves the file)"


def _load_sheet(reader: ExcelReader, sheet: str, kind: DType, columns: list[str] | None = None) -> pl.DataFrame:
    """Every row of the sheet, the blank ones at its top included: line 0 is row 1."""
    return reader.load_sheet(sheet, header_row=None, skip_rows=0, dtypes=kind, use_columns=columns).to_polars()


def _load_as_text(reader: ExcelReader, sheet: str) -> pl.DataFrame:
    cells = _load_sheet(reader, sheet, "string")
    dated = [column.name for column in cells if column.str.contains(_DATE_PATTERN).any()]
    if not dated:
        return cells
    # A length of time is what fastexcel makes of dates and times only, never of text that looks like one.
    times = _load_sheet(reader, sheet, "duration", dated)
    return cells.with_columns(
        _iso_dates(cells[name], time).alias(name) for name, time in zip(dated, times, strict=True)
    )


#: how fastexcel writes dates and times
_DATE_PATTERN = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def _iso_dates(text: pl.Series, since: pl.Series) -> pl.Series:
    """Dates as 2026-11-24, with the time of day after a T where there is one; a time of day alone as 13:05:00."""
    day, time = text.str.head(10), text.str.tail(-11)
    told = (
        pl.when(since < pl.duration(days=1))
        .then(time)
        .when(time == "00:00:00")
        .then(day)
        .otherwise(pl.concat_str(day, time, separator="T"))
    )
    return pl.select(
        pl.when(since.is_null() | ~text.str.contains(_DATE_PATTERN)).then(text).otherwise(told)
    ).to_series()


def _find_header_row(where: str, cells: pl.DataFrame, keys: AbstractSet[str]) -> tuple[int, list[str]]:
    """The row of the column names, counted from 0, and what to say about it.

    It is the first row that is not blank; or, where that one lacks the key, one of the next that has it: people write
    titles above their tables.
    """
    filled = cells.select(pl.any_horizontal(pl.all().str.strip_chars() != "").fill_null(value=False)).to_series()
    rows = filled.arg_true().head(_HEADER_SEARCH_ROWS).to_list()
    if not rows:
        raise CatalogError(
            "the sheet has no header: it is empty",
            where=where,
            hint="the first row that is not blank must hold the column names; another sheet is named as "
            "catalog.xlsx#Sheet",
        )
    for row in rows:
        if keys and keys <= {normalise_header(text or "") for text in cells.row(row)}:
            return row, [] if row == rows[0] else [f"row {row + 1} is taken for the header: it has the key"]
    return rows[0], []


#: in how many rows, blank ones aside, the header is looked for
_HEADER_SEARCH_ROWS = 10


def _last_header_row(cells: pl.DataFrame, top: int, look: _SheetScan, keys: AbstractSet[str]) -> int:
    """The last row of a header whose cells are merged downwards, counted from 0.

    Only where the key's own cell is merged so far: below it no product can have a key, so none is taken for a name.
    """
    merged = {first: bottom for first, (_, bottom) in look.merged}
    ends = [
        merged.get((at + look.first_column, top + 1), top + 1)
        for at, text in enumerate(cells.row(top))
        if normalise_header(text or "") in keys
    ]
    return min(ends, default=top + 1) - 1


def _headers(rows: pl.DataFrame) -> tuple[str, ...]:
    """For each column the lowest of its names: above it may stand one for several columns."""
    return tuple(
        next((text for text in reversed(column.to_list()) if text is not None and text.strip()), column[0] or "")
        for column in rows
    )


class _KeyColumn(NamedTuple):
    """A column of the key."""

    name: str
    #: its column in the sheet, and the row of its first cell, both from 1
    place: int
    first_row: int
    cells: pl.Series


def _lost_zeros_note(reader: ExcelReader, sheet: str, key: _KeyColumn, look: _SheetScan) -> str | None:
    """What to say where cells of the key are numbers, and seem to have had zeros in front.

    They have fewer digits than other cells (123 beside 01234), or fewer than their format shows (00123).
    """
    keys, first_row = key.cells, key.first_row
    digits = pl.select(pl.when(keys.str.contains(r"^[0-9]+$")).then(keys.str.len_chars())).to_series()
    rows = range(first_row, first_row + len(keys))
    shown = pl.Series([look.padded.get((key.place, row)) for row in rows], dtype=pl.UInt32)
    format_says = (digits < shown).fill_null(value=False)
    if format_says.any():
        short, why = format_says.arg_true(), "than their format shows"
    elif digits.drop_nulls().n_unique() < 2:
        return None
    else:
        # Numbers are yes or no to fastexcel, and text is neither.
        numbers = _load_sheet(reader, sheet, "boolean", [keys.name]).to_series()[first_row - 1 :].is_not_null()
        short, why = (numbers & (digits < digits.max()).fill_null(value=False)).arg_true(), "than the longest key"
    if short.is_empty():
        return None
    more = f" and {len(short) - 1} more" if len(short) > 1 else ""
    return (
        f"numbers in the key column {key.name!r} have fewer digits {why}: "
        f"{keys[short[0]]} in row {short[0] + first_row}{more}. "
        "A number loses zeros in front: if the keys had some, format the column as text and type them again"
    )


def _blank_cells_notes(names: list[str], what: str) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:_MAX_LISTED_CELLS])
    more = f" and {len(names) - _MAX_LISTED_CELLS} more" if len(names) > _MAX_LISTED_CELLS else ""
    return [f"{'cells' if len(names) > 1 else 'a cell'} with {what} read as blank: {shown}{more}"]


# --- what is no workbook ---

#: how Excel's older files begin, and those that it encrypts
_OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def _refuse_old_format(path: Path, begin: bytes, rest: Iterator[bytes]) -> None:
    if begin != _OLE_SIGNATURE:
        return
    if any("EncryptedPackage".encode("utf-16-le") in part for part in rest):
        raise CatalogError(
            "the workbook is protected by a password",
            where=str(path),
            hint="open it in a spreadsheet program, take the password off, and save it",
        )
    raise CatalogError(
        "this is an old Excel file (.xls) under another name", where=str(path), hint="save it as .xlsx, or as .csv"
    )


def _damaged_error(path: Path, why: str) -> CatalogError:
    return CatalogError(
        "this is not an XLSX workbook, or it is damaged",
        where=str(path),
        hint=f"open it in a spreadsheet program and save it again, as .xlsx or .csv ({why})",
    )
