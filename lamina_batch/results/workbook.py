"""The manifest as a workbook: their columns, then ours, with links, and a colour that says how each row stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamina_batch.sheets.xlsx import column_width, create_workbook, file_link, refuse_too_large, web_link

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    import polars as pl

    from lamina_batch.sheets.xlsx import SheetWriter, WorkbookWriter

#: the sheet that holds the manifest
SHEET = "results"

#: status -> the cell's colour and the text's, dark on light so that it can be read in print too
COLOURS: Mapping[str, tuple[str, str]] = {
    "completed": ("#D9F2DF", "#0B5D1E"),
    "partial": ("#FFF1C2", "#6B4E00"),
    "failed": ("#FBD9D7", "#8A1210"),
    "rejected": ("#FBD9D7", "#8A1210"),
    "invalid": ("#FBD9D7", "#8A1210"),
    "timed_out": ("#FCE3CF", "#7A3600"),
    "held": ("#FCE3CF", "#7A3600"),
    "running": ("#DCE9F9", "#17457A"),
    "planned": ("#ECECEC", "#444444"),
}

_SOURCE_HEADER = {"bold": True, "bg_color": "#E7E6E6", "bottom": 1, "valign": "top"}
_OWN_HEADER = {"bold": True, "bg_color": "#DDE3F0", "bottom": 1, "valign": "top"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRoles:
    """Which columns are more than plain values."""

    #: the column name -> the header to show, where it is not the same
    theirs: Mapping[str, str]
    #: the column whose word is coloured
    status: str
    #: columns with what came out: a web address becomes a link
    values: Collection[str]
    #: columns with paths of saved files
    files: Collection[str]
    #: columns for who looks into a matter, folded away
    details: Collection[str] = ()


def refuse_too_large_table(file: Path, *, rows: int, columns: int = 0) -> None:
    """Raise StateError if no sheet can hold so many rows below a header, and columns."""
    refuse_too_large(
        file,
        rows=rows,
        columns=columns,
        hint="write a .csv or .parquet instead: `results.manifest` in the pipeline file, or "
        "`lamina-batch results PIPELINE -o FILE.parquet`",
    )


def write_workbook(frame: pl.DataFrame, roles: ColumnRoles, file: Path) -> None:
    """Write `frame`, whose columns hold plain values, as the one sheet of a new workbook.

    Links to saved files are relative to the folder of `file`. Raises OSError if it cannot be written.
    """
    headers = [roles.theirs.get(name, name) for name in frame.columns]
    with create_workbook(file) as book:
        sheet = book.sheet(SHEET)
        for column, (name, header) in enumerate(zip(frame.columns, headers, strict=True)):
            sheet.text(0, column, header, book.style(**(_SOURCE_HEADER if name in roles.theirs else _OWN_HEADER)))
        writers = [_cell_writer(name, roles, book, sheet) for name in frame.columns]
        for row, values in enumerate(frame.iter_rows(), start=1):
            for column, (write, value) in enumerate(zip(writers, values, strict=True)):
                # An empty text and nothing look the same; without a cell the one before may flow over.
                if value is not None and value != "":
                    write(row, column, value)
        widths = [column_width(header, frame[name]) for name, header in zip(frame.columns, headers, strict=True)]
        folded = [at for at, name in enumerate(frame.columns) if name in roles.details]
        sheet.dress(widths=widths, rows=frame.height, folded=folded)


def _cell_writer(
    name: str, roles: ColumnRoles, book: WorkbookWriter, sheet: SheetWriter
) -> Callable[[int, int, Any], None]:
    if name == roles.status:
        styles = {status: book.style(bg_color=back, font_color=front) for status, (back, front) in COLOURS.items()}
        return lambda row, column, value: sheet.text(row, column, value, styles.get(value))
    if name in roles.values:
        return lambda row, column, value: sheet.link(row, column, value, web_link(value))
    if name in roles.files:
        return lambda row, column, value: sheet.link(row, column, value, file_link(value, book.folder))
    return sheet.value
