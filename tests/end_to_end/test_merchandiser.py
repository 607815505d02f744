"""The merchandiser's loop: a workbook to fill, their workbook back with the mistakes marked, and a run."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import openpyxl
import PIL.Image
from office import saved_again
from openpyxl.chart import BarChart, Reference
from openpyxl.drawing.image import Image
from process import APP

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from process import Cli

FRONT = "https://images.example.com/{}.jpg"
TO_FILL = f"""\
version: 1
app: {APP}
rows: {{from: filled.xlsx, key: sku, where: "active = 'yes'", types: {{price: float}}}}
inputs:
  Front: {{column: front}}
  Back: {{column: back, blank: skip_row}}
  Model Gender: {{column: gender, map: {{F: Female, M: Male}}}}
  Location: {{column: place}}
  Prompt: {{template: "{{title}} in soft light"}}
  Style: {{sql: "CASE WHEN price > 100 THEN 'Luxury' ELSE 'Everyday' END"}}
run:
  poll: {{min_interval: 1s}}
results:
  manifest: results.xlsx
"""


def opened(file: Path) -> Any:
    return openpyxl.load_workbook(file)


def marked(sheet: Any) -> set[str]:
    """The cells on the ground of a mistake."""
    return {cell.coordinate for row in sheet.iter_rows() for cell in row if cell.fill.fgColor.rgb == "FFFBD3D1"}


def lists(book: Any) -> dict[str, str]:
    """The first cell of each drop-down, and where its choices are: LibreOffice writes fewer rows than all."""
    rules = book.worksheets[0].data_validations.dataValidation
    places = {name: found.attr_text.replace("$", "") for name, found in book.defined_names.items()}
    return {str(rule.sqref).partition(":")[0]: places[rule.formula1] for rule in rules if rule.type == "list"}


def test_from_the_empty_sheet_to_the_results(tmp_path: Path, cli: Cli) -> None:
    """A sheet is made, filled with three mistakes, marked, mended, and run; another program keeps what they hold."""
    (tmp_path / "p.yaml").write_text(TO_FILL, encoding="utf-8")
    cli("sheet", "p.yaml", "-o", "filled.xlsx", "--sandbox")

    book = opened(tmp_path / "filled.xlsx")
    sheet = book["Products"]
    header = ["sku *", "front *", "back", "gender", "place", "title", "price", "active"]
    assert [cell.value for cell in sheet[1]] == header
    back = FRONT.format("back")
    sheet.append(["00117", FRONT.format(117), back, "F", "Studio", "Linen dress", 89.9, "yes"])
    sheet.append(["00118", FRONT.format(118), back, "M", "Studioo", "Straw hat", 120, "yes"])
    sheet.append([None, FRONT.format(119), back, "Male", "Park", "Belt", 20, "yes"])
    sheet.append(["00120", "IMG_0120.jpg", back, "F", None, "Scarf", 30, "yes"])
    sheet.append(["00121", "nothing here yet", back, "F", None, "Not sold", 30, "no"])
    PIL.Image.new("RGB", (30, 20), "teal").save(logo := io.BytesIO(), "PNG")
    sheet.add_image(Image(logo), "J2")
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=7, min_row=2, max_row=6))
    sheet.add_chart(chart, "J8")
    book.save(tmp_path / "filled.xlsx")

    found = cli("validate", "p.yaml", "--sandbox", "--findings", "to-mend.xlsx", code=3)
    assert "4 rows checked" in found.err
    book = opened(tmp_path / "to-mend.xlsx")
    sheet = book["Products"]
    assert marked(sheet) == {"E3", "A4", "B5"}
    assert [sheet.cell(row, 9).value is not None for row in range(2, 7)] == [False, True, True, True, False]
    assert book.sheetnames == ["Products", "How to fill in", "Lists", "lamina_findings"]

    sheet["E3"], sheet["A4"], sheet["B5"] = "Studio", "00119", FRONT.format(120)
    book.save(tmp_path / "mended.xlsx")
    ran = cli("run", "p.yaml", "--sandbox", "--set", "rows.from=mended.xlsx", "--json")
    assert ran.summary["counts"]["completed"] == ran.summary["counts"]["rows"] == 4
    results = opened(tmp_path / "results.sandbox.xlsx").worksheets[0]
    assert [row[0].value for row in results.iter_rows(min_row=2)] == ["00117", "00118", "00119", "00120"]
    assert "lamina_findings" not in [cell.value for cell in results[1]]

    names = ("filled.xlsx", "to-mend.xlsx", "results.sandbox.xlsx")
    again = saved_again([tmp_path / name for name in names], tmp_path)
    for name in names:
        before, after = opened(tmp_path / name), opened(again / name)
        assert [(tab.title, tab.sheet_state) for tab in after] == [(tab.title, tab.sheet_state) for tab in before]
        assert lists(after) == lists(before)
        for one, other in zip(before, after, strict=True):
            # Their chart and their picture.
            shown = 2 if one.title == "Products" else 0
            assert [[c.value for c in row] for row in other] == [[c.value for c in row] for row in one]
            assert marked(other) == marked(one)
            assert other.auto_filter.ref == one.auto_filter.ref
            assert [len(tab._charts) + len(tab._images) for tab in (one, other)] == [shown, shown]
            was, now = ([c.hyperlink for row in tab for c in row if c.hyperlink] for tab in (one, other))
            assert [link.target or link.location for link in now] == [link.target or link.location for link in was]
            notes = [[c.comment.text for row in tab for c in row if c.comment] for tab in (one, other)]
            assert notes[0] == notes[1]
    assert lists(opened(again / "to-mend.xlsx")) == {"D2": "Lists!A2:A5", "E2": "Lists!B2:B4"}
    # What that program has saved is read as before, and marked as before: once.
    source = f"rows.from={again / 'to-mend.xlsx'}"
    same = cli("validate", "p.yaml", "--sandbox", "--set", source, "--findings", "once-more.xlsx", code=3)
    assert same.out == found.out
    book = opened(tmp_path / "once-more.xlsx")
    assert marked(book["Products"]) == {"E3", "A4", "B5"}
    assert book.sheetnames == ["Products", "How to fill in", "Lists", "lamina_findings"]
    first = opened(tmp_path / "to-mend.xlsx")["lamina_findings"]
    assert [[c.value for c in row] for row in book["lamina_findings"]] == [[c.value for c in row] for row in first]


def test_a_sheet_is_made_for_rows_that_are_there_and_never_over_another(project: Path, cli: Cli) -> None:
    made = cli("sheet", "p.yaml", "-o", "to-fill.xlsx", "--sandbox")
    assert made.out == "to-fill.xlsx\n"
    assert "3 rows" in made.err
    assert opened(project / "to-fill.xlsx")["Products"].max_row == 4
    assert "somebody may have filled it" in cli("sheet", "p.yaml", "-o", "to-fill.xlsx", "--sandbox", code=2).err
    cli("sheet", "p.yaml", "-o", "to-fill.xlsx", "--sandbox", "--empty", "--replace")
    assert opened(project / "to-fill.xlsx")["Products"].max_row == 1
