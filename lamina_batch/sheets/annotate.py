"""Findings in the sheet they are about: a person's own workbook again, with the bad cells marked and reasons in words.

Of an XLSX source it is a copy, changed in a few places of its XML: whatever else is in it stays as it is. Of any other
source a new workbook of the same cells is made first, and then marked in the same way.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET
from xml.parsers import expat

import polars as pl
from xlsxwriter.utility import xl_col_to_name

from lamina_batch.errors import UsageError
from lamina_batch.pipeline.sheet_reference import WORKBOOK_EXTENSIONS
from lamina_batch.sheets.marking import REASON_COLUMN, MarkedSheetXml, Paint, SheetMarks, anchor_cell, merged_areas
from lamina_batch.sheets.notes import EMPTY_NOTES, EMPTY_SHAPES, noted_cells, with_notes, with_shapes
from lamina_batch.sheets.package import WORKBOOK, Package, is_untouched
from lamina_batch.sheets.styles import EMPTY_STYLES, StyleSheet
from lamina_batch.sheets.summary import (
    DARK,
    ERROR,
    SUMMARY_SHEET,
    WARNING,
    SummaryLine,
    SummaryPage,
    add_last_sheet,
    page_xml,
)
from lamina_batch.sheets.words import explain_for_merchandiser, named_columns, split_columns
from lamina_batch.sheets.xlsx import column_width, create_workbook, refuse_too_large
from lamina_batch.sources.workbook_xml import list_worksheets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.sheets.fields import SheetField
    from lamina_batch.sources.table import Catalog, SourceFile

#: findings about what is not there: of several columns only those that are blank are meant
_BLANK_CODES = ("blank_image", "missing_input")
#: cells of a sheet that get a note; the reasons beside the rows have no such limit
_MAX_NOTES = 1_000
_NOTES_KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml.comments+xml"
_SHAPES_KIND = "application/vnd.openxmlformats-officedocument.vmlDrawing"
_STYLES_KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"


class CellFinding(NamedTuple):
    """One line of the findings, and the cells that it means."""

    row: int
    #: the columns of the catalog
    columns: tuple[str, ...]
    column: str
    value: str
    message: str
    hint: str
    bad: bool


class MarkedSheet(NamedTuple):
    """One sheet of the workbook that is marked, and where the catalog's cells stand in it."""

    sheet: str
    header_row: int
    places: Mapping[str, int]
    old_reasons: int | None
    findings: Sequence[CellFinding]


def annotate(checked: CheckedRows, file: Path, *, catalog: Catalog, fields: Sequence[SheetField]) -> None:
    """Write the catalog's own workbook again, with what `checked` has found; `fields` say what each column takes.

    Where the rows are of no workbook, or of several files, it is a new one: a sheet for each file in which something
    was found, its cells in their own rows. Raises UsageError if the workbook cannot be marked, StateError where a
    sheet cannot hold the rows, OSError.
    """
    choices = {field.column: field.choices for field in fields if field.column is not None}
    found = _findings_by_file(checked.findings, catalog, choices)
    rows = checked.jobs["lamina_index"].n_unique()
    own = _is_own_workbook(catalog)
    if own is not None:
        places = [
            MarkedSheet(
                part.sheet or "",
                part.header_row,
                part.column_numbers,
                part.own_columns.get(REASON_COLUMN),
                found[part.source],
            )
            for part in catalog.files
        ]
        _mark_workbook(own, places, file, rows)
        return
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as aside:
        copy = Path(aside) / "cells.xlsx"
        _mark_workbook(copy, _write_cells(catalog, found, copy), file, rows)


def refuse_source_name(catalog: Catalog, file: Path) -> None:
    """Raise UsageError if no program would open a workbook of this name, or it would replace a person's work."""
    own = _is_own_workbook(catalog)
    macros = own is not None and own.suffix.lower() == ".xlsm"
    if (file.suffix.lower() == ".xlsm") != macros:
        right, why = (".xlsm", "the workbook holds macros") if macros else (".xlsx", "there are no macros to keep")
        raise UsageError(f"this has to be a {right} file", where=str(file), hint=f"{why}: name it FILE{right}")
    if file.exists() and not is_untouched(file):
        raise UsageError(
            "this workbook was saved by a person since: their corrections would be lost",
            where=str(file),
            hint=f"check that one (--set rows.from={file}), or give another name",
        )


def _is_own_workbook(catalog: Catalog) -> Path | None:
    """The one workbook that all rows are of."""
    paths = {part.path for part in catalog.files}
    own = next(iter(paths))
    return own if len(paths) == 1 and own.suffix.lower() in WORKBOOK_EXTENSIONS else None


# --- what is meant ---


