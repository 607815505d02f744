"""XLSX workbooks -> rows, read from files that real spreadsheet libraries wrote."""

from __future__ import annotations

import datetime as dt
import glob
import zipfile
from typing import TYPE_CHECKING

import pytest
import xlsxwriter
from catalog_support import Desk, app, sent, text
from openpyxl import Workbook
from openpyxl.styles import PatternFill

from lamina_batch.errors import CatalogError, PipelineError, UsageError
from lamina_batch.results.publish import refuse_source

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from openpyxl.worksheet.worksheet import Worksheet

    from lamina_batch.sources.table import Catalog

ROWS = "{from: rows.xlsx, key: sku}"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def book(desk: Desk, *rows: Iterable[object], name: str = "rows.xlsx") -> Worksheet:
    """Write a workbook of one sheet, and return the sheet for more; `save` writes it again."""
    workbook = Workbook()
    sheet = workbook.active
    assert sheet is not None
    sheet.title = "Catalog"
    for row in rows:
        sheet.append(list(row))
    save(desk, sheet, name)
    return sheet


def save(desk: Desk, sheet: Worksheet, name: str = "rows.xlsx") -> None:
    assert sheet.parent is not None
    file = desk.folder / name
    file.parent.mkdir(exist_ok=True)
    sheet.parent.save(file)


def cells(catalog: Catalog) -> list[tuple[object, ...]]:
    return catalog.frame.select(catalog.columns).collect().rows()


def numbers(catalog: Catalog) -> list[int]:
    return catalog.frame.collect()["lamina_row"].to_list()


def refused(desk: Desk, rows: str = ROWS) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        desk.read(rows)
    return caught.value


