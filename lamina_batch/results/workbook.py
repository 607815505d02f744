"""The manifest as a workbook: text stays text, addresses are links, and a colour says how each row stands.

Rows go to the disk as they are written, so that the memory it takes does not grow with them.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from xlsxwriter import Workbook
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.url import Url

from lamina_batch.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    import polars as pl
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

#: the sheet that holds the manifest
SHEET = "results"

# What a sheet can hold: Excel's own limits, which its readers share.
MOST_ROWS = 1_048_576
MOST_COLUMNS = 16_384
#: in UTF-16 units, as all of Excel's lengths
MOST_TEXT = 32_767
MOST_URL = 2_079
MOST_LINKS = 65_530
#: the digits of which a double keeps every one
_MOST_DIGITS = 15

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

_THEIR_HEADER = {"bold": True, "bg_color": "#E7E6E6", "bottom": 1, "valign": "top"}
_OUR_HEADER = {"bold": True, "bg_color": "#DDE3F0", "bottom": 1, "valign": "top"}
_LINK = {"font_color": "#0B57D0", "underline": 1}

_NARROWEST, _WIDEST, _MEASURED = 8, 48, 500
#: room for the button of the filter
_BUTTON = 3

#: what XML 1.0 cannot hold
_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
#: ASCII that has no place in a URL as it stands
_ESCAPED = {ord(char): quote(char) for char in '"<>[]^`{|}'}
#: Excel takes 1900 for a leap year: before this day programs do not agree which day a number is.
_FIRST_DAY = date(1900, 3, 1)


class _FileLink(Url):
    def __init__(self, relative: str) -> None:
        # Without the dot, a name of one letter is taken for a drive.
        super().__init__(f"external:./{relative}")
        # XlsxWriter's own has backslashes, which only Windows is sure to understand.
        self._relationship_link = relative


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which columns are more than plain values."""

    #: the column name -> the header to show, where it is not the same
    theirs: Mapping[str, str]
    #: the column whose word is coloured
    status: str
    #: columns with what came out: a web address becomes a link
    values: Collection[str]
    #: columns with paths of saved files
    files: Collection[str]


def refuse_too_large(file: Path, *, rows: int, columns: int = 0) -> None:
    """Raise StateError where no sheet can hold so many rows below a header, and columns."""
    for count, most, what in ((rows + 1, MOST_ROWS, "rows"), (columns, MOST_COLUMNS, "columns")):
        if count > most:
            raise StateError(
                f"these results take {count:,} {what}, and a sheet has at most {most:,}",
                where=str(file),
                hint="write a .csv or .parquet instead: `results.manifest` in the pipeline file, or "
                "`lamina-batch results PIPELINE -o FILE.parquet`",
            )


def write_workbook(frame: pl.DataFrame, roles: Roles, file: Path) -> None:
    """Write `frame`, whose columns hold plain values, as the one sheet of a new workbook.

    Links to saved files are relative to the folder of `file`. Raises OSError where it cannot be written.
    """
    # Beside the file: that is the disk with room for it, and what holds their rows is no business of a shared /tmp.
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as aside:
        options = {
            "constant_memory": True,
            "tmpdir": aside,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
        }
        workbook = Workbook(str(file), options)
        workbook.use_zip64()
        sheet = workbook.add_worksheet(SHEET)
        try:
            _Sheet(sheet=sheet, format_of=workbook.add_format, folder=file.parent).fill(frame, roles)
            workbook.close()
        except FileCreateError as error:
            cause = error.args[0]
            raise OSError(cause.errno, cause.strerror) from error
        finally:
            # XlsxWriter closes it only where all went well.
            sheet.row_data_fh.close()  # type: ignore[attr-defined]


