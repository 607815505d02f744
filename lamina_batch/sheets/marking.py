"""One sheet of a workbook, marked: some cells on another ground, and a column behind the last one with the reasons.

Everything here is a function of the sheet's XML. No value is touched, and no cell gets another format than the colour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from xlsxwriter.utility import xl_cell_to_rowcol, xl_col_to_name

from lamina_batch.sheets.splice import Edit, apply_edits, local_name, prefix_of, scan, text_cell, with_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lamina_batch.sheets.splice import Element

#: the header of the column with the reasons; reading ignores it
REASON_COLUMN = "lamina_findings"
_REASON_WIDTH = 90
#: the children of a worksheet that come after the place of a legacyDrawing
_ELEMENTS_AFTER_NOTES = (
    "legacyDrawingHF", "drawingHF", "picture", "oleObjects", "controls", "webPublishItems", "tableParts", "extLst",
    "AlternateContent",
)  # fmt: skip


class Paint(NamedTuple):
    """The numbers of styles in the workbook."""

    #: of our header, and of a reason that is an error, or a warning
    header: int
    error: int
    warning: int
    #: the style that is the given one on the ground of an error (True), of a warning (False), or on none (None)
    colour: Callable[[int, bool | None], int]
    #: marks of a round before, which are taken off
    old: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetMarks:
    """What to show on one sheet; rows and columns from 1."""

    header_row: int
    #: row -> column -> whether it is an error; otherwise a warning
    cells: Mapping[int, Mapping[int, bool]]
    #: row -> what is said beside it, and whether there is an error in it
    reasons: Mapping[int, tuple[str, bool]]
    #: the column with the reasons of a round before
    old_reasons: int | None = None


class MergedArea(NamedTuple):
    """Merged cells: the first and the last row and column."""

    top: int
    left: int
    bottom: int
    right: int


_MERGED_RANGE = re.compile(rb"""<(?:\w+:)?mergeCell\s[^>]*?\bref=["']([A-Z]+[0-9]+):([A-Z]+[0-9]+)""")


def merged_areas(data: bytes) -> list[MergedArea]:
    """The merged cells of a sheet."""
    found = []
    for first, last in _MERGED_RANGE.findall(data):
        (top, left), (bottom, right) = xl_cell_to_rowcol(first.decode()), xl_cell_to_rowcol(last.decode())
        found.append(MergedArea(top + 1, left + 1, bottom + 1, right + 1))
    return found


def anchor_cell(areas: Iterable[MergedArea], row: int, column: int) -> tuple[int, int]:
    """The cell that is seen where this one is: the first of those merged with it, or itself."""
    for area in areas:
        if area.top <= row <= area.bottom and area.left <= column <= area.right:
            return area.top, area.left
    return row, column


