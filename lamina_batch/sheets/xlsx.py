"""The one way in which a new workbook is written: text stays text, addresses are links, and limits are kept.

Rows go to the disk as they are written, so that the memory it takes does not grow with them: each sheet is filled
from its top down, one after the other.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from xlsxwriter import Workbook
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.url import Url

from lamina_batch.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

# What a sheet can hold: Excel's own limits, which its readers share.
MAX_ROWS = 1_048_576
MAX_COLUMNS = 16_384
#: in UTF-16 units, as all of Excel's lengths
MAX_TEXT = 32_767
MAX_URL = 2_079
MAX_LINKS = 65_530
#: the digits of which a double keeps every one
_MAX_DIGITS = 15

LINK = {"font_color": "#0B57D0", "underline": 1}

_NARROWEST, _WIDEST, _MEASURED = 8, 48, 500
#: room for the button of the filter
_FILTER_BUTTON_WIDTH = 3

#: what XML 1.0 cannot hold
_FORBIDDEN_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
#: ASCII that has no place in a URL unchanged
_ESCAPED = {ord(char): quote(char) for char in '"<>[]^`{|}'}
#: Excel takes 1900 for a leap year: before this day programs do not agree which day a number is.
_FIRST_DATE = date(1900, 3, 1)


class _FileLink(Url):
    def __init__(self, relative: str) -> None:
        # Without the dot, a name of one letter is taken for a drive.
        super().__init__(f"external:./{relative}")
        # XlsxWriter's own has backslashes, which only Windows is sure to understand.
        self._relationship_link = relative


def refuse_too_large(file: Path, *, rows: int, columns: int = 0, hint: str) -> None:
    """Raise StateError if no sheet can hold so many rows below a header, and columns."""
    for count, most, what in ((rows + 1, MAX_ROWS, "rows"), (columns, MAX_COLUMNS, "columns")):
        if count > most:
            raise StateError(
                f"this takes {count:,} {what}, and a sheet has at most {most:,}", where=str(file), hint=hint
            )


@contextmanager
def create_workbook(file: Path) -> Iterator[WorkbookWriter]:
    """A new workbook that is written when the block ends. Raises OSError if it cannot be."""
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
        try:
            yield WorkbookWriter(workbook, file.parent)
            workbook.close()
        except FileCreateError as error:
            cause = error.args[0]
            raise OSError(cause.errno, cause.strerror) from error
        finally:
            # XlsxWriter closes them only where all went well.
            for sheet in workbook.worksheets():
                sheet.row_data_fh.close()  # type: ignore[attr-defined]


class WorkbookWriter:
    """A workbook on its way to the disk."""

    def __init__(self, workbook: Workbook, folder: Path) -> None:
        #: what XlsxWriter knows it by, for names and the like
        self.raw = workbook
        #: links to files are relative to it
        self.folder = folder
        self._styles: dict[tuple[tuple[str, object], ...], Format] = {}

    def style(self, **properties: object) -> Format:
        """How a cell looks, in XlsxWriter's words."""
        key = tuple(sorted(properties.items()))
        if key not in self._styles:
            self._styles[key] = self.raw.add_format(properties)
        return self._styles[key]

    def sheet(self, name: str) -> SheetWriter:
        """A new sheet."""
        return SheetWriter(self, self.raw.add_worksheet(name))