def _findings_by_file(
    findings: pl.DataFrame, catalog: Catalog, choices: Mapping[str, Sequence[str]]
) -> dict[str, list[CellFinding]]:
    """The findings of each file, by what `lamina_source` calls it."""
    known = named_columns(catalog)
    found: dict[str, list[CellFinding]] = {part.source: [] for part in catalog.files}
    # Only those rows, so that the others need not become Python's.
    cells = catalog.frame.join(findings.select("lamina_index").lazy(), on="lamina_index", how="semi").collect()
    rows = {row["lamina_index"]: row for row in cells.iter_rows(named=True)}
    for line in findings.iter_rows(named=True):
        columns = split_columns(line["column"], known)
        if line["code"] in _BLANK_CODES:
            row = rows[line["lamina_index"]]
            columns = tuple(name for name in columns if _is_blank(row[name])) or columns
        message, hint = explain_for_merchandiser(line, [choice for name in columns for choice in choices.get(name, ())])
        found[line.get("source") or catalog.files[0].source].append(
            CellFinding(
                row=int(line["row"]),
                columns=columns,
                column=", ".join(columns) or line["column"] or line["parameter"],
                value=line["value"],
                message=message,
                hint=hint,
                bad=line["severity"] == "error",
            )
        )
    return found


def _is_blank(cell: object) -> bool:
    return cell is None or not str(cell).strip()


# --- a workbook of the same cells ---


def _write_cells(catalog: Catalog, found: Mapping[str, Sequence[CellFinding]], file: Path) -> list[MarkedSheet]:
    """A new workbook: a sheet for each file with findings, or for the first if there are none."""
    parts = [part for part in catalog.files if found[part.source]] or [catalog.files[0]]
    places = {name: at for at, name in enumerate(catalog.columns, start=1)}
    taken: set[str] = {SUMMARY_SHEET}
    written: list[MarkedSheet] = []
    with create_workbook(file) as book:
        head = book.style(bold=True, bg_color="#E7E6E6", bottom=1)
        for part in parts:
            rows = catalog.frame
            if catalog.has_source_column:
                rows = rows.filter(pl.col("lamina_source") == part.source)
            frame = rows.select("lamina_row", *catalog.columns).collect()
            last = int(frame["lamina_row"].max() or 0)  # type: ignore[arg-type]  # row numbers
            hint = "findings as .csv have no limit"
            refuse_too_large(file, rows=last, columns=len(places), hint=hint)
            name = _sheet_name(part, taken)
            sheet = book.sheet(name)
            for at, header in enumerate(catalog.headers):
                sheet.text(part.header_row - 1, at, header, head)
                sheet.raw.set_column(at, at, column_width(header, frame[catalog.columns[at]]))
            sheet.raw.freeze_panes(part.header_row, 0)
            for number, *values in frame.iter_rows():
                for at, value in enumerate(values):
                    if value is not None and value != "":
                        sheet.value(number - 1, at, "|".join(map(str, value)) if isinstance(value, list) else value)
            written.append(MarkedSheet(name, part.header_row, places, None, found[part.source]))
    return written


def _sheet_name(part: SourceFile, taken: set[str]) -> str:
    """A name for the sheet of a file, as Excel allows it."""
    stem = "".join("_" if char in "[]:*?/\\'" else char for char in part.path.stem)[:25].strip() or "rows"
    name, number = stem, 2
    while name.casefold() in taken or name.casefold() == "history":
        name, number = f"{stem} ({number})", number + 1
    taken.add(name.casefold())
    return name


# --- the marks ---