class MarkedSheetXml:
    """The XML of one sheet, looked at for the marks that it gets."""

    def __init__(self, data: bytes, marks: SheetMarks, paint: Paint) -> None:
        """Raises expat.ExpatError where it is no XML, KeyError where it is no worksheet."""
        self._data = data
        self._marks = marks
        self._paint = paint
        #: number -> a row in which something changes, and its cells by column, in their order
        self._rows: dict[int, tuple[Element, dict[int, Element]]] = {}
        self._cols: list[tuple[int, int, Element]] = []
        #: what stands in the worksheet itself
        self._top: dict[str, Element] = {}
        #: the last column that holds something, from 1
        self._width = 0
        self._last_row, self._last_column = 0, 0
        self._cells: dict[int, Element] = {}
        self._changed = {marks.header_row, *marks.cells, *marks.reasons}
        scan(data, self._seen, depth=4)
        self._prefix = prefix_of(self._top["sheetData"].name)

    def _seen(self, element: Element, around: Sequence[str]) -> None:
        name = local_name(element.name)
        said = element.attributes
        match len(around), name:
            case 3, "c":
                # A cell without a name stands right behind the one before.
                column = xl_cell_to_rowcol(said["r"])[1] + 1 if "r" in said else self._last_column + 1
                self._cells[column] = element
                self._last_column = column
                if column > self._width and element.inner < element.inner_end:
                    self._width = column
            case 2, "row":
                number = int(said.get("r", self._last_row + 1))
                if number in self._changed or self._was_marked():
                    self._rows[number] = (element, self._cells)
                self._last_row, self._last_column, self._cells = number, 0, {}
            case 2, "col":
                self._cols.append((int(said["min"]), int(said["max"]), element))
            case 1, _:
                self._top[name] = element
            case 0, _:
                self._root = element
            case _:
                pass

    def _was_marked(self) -> bool:
        """Whether the row that ends has marks of a round before."""
        old = self._paint.old
        return self._marks.old_reasons in self._cells or (
            bool(old) and any(int(cell.attributes.get("s", "0")) in old for cell in self._cells.values())
        )

    @property
    def notes(self) -> str | None:
        """The id of the relation to the shapes of its notes."""
        found = self._top.get("legacyDrawing")
        return None if found is None else next((v for n, v in found.attributes.items() if local_name(n) == "id"), None)

    def marked(self, notes: tuple[str, str] | None = None) -> bytes:
        """The sheet with the marks; `notes` are the id of a new relation to shapes of notes, and its namespace."""
        place = self._marks.old_reasons or self._width + 1
        edits = [*self._width_edits(place), *self._extent_edits(place), *self._notes_edits(notes)]
        for number in self._rows:
            edits += self._row_edits(number, place)
        return apply_edits(self._data, edits)

    def _row_edits(self, number: int, place: int) -> Iterator[Edit]:
        row, cells = self._rows[number]
        marks, paint = self._marks, self._paint
        coloured = marks.cells.get(number, {})
        new: dict[int, bytes] = {}
        for column, bad in coloured.items():
            if column not in cells:
                style = paint.colour(self._style_of_blank(row, column), bad)
                new[column] = f'<{self._prefix}c r="{_cell_name(number, column)}" s="{style}"/>'.encode()
        reason = _reason_cell(number, marks, paint)
        if reason is not None:
            new[place] = text_cell(self._prefix, _cell_name(number, place), *reason)
        for column, cell in cells.items():
            style = int(cell.attributes.get("s", "0"))
            if column == place and (reason is not None or marks.old_reasons):
                yield Edit(cell.start, cell.end, b"")
            elif column in coloured or style in paint.old:
                tag = cell.tag(self._data)
                yield Edit(
                    cell.start, cell.inner, with_attribute(tag, "s", str(paint.colour(style, coloured.get(column))))
                )
        if not new:
            return
        # A hint for the program that opens it, and wrong now.
        yield Edit(row.start, row.inner, with_attribute(row.tag(self._data), "spans", None))
        for column in sorted(new):
            at = next((cell.start for other, cell in cells.items() if other >= column), row.inner_end)
            yield Edit(at, at, new[column])

    def _style_of_blank(self, row: Element, column: int) -> int:
        """How a cell looks that is not there: as its row says, or its column."""
        if row.attributes.get("customFormat") in {"1", "true"}:
            return int(row.attributes.get("s", "0"))
        found = (col.attributes.get("style", "0") for first, last, col in self._cols if first <= column <= last)
        return int(next(found, "0"))

    def _width_edits(self, place: int) -> Iterator[Edit]:
        ours = f'<{self._prefix}col min="{place}" max="{place}" width="{_REASON_WIDTH}" customWidth="1"/>'.encode()
        if "cols" not in self._top:
            at = self._top["sheetData"].start
            yield Edit(at, at, b"<%scols>%s</%scols>" % (p := self._prefix.encode(), ours, p))
            return
        for first, last, col in self._cols:
            if first <= place <= last:
                tag = self._data[col.start : col.end]
                before = [with_attribute(tag, "max", str(place - 1))] if first < place else []
                after = [with_attribute(tag, "min", str(place + 1))] if place < last else []
                yield Edit(col.start, col.end, b"".join([*before, ours, *after]))
                return
        at = next((col.start for first, _, col in self._cols if first > place), self._top["cols"].inner_end)
        yield Edit(at, at, ours)

    def _extent_edits(self, place: int) -> Iterator[Edit]:
        dimension = self._top.get("dimension")
        if dimension is None:
            return
        first, _, last = dimension.attributes.get("ref", "A1").partition(":")
        row, column = xl_cell_to_rowcol(last or first)
        if column + 1 < place:
            tag = with_attribute(dimension.tag(self._data), "ref", f"{first}:{_cell_name(row + 1, place)}")
            yield Edit(dimension.start, dimension.inner, tag)

    def _notes_edits(self, notes: tuple[str, str] | None) -> Iterator[Edit]:
        if notes is None:
            return
        relation, namespace = notes
        end = self._top["sheetData"].end
        behind = [
            self._top[name].start
            for name in _ELEMENTS_AFTER_NOTES
            if name in self._top and self._top[name].start >= end
        ]
        at = min(behind, default=self._root.inner_end)
        element = f'<{self._prefix}legacyDrawing xmlns:r="{namespace}" r:id="{relation}"/>'
        yield Edit(at, at, element.encode())


def _reason_cell(number: int, marks: SheetMarks, paint: Paint) -> tuple[str, int] | None:
    """What stands beside a row, and in which style."""
    if number == marks.header_row:
        return REASON_COLUMN, paint.header
    if number not in marks.reasons:
        return None
    text, bad = marks.reasons[number]
    return text, paint.error if bad else paint.warning


def _cell_name(row: int, column: int) -> str:
    return f"{xl_col_to_name(column - 1)}{row}"
