"""One sheet of an XLSX workbook as a table of text.

fastexcel reads the cells. To it, an error and a formula without a result are both blank, and it allocates memory for
all cells up to the last one. So the XML of the sheet is scanned first.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lamina_batch.errors import CatalogError, did_you_mean
from lamina_batch.pipeline.names import normalise_name
from lamina_batch.sources.table import SOURCE_COLUMN, Table, first_line, normalise_header
from lamina_batch.sources.workbook_xml import ARCHIVE_ERRORS, list_worksheets, scan_sheet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from fastexcel import DType, ExcelReader

    from lamina_batch.sources.workbook_xml import Position, SheetScan, WorksheetEntry

#: cells, blank ones included, that a sheet may span: fastexcel needs some 50 bytes for each
_MAX_CELLS = 50_000_000
#: rows with content in which the header is looked for
_HEADER_SEARCH_ROWS = 10
_MAX_LISTED_CELLS = 5
#: the first bytes of old Excel files, and of workbooks with a password
_OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
#: how fastexcel writes dates and times
_DATE_PATTERN = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def read_workbook(path: Path, *, sheet: str | None, key: Sequence[str]) -> Table:
    """Read the sheet of that name, or the first visible one. `key` holds the columns that name a row.

    Raises CatalogError if the file is not a workbook, has a password or is damaged, or if it has no such sheet or the
    sheet has no header; OSError.
    """
    try:
        with path.open("rb") as file:
            _refuse_old_format(path, file.read(8), file)
            with zipfile.ZipFile(file) as archive:
                entry = _choose_sheet(path, sheet, list(list_worksheets(archive)))
                scan = scan_sheet(archive, entry.part)
    except ARCHIVE_ERRORS as error:
        raise _damaged_error(path, str(error)) from error
    if scan.last_row * scan.last_column > _MAX_CELLS:
        raise CatalogError(
            f"the sheet reaches to row {scan.last_row} and column {scan.last_column}, "
            "which is more than fits in memory",
            where=f"{path}#{entry.name}",
            hint="often a stray cell far out is the cause: delete it (Ctrl+End goes there), or save the sheet as .csv",
        )
    return _read_table(path, entry.name, scan, {normalise_header(name) for name in key} - {SOURCE_COLUMN})


def _refuse_old_format(path: Path, start: bytes, rest: Iterator[bytes]) -> None:
    if start != _OLE_SIGNATURE:
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


def _damaged_error(path: Path, reason: str) -> CatalogError:
    return CatalogError(
        "this is not an XLSX workbook, or it is damaged",
        where=str(path),
        hint=f"open it in a spreadsheet program and save it again, as .xlsx or .csv ({reason})",
    )


def _choose_sheet(path: Path, wanted: str | None, sheets: list[WorksheetEntry]) -> WorksheetEntry:
    if wanted is None:
        visible = next((sheet for sheet in sheets if sheet.visible), None)
        if visible is None:
            raise CatalogError("the workbook has no visible sheet with cells", where=str(path))
        return visible
    exact = [sheet for sheet in sheets if sheet.name == wanted]
    matches = exact or [sheet for sheet in sheets if normalise_name(sheet.name) == normalise_name(wanted)]
    if len(matches) == 1:
        return matches[0]
    names = [sheet.name for sheet in sheets]
    suggestion = did_you_mean(wanted, names)
    all_names = f"its sheets are {', '.join(map(repr, names))}"
    hint = f"{suggestion} {all_names}" if suggestion else all_names
    raise CatalogError(f"the workbook has no sheet {wanted!r}", where=str(path), hint=hint)


def _read_table(path: Path, sheet: str, scan: SheetScan, keys: AbstractSet[str]) -> Table:
    import fastexcel  # noqa: PLC0415 - only workbooks need it

    try:
        reader = fastexcel.read_excel(path)
        cells = _load_as_text(reader, sheet)
        top, notes = _find_header_row(f"{path}#{sheet}", cells, keys)
        header_row = _last_header_row(cells, top, scan, keys)
        headers = _lowest_names(cells[top : header_row + 1])
        frame = cells[header_row + 1 :]
        # A column without a name and without cells is there for its format alone.
        kept = [at for at, name in enumerate(headers) if name.strip() or frame.to_series(at).null_count() < len(frame)]
        key_columns = [
            _KeyColumn(headers[at], at + scan.first_column, header_row + 2, frame.to_series(at))
            for at in kept
            if normalise_header(headers[at]) in keys
        ]
        lost_zeros = [_lost_zeros_note(reader, sheet, column, scan) for column in key_columns]
    except fastexcel.FastExcelError as error:
        raise _damaged_error(path, first_line(error)) from error
    notes += [
        *_blank_cells_notes(scan.error_cells, "an error (such as #N/A)"),
        *_blank_cells_notes(
            scan.uncalculated_cells,
            "a formula that was never calculated (a spreadsheet program does it when it saves the file)",
        ),
        *filter(None, lost_zeros),
    ]
    return Table(
        tuple(headers[at] for at in kept),
        frame[:, kept].lazy(),
        header_row + 2,
        notes=tuple(f"{path.name}#{sheet}: {note}" for note in notes),
        sheet=sheet,
        column_numbers=tuple(at + scan.first_column for at in kept),
    )


# --- cells as text ---


def _load_sheet(reader: ExcelReader, sheet: str, dtype: DType, columns: list[str] | None = None) -> pl.DataFrame:
    """Every row of the sheet, the blank ones at its top included: line 0 is row 1."""
    return reader.load_sheet(sheet, header_row=None, skip_rows=0, dtypes=dtype, use_columns=columns).to_polars()


def _load_as_text(reader: ExcelReader, sheet: str) -> pl.DataFrame:
    cells = _load_sheet(reader, sheet, "string")
    with_dates = [column.name for column in cells if column.str.contains(_DATE_PATTERN).any()]
    if not with_dates:
        return cells
    # fastexcel makes a duration of dates and times only, and never of text that looks like one.
    durations = _load_sheet(reader, sheet, "duration", with_dates)
    return cells.with_columns(
        _iso_dates(cells[name], duration).alias(name) for name, duration in zip(with_dates, durations, strict=True)
    )


def _iso_dates(text: pl.Series, duration: pl.Series) -> pl.Series:
    """Dates as 2026-11-24, dates with a time as 2026-11-24T13:05:00, times without a date as 13:05:00."""
    day, time = text.str.head(10), text.str.tail(-11)
    iso = (
        pl.when(duration < pl.duration(days=1))
        .then(time)
        .when(time == "00:00:00")
        .then(day)
        .otherwise(pl.concat_str(day, time, separator="T"))
    )
    return pl.select(
        pl.when(duration.is_null() | ~text.str.contains(_DATE_PATTERN)).then(text).otherwise(iso)
    ).to_series()


# --- the header ---


def _find_header_row(where: str, cells: pl.DataFrame, keys: AbstractSet[str]) -> tuple[int, list[str]]:
    """The first row of the header, from 0, and notes about it.

    It is the first row that is not blank. If that row lacks the key, it is the next row that has it: people write
    titles above their tables.
    """
    filled = cells.select(pl.any_horizontal(pl.all().str.strip_chars() != "").fill_null(value=False)).to_series()
    rows = filled.arg_true().head(_HEADER_SEARCH_ROWS).to_list()
    if not rows:
        raise CatalogError(
            "the sheet has no header: it is empty",
            where=where,
            hint="the first row that is not blank must hold the column names; "
            "to read another sheet, write catalog.xlsx#Sheet",
        )
    for row in rows:
        if keys and keys <= {normalise_header(text or "") for text in cells.row(row)}:
            return row, [] if row == rows[0] else [f"row {row + 1} is taken for the header: it has the key"]
    return rows[0], []


def _last_header_row(cells: pl.DataFrame, top: int, scan: SheetScan, keys: AbstractSet[str]) -> int:
    """The last row of a header whose cells are merged downwards, from 0.

    Only the rows that the cell of the key is merged over count: a row below them may be a product with a key.
    """
    last_rows = [
        scan.merged_ranges.get((column, top + 1), (column, top + 1))[1]
        for column, text in enumerate(cells.row(top), start=scan.first_column)
        if normalise_header(text or "") in keys
    ]
    return min(last_rows, default=top + 1) - 1


def _lowest_names(rows: pl.DataFrame) -> tuple[str, ...]:
    """The lowest name in each column: one above it may stand for several columns."""
    return tuple(
        next((text for text in reversed(column.to_list()) if text is not None and text.strip()), column[0] or "")
        for column in rows
    )


# --- notes about cells ---


class _KeyColumn(NamedTuple):
    """A column of the key."""

    name: str
    #: its column in the sheet, and the row of its first cell, both from 1
    number: int
    first_row: int
    cells: pl.Series


def _lost_zeros_note(reader: ExcelReader, sheet: str, key: _KeyColumn, scan: SheetScan) -> str | None:
    """A note if numbers in the key may have lost zeros at the front.

    Such numbers have fewer digits than other cells (123 beside 01234), or than their format shows (00123).
    """
    cells, first_row = key.cells, key.first_row
    digits = pl.select(pl.when(cells.str.contains(r"^[0-9]+$")).then(cells.str.len_chars())).to_series()
    rows = range(first_row, first_row + len(cells))
    min_digits = pl.Series([scan.min_digits.get((key.number, row)) for row in rows], dtype=pl.UInt32)
    below_format = (digits < min_digits).fill_null(value=False)
    if below_format.any():
        short, what = below_format.arg_true(), "than their format shows"
    elif digits.drop_nulls().n_unique() < 2:
        return None
    else:
        # fastexcel reads numbers as booleans, and text as neither.
        numbers = _load_sheet(reader, sheet, "boolean", [cells.name]).to_series()[first_row - 1 :].is_not_null()
        short, what = (numbers & (digits < digits.max()).fill_null(value=False)).arg_true(), "than the longest key"
    if short.is_empty():
        return None
    more = f" and {len(short) - 1} more" if len(short) > 1 else ""
    return (
        f"numbers in the key column {key.name!r} have fewer digits {what}: "
        f"{cells[short[0]]} in row {short[0] + first_row}{more}. "
        "A number loses zeros in front: if the keys had some, format the column as text and type them again"
    )


def _blank_cells_notes(cells: Sequence[Position], content: str) -> list[str]:
    if not cells:
        return []
    from xlsxwriter.utility import xl_rowcol_to_cell  # noqa: PLC0415 - few workbooks have such cells

    names = ", ".join(xl_rowcol_to_cell(row - 1, column - 1) for column, row in cells[:_MAX_LISTED_CELLS])
    more = f" and {len(cells) - _MAX_LISTED_CELLS} more" if len(cells) > _MAX_LISTED_CELLS else ""
    return [f"{'cells' if len(cells) > 1 else 'a cell'} with {content} read as blank: {names}{more}"]