class SheetWriter:
    """One sheet on its way to the disk, row by row; rows and columns are counted from 0, as XlsxWriter does."""

    def __init__(self, book: WorkbookWriter, raw: Worksheet) -> None:
        #: what XlsxWriter knows it by, for what is no cell
        self.raw = raw
        self._book = book
        self._links = 0
        self._link = book.style(**LINK)
        # 00123 is text on purpose, and no row needs a warning about it.
        raw.ignore_errors({"number_stored_as_text": f"A1:XFD{MAX_ROWS}"})
        raw.set_landscape()

    def text(self, row: int, column: int, value: str, style: Format | None = None) -> None:
        """Write a text unchanged, whatever it looks like."""
        text = fit_cell_text(value)
        if not text:
            self.raw.write_blank(row, column, None, style)
        elif text.startswith("<r>") and text.endswith("</r>"):
            # XlsxWriter takes just this for XML that it made itself. In two pieces it is text like any other.
            plain = self._book.style()
            self.raw.write_rich_string(row, column, text[:3], plain, text[3:], style or plain)
        else:
            self.raw.write_string(row, column, text, style)

    def link(self, row: int, column: int, value: str, link: Url | None) -> None:
        """Write a text that leads somewhere; without a link, or beyond the most that a sheet holds, just the text."""
        if link is None or self._links == MAX_LINKS:
            self.text(row, column, value)
            return
        self._links += 1
        link.text = fit_cell_text(value)
        # It takes a Url and a str, which its annotation does not say.
        self.raw.write_url(row, column, link, self._link)  # type: ignore[call-overload]

    def value(self, row: int, column: int, value: Any, style: Format | None = None) -> None:
        """Write a value as what it is, where a cell keeps all of it, and as text otherwise; `style` is for text."""
        match value:
            case str():
                self.text(row, column, value, style)
            case bool():
                self.raw.write_boolean(row, column, value)
            case int() | float() | Decimal() if _is_exact(value):
                self.raw.write_number(row, column, float(value))
            case float():
                self.text(row, column, "NaN" if isnan(value) else str(value))
            case datetime() if value.tzinfo is None and value.date() >= _FIRST_DATE:
                self.raw.write_datetime(row, column, value, self._book.style(num_format="yyyy-mm-dd hh:mm:ss"))
            case date() if not isinstance(value, datetime) and value >= _FIRST_DATE:
                midnight = datetime.combine(value, time.min)
                self.raw.write_datetime(row, column, midnight, self._book.style(num_format="yyyy-mm-dd"))
            case time():
                hours = value.hour + value.minute / 60 + (value.second + value.microsecond / 1e6) / 3600
                self.raw.write_number(row, column, hours / 24, self._book.style(num_format="hh:mm:ss"))
            case bytes():
                self.text(row, column, value.hex())
            case _:
                self.text(row, column, str(value))

    def dress(self, *, widths: Sequence[float], rows: int, folded: Collection[int] = ()) -> None:
        """Widths, a header in row 0 that stays in sight, filters over it and so many rows, a page fit for printing.

        The columns in `folded` are put away under a + above them.
        """
        for column, width in enumerate(widths):
            away = {"level": 1, "hidden": True} if column in folded else {"collapsed": column - 1 in folded}
            self.raw.set_column(column, column, width, None, away)
        self.raw.freeze_panes(1, 0)
        if widths:
            self.raw.autofilter(0, 0, rows, len(widths) - 1)
        self.raw.repeat_rows(0)


def fit_cell_text(text: str) -> str:
    """`text` as a cell can hold it: unchanged, but for what XML has no sign for, and what is beyond the limit."""
    held = _FORBIDDEN_IN_XML.sub("\ufffd", text)
    if len(held) <= MAX_TEXT // 2 or (length := utf16_length(held)) <= MAX_TEXT:
        return held
    return truncate(held, MAX_TEXT, f" … [cut here: {length:,} characters, and a cell holds {MAX_TEXT:,}]")


def truncate(text: str, most: int, mark: str = "…") -> str:
    """`text` in at most so many UTF-16 units: where it is longer, it ends with `mark`."""
    if utf16_length(text) <= most:
        return text
    kept = text.encode("utf-16-le")[: 2 * (most - utf16_length(mark))]
    # A character of two units that would be cut in half is left out.
    return kept.decode("utf-16-le", "ignore") + mark


def utf16_length(text: str) -> int:
    """The length of a text as Excel counts it."""
    return len(text.encode("utf-16-le")) // 2


def web_link(text: str) -> Url | None:
    """The link on `text`; None if it is no web address, or longer than a link may be."""
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
    return Url(link) if utf16_length(link) <= MAX_URL else None


def file_link(path: str, folder: Path) -> Url | None:
    """The link to a file from a workbook in `folder`: relative, so that both can be moved together.

    None if it is longer than a link may be.
    """
    relative = quote(os.path.relpath(path, folder))
    return _FileLink(relative) if utf16_length(relative) <= MAX_URL else None


def column_width(header: str, values: Iterable[object]) -> int:
    """How wide a column is: as its header and its first values need, within reason."""
    longest = max((len(str(value)) for value in islice(values, _MEASURED) if value is not None), default=0)
    return min(max(longest + 1, len(header) + _FILTER_BUTTON_WIDTH, _NARROWEST), _WIDEST)


def _is_exact(number: float | Decimal) -> bool:
    """Whether a cell's number, a double, says the same."""
    if isinstance(number, float):
        return isfinite(number)
    digits = "".join(map(str, Decimal(number).as_tuple().digits))
    return abs(number) < 10**_MAX_DIGITS and len(digits.rstrip("0")) <= _MAX_DIGITS
