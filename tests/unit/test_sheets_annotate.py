"""A person's own workbook, marked: what is wrong is coloured and said, and everything else is as it was."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import openpyxl
import polars as pl
import pytest
import xlsxwriter
from catalog_support import STOCK, Desk, app, image, options, text
from PIL import Image

from lamina_batch.catalog.check_rows import check_rows
from lamina_batch.catalog.input_validator import Verdict, quote_value
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.errors import UsageError
from lamina_batch.results.findings import write_marked
from lamina_batch.sheets.marking import MarkedSheetXml, Paint, SheetMarks
from lamina_batch.sheets.splice import Edit, apply_edits, as_utf8, text_cell, with_attribute
from lamina_batch.sheets.summary import ERROR, WARNING
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The library that reads back here would lose what we keep, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*extension is not supported:UserWarning")

APP = app(image("Front", default=STOCK), options("Gender", "Female", "Male"), text("Prompt", required=True))
PIPELINE = """
    rows: {{from: {}, key: sku}}
    inputs:
      Front: {{column: Front}}
      Gender: {{column: gender, map: {{F: Female}}}}
      Prompt: {{template: "{{title}} in {{colour}}"}}
"""
FRONT = "https://images.example.com/{}.jpg"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def annotated(
    desk: Desk, source: str, to: str = "marked.xlsx", known: Mapping[str, Mapping[str, Verdict]] | None = None
) -> Path:
    """What `validate --findings` does with the rows of `source`; `known` is what hosts of pictures answered."""
    pipeline = desk.pipeline(PIPELINE.format(source))
    catalog = read_catalog(pipeline)
    checked = check_rows(map_rows(catalog, pipeline, APP), pipeline, APP, service="sandbox", url_verdicts=known or {})
    return write_marked(checked, desk.folder / to, catalog=catalog, pipeline=pipeline, app=APP)


def test_what_a_host_answered_is_said_without_the_address_that_stands_in_the_cell(desk: Desk) -> None:
    gone = FRONT.format("gone")
    desk.write("rows.csv", f"sku,Front,gender,title,colour\nA1,{gone},Female,Skirt,red\n")
    verdict = Verdict(gone, "url_not_found", "error", f"{quote_value(gone)} is not there: HTTP 404", "upload the file")
    sheet = opened(annotated(desk, "rows.csv", known={"Front": {gone: verdict}})).worksheets[0]
    assert sheet["F2"].value == "Front: This is not there: HTTP 404 – upload the file"
    assert colours(sheet) == {"B2": True}


def opened(file: Path) -> Any:
    return openpyxl.load_workbook(file)


def lines(page: Any) -> list[tuple[str, ...]]:
    """What the page lists: row, column, what is written there."""
    rows = [tuple(str(value or "") for value in row) for row in page.iter_rows(values_only=True)]
    return [row[1:4] for row in rows if row[1].isdigit()]


def colours(sheet: Any) -> dict[str, bool]:
    """The cells that are marked, and whether as an error."""
    rgb = {ERROR: True, WARNING: False}
    return {
        cell.coordinate: rgb[cell.fill.fgColor.rgb]
        for row in sheet.iter_rows()
        for cell in row
        if cell.fill.fill_type == "solid" and cell.fill.fgColor.rgb in rgb
    }


def rich_workbook(file: Path) -> None:
    """As a merchandiser has it: a chart, a picture, lists, colours, formulas, notes, a table of another sheet."""
    picture = io.BytesIO()
    Image.new("RGB", (30, 20), "teal").save(picture, "PNG")
    with xlsxwriter.Workbook(str(file)) as book:
        sheet, prices = book.add_worksheet("Summer 'S/S' 26".replace("/", "-")), book.add_worksheet("Prices")
        yellow, bold = book.add_format({"bg_color": "#FFFF00", "num_format": "@"}), book.add_format({"bold": True})
        sheet.merge_range("A1:H1", "Summer", bold)
        sheet.write_row("A3", ["sku", None, "FRONT *", "gender", "title", "colour", "price", "gross"], bold)
        rows: list[list[Any]] = [
            ["00017", "x", FRONT.format(17), "Female", "Dress", "red", 10],
            ["00018", None, None, "Femal", "Hat", "blue", 12],
            ["00019", None, None, "male ", "Belt", None, 14],
            ["00020", None, FRONT.format(20), "MALE", "Sock", "red", 16],
        ]
        for number, values in enumerate(rows, start=3):
            sheet.write_row(number, 0, values)
            sheet.write_formula(number, 7, f"=G{number + 1}*1.19", None, values[-1] * 1.19)
        sheet.write("D5", "Femal", yellow)
        sheet.merge_range("C5:C6", "")
        sheet.data_validation("D4:D99", {"validate": "list", "source": ["Female", "Male"]})
        sheet.conditional_format("G4:G99", {"type": "data_bar", "data_bar_2010": True})
        sheet.write_comment("D6", "of mine", {"author": "Anna"})
        sheet.set_column("A:XFD", 12)
        sheet.set_row(5, 30)
        sheet.freeze_panes(3, 1)
        sheet.insert_image("K4", "p.png", {"image_data": picture})
        chart = book.add_chart({"type": "column"})
        chart.add_series({"values": ["Prices", 1, 1, 3, 1]})
        sheet.insert_chart("K10", chart)
        prices.add_table("A1:B4", {"data": [["a", 1], ["b", 2], ["c", 3]]})
        prices.write_formula("D1", "=SUM(B2:B4)", None, 6)
        book.define_name("Sum", "=Prices!$D$1")


def test_exactly_the_bad_cells_are_marked_and_all_else_stays(desk: Desk) -> None:
    source = desk.folder / "rows.xlsx"
    rich_workbook(source)
    before = opened(source)
    after = opened(annotated(desk, "rows.xlsx"))
    assert after.sheetnames == [*before.sheetnames, "lamina_findings"]
    old, new = before.worksheets[0], after.worksheets[0]
    # C5 is merged with C6 and blank: both rows lack their picture. F6 is blank, and the prompt needs it.
    assert colours(new) == {"C5": True, "D5": True, "F6": True, "D6": False, "D7": False}
    for row in old.iter_rows():
        for cell in row:
            other = new[cell.coordinate]
            assert other.value == cell.value
            looks = ["number_format", "font", "border", "alignment", "protection"]
            looks += [] if cell.coordinate in colours(new) else ["fill"]
            assert [repr(getattr(other, name)) for name in looks] == [repr(getattr(cell, name)) for name in looks]
    assert new["I3"].value == "lamina_findings"
    reasons = {row: new.cell(row, 9).value for row in range(4, 8)}
    assert reasons[4] is None
    assert "FRONT *: The picture is missing – paste its web address" in reasons[5]
    assert "•  gender: “Femal” is not on the list – did you mean 'Female'? the list has F, Female, Male" in reasons[5]
    assert reasons[6].startswith("FRONT *: The picture is missing")
    assert "colour: This must be filled" in reasons[6]
    assert new["D5"].comment.text.startswith("lamina-batch: “Femal” is not on the list")
    assert (new["D6"].comment.text, new["D6"].comment.author) == ("of mine", "Anna")
    assert new["D5"].comment.author == "lamina-batch"
    assert (new["I4"].value, new.freeze_panes) == (None, "B4")
    assert {str(area) for area in new.merged_cells.ranges} == {"A1:H1", "C5:C6"}


def parts(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == len(set(archive.namelist()))
        return {name: archive.read(name) for name in archive.namelist()}


def test_what_is_not_marked_keeps_its_very_bytes(desk: Desk) -> None:
    rich_workbook(desk.folder / "rows.xlsx")
    before, after = parts(desk.folder / "rows.xlsx"), parts(annotated(desk, "rows.xlsx"))
    assert {name for name, data in before.items() if after[name] != data} == {
        "[Content_Types].xml",
        "xl/workbook.xml",
        "xl/_rels/workbook.xml.rels",
        "xl/styles.xml",
        "xl/worksheets/sheet1.xml",
        "xl/comments1.xml",
        "xl/drawings/vmlDrawing1.vml",
    }
    assert set(after) - set(before) == {"xl/worksheets/sheet3.xml"}
    sheets = [data["xl/worksheets/sheet1.xml"] for data in (before, after)]
    for words in (
        b"<drawing r:id",
        b"<legacyDrawing ",
        b"<dataValidation ",
        b"<conditionalFormatting",
        b"<extLst",
        b"<f>",
    ):
        was, now = (sheet.count(words) for sheet in sheets)
        assert was == now > 0
    with zipfile.ZipFile(desk.folder / "marked.xlsx") as archive:
        for name in archive.namelist():
            if name.endswith((".xml", ".rels", ".vml")):
                ET.fromstring(archive.read(name))


def test_the_page_counts_and_leads_to_each_cell(desk: Desk) -> None:
    rich_workbook(desk.folder / "rows.xlsx")
    page = opened(annotated(desk, "rows.xlsx"))["lamina_findings"]
    told = [row for row in page.iter_rows(values_only=True) if any(row)]
    assert told[0][0] == "4 things to mend"
    assert told[1][0] == "4 rows checked. 2 rows cannot be made as they stand."
    assert lines(page) == [
        ("5", "FRONT *", ""),
        ("5", "gender", "Femal"),
        ("6", "FRONT *", ""),
        ("6", "gender", "male "),
        ("6", "colour", ""),
        ("7", "gender", "MALE"),
    ]
    links = [cell.hyperlink.location for row in page.iter_rows() for cell in row if cell.hyperlink]
    assert links[::2] == [f"'Summer ''S-S'' 26'!{cell}" for cell in ("C5", "D5", "C5", "D6", "F6", "D7")]


def test_the_marked_workbook_is_read_as_rows_and_a_second_round_marks_what_is_left(desk: Desk) -> None:
    rich_workbook(desk.folder / "rows.xlsx")
    file = annotated(desk, "rows.xlsx", "second.xlsx")
    first, second = (read_catalog(desk.pipeline(PIPELINE.format(name))) for name in ("rows.xlsx", "second.xlsx"))
    assert second.columns == first.columns
    assert second.frame.collect().equals(first.frame.collect())

    # Mended in a program that writes everything anew.
    book = opened(file)
    sheet = book.worksheets[0]
    sheet["C5"], sheet["D5"], sheet["D6"], sheet["D7"] = FRONT.format(18), "Female", "Male", "Male"
    book.save(file)
    again = opened(annotated(desk, "second.xlsx", "third.xlsx"))
    assert again.sheetnames == ["Summer 'S-S' 26", "Prices", "lamina_findings"]
    marked = again.worksheets[0]
    assert colours(marked) == {"C5": True, "F6": True}
    assert [cell.value for cell in marked[3] if cell.value == "lamina_findings"] == ["lamina_findings"]
    assert (marked["I5"].value, marked["I7"].value) == (None, None)
    notes = {cell.coordinate: cell.comment.text for row in marked.iter_rows() for cell in row if cell.comment}
    assert set(notes) == {"C5", "F6", "D6"}
    assert again["lamina_findings"]["A1"].value == "2 things to mend"

    book = opened(desk.folder / "third.xlsx")
    sheet = book.worksheets[0]
    sheet.unmerge_cells("C5:C6")
    sheet["C6"], sheet["F6"] = FRONT.format(19), "green"
    book.save(desk.folder / "third.xlsx")
    clean = opened(annotated(desk, "third.xlsx", "fourth.xlsx"))
    assert colours(clean.worksheets[0]) == {}
    assert clean["lamina_findings"]["A1"].value == "Nothing to mend"
    assert [cell.comment.text for row in clean.worksheets[0].iter_rows() for cell in row if cell.comment] == ["of mine"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "ndjson"])
def test_rows_of_no_workbook_become_one_with_the_same_cells_in_the_same_rows(desk: Desk, ending: str) -> None:
    rows = {
        "sku": ["00017", "=1+1", "1E5"],
        "Front": [FRONT.format(17), "nowhere", None],
        "gender": ["Female", "MALE", "Male"],
        "title": ["a", "b", "c"],
        "colour": ["red", None, "\u202e"],
    }
    frame = pl.DataFrame(rows)
    if ending == "parquet":
        frame.write_parquet(desk.folder / "rows.parquet")
    elif ending == "ndjson":
        frame.write_ndjson(desk.folder / "rows.ndjson")
    else:
        lines = frame.write_csv(separator="," if ending == "csv" else "\t").splitlines()
        desk.write(f"rows.{ending}", "\n".join(["", lines[0], lines[1], "", *lines[2:]]) + "\n")
    sheet = opened(annotated(desk, f"rows.{ending}")).worksheets[0]
    header, places = (2, [3, 5, 6]) if ending in {"csv", "tsv"} else (1, [2, 3, 4])
    assert [cell.value for cell in sheet[header]][:6] == [*rows, "lamina_findings"]
    for row, expected in zip(places, frame.rows(), strict=True):
        assert tuple(cell.value for cell in sheet[row])[:5] == expected
        assert all(cell.data_type in {"s", "n"} for cell in sheet[row])
    second, third = places[1:]
    assert colours(sheet) == {f"B{second}": True, f"C{second}": False, f"E{second}": True, f"B{third}": True}
    again = read_catalog(desk.pipeline(PIPELINE.format("marked.xlsx")))
    assert again.frame.drop("lamina_row", "lamina_index").collect().rows() == frame.rows()
    assert again.frame.collect()["lamina_row"].to_list() == places


def test_of_several_files_each_with_findings_gets_a_sheet(desk: Desk) -> None:
    for name, gender in (("a [1]", "Femal"), ("b", "Male"), ("c", "x")):
        desk.write(f"in/{name}.csv", f"sku,Front,gender,title,colour\n\n{name},{FRONT.format(1)},{gender},t,c\n")
    book = opened(annotated(desk, "in/*.csv"))
    assert book.sheetnames == ["a _1_", "c", "lamina_findings"]
    assert colours(book["a _1_"]) == colours(book["c"]) == {"C3": True}
    assert book["c"]["A3"].value == "c"


def test_two_sheets_of_one_workbook_are_marked_where_they_are(desk: Desk) -> None:
    book = openpyxl.Workbook()
    for name, gender in (("One", "Femal"), ("Two", "Male"), ("Three", "x")):
        sheet = book.create_sheet(name)
        sheet.append(["sku", "Front", "gender", "title", "colour"])
        sheet.append([name, FRONT.format(1), gender, "t", "c"])
    book.save(desk.folder / "rows.xlsx")
    marked = opened(annotated(desk, "['rows.xlsx#One', 'rows.xlsx#Two']"))
    assert marked.sheetnames == ["Sheet", "One", "Two", "Three", "lamina_findings"]
    assert [colours(marked[name]) for name in ("One", "Two", "Three")] == [{"C2": True}, {}, {}]


def test_a_blank_cell_that_is_not_there_looks_as_its_column_does(desk: Desk) -> None:
    with xlsxwriter.Workbook(str(desk.folder / "rows.xlsx")) as book:
        sheet = book.add_worksheet()
        sheet.set_column("B:B", 40, book.add_format({"num_format": "@", "italic": True}))
        sheet.write_row("A1", ["sku", "Front", "gender", "title", "colour"])
        sheet.write_row("A2", ["1", None, None, "t", "c"])
    sheet = opened(annotated(desk, "rows.xlsx")).worksheets[0]
    assert colours(sheet) == {"B2": True}
    assert (sheet["B2"].number_format, sheet["B2"].font.i, sheet["B2"].value) == ("@", True, None)


def test_a_column_that_people_have_hidden_to_the_right_is_shown_where_ours_is(desk: Desk) -> None:
    with xlsxwriter.Workbook(str(desk.folder / "rows.xlsx")) as book:
        sheet = book.add_worksheet()
        sheet.set_column("F:XFD", None, None, {"hidden": True})
        sheet.write_row("A1", ["sku", "Front", "gender", "title", "colour"])
        sheet.write_row("A2", ["1", None, None, "t", "c"])
    sheet = opened(annotated(desk, "rows.xlsx")).worksheets[0]
    hidden = {(one.min, one.max): one.hidden for one in sheet.column_dimensions.values()}
    assert hidden == {(6, 6): False, (7, 16384): True}


def test_macros_are_kept_under_their_own_ending(desk: Desk) -> None:
    rich_workbook(desk.folder / "rows.xlsm")
    with pytest.raises(UsageError, match=r"\.xlsm file"):
        annotated(desk, "rows.xlsm")
    assert annotated(desk, "rows.xlsm", "marked.xlsm").exists()
    desk.write("rows.csv", "sku,Front,gender,title,colour\n1,,,a,b\n")
    with pytest.raises(UsageError, match=r"\.xlsx file"):
        annotated(desk, "rows.csv", "marked.xlsm")


def test_what_somebody_has_mended_is_never_written_over(desk: Desk) -> None:
    rich_workbook(desk.folder / "rows.xlsx")
    annotated(desk, "rows.xlsx")
    file = annotated(desk, "rows.xlsx")
    book = opened(file)
    book.worksheets[0]["D5"] = "Female"
    book.save(file)
    with pytest.raises(UsageError, match="their corrections would be lost"):
        annotated(desk, "rows.xlsx")
    assert opened(file).worksheets[0]["D5"].value == "Female"
    desk.write("other.xlsx", b"something else")
    with pytest.raises(UsageError, match="would be lost"):
        annotated(desk, "rows.xlsx", "other.xlsx")


def test_hostile_texts_stay_text(desk: Desk) -> None:
    hostile = ["=1+1", "</t></is></c>", "<r>x</r>", "]]>", "&amp;", '"><script>', "日本語 😀"]
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["sku", "Front", "gender", "title", "colour"])
    for number, value in enumerate(hostile):
        sheet.append([str(number), FRONT.format(1), value, "t", "c"])
        sheet.cell(number + 2, 3).data_type = "s"
    book.save(desk.folder / "rows.xlsx")
    marked = opened(annotated(desk, "rows.xlsx"))
    assert [value for _, _, value in lines(marked["lamina_findings"])] == hostile
    assert all(cell.data_type != "f" for page in marked for row in page.iter_rows() for cell in row)


def test_a_workbook_that_is_not_as_they_are_is_said(desk: Desk) -> None:
    rich_workbook(desk.folder / "rows.xlsx")
    with zipfile.ZipFile(desk.folder / "broken.xlsx", "w") as out:
        for name, data in parts(desk.folder / "rows.xlsx").items():
            out.writestr(name, data if name != "xl/styles.xml" else b"<styleSheet/>")
    with pytest.raises(UsageError, match="cannot be marked") as raised:
        annotated(desk, "broken.xlsx")
    assert ".csv" in (raised.value.hint or "")
    assert not (desk.folder / "marked.xlsx").exists()


# --- the XML ---

PAINT = Paint(
    header=7, error=8, warning=9, colour=lambda style, bad: {None: 0, True: 10, False: 20}[bad] + style, old=frozenset()
)
MARKS = SheetMarks(header_row=1, cells={2: {1: True, 2: False}}, reasons={2: ("why", True)})
REASON = '<{p}c r="{at}" s="{style}" t="inlineStr"><{p}is><{p}t xml:space="preserve">{text}</{p}t></{p}is></{p}c>'


@pytest.mark.parametrize("p", ["", "x:"])
@pytest.mark.parametrize("named", [True, False])
def test_cells_are_marked_however_a_sheet_is_written(p: str, named: bool) -> None:
    """With a prefix or without; with names on rows and cells, or one after the other."""
    row, cell = (' r="2"', ' r="A2"') if named else ("", "")
    start = f'<{p}worksheet xmlns{":x" if p else ""}="main">'
    end = f"</{p}row></{p}sheetData></{p}worksheet>"
    top = f"<{p}sheetData><{p}row><{p}c><{p}v>0</{p}v></{p}c>"
    sheet = (
        f'{start}<{p}dimension ref="A1"/>{top}</{p}row>'
        f'<{p}row{row} spans="1:1"><{p}c{cell} s=\'3\' t="n"><{p}v>1</{p}v></{p}c>{end}'
    )
    width = f'<{p}cols><{p}col min="2" max="2" width="90" customWidth="1"/></{p}cols>'
    header = REASON.format(p=p, at="B1", style=7, text="lamina_findings")
    expected = (
        f'{start}<{p}dimension ref="A1:B1"/>{width}{top}{header}</{p}row>'
        f'<{p}row{row}><{p}c{cell} t="n" s="13"><{p}v>1</{p}v></{p}c>'
        f"{REASON.format(p=p, at='B2', style=8, text='why')}{end}"
    )
    marks = replace(MARKS, cells={2: {1: True}})
    assert MarkedSheetXml(sheet.encode(), marks, PAINT).marked().decode() == expected


def test_a_cell_that_is_not_there_comes_where_it_belongs() -> None:
    sheet = (
        '<worksheet><cols><col min="2" max="9" style="4"/></cols><sheetData><row r="1"><c r="A1"><v>0</v></c></row>'
        '<row r="2"><c r="A2"/><c r="C2"><v>1</v></c></row></sheetData></worksheet>'
    )
    marked = MarkedSheetXml(sheet.encode(), MARKS, PAINT).marked().decode()
    assert '<c r="A2" s="10"/><c r="B2" s="24"/><c r="C2"><v>1</v></c><c r="D2" s="8"' in marked
    assert '<col min="2" style="4" max="3"/><col min="4" max="4" width="90" customWidth="1"/>' in marked
    assert '<col max="9" style="4" min="5"/>' in marked


def test_edits_leave_every_other_byte() -> None:
    data = b"<a>one</a>"
    assert apply_edits(data, [Edit(3, 6, b"1"), Edit(3, 3, b"0,"), Edit(10, 10, b"!")]) == b"<a>0,1</a>!"
    with pytest.raises(ValueError, match="two edits"):
        apply_edits(data, [Edit(3, 6, b""), Edit(4, 5, b"")])


@pytest.mark.parametrize(
    ("tag", "value", "expected"),
    [
        (b'<c r="A1" s="3"/>', "4", b'<c r="A1" s="4"/>'),
        (b"<x:c  s = '3' r='A1'>", "4", b"<x:c  s = '3' r='A1' s=\"4\">"),
        (b'<c r="A1">', "4", b'<c r="A1" s="4">'),
        (b'<c r="A1" s="3">', None, b'<c r="A1">'),
    ],
)
def test_an_attribute_is_set_in_a_tag(tag: bytes, value: str | None, expected: bytes) -> None:
    assert with_attribute(tag, "s", value) == expected


def test_other_encodings_are_read_or_refused() -> None:
    document = '<?xml version="1.0" encoding="{}"?><a>é</a>'
    assert as_utf8(document.format("UTF-16").encode("utf-16")) == '<?xml version="1.0"?><a>é</a>'.encode()
    assert as_utf8(document.format("UTF-8").encode()) == document.format("UTF-8").encode()
    with pytest.raises(ValueError, match="latin-1"):
        as_utf8(document.format("latin-1").encode("latin-1"))


def test_a_cell_of_text_is_nothing_else() -> None:
    assert (
        text_cell("x:", "B2", "=a<b\x00\r_x0041_", 3)
        == (
            '<x:c r="B2" s="3" t="inlineStr"><x:is><x:t xml:space="preserve">'
            "=a&lt;b\ufffd_x000D__x005F_x0041_</x:t></x:is></x:c>"
        ).encode()
    )