def rewritten(file: Path, part: str, old: str, new: str) -> None:
    """Put `new` for `old` in one part of the workbook."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert old.encode() in parts[part]
    parts[part] = parts[part].replace(old.encode(), new.encode())
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


SHEET_1 = "xl/worksheets/sheet1.xml"


# --- cells


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("00123", "00123"),
        (" Röck ", " Röck "),
        ("two\nlines", "two\nlines"),
        ("1:1", "1:1"),
        ("1e3", "1e3"),
        ("2026-11-24 00:00:00", "2026-11-24 00:00:00"),
        ("true", "true"),
        (12.0, "12"),
        (0, "0"),
        (-7, "-7"),
        (19.9, "19.9"),
        (0.1 + 0.2, "0.3"),
        (4006381333931, "4006381333931"),
        (12345678901234, "12345678901234"),
        (True, "true"),
        (False, "false"),
        (dt.date(2026, 11, 24), "2026-11-24"),
        (dt.datetime.fromisoformat("2026-11-24T13:05"), "2026-11-24T13:05:00"),
        (dt.datetime.fromisoformat("2026-11-24T23:59:59"), "2026-11-24T23:59:59"),
        (dt.time(9, 30), "09:30:00"),
        (None, None),
    ],
)
def test_a_cell_becomes_the_text_that_a_person_would_write(desk: Desk, cell: object, expected: str | None) -> None:
    book(desk, ["sku", "cell"], ["A", cell])
    catalog = desk.read(ROWS)
    assert cells(catalog) == [("A", expected)]
    assert catalog.notes == ()


def test_a_column_may_hold_cells_of_every_kind(desk: Desk) -> None:
    kinds = ["text", 7, 7.5, True, dt.date(2026, 1, 2), "2026-01-02 00:00:00", "007"]
    book(desk, ["sku", "cell"], *([f"{at}", kind] for at, kind in enumerate(kinds)))
    assert [cell for _, cell in cells(desk.read(ROWS))] == [
        "text", "7", "7.5", "true", "2026-01-02", "2026-01-02 00:00:00", "007",
    ]  # fmt: skip


def test_types_and_sql_work_on_the_cells(desk: Desk) -> None:
    book(
        desk,
        ["sku", "price", "launch", "live"],
        ["A", 120, dt.date(2026, 11, 24), True],
        ["B", 80.5, dt.date(2026, 1, 1), True],
        ["C", 300, dt.date(2026, 12, 1), False],
    )
    checked = desk.check(
        app(text("Prompt")),
        """
        rows:
          from: rows.xlsx
          key: sku
          where: "price > 100 AND live AND launch >= DATE '2026-11-01'"
          types: {price: float, launch: date, live: boolean}
        inputs:
          Prompt: {template: "{sku} from {launch} at {price}"}
        """,
    )
    assert sent(checked) == [{"Prompt": "A from 2026-11-24 at 120"}]


def test_text_that_several_cells_share_is_read_as_it_stands(desk: Desk) -> None:
    """As Excel itself writes it: in a table of texts, some with letters of several colours."""
    workbook = xlsxwriter.Workbook(desk.folder / "rows.xlsx")
    sheet = workbook.add_worksheet("Catalog")
    for row, text_ in enumerate(("sku", " 007 ", "=1+1", "_x0041_", "two\nlines", "007")):
        sheet.write_string(row, 0, text_)
        sheet.write_string(row, 1, text_ if row else "again")
    sheet.write_rich_string(6, 0, "red ", workbook.add_format({"color": "red"}), "dress")
    sheet.write_url(7, 0, "https://images.example.com/a.jpg")
    sheet.write_number(8, 0, 123, workbook.add_format({"num_format": "00000"}))
    workbook.close()
    catalog = desk.read(ROWS)
    assert [sku for sku, _ in cells(catalog)] == [
        " 007 ", "=1+1", "_x0041_", "two\nlines", "007", "red dress", "https://images.example.com/a.jpg", "123",
    ]  # fmt: skip
    assert numbers(catalog) == [*range(2, 10)]


# --- where things stand


def test_rows_are_numbered_as_the_spreadsheet_shows_them(desk: Desk) -> None:
    book(desk, ["sku", "t"], ["A", "x"], [], [], ["B", "y"], [" ", None], ["C", "z"], [])
    catalog = desk.read(ROWS)
    assert cells(catalog) == [("A", "x"), ("B", "y"), ("C", "z")]
    assert numbers(catalog) == [2, 5, 7]


def test_blank_rows_and_columns_before_the_header_count_too(desk: Desk) -> None:
    sheet = book(desk)
    for name, value in {"C4": "sku", "D4": "when", "C5": "A", "C9": "B"}.items():
        sheet[name] = value
    sheet["D9"] = dt.date(2026, 1, 2)
    save(desk, sheet)
    catalog = desk.read(ROWS)
    assert catalog.headers == ("sku", "when")
    assert cells(catalog) == [("A", None), ("B", "2026-01-02")]
    assert numbers(catalog) == [5, 9]


def test_a_merged_header_is_the_name_of_its_first_column(desk: Desk) -> None:
    sheet = book(desk, ["sku", "images", None, "t"], ["A", "a.jpg", "b.jpg", "x"])
    sheet.merge_cells("B1:C1")
    save(desk, sheet)
    catalog = desk.read(ROWS)
    assert catalog.headers == ("sku", "images", "", "t")
    assert catalog.columns == ("sku", "images", "unnamed (column 3)", "t")
    assert cells(catalog) == [("A", "a.jpg", "b.jpg", "x")]


def test_headers_that_stand_twice_are_kept_and_cannot_be_used(desk: Desk) -> None:
    book(desk, ["sku", "t", "t", 2026], ["A", "x", "y", "z"])
    catalog = desk.read(ROWS)
    assert catalog.headers == ("sku", "t", "t", "2026")
    assert cells(catalog) == [("A", "x", "y", "z")]
    with pytest.raises(PipelineError, match="is 2 times in the header"):
        desk.map(app(text("Prompt")), f"rows: {ROWS}\ninputs:\n  Prompt: {{column: t}}\n")


def test_columns_without_name_and_cells_are_left_out(desk: Desk) -> None:
    sheet = book(desk, ["sku", None, "t"], ["A", None, "x"])
    sheet["F9"] = " "
    save(desk, sheet)
    assert desk.read(ROWS).headers == ("sku", "t", "")
    sheet["F9"] = None
    save(desk, sheet)
    assert desk.read(ROWS).headers == ("sku", "t")


def test_our_own_columns_are_ignored(desk: Desk) -> None:
    book(desk, ["sku", "lamina_row", "lamina_status"], ["A", 2, "completed"])
    assert desk.read(ROWS).columns == ("sku",)


def test_a_header_without_rows_is_a_catalog_without_rows(desk: Desk) -> None:
    book(desk, ["sku", "t"])
    assert (desk.read(ROWS).columns, cells(desk.read(ROWS))) == (("sku", "t"), [])


# --- what is said about cells


def test_cells_with_an_error_are_blank_and_named(desk: Desk) -> None:
    book(desk, ["sku", "a"], ["A", "#N/A"], ["B", "x"], *([f"C{n}", "#DIV/0!"] for n in range(6)))
    catalog = desk.read(ROWS)
    assert cells(catalog)[:2] == [("A", None), ("B", "x")]
    assert catalog.notes == (
        "rows.xlsx#Catalog: cells with an error (such as #N/A) read as blank: B2, B4, B5, B6, B7 and 2 more",
    )


MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"


def write_sheet_xml(desk: Desk, root: str, content: str) -> None:
    """A workbook whose only sheet is this XML; its first row is `sku`, `x`."""
    book(desk, ["sku", "x"])
    with zipfile.ZipFile(desk.folder / "rows.xlsx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[SHEET_1] = f"<{root}>{content}</{root.split(maxsplit=1)[0]}>".encode()
    with zipfile.ZipFile(desk.folder / "rows.xlsx", "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def inline(name: str, text: str) -> str:
    return f'<c r="{name}" t="inlineStr"><is><t>{text}</t></is></c>'


@pytest.mark.parametrize("namespace", [MAIN, STRICT])
@pytest.mark.parametrize(
    "cell",
    [
        '<c r="B2" t="e"><v>#N/A</v></c>',
        "<c\n t='e'\n r='B2' ><v>#N/A</v></c>",
        '<c r="B2" s="0" t="e"><f>1/0</f><v>#DIV/0!</v></c>',
        '<c t="e"><v>#REF!</v></c>',
        '<!-- <c r="ZZ9" t="e"/> --><c r="B2" t="e"><v><![CDATA[#N/A]]></v></c>',
    ],
    ids=["plain", "single quotes", "formula", "no name", "comment"],
)
def test_an_error_is_found_however_the_xml_is_written(desk: Desk, cell: str, namespace: str) -> None:
    header, key = inline("A1", "sku") + inline("B1", "x"), inline("A2", "a")
    content = f'<sheetData><row r="1">{header}</row><row r="2">{key}{cell}</row></sheetData>'
    write_sheet_xml(desk, f'worksheet xmlns="{namespace}"', content)
    catalog = desk.read(ROWS)
    assert cells(catalog) == [("a", None)]
    assert catalog.notes == ("rows.xlsx#Catalog: a cell with an error (such as #N/A) read as blank: B2",)


def test_formulas_and_cells_of_extensions_are_not_those_of_the_sheet(desk: Desk) -> None:
    header, row = inline("A1", "sku") + inline("B1", "x"), inline("A2", "a") + '<c r="B2"><v>1</v></c>'
    content = (
        f'<sheetData><row r="1">{header}</row><row r="2">{row}</row></sheetData>'
        '<mergeCells count="1"><mergeCell ref="C:D"/></mergeCells>'
        '<extLst><ext xmlns:xm="urn:other"><xm:c t="e"><xm:f>A1</xm:f></xm:c></ext></extLst>'
    )
    write_sheet_xml(desk, f'worksheet xmlns="{MAIN}"', content)
    catalog = desk.read(ROWS)
    assert (cells(catalog), catalog.notes) == ([("a", "1")], ())


@pytest.mark.parametrize(
    ("formula", "uncalculated"),
    [
        ('<c r="B2"><f>1+1</f></c>', True),
        ('<c r="B2"><f t="shared" si="0"/><v/></c>', True),
        ('<c r="B2"><f>1+1</f><v> </v></c>', True),
        ('<c r="B2"><f>1+1</f><v>2</v></c>', False),
        ('<c r="B2" t="str"><f>A1</f><v></v></c>', False),
    ],
)
def test_a_formula_without_a_result_was_never_calculated(desk: Desk, formula: str, uncalculated: bool) -> None:
    header, key = inline("A1", "sku") + inline("B1", "x"), inline("A2", "a")
    content = f'<sheetData><row r="1">{header}</row><row r="2">{key}{formula}</row></sheetData>'
    write_sheet_xml(desk, f'worksheet xmlns="{MAIN}"', content)
    assert [note.endswith("read as blank: B2") for note in desk.read(ROWS).notes] == [True] * uncalculated


def test_formulas_have_the_value_that_was_calculated(desk: Desk) -> None:
    """openpyxl writes formulas without a value, as other programs do that cannot calculate."""
    book(desk, ["sku", "a", "b"], ["A", "=1+1", "=2+2"], ["B", "x", '=""'])
    file = desk.folder / "rows.xlsx"
    rewritten(file, SHEET_1, "<f>1+1</f><v />", "<f>1+1</f><v>2</v>")
    rewritten(file, SHEET_1, '<c r="C3"><f>""</f><v />', '<c r="C3" t="str"><f>""</f><v></v>')
    catalog = desk.read(ROWS)
    assert [(sku, a, b or None) for sku, a, b in cells(catalog)] == [("A", "2", None), ("B", "x", None)]
    assert [note.rpartition(": ")[2] for note in catalog.notes] == ["C2"]
    assert "never calculated" in catalog.notes[0]


def test_numbers_in_the_key_that_may_have_lost_their_zeros_are_said(desk: Desk) -> None:
    book(desk, [], ["SKU *", "n"], ["01234", 1], [], [123, 12], [99, 3])
    mapped = desk.map(app(text("Prompt")), f"rows: {ROWS}\ninputs:\n  Prompt: {{column: n}}\n")
    [note] = [note for note in mapped.notes if "zeros" in note]
    assert "numbers in the key column 'SKU *' have fewer digits than the longest key: 123 in row 5 and 1 more." in note


@pytest.mark.parametrize(
    "keys",
    [["00123", "1234"], [123, 456], [123, "A-4567"], ["12", 345], [dt.date(2026, 1, 1), "123"], ["1", None, "23"]],
)
def test_keys_that_lost_nothing_are_no_news(desk: Desk, keys: list[object]) -> None:
    """Text keeps its zeros; numbers of one length have none to lose; 12 as text may be short."""
    book(desk, ["sku", "t"], *([key, "x"] for key in keys))
    assert desk.read(ROWS).notes == ()


# --- which sheet


@pytest.fixture
def sheets(desk: Desk) -> Desk:
    sheet = book(desk)
    workbook = sheet.parent
    assert workbook is not None
    sheet.sheet_state = "hidden"
    sheet.append(["sku"])
    sheet.append(["hidden"])
    for title in ("Spring & <Co>", "Summer 26 #2"):
        more = workbook.create_sheet(title)
        more.append(["sku"])
        more.append([title])
    save(desk, sheet)
    return desk


@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        ("", "Spring & <Co>"),
        ("#Summer 26 #2", "Summer 26 #2"),
        ("#summer  26 #2", "Summer 26 #2"),
        ("#Spring & <Co>", "Spring & <Co>"),
        ("#Catalog", "hidden"),
    ],
)
def test_the_sheet_is_the_one_that_is_named_or_the_first_that_is_visible(
    sheets: Desk, fragment: str, expected: str
) -> None:
    assert cells(sheets.read(f'{{from: "rows.xlsx{fragment}", key: sku}}')) == [(expected,)]


def test_a_sheet_that_is_not_there_is_said_with_those_that_are(sheets: Desk) -> None:
    error = refused(sheets, '{from: "rows.xlsx#Sumer 26 #2", key: sku}')
    assert error.what == "the workbook has no sheet 'Sumer 26 #2'"
    assert error.where == str(sheets.folder / "rows.xlsx")
    assert error.hint == ("did you mean 'Summer 26 #2'? its sheets are 'Catalog', 'Spring & <Co>', 'Summer 26 #2'")


def test_sheets_of_a_list_and_of_a_pattern_are_one_table(desk: Desk) -> None:
    for name in ("in/a.xlsx", "in/b.XLSX", "in/c.xlsm"):
        sheet = book(desk, ["sku"], [f"{name} first"])
        assert sheet.parent is not None
        more = sheet.parent.create_sheet("More")
        more.append(["sku"])
        more.append([f"{name} more"])
        save(desk, sheet, name)
    desk.write("in/~$a.xlsx", "Excel has it open")
    desk.write("in/z.csv", "sku\nZ\n")
    rows = '{from: ["in/*.xlsx#More", in/a.xlsx, in/c.xlsm#More, in/b.XLSX#More, "in/a.xlsx#More", in/z.csv], key: sku}'
    catalog = desk.read(rows)
    frame = catalog.frame.select("sku", "lamina_source", "lamina_row").collect()
    assert frame.rows() == [
        ("in/a.xlsx more", "a.xlsx#More", 2),
        ("in/a.xlsx first", "a.xlsx", 2),
        ("in/c.xlsm more", "c.xlsm#More", 2),
        ("in/b.XLSX more", "b.XLSX#More", 2),
        ("Z", "z.csv", 2),
    ]


@pytest.mark.parametrize("name", ["rows.xlsx#1.csv", "rows.xlsx#Catalog.xlsx", "rows.xlsx#1/rows.csv"])
def test_a_file_of_the_whole_name_is_meant_by_itself(desk: Desk, name: str) -> None:
    book(desk, ["sku"], ["A"])
    if name.endswith(".csv"):
        desk.write(name, "sku\nB\n")
    else:
        book(desk, ["sku"], ["B"], name=name)
    assert cells(desk.read(f'{{from: "{name}", key: sku}}')) == [("B",)]


def test_no_name_after_the_sign_is_an_error_of_the_pipeline(desk: Desk) -> None:
    book(desk, ["sku"], ["A"])
    with pytest.raises(PipelineError, match="names no sheet after the #"):
        desk.read('{from: "rows.xlsx#", key: sku}')


@pytest.mark.parametrize("name", ["rows.xls", "rows.ods", "rows.xlsb", "rows.ods#Sheet"])
def test_other_spreadsheets_are_refused(desk: Desk, name: str) -> None:
    with pytest.raises(PipelineError, match="which says nothing about its format"):
        desk.read(f'{{from: "{name}", key: sku}}')


def test_nothing_replaces_the_workbook_that_it_is_made_from(desk: Desk) -> None:
    body = 'rows: {from: "rows.xlsx#Catalog", key: sku}\ninputs:\n  Prompt: {value: x}\n'
    with pytest.raises(PipelineError, match="would replace the rows it is made from"):
        desk.pipeline(body + "results: {manifest: rows.xlsx}\n")
    with pytest.raises(UsageError, match="this would be read as rows"):
        refuse_source(desk.pipeline(body), desk.folder / "rows.xlsx")


@pytest.mark.parametrize("name", ["data/a.csv", "data/sub/a.csv", "data/out/deep/a.csv", "data/.out/a.csv", "a.csv"])
def test_no_result_is_put_where_a_pattern_would_read_it_as_rows(desk: Desk, name: str) -> None:
    pipeline = desk.pipeline('rows: {from: "data/**/*.csv", key: sku}\ninputs:\n  Prompt: {value: x}\n')
    file = desk.write(name, "sku\nA\n")
    found = glob.glob(pipeline.rows.sources[0], recursive=True)  # noqa: PTH207 - as the rows are found
    if str(file) in found:
        with pytest.raises(UsageError, match="this would be read as rows"):
            refuse_source(pipeline, file)
    else:
        refuse_source(pipeline, file)


def test_dates_of_old_macs_are_the_same_days(desk: Desk) -> None:
    workbook = xlsxwriter.Workbook(desk.folder / "rows.xlsx", {"date_1904": True, "remove_timezone": True})
    sheet = workbook.add_worksheet()
    sheet.write_row(0, 0, ["sku", "day", "time"])
    sheet.write_row(1, 0, ["A"])
    sheet.write_datetime(1, 1, dt.datetime(2026, 11, 24, tzinfo=dt.UTC), workbook.add_format({"num_format": "d/m/yy"}))
    sheet.write_number(1, 2, 9.5 / 24, workbook.add_format({"num_format": "hh:mm"}))
    workbook.close()
    assert cells(desk.read(ROWS)) == [("A", "2026-11-24", "09:30:00")]


# --- what cannot be read


def test_an_empty_sheet_has_no_header(desk: Desk) -> None:
    book(desk)
    error = refused(desk)
    assert error.what == "the sheet has no header: it is empty"
    assert error.where == f"{desk.folder}/rows.xlsx#Catalog"


@pytest.mark.parametrize("content", [b"", b"sku,t\nA,x\n", b"<html><table></table></html>", b"PK\x03\x04 and no more"])
def test_what_is_no_workbook_is_said(desk: Desk, content: bytes) -> None:
    desk.write("rows.xlsx", content)
    error = refused(desk)
    assert error.what == "this is not an XLSX workbook, or it is damaged"
    assert error.where == str(desk.folder / "rows.xlsx")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_a_workbook_that_was_cut_short_is_said(desk: Desk, share: float) -> None:
    book(desk, ["sku"], *([f"A{n}"] for n in range(500)))
    file = desk.folder / "rows.xlsx"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    assert refused(desk).what == "this is not an XLSX workbook, or it is damaged"


def test_a_damaged_sheet_is_said(desk: Desk) -> None:
    book(desk, ["sku"], ["A"])
    rewritten(desk.folder / "rows.xlsx", SHEET_1, "<sheetData>", "<<<")
    assert refused(desk).what == "this is not an XLSX workbook, or it is damaged"


@pytest.mark.parametrize("part", [SHEET_1, "xl/workbook.xml", "xl/_rels/workbook.xml.rels"])
def test_a_workbook_with_a_changed_byte_is_said(desk: Desk, part: str) -> None:
    book(desk, ["sku"], *([f"A{n}"] for n in range(500)))
    file = desk.folder / "rows.xlsx"
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(part)
        content[info.header_offset + 30 + len(part) + info.compress_size // 2] ^= 0xFF
    file.write_bytes(content)
    assert refused(desk).what == "this is not an XLSX workbook, or it is damaged"


def test_a_document_of_another_program_is_no_workbook(desk: Desk) -> None:
    with zipfile.ZipFile(desk.folder / "rows.xlsx", "w") as archive:
        archive.writestr("word/document.xml", "<document/>")
    assert refused(desk).what == "this is not an XLSX workbook, or it is damaged"


def test_a_workbook_with_a_password_and_an_old_one_are_told_apart(desk: Desk) -> None:
    begin = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1016)
    desk.write("rows.xlsx", begin + "EncryptedPackage".encode("utf-16-le") + bytes(512))
    assert refused(desk).what == "the workbook is protected by a password"
    desk.write("rows.xlsx", begin + "Workbook".encode("utf-16-le") + bytes(512))
    assert refused(desk).what == "this is an old Excel file (.xls) under another name"


def test_a_stray_cell_far_out_is_refused_before_it_fills_the_memory(desk: Desk) -> None:
    sheet = book(desk, ["sku"], ["A"])
    sheet["XFD1048576"] = "x"
    save(desk, sheet)
    assert "reaches to row 1048576 and column 16384" in refused(desk).what
    sheet["XFD1048576"] = None
    sheet["A1048576"] = " "
    save(desk, sheet)
    assert numbers(desk.read(ROWS)) == [2]


# --- as people lay out their sheets ---


def test_a_title_above_the_table_is_no_header(desk: Desk) -> None:
    sheet = book(desk, ["Summer 26"], [], ["SKU *", "Title"], ["00017", "Dress"], ["", ""], ["00018", "Hat"])
    sheet.merge_cells("A1:B1")
    save(desk, sheet)
    catalog = desk.read(ROWS)
    assert (catalog.headers, cells(catalog)) == (("SKU *", "Title"), [("00017", "Dress"), ("00018", "Hat")])
    assert numbers(catalog) == [4, 6]
    assert catalog.notes == ("rows.xlsx#Catalog: row 3 is taken for the header: it has the key",)
    # Without the key anywhere, the first row is the header, and what it lacks is said.
    assert desk.read("{from: rows.xlsx, key: ean}").headers[0] == "Summer 26"


def test_a_header_of_two_rows_is_one_where_the_key_is_merged_over_both(desk: Desk) -> None:
    rows = (["sku", "Images", None, "Title"], [None, "front", "back", None], ["00017", "f", "b", "Dress"])
    sheet = book(desk, *rows)
    sheet.merge_cells("A1:A2")
    sheet.merge_cells("B1:C1")
    sheet.merge_cells("D1:D2")
    save(desk, sheet)
    catalog = desk.read(ROWS)
    assert catalog.headers == ("sku", "front", "back", "Title")
    assert (cells(catalog), numbers(catalog)) == ([("00017", "f", "b", "Dress")], [3])
    assert catalog.files[0].header_row == 2


def test_a_product_under_another_merged_header_cell_stays_a_product(desk: Desk) -> None:
    sheet = book(desk, ["sku", "Notes"], ["00017", None], ["00018", "new"])
    sheet.merge_cells("B1:B2")
    save(desk, sheet)
    assert cells(desk.read(ROWS)) == [("00017", None), ("00018", "new")]


def test_zeros_that_only_a_format_shows_are_said(desk: Desk) -> None:
    sheet = book(desk, ["sku", "price"], [123, 5], [124, 6], ["00125", 7])
    for name in ("A2", "A3", "B2"):
        sheet[name].number_format = "00000"
    save(desk, sheet)
    [note] = desk.read(ROWS).notes
    assert "'sku' have fewer digits than their format shows: 123 in row 2 and 1 more." in note


def test_every_column_knows_its_place_in_the_sheet(desk: Desk) -> None:
    sheet = book(desk, [], [None, "sku", "lamina_status", None, "Title"], [None, "1", "failed", None, "Dress"])
    sheet["H7"].fill = PatternFill("solid", fgColor="FFFF0000")
    save(desk, sheet)
    [part] = desk.read(ROWS).files
    assert part.column_numbers == {"sku": 2, "Title": 5}
    assert (part.sheet, part.header_row) == ("Catalog", 2)
    # A cell that was never calculated is nothing to the reader of the cells.
    sheet["A3"] = "=1+1"
    save(desk, sheet)
    assert desk.read(ROWS).files[0].column_numbers == {"sku": 2, "Title": 5}