def _mark_workbook(source: Path, places: Sequence[MarkedSheet], file: Path, checked: int) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            parts = {tab.name: tab.part for tab in list_worksheets(archive)}
            package = Package(archive)
            styles, styles_part = _read_styles(package)
            paint = _make_paint(styles)
            lines = [line for place in places for line in _mark_sheet(package, parts[place.sheet], place, paint)]
            strict = "purl.oclc.org" in package.namespace
            views = b"workbookView" in package.read(WORKBOOK)
            page = page_xml(_summary_page(lines, checked), styles, strict=strict, views=views)
            add_last_sheet(package, WORKBOOK, page, parts.get(SUMMARY_SHEET))
            package.write(styles_part, styles.data())
            package.save(file)
    except (expat.ExpatError, ET.ParseError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise UsageError(
            "this workbook cannot be marked: it is not as spreadsheet programs write them",
            where=str(source),
            hint=f"save it once in a spreadsheet program; or give --findings a .csv ({error})",
        ) from error


def _read_styles(package: Package) -> tuple[StyleSheet, str]:
    part = package.related(WORKBOOK, "styles")
    if part is None:
        part = package.free_name("xl/styles{}.xml")
        package.add(part, EMPTY_STYLES, _STYLES_KIND)
        package.relate(WORKBOOK, part, "styles")
    return StyleSheet(package.read(part)), part


def _make_paint(styles: StyleSheet) -> Paint:
    grounds = {True: ERROR, False: WARNING, None: None}
    return Paint(
        header=styles.plain(ground=DARK, ink="FFFFFFFF", face="b"),
        error=styles.plain(ink="FF8A1210"),
        warning=styles.plain(ink="FF6B4E00"),
        colour=lambda style, bad: styles.filled(style, grounds[bad]),
        old=styles.marked(frozenset({ERROR, WARNING})),
    )


def _mark_sheet(package: Package, part: str, place: MarkedSheet, paint: Paint) -> list[SummaryLine]:
    """Mark one sheet of the package. Answers its lines for the page that lists them."""
    data = package.read(part)
    areas = merged_areas(data)
    cells: dict[int, dict[int, bool]] = {}
    reasons: dict[int, tuple[str, bool]] = {}
    notes: dict[str, str] = {}
    lines: list[SummaryLine] = []
    for finding in place.findings:
        words = f"{finding.message} – {finding.hint}" if finding.hint else finding.message
        named = ""
        for column in finding.columns:
            own = (finding.row, place.places[column])
            for row, at in dict.fromkeys((own, anchor_cell(areas, *own))):
                on_row = cells.setdefault(row, {})
                on_row[at] = on_row.get(at, False) or finding.bad
            top, at = anchor_cell(areas, *own)
            cell = f"{xl_col_to_name(at - 1)}{top}"
            named = named or cell
            notes[cell] = f"{notes[cell]}\n{words}" if cell in notes else words
        said = f"{finding.column}: {words}" if finding.column else words
        before, bad = reasons.get(finding.row, ("", False))
        reasons[finding.row] = (f"{before}  •  {said}" if before else said, bad or finding.bad)
        lines.append(
            SummaryLine(
                sheet=place.sheet,
                row=finding.row,
                cell=named or f"A{finding.row}",
                column=finding.column,
                value=finding.value,
                message=finding.message,
                hint=finding.hint,
                bad=finding.bad,
            )
        )
    marks = SheetMarks(header_row=place.header_row, cells=cells, reasons=reasons, old_reasons=place.old_reasons)
    sheet = MarkedSheetXml(data, marks, paint)
    package.write(part, sheet.marked(_write_notes(package, part, sheet, notes)))
    return lines


def _write_notes(
    package: Package, part: str, sheet: MarkedSheetXml, texts: Mapping[str, str]
) -> tuple[str, str] | None:
    """Put notes on cells that have none, and take off those of a round before.

    Returns the id of a new relation to the shapes of the notes, and the namespace of such ids; None: there was one.
    """
    listing = package.related(part, "comments")
    known = noted_cells(package.read(listing)) if listing is not None else {}
    wanted = {cell: text for cell, text in texts.items() if known.get(cell, True)}
    wanted = dict(list(wanted.items())[:_MAX_NOTES])
    gone = [cell for cell, ours in known.items() if ours]
    if not wanted and not gone:
        return None
    if listing is None:
        listing = package.free_name("xl/comments{}.xml")
        package.add(listing, EMPTY_NOTES, _NOTES_KIND)
        package.relate(part, listing, "comments")
    package.write(listing, with_notes(package.read(listing), wanted))
    if sheet.notes is not None:
        shapes = package.relations(part)[sheet.notes][1]
        package.write(shapes, with_shapes(package.read(shapes), gone=gone, cells=wanted))
        return None
    shapes = package.free_name("xl/drawings/vmlDrawing{}.vml")
    package.say_extension("vml", _SHAPES_KIND)
    package.write(shapes, with_shapes(EMPTY_SHAPES, gone=gone, cells=wanted))
    return package.relate(part, shapes, "vmlDrawing"), package.namespace


# --- in words ---


def _summary_page(lines: Sequence[SummaryLine], checked: int) -> SummaryPage:
    bad = [line for line in lines if line.bad]
    rows = len({(line.sheet, line.row) for line in bad})
    warned = len(lines) - len(bad)
    words = [f"{_count(checked, 'row')} checked. {_count(rows, 'row')} cannot be made as it stands."]
    if rows != 1:
        words = [f"{_count(checked, 'row')} checked. {_count(rows, 'row')} cannot be made as they stand."]
    if not rows:
        words = [f"{_count(checked, 'row')} checked. All of them can be made."]
    if bad:
        words.append("Cells to mend are red on their sheets; the reasons stand at the end of each row, and in notes.")
    if warned:
        words.append(f"{_count(warned, 'cell')} in yellow: a look is worth it, but the row is made all the same.")
    if lines:
        words.append(
            "Click a row or a column below to go to its cell. Mend it there, save the workbook, and send it back."
        )
        words.append(f"The column {REASON_COLUMN} and this page are ours: they are ignored when the workbook is read.")
    title = f"{_count(len(bad), 'thing')} to mend" if bad else "Nothing to mend"
    return SummaryPage(title, words, lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
