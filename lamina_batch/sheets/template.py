"""A workbook to fill: the columns of a pipeline, with the app's labels to choose from, and a page that explains.

The table is the first sheet, so that `rows.from: FILE.xlsx` reads it back. What may be chosen stands on a hidden sheet,
however short the list is: a list inside a rule holds 255 characters, and no comma.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl
from xlsxwriter.utility import xl_col_to_name

from lamina_batch.sheets.fields import fields
from lamina_batch.sheets.xlsx import MAX_ROWS, column_width, create_workbook, refuse_too_large, truncate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sheets.fields import Kind, SheetField
    from lamina_batch.sheets.xlsx import SheetWriter, WorkbookWriter
    from lamina_batch.sources.table import Catalog

#: the names of the sheets; the first is the pipeline's, where it names one
TABLE_SHEET, GUIDE_SHEET, LISTS_SHEET = "Products", "How to fill in", "Lists"

# Excel's limits, in UTF-16 units.
_MOST_TITLE, _MOST_MESSAGE = 32, 255
_MAX_SHEET_NAME = 31
#: what no name of a sheet holds
_FORBIDDEN_IN_SHEET_NAME = re.compile(r"[\[\]:*?/\\]|^'|'$")
#: Integers of which a cell keeps every digit.
_LARGEST_NUMBER = 10**15 - 1

_REQUIRED_HEADER = {
    "bold": True,
    "bg_color": "#1F3A5F",
    "font_color": "#FFFFFF",
    "border": 1,
    "border_color": "#FFFFFF",
}
_OPTIONAL_HEADER = {
    "bold": True,
    "bg_color": "#D5DFEC",
    "font_color": "#14263D",
    "border": 1,
    "border_color": "#FFFFFF",
}
_EXTRA_HEADER = {"bold": True, "bg_color": "#ECECEC", "font_color": "#555555", "border": 1, "border_color": "#FFFFFF"}
_HEADER_LAYOUT = {"valign": "vcenter", "text_wrap": True}
_TEXT_FORMAT = {"num_format": "@", "valign": "top"}
_MISSING_FORMAT = {"bg_color": "#FFF1C2"}
_UNKNOWN_FORMAT = {"bg_color": "#FBD9D7", "font_color": "#8A1210"}
_NUMBER_FORMATS: Mapping[Kind, str] = {
    "integer": "0",
    "float": "General",
    "date": "yyyy-mm-dd",
    "datetime": "yyyy-mm-dd hh:mm",
}
_WIDTHS: Mapping[Kind, int] = {"text": 30, "url": 44, "integer": 12, "float": 12, "date": 14, "datetime": 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class _TemplateColumn:
    """A column of the table."""

    header: str
    #: None: theirs, which the pipeline does not use
    field: SheetField | None
    #: its column in the catalog, if there is one
    source: str | None = None
    #: the name of its choices on the hidden sheet
    choices: str = ""


def write_template(pipeline: Pipeline, app: App, file: Path, *, catalog: Catalog | None = None) -> None:
    """Write the workbook to fill, as a new file: empty, or with the rows of `catalog` and all of its columns.

    Raises PipelineError if the pipeline does not fit the app or the catalog, or names a sheet as none can be named,
    StateError where a sheet cannot hold the rows, OSError.
    """
    lists: dict[tuple[str, ...], str] = {}
    columns = _columns(fields(pipeline, app, catalog), catalog, lists)
    rows = pl.DataFrame() if catalog is None else catalog.frame.select(catalog.columns).collect()
    refuse_too_large(file, rows=rows.height, columns=len(columns), hint="keep such a catalog as .csv or .parquet")
    with create_workbook(file) as book:
        table = book.sheet(_table_name(pipeline))
        _write_head(book, table, columns, rows)
        text = book.style(**_TEXT_FORMAT)
        for row, values in enumerate(rows.iter_rows(), start=1):
            for at, value in enumerate(values):
                if value is not None and value != "":
                    table.value(row, at, _plain_value(value), text)
        for at, column in enumerate(columns):
            if column.field is not None:
                table.raw.data_validation(1, at, MAX_ROWS - 1, at, _validation_rule(column, column.field, at))
        _write_conditional_formats(book, table, columns)
        _write_guide(book, columns, pipeline, app)
        if lists:
            _write_lists(book, lists)


def _table_name(pipeline: Pipeline) -> str:
    named = pipeline.rows.sheets.get(0) if len(pipeline.rows.sources) == 1 else None
    name = TABLE_SHEET if named is None else named
    if len(name) > _MAX_SHEET_NAME or _FORBIDDEN_IN_SHEET_NAME.search(name) or name.casefold() in _RESERVED_SHEET_NAMES:
        raise pipeline.error(
            ("rows", "from"),
            f"this sheet cannot be called {name!r}",
            "a name has at most 31 characters, none of []:*?/\\, and is not that of another sheet of the workbook",
        )
    return name


_RESERVED_SHEET_NAMES = {GUIDE_SHEET.casefold(), LISTS_SHEET.casefold(), "history"}


def _columns(
    found: Sequence[SheetField], catalog: Catalog | None, lists: dict[tuple[str, ...], str]
) -> list[_TemplateColumn]:
    """The columns of the table; what may be chosen is put into `lists`, with a name."""
    for field in found:
        if field.choices and field.choices not in lists:
            lists[field.choices] = f"lamina_list_{len(lists) + 1}"
    named = {field.column: field for field in found}
    places: list[tuple[str, str | None, SheetField | None]]
    if catalog is None:
        places = [(field.name, None, field) for field in found]
    else:
        places = [
            (header, name, named.get(name)) for name, header in zip(catalog.columns, catalog.headers, strict=True)
        ]
    headers = [header for header, _, _ in places]
    return [
        _TemplateColumn(
            header=header if field is None else _header_text(header, field, headers),
            field=field,
            source=source,
            choices="" if field is None else lists.get(field.choices, ""),
        )
        for header, source, field in places
    ]


def _header_text(header: str, field: SheetField, others: Sequence[str]) -> str:
    """The name of the column, with the mark that readers of the sheet know and the reader of the rows ignores."""
    marked = f"{header} *"
    return marked if field.required and not header.endswith(" *") and marked not in others else header


# --- the table ---


def _write_head(
    book: WorkbookWriter, table: SheetWriter, columns: Sequence[_TemplateColumn], rows: pl.DataFrame
) -> None:
    """The header, the widths and the formats."""
    text = book.style(**_TEXT_FORMAT)
    table.raw.set_row(0, 33)
    for at, column in enumerate(columns):
        field = column.field
        look = _EXTRA_HEADER if field is None else _REQUIRED_HEADER if field.required else _OPTIONAL_HEADER
        table.text(0, at, column.header, book.style(**_HEADER_LAYOUT, **look))
        number = _NUMBER_FORMATS.get(field.kind) if field is not None else None
        style = text if number is None else book.style(num_format=number, valign="top", align="left")
        needed = column_width(column.header, rows[column.source]) if column.source is not None else 0
        table.raw.set_column(at, at, max(_width(column), needed), style)
    table.raw.freeze_panes(1, 1 if columns[0].field is not None and columns[0].field.key else 0)
    table.raw.repeat_rows(0)
    table.raw.fit_to_pages(1, 0)


def _width(column: _TemplateColumn) -> int:
    field = column.field
    least = _WIDTHS[field.kind] if field is not None else 8
    if field is not None and field.choices:
        least = column_width("", field.choices) + 4
    elif field is not None and field.key:
        least = 18
    return max(least, min(len(column.header) + 4, 30))


def _validation_rule(column: _TemplateColumn, field: SheetField, at: int) -> dict[str, Any]:
    """What may be typed into a column, and what is said to the person who is about to."""
    cell = f"{xl_col_to_name(at)}2"
    must = "Must be filled." if field.required else ""
    blank = f"Left blank: {' '.join(field.blank)}" if field.blank and not field.required else ""
    rule: dict[str, Any] = {
        "validate": "any",
        "input_title": truncate(field.name, _MOST_TITLE),
        "input_message": truncate(" ".join(filter(None, (must, *field.purpose, blank))), _MOST_MESSAGE),
        "error_title": truncate(field.name, _MOST_TITLE),
    }
    if column.choices:
        return rule | {
            "validate": "list",
            "source": f"={column.choices}",
            "error_message": "Please choose one from the list: click the arrow beside the cell.",
        }
    match field.kind:
        case "url":
            return rule | {
                "validate": "custom",
                "value": f"={_is_url(cell)}",
                "error_message": "This needs the full web address of the file. It begins with https://",
            }
        case "integer" | "float":
            return rule | {
                "validate": "integer" if field.kind == "integer" else "decimal",
                "criteria": "between",
                "minimum": -_LARGEST_NUMBER,
                "maximum": _LARGEST_NUMBER,
                "error_message": "This needs a whole number." if field.kind == "integer" else "This needs a number.",
            }
        case "date" | "datetime":
            return rule | {
                "validate": "date",
                "criteria": ">=",
                "value": date(1900, 3, 1),
                "error_message": "This needs a date.",
            }
        case "text":
            return rule


def _write_conditional_formats(book: WorkbookWriter, table: SheetWriter, columns: Sequence[_TemplateColumn]) -> None:
    """Colours that come and go while a row is filled: pasting does not ask what may be typed."""
    last = xl_col_to_name(len(columns) - 1, col_abs=True)
    missing, unknown = book.style(**_MISSING_FORMAT), book.style(**_UNKNOWN_FORMAT)
    for at, column in enumerate(columns):
        cell = f"{xl_col_to_name(at)}2"
        where = (1, at, MAX_ROWS - 1, at)
        if column.field is not None and column.field.required:
            begun = f"=AND(COUNTA($A2:{last}2)>0,LEN(TRIM({cell}))=0)"
            table.raw.conditional_format(*where, {"type": "formula", "criteria": begun, "format": missing})
        wrong = ""
        if column.choices:
            # As the rows are checked: case, outer and repeated spaces make no difference.
            wrong = f"SUMPRODUCT(--(TRIM({column.choices})=TRIM({cell})))=0"
        elif column.field is not None and column.field.kind == "url":
            wrong = f"NOT({_is_url(cell)})"
        if wrong:
            criteria = f"=AND(LEN(TRIM({cell}))>0,{wrong})"
            table.raw.conditional_format(*where, {"type": "formula", "criteria": criteria, "format": unknown})


def _is_url(cell: str) -> str:
    return f'OR(LEFT({cell},7)="http://",LEFT({cell},8)="https://")'


def _plain_value(value: object) -> object:
    """A cell's value; lists of a Parquet source as one text."""
    return "|".join(map(str, value)) if isinstance(value, list) else value


