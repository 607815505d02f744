"""The XML inside an XLSX workbook: its list of sheets, and the facts about cells that fastexcel does not report."""

from __future__ import annotations

import posixpath
import re
import zlib
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET
from xml.parsers import expat
from zipfile import BadZipFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from zipfile import ZipFile

#: the most bytes that the list of sheets, or the styles, may have
_MAX_PART_BYTES = 4_000_000
#: bytes of a sheet that are parsed at a time
_CHUNK_BYTES = 1_000_000
_DIGITS = "0123456789"
_RANGE = re.compile("([A-Z]{1,3})([0-9]{1,7}):([A-Z]{1,3})([0-9]{1,7})", re.IGNORECASE)
#: what reading raises if the archive is damaged, or is not a workbook
ARCHIVE_ERRORS = (
    BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    ET.ParseError,
    expat.ExpatError,
)


#: the column and the row of a cell, from 1: B7 is (2, 7)
Position = tuple[int, int]


class WorksheetEntry(NamedTuple):
    """A sheet of a workbook."""

    name: str
    visible: bool
    #: the path of its XML in the archive
    part: str


def list_worksheets(archive: ZipFile) -> Iterator[WorksheetEntry]:
    """The sheets that hold cells, in the order of their tabs. Raises one of `ARCHIVE_ERRORS`."""
    targets = {
        relation.get("Id"): relation.get("Target", "")
        for relation in _parse_part(archive, "xl/_rels/workbook.xml.rels").iterfind("{*}Relationship")
        if relation.get("Type", "").endswith("/worksheet")
    }
    for entry in _parse_part(archive, "xl/workbook.xml").iterfind("{*}sheets/{*}sheet"):
        target = next((targets.get(value) for name, value in entry.items() if name.endswith("}id")), None)
        if target is not None:
            part = posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")
            yield WorksheetEntry(entry.get("name", ""), entry.get("state", "visible") == "visible", part)


@dataclass(slots=True)
class SheetScan:
    """Facts about the cells of a sheet. A position is (column, row), and both are counted from 1."""

    #: the last row and the last column with content; a formula without a result is content
    last_row: int = 0
    last_column: int = 1
    #: the first column with a value: fastexcel's first column
    first_column: int = 1
    #: cells whose value is an error, such as #N/A
    error_cells: list[Position] = field(default_factory=list)
    #: cells with a formula that no program has calculated
    uncalculated_cells: list[Position] = field(default_factory=list)
    #: the first cell of a merged range -> its last cell
    merged_ranges: dict[Position, Position] = field(default_factory=dict)
    #: a cell with a number -> the least digits that its format shows: 5 for the format 00000
    min_digits: dict[Position, int] = field(default_factory=dict)


def scan_sheet(archive: ZipFile, part: str) -> SheetScan:
    """Read the XML of one sheet in a single pass. Raises one of `ARCHIVE_ERRORS`."""
    scanner = _SheetScanner(_zero_formats(archive))
    with archive.open(part) as file:
        while chunk := file.read(_CHUNK_BYTES):
            scanner.feed(chunk)
    return scanner.finish()