class _Sheet:
    """One sheet on its way to the disk, row by row."""

    def __init__(self, *, sheet: Worksheet, format_of: Callable[[dict[str, Any]], Format], folder: Path) -> None:
        self._sheet = sheet
        self._format_of = format_of
        self._folder = folder
        self._links = 0
        self._link = format_of(_LINK)
        self._plain = format_of({})
        self._date = format_of({"num_format": "yyyy-mm-dd"})
        self._instant = format_of({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._time = format_of({"num_format": "hh:mm:ss"})
        self._status = {
            status: format_of({"bg_color": back, "font_color": front}) for status, (back, front) in COLOURS.items()
        }

    def fill(self, frame: pl.DataFrame, roles: Roles) -> None:
        headers = [roles.theirs.get(name, name) for name in frame.columns]
        our_header, their_header = self._format_of(_OUR_HEADER), self._format_of(_THEIR_HEADER)
        for column, (name, header) in enumerate(zip(frame.columns, headers, strict=True)):
            style = their_header if name in roles.theirs else our_header
            if header:
                self._text(0, column, header, style)
            else:
                self._sheet.write_blank(0, column, None, style)
        writers = [self._writer(name, roles) for name in frame.columns]
        for row, values in enumerate(frame.iter_rows(), start=1):
            for column, (write, value) in enumerate(zip(writers, values, strict=True)):
                # An empty text and nothing look the same; without a cell the one before may flow over.
                if value is not None and value != "":
                    write(row, column, value)
        self._dress(frame, headers)

    def _writer(self, name: str, roles: Roles) -> Callable[[int, int, Any], None]:
        if name == roles.status:
            return self._state
        if name in roles.values:
            return self._output
        if name in roles.files:
            return self._file
        return self._value

    def _dress(self, frame: pl.DataFrame, headers: list[str]) -> None:
        """Widths, a header that stays, filters, and a page that can be printed."""
        for column, width in enumerate(_widths(frame, headers)):
            self._sheet.set_column(column, column, width)
        self._sheet.freeze_panes(1, 0)
        if frame.width:
            self._sheet.autofilter(0, 0, frame.height, frame.width - 1)
        # 00123 is text on purpose, and no row needs a warning about it.
        self._sheet.ignore_errors({"number_stored_as_text": f"A1:XFD{MOST_ROWS}"})
        self._sheet.set_landscape()
        self._sheet.repeat_rows(0)

    def _state(self, row: int, column: int, value: str) -> None:
        self._text(row, column, value, self._status.get(value))

    def _output(self, row: int, column: int, value: str) -> None:
        self._linked(row, column, value, web_link(value))

    def _file(self, row: int, column: int, value: str) -> None:
        self._linked(row, column, value, file_link(value, self._folder))

    def _linked(self, row: int, column: int, value: str, link: Url | None) -> None:
        if link is None or self._links == MOST_LINKS:
            self._text(row, column, value)
            return
        self._links += 1
        link.text = fitting(value)
        # It takes a Url as well as a str, which its annotation does not say.
        self._sheet.write_url(row, column, link, self._link)  # type: ignore[call-overload]

    def _value(self, row: int, column: int, value: Any) -> None:
        match value:
            case str():
                self._text(row, column, value)
            case bool():
                self._sheet.write_boolean(row, column, value)
            case int() | float() | Decimal() if _is_kept(value):
                self._sheet.write_number(row, column, float(value))
            case float():
                self._text(row, column, "NaN" if isnan(value) else str(value))
            case datetime() if value.tzinfo is None and value.date() >= _FIRST_DAY:
                self._sheet.write_datetime(row, column, value, self._instant)
            case date() if not isinstance(value, datetime) and value >= _FIRST_DAY:
                self._sheet.write_datetime(row, column, datetime.combine(value, time.min), self._date)
            case time():
                hours = value.hour + value.minute / 60 + (value.second + value.microsecond / 1e6) / 3600
                self._sheet.write_number(row, column, hours / 24, self._time)
            case bytes():
                self._text(row, column, value.hex())
            case _:
                self._text(row, column, str(value))

    def _text(self, row: int, column: int, value: str, style: Format | None = None) -> None:
        text = fitting(value)
        if text.startswith("<r>") and text.endswith("</r>"):
            # XlsxWriter takes just this for XML that it made itself. In two pieces it is text like any other.
            self._sheet.write_rich_string(row, column, text[:3], self._plain, text[3:], style or self._plain)
        else:
            self._sheet.write_string(row, column, text, style)


def fitting(text: str) -> str:
    """`text` as a cell can hold it: as it stands, but for what XML has no sign for, and what is beyond the limit."""
    held = _NO_XML.sub("\ufffd", text)
    if len(held) <= MOST_TEXT // 2 or (length := _units(held)) <= MOST_TEXT:
        return held
    mark = f" … [cut here: {length:,} characters, and a cell holds {MOST_TEXT:,}]"
    kept = held.encode("utf-16-le")[: 2 * (MOST_TEXT - _units(mark))]
    # A character of two units that would be cut in half is left out.
    return kept.decode("utf-16-le", "ignore") + mark


def web_link(text: str) -> Url | None:
    """The link on `text`; None where it is no web address, or longer than a link may be."""
    if not text.lower().startswith(("http://", "https://")) or not text.isprintable() or " " in text or "\\" in text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    if not parts.hostname or "[" in parts.netloc:
        return None
    # Whole before XlsxWriter sees it, which escapes either all or nothing.
    link = re.sub("%(?![0-9a-fA-F]{2})", "%25", text).translate(_ESCAPED)
    return Url(link) if _units(link) <= MOST_URL else None


def file_link(path: str, folder: Path) -> Url | None:
    """The link to a file from a workbook in `folder`: relative, so that both can be moved together.

    None where it is longer than a link may be.
    """
    relative = quote(os.path.relpath(path, folder))
    return _FileLink(relative) if _units(relative) <= MOST_URL else None


def _widths(frame: pl.DataFrame, headers: list[str]) -> list[int]:
    """How wide each column is: as its first rows need, within reason."""
    shown = frame.head(_MEASURED)
    widths = []
    for name, header in zip(frame.columns, headers, strict=True):
        longest = max((len(str(value)) for value in shown[name] if value is not None), default=0)
        widths.append(min(max(longest + 1, len(header) + _BUTTON, _NARROWEST), _WIDEST))
    return widths


def _is_kept(number: float | Decimal) -> bool:
    """Whether a cell's number, a double, says the same."""
    if isinstance(number, float):
        return isfinite(number)
    digits = "".join(map(str, Decimal(number).as_tuple().digits))
    return abs(number) < 10**_MOST_DIGITS and len(digits.rstrip("0")) <= _MOST_DIGITS


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
