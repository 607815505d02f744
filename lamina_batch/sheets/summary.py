"""The page of a marked workbook that counts and lists what is wrong, each line a link to its cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import quoteattr

from lamina_batch.sheets.splice import Edit, apply_edits, local_name, prefix_of, scan, text_cell
from lamina_batch.sheets.xlsx import MAX_LINKS, MAX_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina_batch.sheets.package import Package
    from lamina_batch.sheets.splice import Element
    from lamina_batch.sheets.styles import StyleSheet

#: one of ours by its name, which a later round replaces
SUMMARY_SHEET = "lamina_findings"

#: the ground of headers
DARK = "FF1F3A5F"
#: the grounds of cells with an error and with a warning: of no other use, so that a later round knows them
ERROR, WARNING = "FFFBD3D1", "FFFFEFB8"

_MAIN_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_STRICT_NAMESPACE = "http://purl.oclc.org/ooxml/spreadsheetml/main"
_WORKSHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"
_WIDTHS = (22, 8, 24, 40, 60, 60)
_HEADER = ("Sheet", "Row", "Column", "Written there", "What is wrong", "What to do")


class SummaryLine(NamedTuple):
    """One finding."""

    sheet: str
    row: int
    #: the name of the cell to go to; "" if there is none
    cell: str
    column: str
    value: str
    message: str
    hint: str
    bad: bool


class SummaryPage(NamedTuple):
    """What the page says."""

    title: str
    #: counts and other sentences, a line each
    words: Sequence[str]
    lines: Sequence[SummaryLine]


def page_xml(page: SummaryPage, styles: StyleSheet, *, strict: bool, views: bool) -> bytes:
    """The sheet as XML; `styles` gets the looks. `views`: whether the workbook has views that a sheet may name."""
    title = styles.plain(ink=DARK, size=18, face="b")
    words = styles.plain()
    head = styles.plain(ground=DARK, ink="FFFFFFFF", face="b")
    cell = styles.plain(wrap=True)
    link = styles.plain(ink="FF0B57D0", face="u")
    grounds = {bad: styles.plain(ground=colour, wrap=True) for bad, colour in ((True, ERROR), (False, WARNING))}
    rows = [_row_xml(1, [(0, page.title, title)], height=27)]
    rows += [_row_xml(number, [(0, text, words)]) for number, text in enumerate(page.words, start=2)]
    top = len(page.words) + 3
    links: list[str] = []
    if page.lines:
        rows.append(_row_xml(top, [(at, text, head) for at, text in enumerate(_HEADER)]))
    for number, line in enumerate(page.lines[: MAX_ROWS - top], start=top + 1):
        leads = bool(line.cell) and len(links) < MAX_LINKS // 2
        if leads:
            sheet = line.sheet.replace("'", "''")
            where = quoteattr(f"'{sheet}'!{line.cell}")
            links += [f'<hyperlink ref="{letter}{number}" location={where}/>' for letter in "BC"]
        goes = link if leads else cell
        texts = (line.sheet, str(line.row), line.column, line.value, line.message, line.hint)
        looks = (cell, goes, goes, cell, grounds[line.bad], cell)
        length = max(-(-len(text) // width) for text, width in zip(texts, _WIDTHS, strict=True))
        placed = [(at, text, look) for at, (text, look) in enumerate(zip(texts, looks, strict=True))]
        rows.append(_row_xml(number, placed, height=15 * min(max(length, 1), 10) + 2))
    cols = "".join(
        f'<col min="{at}" max="{at}" width="{width}" customWidth="1"/>' for at, width in enumerate(_WIDTHS, start=1)
    )
    view = '<sheetViews><sheetView showGridLines="0" workbookViewId="0"/></sheetViews>' if views else ""
    body = "".join(rows)
    linked = f"<hyperlinks>{''.join(links)}</hyperlinks>" if links else ""
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
        f'<worksheet xmlns="{_STRICT_NAMESPACE if strict else _MAIN_NAMESPACE}">'
        f'<sheetPr><tabColor rgb="FF8A1210"/><pageSetUpPr fitToPage="1"/></sheetPr>{view}<cols>{cols}</cols>'
        f"<sheetData>{body}</sheetData>{linked}"
        '<pageSetup orientation="landscape" fitToHeight="0"/></worksheet>'
    ).encode()


def _row_xml(number: int, cells: Sequence[tuple[int, str, int]], *, height: int | None = None) -> str:
    tall = f' ht="{height}" customHeight="1"' if height is not None else ""
    held = b"".join(text_cell("", f"{'ABCDEF'[at]}{number}", text, style) for at, text, style in cells).decode()
    return f'<row r="{number}"{tall}>{held}</row>'


def add_last_sheet(package: Package, workbook: str, data: bytes, known: str | None) -> None:
    """Make the page the last sheet of the workbook; `known` is the part of one of a round before, which it replaces.

    Raises KeyError, ValueError if the workbook is not as workbooks are.
    """
    if known is not None:
        package.write(known, data)
        return
    part = package.free_name("xl/worksheets/sheet{}.xml")
    package.add(part, data, _WORKSHEET_TYPE)
    relation = package.relate(workbook, part, "worksheet")
    listing = package.read(workbook)
    lists: list[Element] = []
    tabs: list[Element] = []

    def seen(element: Element, around: Sequence[str]) -> None:
        if len(around) == 1 and local_name(element.name) == "sheets":
            lists.append(element)
        elif len(around) == 2 and around[1] == "sheets":
            tabs.append(element)

    scan(listing, seen)
    # Under the name that the others have for it: not every reader knows what a prefix is.
    named = next(name for name in tabs[0].attributes if local_name(name) == "id")
    number = max(int(tab.attributes["sheetId"]) for tab in tabs) + 1
    tab = f'<{prefix_of(lists[0].name)}sheet name="{SUMMARY_SHEET}" sheetId="{number}" {named}="{relation}"/>'
    at = lists[0].inner_end
    package.write(workbook, apply_edits(listing, [Edit(at, at, tab.encode())]))