class _SheetScanner:
    """Collects a `SheetScan` from the elements of a sheet.

    A sheet may have millions of cells, so expat calls back for the starts of elements only. The ends and the text of
    elements are of interest in cells with a formula alone, and their handlers are set just for those.
    """

    def __init__(self, zero_formats: Mapping[int, int]) -> None:
        self._zero_formats = zero_formats
        self._scan = SheetScan()
        self._last_row = 0
        self._columns: set[int] = set()
        self._value_columns: set[int] = set()
        #: tag with its namespace -> what to do with the attributes of the element
        self._handlers: dict[str, Callable[[dict[str, str]], None]] = {}
        self._cell_tag = ""
        #: the current cell
        self._column = 0
        self._row = 0
        self._row_digits = ""
        self._type = "n"
        self._has_formula = False
        self._result: list[str] = []
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start_sheet

    def feed(self, chunk: bytes) -> None:
        self._parser.Parse(chunk, False)  # noqa: FBT003 - expat takes it by position

    def finish(self) -> SheetScan:
        self._parser.Parse(b"", True)  # noqa: FBT003
        self._scan.last_row = self._last_row
        self._scan.last_column = max(self._columns, default=1)
        self._scan.first_column = min(self._value_columns, default=1)
        return self._scan

    def _start_sheet(self, tag: str, _attributes: dict[str, str]) -> None:
        # The namespace is one of two: strict workbooks have their own.
        namespace = tag.removesuffix("worksheet")
        self._cell_tag = f"{namespace}c"
        self._handlers = {
            f"{namespace}row": self._start_row,
            self._cell_tag: self._start_cell,
            f"{namespace}f": self._start_formula,
            f"{namespace}v": self._start_value,
            f"{namespace}is": self._start_value,
            f"{namespace}mergeCell": self._start_merged_range,
        }
        self._parser.StartElementHandler = self._start

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        handler = self._handlers.get(tag)
        if handler is not None:
            handler(attributes)

    def _start_row(self, attributes: dict[str, str]) -> None:
        self._row_digits = attributes.get("r") or str(self._row + 1)
        self._row = int(self._row_digits)
        self._column = 0

    def _start_cell(self, attributes: dict[str, str]) -> None:
        self._type = attributes.get("t", "n")
        name = attributes.get("r")
        if name is None:  # the cell follows the one before it
            self._column += 1
        else:
            letters = name.rstrip(_DIGITS)
            self._column = _column_number(letters)
            row_digits = name[len(letters) :]
            if row_digits != self._row_digits:
                self._row_digits, self._row = row_digits, int(row_digits)
        if self._type == "e":
            self._scan.error_cells.append((self._column, self._row))
        elif self._zero_formats and self._type == "n":
            digits = self._zero_formats.get(int(attributes.get("s", 0)))
            if digits is not None:
                self._scan.min_digits[self._column, self._row] = digits

    def _start_value(self, _attributes: dict[str, str]) -> None:
        if self._has_formula:
            self._parser.CharacterDataHandler = self._result.append
        else:
            self._extend()
            self._value_columns.add(self._column)

    def _start_formula(self, _attributes: dict[str, str]) -> None:
        self._extend()
        self._has_formula = True
        self._result.clear()
        self._parser.EndElementHandler = self._end_in_formula_cell

    def _end_in_formula_cell(self, tag: str) -> None:
        self._parser.CharacterDataHandler = None
        if tag != self._cell_tag:
            return
        self._parser.EndElementHandler = None
        self._has_formula = False
        # The result of a formula may be an empty text, and its cell then has the type `str`.
        if self._type == "str" or "".join(self._result).strip():
            self._value_columns.add(self._column)
        else:
            self._scan.uncalculated_cells.append((self._column, self._row))

    def _start_merged_range(self, attributes: dict[str, str]) -> None:
        cells = _RANGE.fullmatch(attributes.get("ref", ""))
        if cells is not None:
            left, top, right, bottom = cells.groups()
            self._scan.merged_ranges[_column_number(left), int(top)] = (_column_number(right), int(bottom))

    def _extend(self) -> None:
        self._columns.add(self._column)
        if self._row > self._last_row:  # noqa: PLR1730 - much faster than max() in a sheet of a million cells
            self._last_row = self._row


@cache
def _column_number(letters: str) -> int:
    """A is 1, Z is 26, AA is 27. Raises ValueError if these are not the letters of a column."""
    if not re.fullmatch("[A-Za-z]{1,3}", letters):
        raise ValueError(f"{letters!r} is not a column")
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


def _zero_formats(archive: ZipFile) -> dict[int, int]:
    """The styles whose numbers have zeros in front, and the least digits that each shows."""
    if "xl/styles.xml" not in archive.namelist():
        return {}
    styles = _parse_part(archive, "xl/styles.xml")
    digits = {
        entry.get("numFmtId"): len(code)
        for entry in styles.iterfind("{*}numFmts/{*}numFmt")
        if re.fullmatch("0{2,}", code := entry.get("formatCode", ""))
    }
    formats = [entry.get("numFmtId") for entry in styles.iterfind("{*}cellXfs/{*}xf")]
    return {style: digits[number] for style, number in enumerate(formats) if number in digits}


def _parse_part(archive: ZipFile, part: str) -> ET.Element:
    with archive.open(part) as file:
        text = file.read(_MAX_PART_BYTES + 1)
    if len(text) > _MAX_PART_BYTES:
        raise BadZipFile(f"{part} is too long")
    return ET.fromstring(text)  # noqa: S314 - its size is bounded, and expat bounds what entities make of it