# --- the page that explains, and the lists ---


def _write_guide(book: WorkbookWriter, columns: Sequence[_TemplateColumn], pipeline: Pipeline, app: App) -> None:
    guide = book.sheet(GUIDE_SHEET)
    raw = guide.raw
    title = book.style(bold=True, font_size=18, font_color="#1F3A5F")
    quiet = book.style(font_color="#555555")
    head = book.style(**_HEADER_LAYOUT, **_REQUIRED_HEADER)
    wrap = book.style(text_wrap=True, valign="top", bottom=1, bottom_color="#D9D9D9")
    bold = book.style(text_wrap=True, valign="top", bottom=1, bottom_color="#D9D9D9", bold=True)
    shown = book.style(
        text_wrap=True, valign="top", bottom=1, bottom_color="#D9D9D9", italic=True, font_color="#555555"
    )
    for at, width in enumerate(_GUIDE_WIDTHS):
        raw.set_column(at, at, width)
    raw.hide_gridlines(2)
    raw.set_row(0, 27)
    guide.text(0, 0, "How to fill in this workbook", title)
    guide.text(1, 0, f"For {pipeline.name}. The pictures, videos or texts are made by the app “{app.name}”.", quiet)
    steps = (
        f"Each row of the sheet “{_table_name(pipeline)}” is one product. Fill it from the second row down.",
        "Columns with a * and a dark heading must be filled. Once a row is begun, what is missing in it turns yellow.",
        "Where a cell has an arrow, choose from its list. What is pasted and cannot be used turns red.",
        "For pictures, paste the full web address of the file itself (https://…), not of a page that shows it.",
        "Leave the headings as they are. Their order does not matter, and columns of your own are welcome.",
        "Save the workbook as .xlsx and send it back. It is checked before anything is made.",
    )
    for number, words in enumerate(steps, start=1):
        guide.text(number + 2, 0, f"{number}.  {words}")
    row = len(steps) + 4
    for at, words in enumerate(("Column", "Must fill", "What goes in", "Left blank", "For example")):
        guide.text(row, at, words, head)
    for at, column in enumerate(columns):
        field = column.field
        if field is None:
            continue
        row += 1
        choices = ""
        if field.choices:
            listed = [choice.strip() for choice in field.choices[:_MAX_LISTED]]
            choices = f"One of: {', '.join(listed)}{', …' if len(field.choices) > _MAX_LISTED else '.'}"
        cells = (
            # Never the bare name: this page must not be taken for a table of products.
            (f"{xl_col_to_name(at)}:  {column.header}", bold),
            ("yes" if field.required else "", wrap),
            (" ".join(filter(None, (*field.purpose, choices))), wrap),
            ("" if field.required else " ".join(field.blank), wrap),
            (field.example, shown),
        )
        # Not every program finds the height by itself.
        lines = max(-(-len(words) // (width - 4)) for (words, _), width in zip(cells, _GUIDE_WIDTHS, strict=True))
        raw.set_row(row, 15 * max(lines, 1) + 3)
        for place, (words, style) in enumerate(cells):
            guide.text(row, place, words, style)
    guide.text(
        row + 2, 0, "The last column, read downwards, is one filled row. It stands here to be looked at only.", quiet
    )
    raw.fit_to_pages(1, 0)


_MAX_LISTED = 12
_GUIDE_WIDTHS = (30, 11, 62, 42, 50)


def _write_lists(book: WorkbookWriter, lists: Mapping[tuple[str, ...], str]) -> None:
    sheet = book.sheet(LISTS_SHEET)
    sheet.raw.hide()
    for at, (choices, name) in enumerate(lists.items()):
        # A colour whose formula names another sheet is not understood by every program; a name always is.
        letter = xl_col_to_name(at, col_abs=True)
        book.raw.define_name(name, f"={LISTS_SHEET}!{letter}$2:{letter}${len(choices) + 1}")
        sheet.text(0, at, name)
        sheet.raw.set_column(at, at, column_width("", choices))
    for row in range(max(map(len, lists), default=0)):
        for at, choices in enumerate(lists):
            if row < len(choices):
                sheet.text(row + 1, at, choices[row])
